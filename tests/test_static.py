"""The page's files: small, plain, and nothing in them that a strict policy or a hostile text could use."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from bulkops.states import Outcome, Status
from bulkops.web.static_files import list_files, static_dir

STATIC = static_dir()
SCRIPTS = sorted(STATIC.glob("*.js"))
PAGES = sorted(STATIC.glob("*.html"))
NAMES = set(list_files(STATIC))
#: Whatever makes markup or code of a text.
PARSERS = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML"
    r"|\beval\b|new Function|setAttribute\(\"(?:style|on)"
)


def test_the_client_is_under_six_kib_and_needs_no_other_file() -> None:
    client = (STATIC / "bulkops.js").read_bytes()
    assert len(gzip.compress(client, 9)) < 6 * 1024
    assert b"import " not in client


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_about_one_thing(path: Path) -> None:
    # The client has to be one module: it is bounded by its size above. The dictionary is one by its nature.
    if path.name not in {"bulkops.js", "texts.js"}:
        assert len(path.read_text().splitlines()) <= 300
    assert path.read_text().startswith("//")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_no_script_makes_markup_or_code_of_a_text(path: Path) -> None:
    assert not PARSERS.findall(path.read_text())


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_what_a_script_imports_is_there(path: Path) -> None:
    for name in re.findall(
        r"(?:^import |^(?:import|export) .*? from |\bimport\()\"(.+?)\"", path.read_text(), re.MULTILINE
    ):
        assert name.startswith("./"), f"{name} is from elsewhere"
        assert name.removeprefix("./") in NAMES


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_a_page_has_no_inline_script_or_style_and_nothing_from_elsewhere(path: Path) -> None:
    text = path.read_text()
    tags = re.findall(r"<[a-z][^>]*>", text)
    assert not [tag for tag in tags if re.search(r"\s(?:style|on\w+)\s*=", tag)]
    assert "<style" not in text
    assert re.findall(r"<script[^>]*>(?!</script>)", text) == []
    links = re.findall(r"<[a-z][^>]*?\s(?:src|href)=\"([^\"]+)\"", text)
    assert not [link for link in links if re.match(r"[a-z]+:|/", link)], "a mount prefix would break it"
    here = {link.removeprefix("static/") for link in links if "." in link and not link.startswith("..")}
    assert here <= NAMES


def test_every_text_is_in_the_dictionary_and_every_entry_is_used() -> None:
    known = re.findall(r"^  (\w+):", (STATIC / "texts.js").read_text(), re.MULTILINE)
    code = "".join(path.read_text() for path in SCRIPTS if path.name != "texts.js")
    assert len(known) == len(set(known)), "a name stands twice"
    assert set(re.findall(r"\btext\(\"(\w+)\"", code)) <= set(known)
    statuses = {str(status) for status in Status} | {str(outcome) for outcome in Outcome}
    verbs = {"pause", "resume", "cancel", "retry", "undo"}
    said = set(re.findall(r"\"(\w+)\"", code)) | set(re.findall(r"^  (\w+): \(", code, re.MULTILINE))
    assert set(known) - said - statuses - verbs == set()


def test_styles_know_no_left_and_right() -> None:
    sided = re.compile(
        r"(?:margin|padding|border)-(?:left|right)|text-align:\s*(?:left|right)|[;{\s](?:left|right):"
    )
    for path in [*STATIC.glob("*.css"), STATIC / "elements_style.js"]:
        assert not sided.findall(path.read_text()), path.name
