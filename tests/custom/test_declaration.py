"""What an author declares is checked at once: every mistake is told, and says where."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bulkops import Batch, action
from bulkops.configuration import read_resource
from bulkops.errors import ConfigError
from bulkops.resources.custom.declaration import load, make, read_declaration
from tests.custom.shelf import Shelf

SETTINGS = read_resource("resources.boxes", "boxes", {"kind": "tests.custom.shelf:Shelf"})


class Nothing:
    pass


class NoAction:
    def select(self, scope: Any) -> list[Any]:
        return []

    def read(self, ids: Any) -> list[Any]:
        return []


class NoRead(NoAction):
    read = None  # type: ignore[assignment]  # wrong on purpose

    @action
    def look(self, batch: Batch) -> None: ...


class ReadsNothing(NoRead):
    def read(self) -> list[Any]:  # type: ignore[override]  # wrong on purpose
        return []


class NoMethod(NoRead):
    read = "not me"  # type: ignore[assignment]  # wrong on purpose


class OddColumns(Shelf):
    columns = {"size": complex}  # noqa: RUF012  as authors write it


class ListedColumns(Shelf):
    columns = ["size"]  # type: ignore[assignment]  # noqa: RUF012  wrong on purpose


class AlikeColumns(Shelf):
    columns = {"size": int, "Size": int}  # noqa: RUF012  as authors write it


class OddTenant(Shelf):
    tenant = 7


class SlowToJudge(Shelf):
    async def unfit(self, item: Any, action: str) -> str | None:  # type: ignore[override]  # wrong on purpose
        return None


class UnfitForAll(Shelf):
    def unfit(self, item: Any) -> str | None:  # type: ignore[override]  # wrong on purpose
        return None


class TwoOfAName(Shelf):
    @action(name="delete")
    def another(self, batch: Batch) -> None: ...


class NoBatch(Shelf):
    @action
    def forget(self) -> None: ...


class OddOptions(Shelf):
    @action(options={"to": {"typ": "integer"}})
    def move(self, batch: Batch) -> None: ...


MISSPELT: Any = {"batchsize": 3}


class OddWish(Shelf):
    @action(**MISSPELT)
    def move(self, batch: Batch) -> None: ...


class OddRate(Shelf):
    @action(rate="often")
    def move(self, batch: Batch) -> None: ...


MISTAKES = [
    (NoAction, "boxes", "NoAction has no action: mark a method with @bulkops.action"),
    (NoRead, "boxes", r"NoRead has no method read\(self, ids\): those of the items that are there"),
    (ReadsNothing, "boxes", "read must take one argument"),
    (NoMethod, "boxes", "read is no method"),
    (OddColumns, "boxes", "columns: size is <class 'complex'>, not one of str, int, float, bool, datetime"),
    (ListedColumns, "boxes", "columns is a dictionary"),
    (AlikeColumns, "boxes", "two names differ in upper and lower case only"),
    (OddTenant, "boxes", "tenant is the name of a column"),
    (SlowToJudge, "boxes", "unfit is async"),
    (UnfitForAll, "boxes", "unfit must take two arguments, the item and the action's name"),
    (TwoOfAName, "boxes: action delete", "this action is declared twice"),
    (NoBatch, "boxes: action forget", "forget must take one argument, the batch"),
    (OddOptions, "boxes: action move", "options: 'typ' is not held here; did you mean \"type\""),
    (OddWish, "boxes: action move: batchsize", 'unknown key; did you mean "batch_size"'),
    (OddRate, "boxes: action move: rate", "'often' is no rate"),
]


@pytest.mark.parametrize(
    ("cls", "where", "message"), MISTAKES, ids=lambda each: getattr(each, "__name__", "")
)
def test_a_mistake_of_the_author_is_told_with_its_place(cls: type, where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as told:
        read_declaration("boxes", cls(), SETTINGS)
    assert told.value.where == where


def test_a_column_that_the_file_searches_by_must_be_declared() -> None:
    settings = read_resource("r", "boxes", {"kind": SETTINGS.kind, "search": ["ownr"]})
    with pytest.raises(
        ConfigError, match="there is no column 'ownr'; there are: owner, size; did you mean \"owner\""
    ):
        read_declaration("boxes", Shelf(), settings)


def test_what_is_declared_is_found_and_the_file_goes_over_the_class() -> None:
    settings = read_resource("r", "boxes", {"kind": SETTINGS.kind, "tenant": "owner", "label": "size"})
    found = read_declaration("boxes", Shelf(), settings)
    assert (found.tenant, found.label) == ("owner", "size")
    assert list(found.actions) == ["delete", "resize", "weigh"]
    assert [name for name, each in found.actions.items() if each.undo is None] == ["weigh"]
    assert found.actions["delete"].settings.batch_size == 3


def test_a_class_that_overrides_an_action_has_its_own_only() -> None:
    class Mine(Shelf):
        def weigh(self, batch: Batch) -> None:
            """No action any more."""

    assert list(read_declaration("boxes", Mine(), SETTINGS).actions) == ["delete", "resize"]


def test_an_action_called_as_a_method_is_one() -> None:
    shelf = Shelf()
    batch = Batch(resource="boxes", action="weigh", job_id="j", key="j-1", options={}, items=[])
    assert shelf.weigh(batch) is None
    assert Shelf.weigh.__doc__ == "Look only: final, for there is nothing to undo."


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path / "authors.py"
    sys.modules.pop("authors", None)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        (None, {}, "cannot import 'authors:Name': ModuleNotFoundError"),
        ("", {}, "cannot import 'authors:Name': AttributeError"),
        ("raise SystemError('no')", {}, "cannot import 'authors:Name': SystemError: no"),
        ("raise SystemExit(3)", {}, "cannot import 'authors:Name': SystemExit: 3"),
        ("class Name:\n  def __init__(self): 1/0", {}, "cannot make 'authors:Name': ZeroDivisionError"),
        ("class Name: pass", {"url": "x"}, "cannot make 'authors:Name': TypeError"),
        ("Name = object()", {"url": "x"}, "is no class: there is nothing that takes its settings"),
    ],
)
def test_what_cannot_be_imported_or_made_is_told(
    module: Path, text: str | None, settings: dict[str, Any], message: str
) -> None:
    if text is not None:
        module.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as told:
        load("resources.boxes.kind", "authors:Name", settings)
    assert told.value.where == "resources.boxes.kind"


def test_a_class_is_called_with_its_settings_and_an_object_is_taken_as_it_is(module: Path) -> None:
    module.write_text(
        "class Name:\n  def __init__(self, url): self.url = url\nmade = Name('here')", encoding="utf-8"
    )
    made: Any = load("w", "authors:Name", {"url": "there"})
    ready: Any = load("w", "authors:made", {})
    assert (made.url, ready.url) == ("there", "here")
    shelf = Shelf()
    assert make("w", "k:K", shelf, {}) is shelf


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"database": "app.db"}, "knows no 'database'"),
        ({"children": [{"table": "t", "key": "k"}]}, "knows no 'children'"),
        ({"ledger": "app"}, "has no database to keep one in"),
        ({"status": {"column": "state", "closed": "closed"}}, "has no actions of ours that would set it"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_resource("w", "boxes", {"kind": "a.b:C", **settings})


def test_settings_for_a_class_are_none_for_a_table() -> None:
    table = {"kind": "table", "database": "app.db", "table": "t", "id": "id", "settings": {"url": "x"}}
    with pytest.raises(ConfigError, match="are for a resource that is a Python class"):
        read_resource("w", "boxes", table)
