"""Project folders on disk: nothing outside of them is ever listed, moved, purged or written."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from bulkops.errors import ConfigError
from bulkops.resources.paths import Identity
from bulkops.resources.photos.projects import Projects
from bulkops.resources.storage import protect
from bulkops.resources.verdicts import Entry, Verdict


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "p").mkdir(parents=True)
    return tmp_path / "root"


@pytest.fixture
def projects(root: Path) -> Projects:
    return Projects(root, protect([root / "ours"]))


def put(path: Path, content: bytes = b"x") -> Entry:
    path.write_bytes(content)
    status = path.stat()
    mine = Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    return Entry(f"{path.parent.name}/{path.name}".encode(), path.name.encode(), mine)


def test_a_root_that_is_no_folder_is_refused_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file", "nothing"):
        with pytest.raises(ConfigError) as error:
            Projects.open("resources.photos.root", tmp_path / name, protect([]))
        assert "resources.photos.root" in str(error.value)


def test_projects_are_folders_that_are_no_links_and_not_hidden(root: Path, projects: Projects) -> None:
    (root / ".hidden").mkdir()
    (root / "file").write_text("")
    (root / "link").symlink_to(root / "p")
    (root / os.fsdecode(b"bad\xff")).mkdir()
    assert projects.all() == ["p"]


def test_a_listing_tells_photos_from_what_is_never_touched(root: Path, projects: Projects) -> None:
    for name in ("a.JPG", "a.jpeg", "a.CR2", "notes.txt"):
        (root / "p" / name).write_text("")
    (root / "p" / "b.jpg").symlink_to(root / "p" / "a.JPG")
    (root / "p" / "c.raw").mkdir()
    os.mkfifo(root / "p" / "d.jpg")
    listing = projects.listing("p")
    assert listing.photos == {"a": {"jpg": ["a.JPG", "a.jpeg"], "raw": ["a.CR2"]}}
    assert listing.odd == {
        "b.jpg": "it is a symbolic link", "c.raw": "it is no regular file", "d.jpg": "it is no regular file"
    }  # fmt: skip
    assert not projects.listing("nothing").there
    assert projects.listing("../p").refused
    (root / "ours").mkdir()
    assert projects.listing("ours").refused


def test_a_trash_that_is_a_link_takes_nothing_and_gives_nothing(
    root: Path, projects: Projects, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    kept = put(outside / "a.jpg", b"precious")
    (root / "p" / ".trash").symlink_to(outside)
    entry = put(root / "p" / "b.jpg")
    assert [each.verdict for each in projects.move("p", [entry])] == [Verdict.REFUSED]
    assert projects.trash("p") == []
    for act in (projects.purge, projects.restore):
        assert [each.verdict for each in act("p", [kept])] == [Verdict.REFUSED]
    assert sorted(os.listdir(outside)) == ["a.jpg"]
    assert sorted(os.listdir(root / "p")) == [".trash", "b.jpg"]


def test_a_project_that_flips_to_a_link_never_leads_a_move_outside(
    root: Path, projects: Projects, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (outside / ".trash").mkdir(parents=True)
    (outside / "victim.jpg").write_bytes(b"precious")
    (outside / ".trash" / "victim.jpg").write_bytes(b"precious")
    over = threading.Event()

    def flip() -> None:
        while not over.is_set():
            os.rename(root / "p", root / "aside")
            os.symlink(outside, root / "p")
            os.unlink(root / "p")
            os.rename(root / "aside", root / "p")

    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        status = (outside / "victim.jpg").stat()
        mine = Identity(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        twin = (outside / ".trash" / "victim.jpg").stat()
        trashed = Identity(twin.st_dev, twin.st_ino, twin.st_size, twin.st_mtime_ns)
        for number in range(3000):
            projects.move("p", [Entry(b"p/victim.jpg", f"{number}".encode(), mine)])
            projects.purge("p", [Entry(b"p/", b"victim.jpg", trashed)])
            try:
                projects.write_derivative("p", ".thumb", "made", b"picture", 1)
                projects.drop_derivatives("p", ["victim"])
            except OSError:
                continue
    finally:
        over.set()
        flipper.join()
    assert sorted(os.listdir(outside)) == [".trash", "victim.jpg"]
    assert os.listdir(outside / ".trash") == ["victim.jpg"]
    assert (outside / "victim.jpg").read_bytes() == b"precious"


def test_another_folder_in_the_roots_place_is_not_judged(root: Path, projects: Projects) -> None:
    put(root / "p" / "a.jpg")
    root.rename(root.with_name("old"))
    (root / "p").mkdir(parents=True)
    with pytest.raises(OSError, match="another folder stands where the root was"):
        projects.listing("p")


def test_how_long_a_file_is_in_the_trash_begins_with_its_move(root: Path, projects: Projects) -> None:
    entry = put(root / "p" / "a.jpg")
    os.utime(root / "p" / "a.jpg", (1, 1))
    seen = projects.identify("p", ["a.jpg"])["a.jpg"]
    assert isinstance(seen, Identity)
    entry = Entry(entry.path, entry.trash, seen)
    before = (root / "p").stat().st_ctime_ns // 1_000_000
    assert [each.verdict for each in projects.move("p", [entry])] == [Verdict.TRASHED]
    (found,) = projects.trash("p")
    assert found.since_ms >= before
    assert found.identity.mtime_ns == 1_000_000_000
