"""Ways through trees: as deep as they go, never out of them, and cut short when told."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bulkops.resources.folder.walking import Descent, measure_tree, open_below, remove_tree, visit
from tests.folders.house import make_deep, make_dossier, tree_of

NEVER = bool


@contextmanager
def opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_a_tree_deeper_than_any_path_is_measured_and_removed(tmp_path: Path) -> None:
    make_deep(tmp_path, "d", 1500)
    with opened(tmp_path) as here:
        before = len(os.listdir("/proc/self/fd"))
        assert measure_tree(here, b"d", until=time.monotonic() + 20) == (15, 0)
        assert remove_tree(here, b"d", stop=NEVER)
        assert len(os.listdir("/proc/self/fd")) <= before
    assert os.listdir(tmp_path) == []


def test_a_wide_tree_is_removed(tmp_path: Path) -> None:
    files = {f"{number % 40}/{number}": b"x" for number in range(2_000)}
    make_dossier(tmp_path, "wide", files)
    with opened(tmp_path) as here:
        assert measure_tree(here, b"wide", until=time.monotonic() + 20) == (2_000, 2_000)
        assert remove_tree(here, b"wide", stop=NEVER)
    assert os.listdir(tmp_path) == []


def test_a_removal_that_is_stopped_goes_on_another_time(tmp_path: Path) -> None:
    make_dossier(tmp_path, "x", {f"{number}": b"x" for number in range(20)})
    asked = iter([False] * 5 + [True] * 100)
    with opened(tmp_path) as here:
        assert not remove_tree(here, b"x", stop=lambda: next(asked))
        assert len(os.listdir(tmp_path / "x")) == 15
        assert remove_tree(here, b"x", stop=NEVER)
    assert os.listdir(tmp_path) == []


def test_links_go_and_what_they_name_stays(tmp_path: Path) -> None:
    outside = make_dossier(tmp_path, "outside")
    folder = make_dossier(tmp_path, "x")
    (folder / "link").symlink_to(outside, target_is_directory=True)
    before = tree_of(outside)
    with opened(tmp_path) as here:
        with opened(folder) as inner, pytest.raises(OSError, match=r"Too many levels|Not a directory"):
            open_below(inner, b"link")
        assert remove_tree(here, b"x", stop=NEVER)
    assert tree_of(outside) == before


def test_nothing_outside_goes_while_somebody_swaps_folders_for_links(tmp_path: Path) -> None:
    outside = make_dossier(tmp_path, "outside", {f"keep{number}": b"x" for number in range(20)})
    before = tree_of(outside)
    over = threading.Event()

    def flip() -> None:
        link, spare = tmp_path / "link", tmp_path / "spare"
        while not over.is_set():
            inner = tmp_path / "x" / "sub"
            try:
                link.symlink_to(outside, target_is_directory=True)
                inner.rename(spare)
                link.rename(inner)
            except OSError:
                pass
            shutil.rmtree(spare, ignore_errors=True)
            link.unlink(missing_ok=True)

    flipper = threading.Thread(target=flip)
    flipper.start()
    try:
        with opened(tmp_path) as here:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                with suppress(OSError):  # it is moved away from under its maker, too
                    make_dossier(tmp_path, "x", {f"sub/{number}": b"x" for number in range(30)})
                try:
                    while not remove_tree(here, b"x", stop=NEVER):
                        pass
                except OSError:
                    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    finally:
        over.set()
        flipper.join()
    # The maker of this test's own folders went through the links; what was there before is there.
    left = tree_of(outside)
    assert {path: left.get(path) for path in before} == before


def test_a_folder_moved_away_while_it_is_walked_ends_the_walk(tmp_path: Path) -> None:
    make_dossier(tmp_path, "x", {"a/b/c": b""})
    (tmp_path / "elsewhere").mkdir()
    with opened(tmp_path) as here:
        place = Descent(here, b"x")
        try:
            place.enter(b"a")
            place.enter(b"b")
            (tmp_path / "x" / "a" / "b").rename(tmp_path / "elsewhere" / "b")
            with pytest.raises(OSError, match="moved away"):
                place.leave()
        finally:
            place.close()


def test_a_walk_can_be_kept_out_of_folders(tmp_path: Path) -> None:
    make_dossier(tmp_path, "x", {"a/1": b"", "b/2": b"", "3": b""})
    seen = []
    with opened(tmp_path) as here:
        for place, files, folders in visit(here, b"x"):
            seen += [place.path(each) for each in files]
            if b"b" in folders:
                folders.remove(b"b")
    assert seen == [b"x/3", b"x/a/1"]


def test_measuring_ends_at_its_deadline(tmp_path: Path) -> None:
    make_dossier(tmp_path, "x")
    with opened(tmp_path) as here:
        assert measure_tree(here, b"x", until=time.monotonic() - 1) is None


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    place = make_dossier(tmp_path, "x") / "sub"
    other = make_dossier(tmp_path, "other")
    done = subprocess.run(["mount", "--bind", str(other), str(place)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield other
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_what_is_mounted_in_a_folder_is_not_entered_even_on_the_same_disk(
    tmp_path: Path, mounted: Path
) -> None:
    before = tree_of(mounted)
    with opened(tmp_path) as here, pytest.raises(OSError, match=r"cross-device|Device or resource busy"):
        remove_tree(here, b"x", stop=NEVER)
    assert tree_of(mounted) == before


@pytest.fixture
def immutable(tmp_path: Path) -> Iterator[Path]:
    file = make_dossier(tmp_path, "x", {"deep/er/locked": b"", "other": b""}) / "deep" / "er" / "locked"
    done = subprocess.run(["chattr", "+i", str(file)], check=False, capture_output=True)
    if done.returncode:
        pytest.skip("files cannot be made immutable here")
    try:
        yield file
    finally:
        for found in tmp_path.rglob("locked"):
            subprocess.run(["chattr", "-i", str(found)], check=True)


def test_an_error_says_where_it_happened(tmp_path: Path, immutable: Path) -> None:
    with opened(tmp_path) as here, pytest.raises(OSError, match="not permitted") as caught:
        remove_tree(here, b"x", stop=NEVER)
    assert caught.value.filename == "x/deep/er/locked"
