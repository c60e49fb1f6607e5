"""The storage seam: where the trash is, what is protected, and how a host's storage is loaded and read."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bulkops.errors import ConfigError
from bulkops.resources.paths import Identity, Refused
from bulkops.resources.storage import LocalStorage, load_storage, protect, read_outcomes
from bulkops.resources.verdicts import Entry, Verdict


class Shelf:
    """A custom storage as a host would write it."""

    async def delete(self, keys: Sequence[str]) -> Mapping[str, str]:
        return dict.fromkeys(keys, "removed")


class NoDelete:
    pass


class Broken:
    def __init__(self) -> None:
        raise RuntimeError("no credentials")


ready = Shelf()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@pytest.fixture
def storage(tmp_path: Path, root: Path) -> LocalStorage:
    return LocalStorage.open(
        "bulkops.toml", "receipts.attachments", root, tmp_path / "data", protect([tmp_path / "data"])
    )


@pytest.fixture
def far() -> Iterator[Path]:
    """A folder on another file system than the tests' own."""
    folder = Path("/dev/shm") / f"bulkops-root-{os.getpid()}-{threading.get_ident()}"
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no /dev/shm to be another file system")
    yield folder
    shutil.rmtree(folder)


def entry(storage: LocalStorage, path: bytes, trash: bytes = b"t") -> Entry:
    found = storage.identify(path)
    return Entry(path, trash, found if isinstance(found, Identity) else None)


def test_the_trash_is_ours_and_private_where_a_rename_reaches_it(
    storage: LocalStorage, tmp_path: Path
) -> None:
    assert storage.trash_dir == tmp_path / "data" / "trash" / "receipts.attachments"
    for folder in (storage.trash_dir, storage.trash_dir.parent):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_on_another_file_system_the_trash_is_in_the_root_and_cannot_be_addressed(
    far: Path, tmp_path: Path
) -> None:
    if far.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is on the same file system")
    storage = LocalStorage.open("here", "images", far, tmp_path / "data", protect([]))
    assert storage.trash_dir == far / ".bulkops-trash"
    assert storage.trash_dir.stat().st_mode & 0o777 == 0o700
    (far / "photo").write_bytes(b"photo")
    gone = entry(storage, b"photo")
    assert storage.move([gone])[0].verdict is Verdict.TRASHED
    assert (far / ".bulkops-trash" / "t").read_bytes() == b"photo"
    assert isinstance(storage.identify(b".bulkops-trash/t"), Refused)
    (far / "alias").symlink_to(".bulkops-trash")
    assert isinstance(storage.identify(b"alias/t"), Refused)
    assert storage.restore([gone])[0].verdict is Verdict.RESTORED


def test_a_trash_below_the_root_is_refused_by_identity_under_any_name(tmp_path: Path) -> None:
    """The data directory may lie below the root: then a path could lead into the trash."""
    storage = LocalStorage.open("here", "all", tmp_path, tmp_path / "data", protect([tmp_path / "data"]))
    (storage.trash_dir / "kept").write_bytes(b"kept")
    found = storage.identify(b"data/trash/all/kept")
    assert isinstance(found, Refused)


def test_databases_are_refused_with_their_companions_and_hard_links(tmp_path: Path, root: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        (root / f"app.db{suffix}").write_bytes(b"pages")
    os.link(root / "app.db", root / "photo.jpg")
    storage = LocalStorage.open(
        "here", "all", root, tmp_path / "data", protect([], databases=[root / "app.db"])
    )
    for path in (b"app.db", b"app.db-wal", b"app.db-shm", b"photo.jpg"):
        assert isinstance(storage.identify(path), Refused), path
        found = os.lstat(root / os.fsdecode(path))
        mine = Identity(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        assert storage.move([Entry(path, b"t", mine)])[0].verdict is Verdict.REFUSED


def test_a_companion_that_appears_later_is_refused_too(tmp_path: Path, root: Path) -> None:
    (root / "app.db").write_bytes(b"pages")
    guard = protect([], databases=[root / "app.db"])
    storage = LocalStorage.open("here", "all", root, tmp_path / "data", guard)
    assert storage.identify(b"app.db-wal") is None
    (root / "app.db-wal").write_bytes(b"frames")
    assert isinstance(storage.identify(b"app.db-wal"), Refused)


def test_files_move_come_back_and_go(storage: LocalStorage, root: Path) -> None:
    (root / "a").mkdir()
    for name in ("one", "two"):
        (root / "a" / name).write_bytes(name.encode())
    first, second = entry(storage, b"a/one", b"t1"), entry(storage, b"a/two", b"t2")
    assert {each.verdict for each in storage.move([first])} == {Verdict.TRASHED}
    assert {each.verdict for each in storage.restore([first])} == {Verdict.RESTORED}
    assert {each.verdict for each in storage.move([first])} == {Verdict.TRASHED}
    assert {each.verdict for each in storage.purge([first])} == {Verdict.PURGED}
    assert {each.verdict for each in storage.remove([second])} == {Verdict.PURGED}
    assert list((root / "a").iterdir()) == list(storage.trash_dir.iterdir()) == []
    assert storage.identify_many([b"a/one", b"a/two"]) == [None, None]


def test_a_root_that_is_replaced_while_we_run_is_not_judged(
    storage: LocalStorage, root: Path, tmp_path: Path
) -> None:
    (root / "f").write_bytes(b"f")
    mine = entry(storage, b"f")
    root.rename(tmp_path / "unmounted")
    root.mkdir()
    result = storage.move([mine])[0]
    assert result.verdict is Verdict.RETRY
    assert result.reason.startswith("ESTALE")


def test_a_root_may_be_named_through_a_link_that_the_operator_made(tmp_path: Path, root: Path) -> None:
    (root / "f").write_bytes(b"f")
    (tmp_path / "alias").symlink_to(root)
    storage = LocalStorage.open("here", "all", tmp_path / "alias", tmp_path / "data", protect([]))
    assert isinstance(storage.identify(b"f"), Identity)


def test_a_missing_root_is_wrong_wiring(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"bulkops\.toml: resources\.images\.root: .*none"):
        LocalStorage.open(
            "bulkops.toml: resources.images.root", "images", tmp_path / "none", tmp_path, protect([])
        )


def test_a_root_that_is_a_file_is_wrong_wiring(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="file"):
        LocalStorage.open("here", "images", tmp_path / "file", tmp_path / "data", protect([]))


def test_a_planted_link_in_place_of_the_trash_is_refused(tmp_path: Path, root: Path) -> None:
    (tmp_path / "data" / "trash").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "trash" / "images").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="images"):
        LocalStorage.open("here", "images", root, tmp_path / "data", protect([]))


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../x", "Order Details.file", "ü"])
def test_a_storage_name_is_one_folder_of_the_trash_whatever_it_holds(
    tmp_path: Path, root: Path, name: str
) -> None:
    storage = LocalStorage.open("here", name, root, tmp_path / "data", protect([]))
    assert storage.trash_dir.parent == tmp_path / "data" / "trash"


def test_a_custom_storage_is_loaded_by_name() -> None:
    assert isinstance(load_storage("here", f"{__name__}:Shelf"), Shelf)
    assert load_storage("here", f"{__name__}:ready") is ready


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shelf", "is no storage such as package.module:Name"),
        (":Shelf", "is no storage such as"),
        ("tests.test_storage:", "is no storage such as"),
        ("tests.test_storage:a b", "is no storage such as"),
        ("no_such_package_at_all:Shelf", "ModuleNotFoundError"),
        ("tests.test_storage:Nothing", "AttributeError"),
        ("tests.test_storage:Broken", "RuntimeError: no credentials"),
        ("tests.test_storage:NoDelete", "has no delete"),
    ],
)
def test_a_storage_that_cannot_be_loaded_is_wrong_wiring_that_names_its_place(
    name: str, message: str
) -> None:
    assert "tests.test_storage" in sys.modules
    with pytest.raises(ConfigError, match=message) as caught:
        load_storage("bulkops.toml: resources.images.storage", name)
    assert caught.value.where == "bulkops.toml: resources.images.storage"


def test_answers_of_a_custom_storage_become_verdicts_and_nonsense_is_tried_again() -> None:
    outcomes = {"a": "removed", "b": "missing", "c": "refused: locked", "d": "retry: throttled", "e": "done"}
    found = read_outcomes(["a", "b", "c", "d", "e", "f"], outcomes)
    assert [(each.verdict.value, each.reason) for each in found] == [
        ("purged", ""),
        ("missing", ""),
        ("refused", "locked"),
        ("retry", "throttled"),
        ("retry", "the storage answered 'done'"),
        ("retry", "the storage said nothing about it"),
    ]


def test_answers_may_come_in_the_order_of_the_keys_and_in_the_words_of_jobs() -> None:
    found = read_outcomes(["a", "b", "c", "d"], ["succeeded", "missing", "failed: throttled", "failed"])
    assert [(each.verdict.value, each.reason) for each in found] == [
        ("purged", ""),
        ("missing", ""),
        ("retry", "throttled"),
        ("retry", "the storage answered 'failed'"),
    ]


@pytest.mark.parametrize("answer", [None, 3, "removed", ["removed"], []])
def test_an_answer_that_leaves_open_which_key_it_is_about_is_none(answer: Any) -> None:
    with pytest.raises(TypeError, match="not an outcome for each key"):
        read_outcomes(["a", "b"], answer)
