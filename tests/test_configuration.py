"""The configuration: what is read, what is refused, and that every refusal names its place."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.configuration import from_dict, load
from bulkops.errors import ConfigError
from bulkops.settings import ActionSettings, ChildSettings, ServerSettings, StatusSettings

TEXT = """\
[server]
database = "bulkops.db"
workers = 4

[resources.receipts]
kind = "table"
database = "app.db"
table = "receipts"
id = "id"
tenant = "business_id"
soft_delete = "is_deleted"
status = { column = "status", closed = "closed", busy = ["processing"] }
search = ["number", "status"]
set = ["status"]
protect = { pinned = 1 }
ledger = "app"

[[resources.receipts.children]]
table = "attachments"
key = "receipt_id"
file = "path"
root = "storage"

[resources.receipts.actions.delete]
roles = ["owner", "admin"]
confirm = "DELETE"
rate = "1/minute"
max_runtime_s = 300

[resources.dossiers]
kind = "folder"
root = "dossiers_data"
shared = true

[resources.photos]
kind = "photos"
database = "photos.db"
table = "photos"
root = "projects"

[resources.reports]
kind = "host.reports:Reports"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bulkops.toml"


def refuse(file: Path, old: str, new: str, environ: dict[str, str] | None = None) -> str:
    assert old in TEXT
    file.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        load(file, environ or {})
    return str(caught.value)


def test_a_whole_file_becomes_settings(file: Path, tmp_path: Path) -> None:
    file.write_text(TEXT)
    settings = load(file, {})
    assert settings.file == file
    assert settings.base == tmp_path
    assert settings.database == tmp_path / "bulkops.db"
    assert settings.data_dir == tmp_path / "bulkops-data"
    assert list(settings.resources) == ["receipts", "dossiers", "photos", "reports"]
    receipts = settings.resources["receipts"]
    assert receipts.status == StatusSettings(column="status", closed="closed", busy=["processing"])
    assert receipts.children == [
        ChildSettings(table="attachments", key="receipt_id", file="path", root="storage")
    ]
    assert receipts.actions == {
        "delete": ActionSettings(
            roles=["owner", "admin"], confirm="DELETE", rate="1/minute", max_runtime_s=300.0
        )
    }


def test_a_dictionary_becomes_the_same_settings(file: Path, tmp_path: Path) -> None:
    file.write_text(TEXT)
    settings = from_dict(tomllib.loads(TEXT), tmp_path, {})
    assert settings == msgspec.structs.replace(load(file, {}), file=None)


def test_nothing_at_all_is_the_defaults(tmp_path: Path) -> None:
    settings = from_dict({}, tmp_path, {})
    assert settings.server == ServerSettings()
    assert settings.resources == {}


# --- mistakes --------------------------------------------------------------------------------------------

R = "bulkops.toml: resources.receipts"
MISTAKES = [
    ("soft_delete =", "soft_delet =", f'{R}.soft_delet (line 11): unknown key; did you mean "soft_delete"?'),
    ("[server]", "[sever]", 'bulkops.toml: sever (line 1): unknown table; did you mean "server"?'),
    ("workers = 4", "worker = 4", 'server.worker (line 3): unknown key; did you mean "workers"?'),
    ("workers = 4", "workers = true", "server.workers (line 3): expected a whole number"),
    ("workers = 4", "workers = 0", "server.workers (line 3): 0 is not within 1 and 64"),
    ("workers = 4", "workers = 65", "not within 1 and 64"),
    ("workers = 4", "port = 65536", "server.port (line 3): 65536 is not within 0 and 65535"),
    ("workers = 4", "queue_max = 0", "server.queue_max"),
    ("workers = 4", "trash_days = -1", "server.trash_days"),
    ("workers = 4", 'host = "http://x"', "server.host"),
    ("workers = 4", 'data_dir = ""', "server.data_dir (line 3): is empty"),
    ("workers = 4", 'allowed_hosts = ["*"]', "server.allowed_hosts"),
    ("workers = 4", 'allowed_origins = ["https://a.example/"]', "is no origin"),
    ("workers = 4", 'allowed_origins = ["null"]', "is no origin"),
    ("workers = 4", 'webhook_hosts = ["http://hooks.lan"]', "server.webhook_hosts"),
    ("workers = 4", 'webhook_hosts = ["hooks.lan:65536"]', "is no host such as"),
    ("workers = 4", 'webhook_hosts = ["[hooks.lan]"]', "is no host such as"),
    ("workers = 4", "workers = ", "bulkops.toml: is no TOML: Invalid value (at line 3"),
    ('database = "bulkops.db"', 'database = "./app.db"', f"{R}.database (line 7): is bulkops' own database"),
    (
        "[resources.dossiers]",
        '[resources."a/b"]',
        'resources."a/b" (line 30): the name cannot stand in a URL',
    ),
    ("[resources.dossiers]", '[resources.""]', "the name is empty"),
    ("[resources.dossiers]", '[resources.".."]', "cannot stand in a URL"),
    ("[resources.dossiers]", '[resources."a\\u202eb"]', "invisible characters"),
    ('kind = "table"', 'kind = "tabel"', f"{R}.kind (line 6): 'tabel' is no kind"),
    ('kind = "table"', "", f"{R} (line 5): needs 'kind'"),
    ('kind = "folder"', 'kind = "folder"\ntenant = "x"', "kind \"folder\" knows no 'tenant'"),
    ('root = "dossiers_data"', "", "bulkops.toml: resources.dossiers (line 30): a resource of kind"),
    ('table = "receipts"', "", "needs 'table'"),
    ('id = "id"', "", "needs 'id'"),
    ('id = "id"', "id = []", "needs 'id'"),
    ('id = "id"', 'id = ["id", "id"]', f"{R}.id (line 9): names 'id' twice"),
    ('id = "id"', 'id = "a\\u0000"', f"{R}.id (line 9)"),
    ('id = "id"', "id = 3", "expected a text or a list, got a whole number"),
    ('id = "id"', 'id = ["id", "b"]', "children[0].key (line 20): names 1 columns, the resource's id has 2"),
    ('tenant = "business_id"', 'tenant = "business_id"\nshared = true', f"{R}.shared (line 11)"),
    ('soft_delete = "is_deleted"', 'soft_delete = "id"', "'id' is the key"),
    ('set = ["status"]', 'set = ["business_id"]', "set (line 14): 'business_id' is the tenant"),
    ('set = ["status"]', 'set = ["id"]', "'id' is the key, which no action may change"),
    ('set = ["status"]', 'set = ["is_deleted"]', "is soft_delete"),
    ('column = "status"', 'column = "id"', f"{R}.status.column (line 12): 'id' is the key"),
    (
        'closed = "closed"',
        'closd = "closed"',
        f'{R}.status.closd (line 12): unknown key; did you mean "closed"?',
    ),
    ('closed = "closed"', 'closed = ""', "status.closed (line 12): is empty"),
    ('["processing"]', '["closed"]', "status.busy (line 12): 'closed' is the closed word too"),
    ("pinned = 1", "pinned = []", "protect.pinned (line 15): expected a text, a number"),
    ('ledger = "app"', 'ledger = "application"', f'{R}.ledger (line 16): must be "own" or "app"'),
    ('ledger = "app"', 'file = "path"', "needs 'root'"),
    ('ledger = "app"', 'file = "p"\nstorage = "boto3"', "expected a Python class"),
    ('ledger = "app"', 'storage = "a:B"', "needs 'file'"),
    ('key = "receipt_id"', 'kee = "receipt_id"', "children[0].kee (line 20): unknown key"),
    ('root = "storage"', "", "children[0].file (line 21): needs 'root'"),
    ('file = "path"', "", "children[0].root (line 22): needs 'file'"),
    ("[[resources.receipts.children]]", "[resources.receipts.children]", "expected a list of tables"),
    ("actions.delete]", 'actions."a/b"]', "the name cannot stand in a URL"),
    ("actions.delete]", "actions.validate]", "the name is taken by a route"),
    ('"owner", "admin"', '"owner", "amdin"', "'amdin' is no role; did you mean \"admin\"?"),
    ('"owner", "admin"', '"owner", 1', f"{R}.actions.delete.roles[1] (line 25): expected a text"),
    ('confirm = "DELETE"', 'confirm = " DELETE"', "actions.delete.confirm (line 26)"),
    ('"1/minute"', '"1/fortnight"', "'1/fortnight' is no rate such as 10/minute"),
    ('"1/minute"', '"0/minute"', "is no rate"),
    ("max_runtime_s = 300", "max_runtime_s = nan", "nan is not within"),
    ("max_runtime_s = 300", "max_runtime_s = 0", "0.0 is not within"),
    ("max_runtime_s = 300", "batch_size = 0", "actions.delete.batch_size (line 28)"),
    ("max_runtime_s = 300", "throttle_ms = -1", "throttle_ms"),
    ("max_runtime_s = 300", "max_batch_failures = 0", "max_batch_failures"),
    ("max_runtime_s = 300", "auto_resume_s = -0.1", "auto_resume_s"),
    ("max_runtime_s = 300", "max_items = 0", "max_items"),
    ("max_runtime_s = 300", "expires_h = 0", "expires_h"),
    ("max_runtime_s = 300", "max_runtime_s = 2020-01-01", "expected a number, got date"),
    ('"host.reports:Reports"', '"host.reports"', "is no kind"),
]


@pytest.mark.parametrize(("old", "new", "message"), MISTAKES)
def test_a_mistake_is_refused_with_its_place(file: Path, old: str, new: str, message: str) -> None:
    assert message in refuse(file, old, new)


@pytest.mark.parametrize("data", [{"resources": 3}, {"resources": {"x": []}}, {"server": "x"}])
def test_what_is_no_table_is_refused(tmp_path: Path, data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected a table"):
        from_dict(data, tmp_path, {})


def test_the_place_is_kept_apart_from_the_message(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict({"server": {"port": -1}}, tmp_path, {})
    assert caught.value.where == "settings: server.port"
    assert caught.value.message == "-1 is not within 0 and 65535"


def test_names_with_blanks_quotes_and_signs_are_fine(tmp_path: Path) -> None:
    name = 'a "b"\n; DROP'
    resource = {"kind": "table", "database": "app.db", "table": name, "id": name, "search": [name]}
    settings = from_dict({"resources": {"Straße & co": resource}}, tmp_path, {})
    assert settings.resources["Straße & co"].table == name


def test_a_file_that_is_missing_or_no_text_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such file; `bulkops init"):
        load(file, {})
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not UTF-8"):
        load(file, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file.parent, {})


# --- the environment -------------------------------------------------------------------------------------

VALUES: dict[str, tuple[str, Any]] = {
    "database": ("x.db", "x.db"),
    "data_dir": ("/var/x", "/var/x"),
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": (" 80 ", 80),
    "workers": ("8", 8),
    "queue_max": ("5", 5),
    "allowed_hosts": ("a.example, b.example:80,", ["a.example", "b.example:80"]),
    "allowed_origins": ("tauri://localhost", ["tauri://localhost"]),
    "show_maintenance": ("True", True),
    "trash_days": ("0", 0),
    "keep_jobs_days": ("1", 1),
    "keep_events_days": ("2", 2),
    "max_artifacts": ("5", 5),
    "max_artifact_mb": ("1", 1),
    "webhook_hosts": ("10.0.0.5:8080, [::1]", ["10.0.0.5:8080", "[::1]"]),
}


@pytest.mark.parametrize("name", ServerSettings.__struct_fields__)
def test_every_server_setting_has_a_variable_that_wins_over_the_file(file: Path, name: str) -> None:
    text, value = VALUES[name]
    file.write_text(TEXT)
    server = load(file, {f"BULKOPS_{name.upper()}": text}).server
    assert server == msgspec.structs.replace(load(file, {}).server, **{name: value})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("PORT", "http", "expected a whole number, got 'http'"),
        ("PORT", "", "expected a whole number, got ''"),
        ("PORT", "9" * 30, "expected a whole number"),
        ("PORT", "70000", "70000 is not within 0 and 65535"),
        ("WORKERS", "1.5", "expected a whole number"),
        ("SHOW_MAINTENANCE", "yes", "expected true, false, 1 or 0, got 'yes'"),
        ("ALLOWED_ORIGINS", "https://a.example, *", "'*' is no origin"),
        ("DATABASE", "", "is empty"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_dict({}, tmp_path, {f"BULKOPS_{name}": text})
    assert caught.value.where == f"BULKOPS_{name}"
    assert message in caught.value.message


@pytest.mark.parametrize(("text", "value"), [("1", True), ("0", False), ("true", True), ("FALSE", False)])
def test_booleans_of_the_environment(tmp_path: Path, text: str, *, value: bool) -> None:
    assert from_dict({}, tmp_path, {"BULKOPS_SHOW_MAINTENANCE": text}).server.show_maintenance is value


def test_other_variables_are_nobodys_business(tmp_path: Path) -> None:
    assert from_dict({}, tmp_path, {"BULKOPS_KEY": "x", "PORT": "1"}).server == ServerSettings()


# --- properties ------------------------------------------------------------------------------------------


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(["kind", "id", "status", "children", "actions", "protect", "search", "table", "file"])


@given(st.dictionaries(KEYS, JUNK, max_size=5))
def test_junk_is_refused_with_a_config_error_and_nothing_else(resource: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^settings: resources\.x"):
        from_dict({"resources": {"x": {"database": 1, **resource}}}, Path(), {})
