"""Single entries into the trash and back: by rename, by copy across file systems, after a crash at any step."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from bulkops.resources.folder import copying, yard
from bulkops.resources.folder.copying import remove_copied
from bulkops.resources.folder.yard import Yard, opened_yard
from bulkops.resources.paths import Area, identity_of, rename_noreplace
from bulkops.resources.verdicts import Entry, Verdict
from tests.folders.house import make_dossier, tree_of

MEMORY = Path("/dev/shm")


@pytest.fixture(params=["here", "elsewhere"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Give a root and its trash, on one file system or on two."""
    root = tmp_path / "root"
    root.mkdir()
    if request.param == "here":
        trash = tmp_path / "trash"
        trash.mkdir()
        yield root, trash
        return
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    with tempfile.TemporaryDirectory(dir=MEMORY) as trash_dir:
        yield root, Path(trash_dir)


@contextmanager
def opened(place: tuple[Path, Path]) -> Iterator[Yard]:
    root, trash = place
    with opened_yard(Area(os.fsencode(root), os.fsencode(trash))) as found:
        yield found


def entry_of(root: Path, name: str) -> Entry:
    return Entry(os.fsencode(name), b"T1", identity_of(os.lstat(root / name)))


def make(root: Path, name: str) -> Path:
    if name.endswith(".pdf"):
        (root / name).write_bytes(b"%PDF " * 1000)
        return root / name
    folder = make_dossier(root, name, {"a.jpg": b"picture", "sub/deep/b.txt": b"text"})
    (folder / "sub" / "to").symlink_to("deep/b.txt")
    (folder / "empty").mkdir(mode=0o711)
    os.utime(folder / "sub", (1_600_000_000, 1_600_000_000))
    return folder


@pytest.mark.parametrize("name", ["ana", "loose.pdf"])
def test_an_entry_goes_and_comes_back_as_it_was(place: tuple[Path, Path], name: str) -> None:
    root, trash = place
    make(root, name)
    before, entry = tree_of(root), entry_of(root, name)
    with opened(place) as open_yard:
        taken = open_yard.take(entry)
        assert taken.verdict is Verdict.TRASHED
        assert os.listdir(root) == []
        assert os.listdir(trash) == ["T1"]
        kept = Entry(entry.path, entry.trash, taken.identity or entry.mine)
        assert open_yard.take(kept).verdict is Verdict.TRASHED  # asked again, as after a crash
        assert open_yard.give(kept).verdict is Verdict.RESTORED
        assert open_yard.give(kept).verdict is Verdict.RESTORED
    assert os.listdir(trash) == []
    assert tree_of(root) == before


@pytest.mark.parametrize("name", ["ana", "loose.pdf"])
def test_nothing_is_given_back_over_what_stands_there(place: tuple[Path, Path], name: str) -> None:
    root, trash = place
    make(root, name)
    entry = entry_of(root, name)
    with opened(place) as open_yard:
        taken = open_yard.take(entry)
        (root / name).write_bytes(b"somebody else's")
        kept = Entry(entry.path, entry.trash, taken.identity or entry.mine)
        assert open_yard.give(kept).verdict is Verdict.CONFLICT
    assert (root / name).read_bytes() == b"somebody else's"
    assert os.listdir(trash) == ["T1"]


def test_another_folder_under_the_same_name_is_not_taken(place: tuple[Path, Path]) -> None:
    root, trash = place
    make(root, "ana")
    entry = entry_of(root, "ana")
    (root / "ana").rename(root / "was")
    make_dossier(root, "ana", {"new.txt": b"new"})
    with opened(place) as open_yard:
        assert open_yard.take(entry).verdict is Verdict.SUPERSEDED
    assert (root / "ana" / "new.txt").exists()
    assert os.listdir(trash) == []


def test_what_takes_its_place_between_the_look_and_the_rename_is_put_back(
    place: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, trash = place
    if root.stat().st_dev != trash.stat().st_dev:
        pytest.skip("a copy looks twice")
    make(root, "ana")
    entry = entry_of(root, "ana")
    plain = rename_noreplace

    def swap_first(*arguments: Any) -> None:
        if not (root / "was").exists():
            (root / "ana").rename(root / "was")
            make_dossier(root, "ana", {"new.txt": b"new"})
        plain(*arguments)

    monkeypatch.setattr(yard, "rename_noreplace", swap_first)
    with opened(place) as open_yard:
        assert open_yard.take(entry, strict=False).verdict is Verdict.SUPERSEDED
    assert (root / "ana" / "new.txt").exists()
    assert os.listdir(trash) == []


def test_a_folder_written_to_is_known_by_its_inode_unless_long_ago(place: tuple[Path, Path]) -> None:
    root, _ = place
    make(root, "ana")
    entry = entry_of(root, "ana")
    (root / "ana" / "more.txt").write_bytes(b"more")
    with opened(place) as open_yard:
        assert open_yard.take(entry).verdict is Verdict.SUPERSEDED
        assert open_yard.take(entry, strict=False).verdict is Verdict.TRASHED


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    if not MEMORY.is_dir() or MEMORY.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system here")
    (tmp_path / "root").mkdir()
    with tempfile.TemporaryDirectory(dir=MEMORY) as trash_dir:
        yield tmp_path / "root", Path(trash_dir)


class Crash(Exception):
    """The process died here."""


def _crashing(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Die before the ``at``-th call that changes anything."""
    left = [at]

    def wrap(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Crash
            return plain(*arguments, **more)

        return call

    for module, name in ((yard, "rename_noreplace"), (os, "mkdir"), (os, "unlink"),
                         (os, "rmdir"), (os, "symlink"), (copying, "fill")):  # fmt: skip
        monkeypatch.setattr(module, name, wrap(getattr(module, name)))


@pytest.mark.parametrize("at", range(1, 24))
def test_a_copy_across_file_systems_survives_a_crash_at_every_step(
    apart: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    root, trash = apart
    make(root, "ana")
    before, entry = tree_of(root), entry_of(root, "ana")
    with opened(apart) as open_yard:
        with monkeypatch.context() as patched:
            _crashing(patched, at)
            with suppress(Crash):
                open_yard.take(entry, strict=False)
        taken = open_yard.take(entry, strict=False)
        assert taken.verdict is Verdict.TRASHED
        assert os.listdir(root) == []
        assert os.listdir(trash) == ["T1"]
        kept = Entry(entry.path, entry.trash, taken.identity or identity_of(os.lstat(trash / "T1")))
        with monkeypatch.context() as patched:
            _crashing(patched, at)
            with suppress(Crash):
                open_yard.give(kept)
        assert open_yard.give(kept).verdict is Verdict.RESTORED
    assert os.listdir(trash) == []
    assert tree_of(root) == before


def test_what_is_written_while_a_folder_is_copied_stays(
    apart: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, trash = apart
    make(root, "ana")
    entry = entry_of(root, "ana")
    plain = remove_copied

    def write_first(*arguments: Any) -> bool:
        (root / "ana" / "sub" / "new.txt").write_bytes(b"new")
        (root / "ana" / "a.jpg").write_bytes(b"changed")
        return plain(*arguments)

    monkeypatch.setattr(yard, "remove_copied", write_first)
    with opened(apart) as open_yard:
        taken = open_yard.take(entry)
    assert (taken.verdict, taken.reason) == (Verdict.TRASHED, "what was written to it meanwhile stays")
    assert (root / "ana" / "sub" / "new.txt").read_bytes() == b"new"
    assert (root / "ana" / "a.jpg").read_bytes() == b"changed"
    assert not (root / "ana" / "empty").exists()
    assert (trash / "T1" / "a.jpg").read_bytes() == b"picture"


def test_a_folder_that_cannot_be_copied_stays_whole(apart: tuple[Path, Path]) -> None:
    root, trash = apart
    os.mkfifo(make(root, "ana") / "pipe")
    before, entry = tree_of(root), entry_of(root, "ana")
    with opened(apart) as open_yard, pytest.raises(OSError, match="cannot be copied") as caught:
        open_yard.take(entry)
    assert caught.value.errno == errno.EINVAL
    assert tree_of(root) == before
    assert os.listdir(trash) == []
