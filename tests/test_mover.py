"""The mover: every decision, every state on disk it may be run again from, and everything it must not touch."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bulkops.resources import mover, paths
from bulkops.resources.mover import move_batch, purge_batch, remove_batch, restore_batch
from bulkops.resources.paths import Area, Identity, identify
from bulkops.resources.verdicts import Entry, Result, Verdict
from tests.test_paths import ABSENT, NOT_FOLDERS, REFUSED

ME = Identity(1, 10, 5, 100)


class House:
    """A root, a trash, and a stranger's folder beside them."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.trash = base / "trash"
        self.outside = base / "outside"
        for folder in (self.root, self.trash, self.outside):
            folder.mkdir(parents=True)
        (self.outside / "victim").write_bytes(b"outside")
        self.area = Area(os.fsencode(self.root), os.fsencode(self.trash))
        self._names = 0

    def file(self, path: bytes, content: bytes = b"content") -> Entry:
        target = Path(os.fsdecode(self.area.root + b"/" + path))
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        return self.entry(path)

    def entry(self, path: bytes) -> Entry:
        found = identify(self.area, path)
        self._names += 1
        return Entry(path, b"trash-%d" % self._names, found if isinstance(found, Identity) else None)

    def at(self, entry: Entry) -> Path:
        return Path(os.fsdecode(self.area.root + b"/" + entry.path))

    def kept(self, entry: Entry) -> Path:
        return self.trash / os.fsdecode(entry.trash)

    def tree(self) -> dict[str, bytes]:
        return {
            str(each.relative_to(self.root.parent)): each.read_bytes()
            for folder in (self.root, self.trash)
            for each in sorted(folder.rglob("*"))
            if each.is_file()
        }


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "house")
    yield made
    assert (made.outside / "victim").read_bytes() == b"outside"


@pytest.fixture
def abroad(tmp_path: Path) -> Iterator[House]:
    """A house whose trash lies on another file system."""
    made = House(tmp_path / "house")
    far = Path("/dev/shm") / f"bulkops-test-{os.getpid()}-{threading.get_ident()}"
    try:
        far.mkdir()
    except OSError:
        pytest.skip("no /dev/shm to be another file system")
    if far.stat().st_dev == made.root.stat().st_dev:
        far.rmdir()
        pytest.skip("/dev/shm is on the same file system")
    made.trash = far
    made.area = Area(made.area.root, os.fsencode(far))
    yield made
    shutil.rmtree(far)


def verdict(results: list[Result]) -> Verdict:
    assert len(results) == 1
    return results[0].verdict


# --- moving ------------------------------------------------------------------------------------------


def test_a_file_goes_into_the_trash_and_back_with_the_very_same_bytes_and_inode(house: House) -> None:
    entry = house.file(b"a/b/c.jpg", b"bytes" * 1000)
    assert move_batch(house.area, [entry]) == [Result(Verdict.TRASHED)]
    assert not house.at(entry).exists()
    assert house.kept(entry).read_bytes() == b"bytes" * 1000
    assert restore_batch(house.area, [entry]) == [Result(Verdict.RESTORED)]
    assert house.at(entry).read_bytes() == b"bytes" * 1000
    assert identify(house.area, entry.path) == entry.mine
    assert list(house.trash.iterdir()) == []


def test_a_batch_answers_in_the_order_of_its_entries(house: House) -> None:
    entries = [house.file(b"a/1"), house.entry(b"gone"), house.file(b"b/2"), Entry(b"../x", b"t", ME)]
    entries += [house.file(b"a/3"), house.entry(b"none/none")]
    assert [each.verdict for each in move_batch(house.area, entries)] == [
        Verdict.TRASHED,
        Verdict.MISSING,
        Verdict.TRASHED,
        Verdict.REFUSED,
        Verdict.TRASHED,
        Verdict.MISSING,
    ]


def test_an_empty_batch_has_no_results(house: House) -> None:
    for batch in (move_batch, restore_batch, purge_batch, remove_batch):
        assert batch(house.area, []) == []


@pytest.mark.parametrize("path", [*REFUSED, *NOT_FOLDERS, *ABSENT])
def test_hostile_paths_move_remove_and_restore_nothing(house: House, path: bytes) -> None:
    (house.root / "file").write_bytes(b"inside")
    (house.root.parent / "victim").write_bytes(b"outside")
    (house.trash / "t").write_bytes(b"in the trash")
    before = house.tree()
    entry = Entry(path, b"u", ME)
    for batch in (move_batch, remove_batch, restore_batch):
        assert verdict(batch(house.area, [entry])) in {Verdict.REFUSED, Verdict.MISSING, Verdict.RETRY}
    assert house.tree() == before
    assert (house.root.parent / "victim").read_bytes() == b"outside"


def test_names_of_255_bytes_newlines_and_broken_utf8_move_and_come_back(house: House) -> None:
    names = [b"n" * 255, b"line\nbreak", b"\x1b[31m", b"-rf", b"\xff\xfe", b"CON", b"dot.", b"a\\b", b"C:\\x"]
    pair = ["caf\u00e9".encode(), "cafe\u0301".encode(), b"Photo.JPG", b"photo.jpg"]
    entries = [house.file(name, name) for name in [*names, *pair]]
    assert {each.verdict for each in move_batch(house.area, entries)} == {Verdict.TRASHED}
    assert os.listdir(house.root) == []
    assert {each.verdict for each in restore_batch(house.area, entries)} == {Verdict.RESTORED}
    assert {house.at(each).read_bytes() for each in entries} == {*names, *pair}


def test_symbolic_links_are_refused_at_the_leaf_and_in_a_parent(house: House) -> None:
    mine = identify(Area(os.fsencode(house.outside), b""), b"victim")
    assert isinstance(mine, Identity)
    (house.root / "leaf").symlink_to(house.outside / "victim")
    (house.root / "parent").symlink_to(house.outside)
    for path in (b"leaf", b"parent/victim"):
        entry = Entry(path, b"t", mine)
        assert verdict(move_batch(house.area, [entry])) is Verdict.REFUSED
        assert verdict(remove_batch(house.area, [entry])) is Verdict.REFUSED


def test_a_parent_swapped_for_a_link_all_the_time_never_leads_outside(house: House) -> None:
    (house.outside / "f").write_bytes(b"outside too")
    inside, link = house.root / "dir", house.root / "link"
    inside.mkdir()
    link.symlink_to(house.outside)
    over = threading.Event()

    def flip() -> None:
        while not over.is_set():
            os.rename(inside, house.root / "away")
            os.rename(link, inside)
            os.rename(inside, link)
            os.rename(house.root / "away", inside)

    flipper = threading.Thread(target=flip)
    flipper.start()
    tried = moved = 0
    victim = identify(Area(os.fsencode(house.outside), b""), b"f")
    assert isinstance(victim, Identity)
    try:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            tried += 1
            # Worst case: the recorded identity is the victim's own.
            results = move_batch(house.area, [Entry(b"dir/f", b"t-%d" % tried, victim)] * 5)
            results += remove_batch(house.area, [Entry(b"dir/f", b"u-%d" % tried, victim)] * 5)
            moved += sum(each.verdict in {Verdict.TRASHED, Verdict.PURGED} for each in results)
    finally:
        over.set()
        flipper.join()
    assert tried > 100
    assert moved == 0
    assert (house.outside / "f").read_bytes() == b"outside too"


def test_a_leaf_swapped_for_other_files_all_the_time_never_loses_one(house: House) -> None:
    entry = house.file(b"f", b"old")
    over = threading.Event()
    lost: list[int] = []

    def rewrite() -> None:
        for turn in range(1_000_000):
            if over.is_set():
                return
            fresh = house.root / "fresh"
            fresh.write_bytes(b"new %d" % turn)
            os.rename(fresh, house.root / "f")
            time.sleep(0)
            if not (house.root / "f").exists() and not any(house.trash.iterdir()):
                lost.append(turn)

    writer = threading.Thread(target=rewrite)
    writer.start()
    found = []
    try:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            found.append(verdict(remove_batch(house.area, [entry])))
            seen = identify(house.area, b"f")
            entry = Entry(b"f", b"s-%d" % len(found), seen if isinstance(seen, Identity) else None)
    finally:
        over.set()
        writer.join()
    assert set(found) <= {Verdict.PURGED, Verdict.SUPERSEDED, Verdict.MISSING, Verdict.REFUSED, Verdict.RETRY}
    for each in house.trash.iterdir():  # whatever went in by mistake and found its place taken is kept
        assert each.read_bytes().startswith((b"new", b"old"))


def test_a_file_that_took_the_place_of_ours_stays(house: House) -> None:
    entry = house.file(b"f", b"old")
    house.at(entry).unlink()
    house.at(entry).write_bytes(b"new")
    for batch in (move_batch, remove_batch):
        assert verdict(batch(house.area, [entry])) is Verdict.SUPERSEDED
    assert house.tree() == {"root/f": b"new"}


@pytest.mark.parametrize("batch", [move_batch, remove_batch])
@pytest.mark.parametrize("taken", [False, True])
def test_a_file_put_there_between_the_look_and_the_rename_is_given_back_or_kept(
    house: House,
    monkeypatch: pytest.MonkeyPatch,
    batch: Callable[[Area, list[Entry]], list[Result]],
    taken: bool,
) -> None:
    entry = house.file(b"f", b"old")
    real = paths.rename_noreplace
    calls = 0

    def late(source_folder: int, source: bytes, target_folder: int, target: bytes) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            (house.root / "new").write_bytes(b"new")
            os.rename(house.root / "new", house.root / "f")
        elif taken:
            (house.root / "f").write_bytes(b"newer")
        real(source_folder, source, target_folder, target)

    monkeypatch.setattr("bulkops.resources.mover.rename_noreplace", late)
    result = batch(house.area, [entry])[0]
    if taken:
        assert result.verdict is Verdict.REFUSED
        assert "another file went into the trash and stays there" in result.reason
        assert sorted(house.tree().values()) == [b"new", b"newer"]
    else:
        assert result.verdict is Verdict.SUPERSEDED
        assert house.tree() == {"root/f": b"new"}


def test_a_file_written_to_since_is_not_the_one_that_was_recorded(house: House) -> None:
    entry = house.file(b"f", b"old")
    with house.at(entry).open("ab") as handle:
        handle.write(b"more")
    assert verdict(move_batch(house.area, [entry])) is Verdict.SUPERSEDED


def test_a_file_that_others_hold_open_moves(house: House) -> None:
    entry = house.file(b"f", b"held")
    with house.at(entry).open("rb") as handle:
        assert verdict(move_batch(house.area, [entry])) is Verdict.TRASHED
        assert handle.read() == b"held"


def test_only_the_name_goes_of_a_file_that_has_others(house: House) -> None:
    entry = house.file(b"f", b"shared inode")
    os.link(house.at(entry), house.outside / "other")
    result = move_batch(house.area, [entry])[0]
    assert result == Result(Verdict.TRASHED, "the file has other names, which stay")
    assert purge_batch(house.area, [entry]) == [Result(Verdict.PURGED)]
    assert (house.outside / "other").read_bytes() == b"shared inode"


def test_a_trash_name_that_is_a_hard_link_to_the_source_is_no_false_success(house: House) -> None:
    entry = house.file(b"f")
    os.link(house.at(entry), house.kept(entry))
    assert verdict(move_batch(house.area, [entry])) is Verdict.TRASHED
    assert not house.at(entry).exists()
    assert house.kept(entry).read_bytes() == b"content"


def test_an_occupied_trash_name_is_never_replaced(house: House) -> None:
    entry = house.file(b"f")
    house.kept(entry).write_bytes(b"somebody's")
    for batch in (move_batch, remove_batch, purge_batch):
        assert verdict(batch(house.area, [entry])) is Verdict.REFUSED
    assert house.tree() == {"root/f": b"content", f"trash/{house.kept(entry).name}": b"somebody's"}


def test_what_is_no_file_is_refused_and_a_fifo_never_blocks(house: House) -> None:
    entry = house.file(b"f")
    house.at(entry).unlink()
    os.mkfifo(house.at(entry))
    assert verdict(move_batch(house.area, [entry])) is Verdict.REFUSED
    house.at(entry).unlink()
    house.at(entry).mkdir()
    assert verdict(remove_batch(house.area, [entry])) is Verdict.REFUSED
    assert house.at(entry).is_dir()


def test_forbidden_files_stay_even_with_the_right_identity(house: House) -> None:
    entry = house.file(b"app.db", b"rows")
    assert entry.mine is not None
    guarded = Area(house.area.root, house.area.trash, frozenset({entry.mine.key}))
    for batch in (move_batch, remove_batch):
        assert verdict(batch(guarded, [entry])) is Verdict.REFUSED
    assert house.tree() == {"root/app.db": b"rows"}


def test_a_file_that_went_missing_is_missing_and_one_never_seen_is_not_touched(house: House) -> None:
    gone = house.file(b"gone")
    house.at(gone).unlink()
    later = house.entry(b"later")
    house.at(later).write_bytes(b"came later")
    assert [each.verdict for each in move_batch(house.area, [gone, later])] == [
        Verdict.MISSING,
        Verdict.SUPERSEDED,
    ]


def test_missing_is_not_believed_while_the_file_system_that_held_it_is_away(house: House) -> None:
    away = Entry(b"disk/f", b"t", Identity(999_999, 5, 5, 5))
    for batch in (move_batch, remove_batch, restore_batch):
        assert verdict(batch(house.area, [away])) is Verdict.RETRY
    assert verdict(purge_batch(house.area, [away])) is Verdict.RETRY


def test_a_root_or_trash_that_is_away_is_tried_again_later(house: House) -> None:
    entry = house.file(b"f")
    for area in (Area(b"/nowhere/at/all", house.area.trash), Area(house.area.root, b"/nowhere/at/all")):
        assert verdict(move_batch(area, [entry])) is Verdict.RETRY
    assert verdict(purge_batch(Area(house.area.root, b"/nowhere/at/all"), [entry])) is Verdict.RETRY


def test_a_batch_stops_between_two_files(house: House) -> None:
    entries = [house.file(b"a/%d" % n) for n in range(5)]
    left = iter([False] * 4 + [True] * 100)
    results = move_batch(house.area, entries, stop=lambda: next(left))
    assert [each.verdict for each in results] == [Verdict.TRASHED] * 3 + [Verdict.UNTRIED] * 2


def test_a_batch_over_many_folders_holds_few_descriptors_and_gives_them_back(house: House) -> None:
    entries = [house.file(b"d%d/f" % n) for n in range(mover.MAX_OPEN_FOLDERS * 2 + 3)]
    before = len(os.listdir("/proc/self/fd"))
    seen: list[int] = []

    def watch() -> bool:
        seen.append(len(os.listdir("/proc/self/fd")))
        return False

    assert {each.verdict for each in move_batch(house.area, entries, stop=watch)} == {Verdict.TRASHED}
    assert max(seen) - before <= mover.MAX_OPEN_FOLDERS + 3
    assert len(os.listdir("/proc/self/fd")) == before


def test_each_folder_is_synced_once_and_the_trash_before_the_sources(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [house.file(b"%d/%d" % (n % 3, n)) for n in range(12)]
    synced: list[str] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    move_batch(house.area, entries)
    assert synced == ["trash", "0", "1", "2"]
    synced.clear()
    purge_batch(house.area, entries[:6])
    assert synced == ["trash"]
    synced.clear()
    restore_batch(house.area, entries[6:])
    assert synced == ["0", "1", "2", "trash"]


def test_what_cannot_be_synced_is_tried_again_and_then_found_done(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = house.file(b"f")

    def fsync(_: int) -> None:
        raise OSError(errno.EIO, "injected")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fsync)
        assert verdict(move_batch(house.area, [entry])) is Verdict.RETRY
    assert verdict(move_batch(house.area, [entry])) is Verdict.TRASHED


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("chattr") is None, reason="needs root and chattr")
def test_a_file_that_may_not_be_renamed_is_tried_again_and_others_go(house: House) -> None:
    stuck, free = house.file(b"a/stuck"), house.file(b"a/free")
    if subprocess.run(["chattr", "+i", str(house.at(stuck))], capture_output=True, check=False).returncode:
        pytest.skip("the file system knows no immutable files")
    try:
        found = move_batch(house.area, [stuck, free])
        assert found[0].verdict is Verdict.RETRY
        assert found[0].reason.startswith("EPERM")
        assert found[1].verdict is Verdict.TRASHED
    finally:
        subprocess.run(["chattr", "-i", str(house.at(stuck))], check=True)


# --- restoring, removing, purging --------------------------------------------------------------------


def test_a_restore_makes_missing_folders_but_never_replaces_a_file(house: House) -> None:
    first, second = house.file(b"a/b/c/1", b"one"), house.file(b"a/2", b"two")
    move_batch(house.area, [first, second])
    shutil.rmtree(house.root / "a")
    (house.root / "a").mkdir()
    (house.root / "a" / "2").write_bytes(b"new")
    assert [each.verdict for each in restore_batch(house.area, [first, second])] == [
        Verdict.RESTORED,
        Verdict.CONFLICT,
    ]
    assert house.tree() == {
        "root/a/2": b"new",
        "root/a/b/c/1": b"one",
        f"trash/{house.kept(second).name}": b"two",
    }


def test_a_restore_never_walks_through_a_link(house: House) -> None:
    entry = house.file(b"a/victim")
    move_batch(house.area, [entry])
    (house.root / "a").rmdir()
    (house.root / "a").symlink_to(house.outside)
    assert verdict(restore_batch(house.area, [entry])) is Verdict.CONFLICT
    assert house.kept(entry).exists()


def test_a_purge_is_final_and_saying_it_again_is_fine(house: House) -> None:
    entry = house.file(b"f")
    move_batch(house.area, [entry])
    assert purge_batch(house.area, [entry]) == [Result(Verdict.PURGED)]
    assert purge_batch(house.area, [entry]) == [Result(Verdict.PURGED)]
    assert house.tree() == {}
    assert verdict(restore_batch(house.area, [entry])) is Verdict.MISSING


def test_a_purge_leaves_what_was_written_to_in_the_trash(house: House) -> None:
    entry = house.file(b"f")
    move_batch(house.area, [entry])
    with house.kept(entry).open("ab") as handle:
        handle.write(b"late")
    assert verdict(purge_batch(house.area, [entry])) is Verdict.REFUSED
    assert house.kept(entry).read_bytes() == b"contentlate"


def test_a_removal_leaves_nothing_in_the_trash(house: House) -> None:
    entries = [house.file(b"a/1"), house.file(b"b/2")]
    assert remove_batch(house.area, entries) == [Result(Verdict.PURGED)] * 2
    assert house.tree() == {}
    assert {each.verdict for each in remove_batch(house.area, entries)} == {Verdict.MISSING}


# --- another file system -----------------------------------------------------------------------------


def test_a_trash_on_another_file_system_gets_a_true_copy_and_gives_it_back(abroad: House) -> None:
    content = os.urandom(3_000_001)
    entry = abroad.file(b"a/raw", content)
    os.chmod(abroad.at(entry), 0o640)
    result = move_batch(abroad.area, [entry])[0]
    assert result.verdict is Verdict.TRASHED
    assert result.identity is not None
    assert not abroad.at(entry).exists()
    assert hashlib.sha256(abroad.kept(entry).read_bytes()).digest() == hashlib.sha256(content).digest()
    adopted = Entry(entry.path, entry.trash, result.identity)
    back = restore_batch(abroad.area, [adopted])[0]
    assert back.verdict is Verdict.RESTORED
    assert back.identity == identify(abroad.area, b"a/raw")
    assert abroad.at(entry).read_bytes() == content
    assert abroad.at(entry).stat().st_mode & 0o777 == 0o640
    assert list(abroad.trash.iterdir()) == []


def test_a_copy_never_replaces_and_a_purge_takes_the_copy(abroad: House) -> None:
    taken, entry = abroad.file(b"taken"), abroad.file(b"f")
    abroad.kept(taken).write_bytes(b"somebody's")
    found = move_batch(abroad.area, [taken, entry])
    assert [each.verdict for each in found] == [Verdict.REFUSED, Verdict.TRASHED]
    assert purge_batch(abroad.area, [Entry(entry.path, entry.trash, found[1].identity)])[0] == Result(
        Verdict.PURGED
    )
    assert os.listdir(abroad.trash) == [abroad.kept(taken).name]


def test_a_copy_back_conflicts_with_what_stands_there(abroad: House) -> None:
    entry = abroad.file(b"f")
    adopted = Entry(entry.path, entry.trash, move_batch(abroad.area, [entry])[0].identity)
    abroad.at(entry).write_bytes(b"new")
    assert verdict(restore_batch(abroad.area, [adopted])) is Verdict.CONFLICT
    assert abroad.at(entry).read_bytes() == b"new"
    assert abroad.kept(entry).read_bytes() == b"content"


def test_a_removal_on_another_file_system_copies_nothing(abroad: House) -> None:
    entry, replaced = abroad.file(b"f"), abroad.file(b"g")
    abroad.at(replaced).unlink()
    abroad.at(replaced).write_bytes(b"new")
    found = remove_batch(abroad.area, [entry, replaced])
    assert [each.verdict for each in found] == [Verdict.PURGED, Verdict.SUPERSEDED]
    assert abroad.at(replaced).read_bytes() == b"new"


def test_a_full_trash_leaves_the_file_where_it_is_and_no_rest_of_a_copy(
    abroad: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = abroad.file(b"f")

    def write(_: int, __: bytes) -> int:
        raise OSError(errno.ENOSPC, "injected")

    with monkeypatch.context() as full:
        full.setattr(os, "write", write)
        assert verdict(move_batch(abroad.area, [entry])) is Verdict.RETRY
    assert list(abroad.trash.iterdir()) == []
    assert verdict(move_batch(abroad.area, [entry])) is Verdict.TRASHED


def test_a_move_across_file_systems_goes_on_from_wherever_it_crashed(abroad: House) -> None:
    def part(entry: Entry) -> None:
        (abroad.trash / f".bulkops-{entry.trash.decode()}.part").write_bytes(b"half a co")

    def copied(entry: Entry) -> None:
        shutil.copy2(abroad.at(entry), abroad.kept(entry))

    def unlinked(entry: Entry) -> None:
        shutil.move(abroad.at(entry), abroad.kept(entry))

    states: list[Callable[[Entry], None]] = [part, copied, unlinked]
    for number, crash in enumerate(states):
        entry = abroad.file(b"f%d" % number)
        crash(entry)
        for _ in range(2):
            result = move_batch(abroad.area, [entry])[0]
            assert result.verdict is Verdict.TRASHED, crash
            assert result.identity is not None
        assert not abroad.at(entry).exists()
        assert abroad.kept(entry).read_bytes() == b"content"
    assert len(os.listdir(abroad.trash)) == len(states)


def test_a_stranger_that_looks_like_the_copy_does_not_cost_the_original(abroad: House) -> None:
    entry = abroad.file(b"f", b"content")
    abroad.kept(entry).write_bytes(b"CONTENT")
    os.utime(abroad.kept(entry), ns=(0, entry.mine.mtime_ns if entry.mine else 0))
    assert verdict(move_batch(abroad.area, [entry])) is Verdict.REFUSED
    assert abroad.at(entry).read_bytes() == b"content"


# --- crashes -----------------------------------------------------------------------------------------


def test_every_operation_said_again_ends_the_same(house: House) -> None:
    batches: list[tuple[Callable[[Area, list[Entry]], list[Result]], Verdict]] = [
        (move_batch, Verdict.TRASHED),
        (restore_batch, Verdict.RESTORED),
        (move_batch, Verdict.TRASHED),
        (purge_batch, Verdict.PURGED),
    ]
    entry = house.file(b"a/f")
    for batch, expected in batches:
        assert verdict(batch(house.area, [entry])) is expected
        before = house.tree()
        assert verdict(batch(house.area, [entry])) is expected
        assert house.tree() == before


@pytest.mark.parametrize("batch", [move_batch, restore_batch])
def test_a_crash_between_link_and_unlink_is_finished_by_the_next_run(
    house: House, monkeypatch: pytest.MonkeyPatch, batch: Callable[[Area, list[Entry]], list[Result]]
) -> None:
    monkeypatch.setattr(paths, "_renameat2", lambda: None)
    entry = house.file(b"f")
    os.link(house.at(entry), house.kept(entry))
    expected = Verdict.TRASHED if batch is move_batch else Verdict.RESTORED
    assert verdict(batch(house.area, [entry])) is expected
    assert len(house.tree()) == 1
    assert house.kept(entry).exists() is (batch is move_batch)


_KILLED = """
    import sys
    from bulkops.resources.mover import Entry, move_batch, purge_batch, remove_batch, restore_batch
    from bulkops.resources.paths import Area, Identity
    import json
    base = sys.argv[1].encode()
    area = Area(base + b"/root", base + b"/trash")
    e = [Entry(p.encode(), t.encode(), Identity(*i)) for p, t, i in json.loads(sys.argv[2])]
    move_batch(area, e[:4])
    restore_batch(area, e[:2])
    purge_batch(area, e[2:3])
    remove_batch(area, e[4:])
"""


@pytest.mark.strace
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize("call", ["renameat2", "unlinkat,unlink", "fsync"])
def test_killed_at_any_call_every_file_is_where_a_second_run_finds_it(tmp_path: Path, call: str) -> None:
    checkout = Path(__file__).parents[1]
    for number in range(1, 40):
        house = House(tmp_path / f"{number}")
        entries = [house.file(b"d%d/f%d" % (n % 2, n), b"%d" % n) for n in range(6)]
        told = json.dumps(
            [
                (e.path.decode(), e.trash.decode(), (e.mine.dev, e.mine.ino, e.mine.size, e.mine.mtime_ns))
                for e in entries
                if e.mine is not None
            ]
        )
        command = [sys.executable, "-c", textwrap.dedent(_KILLED), str(house.root.parent), told]
        inject = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}"]
        inject += ["-e", f"inject={call}:signal=KILL:when={number}"]
        first = subprocess.run([*inject, *command], capture_output=True, check=False, cwd=checkout)
        assert not first.stderr, first.stderr
        present = house.tree()
        assert set(present.values()) >= {b"0", b"1", b"3"}  # what was never to be destroyed is somewhere
        assert len(present) == len(set(present.values()))  # and nothing is in two places
        subprocess.run(command, check=True, cwd=checkout)
        assert set(house.tree()) == {"root/d0/f0", "root/d1/f1", "trash/trash-4"}
        if first.returncode == 0:
            assert number > 2
            return
        assert first.returncode in {-signal.SIGKILL, 128 + signal.SIGKILL}
    pytest.fail("the calls never ended")
