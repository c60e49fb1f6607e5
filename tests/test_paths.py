"""Paths below a root: what is walked, what is refused, and that refusing touches nothing."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.resources import paths
from bulkops.resources.paths import (
    Area,
    FolderMissing,
    Identity,
    PathRefused,
    Refused,
    can_rename,
    identify,
    identify_many,
    look,
    open_folder,
    opened_folder,
    rename_noreplace,
    split_path,
)

REFUSED: list[bytes] = [
    b"",
    b".",
    b"..",
    b"/",
    b"//",
    b"./",
    b"../",
    b"../victim",
    b"../../victim",
    b"../../../../../../etc/passwd",
    b"/etc/passwd",
    b"//etc/passwd",
    b"/victim",
    b"a/../victim",
    b"a/../../victim",
    b"a/b/../../../victim",
    b"./victim",
    b"a/./victim",
    b"a//victim",
    b"a/",
    b"a/b/",
    b"victim/",
    b"a/..",
    b"a/.",
    b"..\0",
    b"victim\0",
    b"victim\0.jpg",
    b"\0",
    b"a/\0/b",
    b".bulkops-trash",
    b".bulkops-trash/x",
    b"a/.bulkops-trash/x",
    b".BULKOPS-Trash/x",
]
#: Mere bytes on Linux: names like any other, and nothing of that name is here.
ABSENT: list[bytes] = [
    b"..\\victim",
    b"\\victim",
    b"a\\..\\..\\victim",
    b"C:\\victim",
    b"C:victim",
    b"c:",
    b"\\\\server\\share\\victim",
    b"\\\\?\\C:\\victim",
    b"%2e%2e%2fvictim",
    b"%2e%2e/victim",
    b"..%2fvictim",
    b"%00",
    b"..%00/victim",
    b"...",
    b".../victim",
    b".. /victim",
    b" ",
    b"~",
    b"~/victim",
    b"$HOME/victim",
    b"`victim`",
    b"*",
    b"-rf",
    b"CON",
    b"victim.",
    b"\xff\xfe/victim",
    b"\xc0\xae\xc0\xae/victim",
    b"\xef\xbc\x8e\xef\xbc\x8e/victim",
    b"\xe2\x80\xae",
    b"line\nbreak",
]
#: Through something that is no folder: final as well, but only the file system can say so.
NOT_FOLDERS: list[bytes] = [b"file/victim", b"file:///victim", b"http://host/victim", b"file/../victim"]


@pytest.fixture
def area(tmp_path: Path) -> Area:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "file").write_bytes(b"inside")
    (tmp_path / "trash").mkdir()
    for folder in (tmp_path, tmp_path.parent):
        (folder / "victim").write_bytes(b"outside")
    return Area(os.fsencode(root), os.fsencode(tmp_path / "trash"))


@pytest.fixture
def victims(area: Area) -> Iterator[None]:
    outside = [
        Path(os.fsdecode(area.root)).parent / "victim",
        Path(os.fsdecode(area.root)).parents[1] / "victim",
    ]
    yield
    assert [each.read_bytes() for each in outside] == [b"outside", b"outside"]


@pytest.mark.usefixtures("victims")
@pytest.mark.parametrize("path", REFUSED)
def test_a_path_that_is_not_plain_is_refused(area: Area, path: bytes) -> None:
    assert isinstance(identify(area, path), Refused)
    with pytest.raises(PathRefused):
        split_path(path)


@pytest.mark.usefixtures("victims")
@pytest.mark.parametrize("path", ABSENT)
def test_a_strange_name_is_only_a_name_and_never_becomes_another(area: Area, path: bytes) -> None:
    assert identify(area, path) is None


@pytest.mark.parametrize("path", [each for each in ABSENT if b"/" not in each])
def test_a_strange_name_that_exists_is_found_under_exactly_these_bytes(area: Area, path: bytes) -> None:
    target = area.root + b"/" + path
    descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    os.write(descriptor, b"12345")
    os.close(descriptor)
    found = identify(area, path)
    assert isinstance(found, Identity)
    assert found.size == 5


@pytest.mark.usefixtures("victims")
@pytest.mark.parametrize("path", NOT_FOLDERS)
def test_a_path_through_a_file_is_refused_or_absent(area: Area, path: bytes) -> None:
    assert not isinstance(identify(area, path), Identity)


def test_a_name_of_255_bytes_is_fine_and_a_longer_one_is_refused(area: Area) -> None:
    longest = b"n" * 255
    os.close(os.open(area.root + b"/" + longest, os.O_CREAT | os.O_WRONLY, 0o600))
    assert isinstance(identify(area, longest), Identity)
    assert isinstance(identify(area, longest + b"n"), Refused)


def test_a_symbolic_link_is_refused_at_the_leaf_and_in_a_parent(area: Area, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"outside")
    root = Path(os.fsdecode(area.root))
    (root / "leaf").symlink_to(outside / "victim")
    (root / "parent").symlink_to(outside)
    (root / "inward").symlink_to(root / "a")
    (root / "a" / "x").write_bytes(b"x")
    for path in (b"leaf", b"parent/victim", b"inward/x", b"parent"):
        found = identify(area, path)
        assert isinstance(found, Refused), path
        assert found.code == "REFUSED_PATH"


def test_folders_fifos_sockets_and_devices_are_refused_without_opening_them(area: Area) -> None:
    root = Path(os.fsdecode(area.root))
    os.mkfifo(root / "fifo")  # opening it for reading would wait for a writer for ever
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    found = identify_many(area, [b"a", b"fifo", b"socket"])
    assert [each.reason for each in found if isinstance(each, Refused)] == [
        "it is a folder, not a regular file",
        "it is a FIFO, not a regular file",
        "it is a socket, not a regular file",
    ]


def test_the_kinds_of_what_is_not_a_file_include_devices() -> None:
    with opened_folder(b"/dev") as folder:
        assert look(folder, b"null") == Refused("it is a device, not a regular file")


def test_a_forbidden_file_is_refused_under_any_name(area: Area) -> None:
    root = Path(os.fsdecode(area.root))
    database = root / "app.db"
    database.write_bytes(b"rows")
    os.link(database, root / "photo.jpg")
    key = (database.stat().st_dev, database.stat().st_ino)
    guarded = Area(area.root, area.trash, frozenset({key}))
    for path in (b"app.db", b"photo.jpg"):
        assert isinstance(identify(guarded, path), Refused)
    assert isinstance(identify(guarded, b"file"), Identity)


def test_everything_in_a_forbidden_folder_is_refused(area: Area) -> None:
    ours = Path(os.fsdecode(area.root)) / "bulkops-data"
    (ours / "trash").mkdir(parents=True)
    (ours / "trash" / "kept").write_bytes(b"kept")
    guarded = Area(area.root, area.trash, frozenset({(ours.stat().st_dev, ours.stat().st_ino)}))
    assert isinstance(identify(guarded, b"bulkops-data/trash/kept"), Refused)


def test_many_paths_keep_their_order_and_a_bad_one_spoils_no_other(area: Area) -> None:
    root = Path(os.fsdecode(area.root))
    (root / "a" / "one").write_bytes(b"1")
    (root / "a" / "b" / "two").write_bytes(b"22")
    found = identify_many(area, [b"a/b/two", b"../x", b"a/none", b"gone/too", b"a/one", b"file"])
    assert [each.size if isinstance(each, Identity) else type(each) for each in found] == [
        2,
        Refused,
        type(None),
        type(None),
        1,
        6,
    ]


def test_no_paths_give_nothing(area: Area) -> None:
    assert identify_many(area, []) == []


def test_a_root_that_was_replaced_is_an_error_and_nothing_is_judged(area: Area, tmp_path: Path) -> None:
    found = os.stat(area.root)
    guarded = Area(area.root, area.trash, root_key=(found.st_dev, found.st_ino))
    (tmp_path / "root").rename(tmp_path / "moved")
    (tmp_path / "root").mkdir()
    with pytest.raises(OSError, match="another folder") as caught:
        identify(guarded, b"file")
    assert caught.value.errno == errno.ESTALE


def test_a_root_that_became_a_symbolic_link_is_an_error(area: Area, tmp_path: Path) -> None:
    (tmp_path / "root").rename(tmp_path / "moved")
    (tmp_path / "root").symlink_to(tmp_path / "moved")
    with pytest.raises(OSError, match=r"directory|symbolic"):
        identify(area, b"file")


def test_a_path_1500_folders_deep_is_found_with_few_descriptors(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with opened_folder(os.fsencode(root)) as top:
        descriptor = open_folder(top, [b"d"] * 1500, forbidden=frozenset(), create=True)
        os.close(os.open(b"leaf", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=descriptor))
        os.close(descriptor)
    before = len(os.listdir("/proc/self/fd"))
    area = Area(os.fsencode(root), os.fsencode(tmp_path))
    assert isinstance(identify(area, b"d/" * 1500 + b"leaf"), Identity)
    assert len(os.listdir("/proc/self/fd")) == before
    _fold(root)


def _fold(root: Path) -> None:
    """Take the deep folder down from above: shutil, and with it pytest, cannot go that deep."""
    (top, below) = (root / "d", root / "below")
    while (top / "d").exists():
        os.rename(top / "d", below)
        top.rmdir()
        os.rename(below, top)


def test_a_missing_folder_says_which_file_system_was_asked(area: Area) -> None:
    with opened_folder(area.root) as root, pytest.raises(FolderMissing) as caught:
        open_folder(root, [b"a", b"none", b"deeper"], forbidden=frozenset())
    assert caught.value.dev == os.stat(area.root).st_dev


def test_refused_walks_leave_no_descriptor_open(area: Area) -> None:
    before = len(os.listdir("/proc/self/fd"))
    identify_many(area, [b"a/none/x", b"file/x", b"../x", b"a/b/none", b"gone/x"])
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("portable", [False, True])
def test_a_rename_never_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portable: bool) -> None:
    if portable:  # what macOS does, and a libc without renameat2
        monkeypatch.setattr(paths, "_renameat2", lambda: None)
    (tmp_path / "one").write_bytes(b"one")
    (tmp_path / "two").write_bytes(b"two")
    with opened_folder(os.fsencode(tmp_path)) as folder:
        with pytest.raises(FileExistsError):
            rename_noreplace(folder, b"one", folder, b"two")
        rename_noreplace(folder, b"one", folder, b"three")
        with pytest.raises(FileNotFoundError):
            rename_noreplace(folder, b"one", folder, b"four")
    assert sorted(os.listdir(tmp_path)) == ["three", "two"]
    assert (tmp_path / "two").read_bytes() == b"two"
    assert (tmp_path / "three").read_bytes() == b"one"


@pytest.mark.parametrize("portable", [False, True])
def test_a_rename_onto_a_hard_link_of_itself_is_no_false_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, portable: bool
) -> None:
    if portable:
        monkeypatch.setattr(paths, "_renameat2", lambda: None)
    (tmp_path / "one").write_bytes(b"one")
    os.link(tmp_path / "one", tmp_path / "two")
    with opened_folder(os.fsencode(tmp_path)) as folder, pytest.raises(FileExistsError):
        rename_noreplace(folder, b"one", folder, b"two")


def test_whether_a_rename_is_possible_is_found_out_without_a_trace(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    assert can_rename(os.fsencode(tmp_path / "one"), os.fsencode(tmp_path / "two"))
    assert not can_rename(os.fsencode(tmp_path), b"/proc")
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]
    assert os.listdir(tmp_path / "one") == os.listdir(tmp_path / "two") == []


@given(st.binary(max_size=60))
def test_a_split_path_is_the_very_path_or_none(path: bytes) -> None:
    try:
        parts = split_path(path)
    except PathRefused:
        return
    assert b"/".join(parts) == path
    assert not {b"", b".", b".."} & set(parts)
