"""Lines of keys in TOML texts, and how keys and texts are written."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkops.places import KeyPath, dotted, find_line, quote_key, quote_text

TEXT = """\
# a comment = 1
[server]
port = 1

[resources.receipts]          # with a comment
table = '''
id = "not a key"
[nor.a.header]
'''
search = [
  "a",
  "b",
]
"id" = "id"
status = { column = "status" }
[[resources.receipts.children]]
table = "x"
[[resources.receipts.children]]
table = "y"
key.sub = 3
[resources."my table".actions]
delete = { rate = "1/day" }
"""

R = ("resources", "receipts")


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("server",), 2),
        (("server", "port"), 3),
        (("server", "nothing"), 2),
        ((*R, "table"), 6),
        ((*R, "search"), 10),
        ((*R, "search", 1), 10),
        ((*R, "id"), 14),
        ((*R, "status", "column"), 15),
        ((*R, "children", 0, "table"), 17),
        ((*R, "children", 1), 18),
        ((*R, "children", 1, "key"), 20),
        ((*R, "children", 1, "key", "sub"), 20),
        (("resources", "my table", "actions", "delete", "rate"), 22),
        (("resources", "my table"), 21),
        (("nor", "a"), None),
        ((), None),
    ],
)
def test_a_key_is_found_on_its_line_or_on_the_nearest_one(path: KeyPath, line: int | None) -> None:
    assert find_line(TEXT, path) == line
    assert find_line(TEXT.replace("\n", "\r\n"), path) == line


VALUES = [
    "1 # ] not the end",
    '"a # b ] \\" = 3"',
    "'[['",
    '[\n  "]", # [\n  [1, 2],\n]',
    '{ a = "}", b = [1,\n2] }',
    '"""\nkey = 1\n\\"""\n"""',
    '"""x"""""',
    "'''\n[header]\n''''",
    "2020-01-01 10:00:00",
]


@given(st.lists(st.sampled_from(VALUES), max_size=6))
def test_values_of_any_shape_are_stepped_over(values: list[str]) -> None:
    text = "\n".join(f"k{number} = {value}" for number, value in enumerate(values)) + "\nlast = 1"
    tomllib.loads(text)
    lines = text.split("\n")
    assert find_line(text, ("last",)) == len(lines)
    for number in range(len(values)):
        line = find_line(text, (f"k{number}",))
        assert line is not None
        assert lines[line - 1].startswith(f"k{number} = ")


def test_a_path_is_written_as_the_file_would() -> None:
    assert dotted(("resources", "my table", "children", 0, "key")) == 'resources."my table".children[0].key'


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXTS, TEXTS)
def test_any_key_and_text_come_back_from_toml_and_are_one_printable_line(key: str, text: str) -> None:
    written = f"{quote_key(key)} = {quote_text(text)}"
    assert written.isprintable()
    assert tomllib.loads(written) == {key: text}
    assert find_line(f"\n{written}", (key,)) == 2
