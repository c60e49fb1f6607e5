"""`[schedules.<name>]`: what it may say, and that a mistake names file, key and line."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkops.configuration import load
from bulkops.errors import ConfigError
from bulkops.models import FailureThreshold

TEXT = """
[resources.sessions]
kind = "table"
database = "app.db"
table = "sessions"
id = "id"

[schedules.nightly]
cron = "0 3 * * *"
timezone = "Europe/Madrid"
resource = "sessions"
action = "delete"
filter = { closed_at = { lt = "-90d" } }
confirm = "DELETE"
reason = "retention"
failure_threshold = { min_items = 10, max_ratio = 0.25 }
"""


def read(folder: Path, text: str) -> Path:
    file = folder / "bulkops.toml"
    file.write_text(text)
    return file


def test_a_section_becomes_a_schedule(tmp_path: Path) -> None:
    found = load(read(tmp_path, TEXT), {}).schedules["nightly"]
    assert (found.cron, found.every, found.timezone) == ("0 3 * * *", None, "Europe/Madrid")
    assert found.filter == {"closed_at": {"lt": "-90d"}}
    assert (found.enabled, found.failure_threshold) == (True, FailureThreshold(min_items=10, max_ratio=0.25))


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ('cron = "0 3 * * *"', 'cron = "0 3 * *"', "cron (line 9)", "no cron line of five fields"),
        ('cron = "0 3 * * *"', 'cron = "61 3 * * *"', "cron (line 9)", "Bad minute"),
        ('cron = "0 3 * * *"', 'cron = "0 0 29 2 *"', "cron (line 9)", "does not come within a year"),
        ('cron = "0 3 * * *"', 'every = "5s"', "every (line 9)", "not between a minute and a year"),
        ('cron = "0 3 * * *"', 'every = "soon"', "every (line 9)", "no interval such as 6h"),
        ('cron = "0 3 * * *"', "enabled = true", "cron (line 8)", "exactly one of cron"),
        ('reason = "retention"', "priority = 5000", "priority (line 15)", "5000 is not within 0 and 1000"),
        ('reason = "retention"', "batch_size = 0", "batch_size (line 15)", "0 is not within"),
        ('reason = "retention"', 'every = "6h"', "cron (line 9)", "exactly one of cron"),
        ('"Europe/Madrid"', '"Europe/Madird"', "timezone (line 10)", "no time zone such as"),
        ('resource = "sessions"', 'resource = "session"', "resource (line 11)", 'did you mean "sessions"?'),
        ('action = "delete"', "", "nightly (line 8)", "needs 'action'"),
        ('action = "delete"', "action = 3", "action (line 12)", "expected a text"),
        ("filter =", "filtre =", "filtre (line 13)", 'unknown key; did you mean "filter"?'),
        ('filter = { closed_at = { lt = "-90d" } }', "", "nightly (line 8)", "select items in one way"),
        ('confirm = "DELETE"', "all = true", "all (line 14)", "select items in one way"),
        ('confirm = "DELETE"', 'run_at = "2027-01-01T00:00:00Z"', "run_at (line 14)", "unknown key"),
        ("[schedules.nightly]", '[schedules."a/b"]', '"a/b" (line 8)', "cannot stand in a URL"),
        ("[schedules.nightly]", "[schedules.maintenance]", "maintenance (line 8)", "taken by the house"),
        ("[schedules.nightly]", "[schedule.nightly]", "schedule (line 8)", 'did you mean "schedules"?'),
    ],
)
def test_a_mistake_is_refused_with_file_key_and_line(
    tmp_path: Path, old: str, new: str, place: str, message: str
) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError) as caught:
        load(read(tmp_path, TEXT.replace(old, new)), {})
    assert caught.value.where.startswith("bulkops.toml: schedule")
    assert caught.value.where.endswith(place)
    assert message in caught.value.message
