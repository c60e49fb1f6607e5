"""The README, compared with the code wherever it lists things."""

from __future__ import annotations

import re
from pathlib import Path

import click

import bulkops
from bulkops.cli import exits, main
from bulkops.operations import ROLES
from bulkops.resources.table.actions import NAMES
from bulkops.settings import ActionSettings, ServerSettings
from bulkops.states import Status

README = (Path(bulkops.__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def table(heading: str) -> dict[str, list[str]]:
    """Return the first table whose head names ``heading``, rows by the code word of their first cell."""
    lines = README.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|") and heading in line.split("|")[1])
    rows: dict[str, list[str]] = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for word in re.findall(r"`([^`]+)`", cells[0]):
            rows[word] = cells[1:]
    return rows


def test_the_settings_table_is_the_server_settings() -> None:
    rows = table("`[server]`")
    fields = {field: getattr(ServerSettings(), field) for field in ServerSettings.__struct_fields__}
    assert list(rows) == list(fields)
    for name, default in fields.items():
        shown = (
            "none" if default == [] else f"`{str(default).lower() if isinstance(default, bool) else default}`"
        )
        assert rows[name][0] == shown, name


def test_the_statuses_are_all_there_in_order() -> None:
    assert list(table(" status ")) == [str(status) for status in Status]


def test_the_roles_are_all_there() -> None:
    assert set(table(" role ")) == ROLES


def test_the_actions_are_all_there_in_order() -> None:
    assert list(table(" action ")) == list(NAMES)


def test_every_action_setting_is_named() -> None:
    for name in ActionSettings.__struct_fields__:
        if name not in {"expires_h", "throttle_ms"}:
            assert f"`{name}`" in README, name


def test_every_reason_for_a_pause_is_explained() -> None:
    codes = (
        "USER RUNTIME_CAP CANARY MAX_ITEMS FAILURE_THRESHOLD BATCH_FAILURES DISK_FULL IO_ERROR TARGET_LOCKED"
        " TARGET_REPLACED SCHEMA_CHANGED CONFIG_CHANGED NEEDS_REVIEW CRASH_LOOP"
    )
    assert set(table(" `status_reason` ")) == set(codes.split())


def test_every_command_in_a_code_block_exists_with_its_options() -> None:
    blocks = [block.splitlines() for block in README.split("```")[1::2]]
    lines = [line for block in blocks if block[0] in {"sh", "ini", ""} for line in block]
    calls = [
        found for line in lines if (found := re.search(r"(?:^|[/ (])bulkops (.*?)(?:\s{2,}#|\)|$)", line))
    ]
    assert len(calls) >= 8
    for call in calls:
        words = [word for word in call[1].split() if word != "--json"]
        assert isinstance(main, click.Group)
        command = main.get_command(click.Context(main), words[0])
        assert command is not None, call[0]
        if isinstance(command, click.Group):
            command = command.commands[words[1]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= known, call[0]


def test_exit_codes_are_those_of_the_command() -> None:
    said = re.search(r"exit with (.*?); all take", README.replace("\n", " "))
    assert said is not None
    told = {int(number) for number in re.findall(r"\b(\d)\b", said[1])}
    known = {value for value in vars(exits).values() if isinstance(value, int) and value < 10}
    assert told == known


def test_what_the_index_leads_to_is_there_in_that_order() -> None:
    outside = "".join(README.split("```")[::2])
    anchors = [
        re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^##+ (.*)$", outside, re.MULTILINE)
    ]
    links = re.findall(r"\]\(#([^)]*)\)", outside)
    assert len(links) > 15
    assert set(links) <= set(anchors)
    assert links == sorted(links, key=anchors.index)
