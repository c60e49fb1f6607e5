"""The quick way to read a sidecar's command line says what the thorough one says, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.cli import main
from bulkops.sidecar import process
from bulkops.sidecar.options import Options, read

WORDS = st.sampled_from(
    ["--data-dir", "--config", "--port", "--host-pid", "--json", "--url", "-h", "--", "-x", "", "0", "80", "65536",
     "-1", "0x10", "d", "a b", "--data-dir=d", "--port=7", "--config=", "--port=", "--host-pid=0", "--host-pid=9"]
)  # fmt: skip


def thorough(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> Options | None:
    """Read them as the command does; ``None``: it would not run."""
    got: list[Options] = []

    def run(options: Options) -> int:
        got.append(options)
        return 0

    monkeypatch.setattr(process, "run", run)
    try:
        main.main(["sidecar", *arguments], prog_name="bulkops", standalone_mode=False)
    except click.ClickException:
        return None
    return got[0] if got else None


@given(st.lists(WORDS, max_size=6))
def test_both_ways_agree(arguments: list[str]) -> None:
    quick = read(arguments)
    if quick is not None:
        with pytest.MonkeyPatch.context() as patch:
            assert thorough(arguments, patch) == quick


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--data-dir", "d"], Options(data_dir=Path("d"))),
        (
            ["--data-dir=d d", "--config", "c.toml", "--port", "80", "--host-pid=7"],
            Options(data_dir=Path("d d"), config=Path("c.toml"), port=80, host_pid=7),
        ),
    ],
)
def test_what_is_plain_is_read_quickly(
    arguments: list[str], options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read(arguments) == options == thorough(arguments, monkeypatch)


@pytest.mark.parametrize("argument", ["--token", "--key", "--secret"])
def test_no_option_takes_a_secret(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: list[Any] = ["--data-dir", "d", argument, "x" * 43]
    assert read(arguments) is None
    assert thorough(arguments, monkeypatch) is None
