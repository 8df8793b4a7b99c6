"""The front matter of a note is metadata, the rest is the note; a broken one stays text."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmonia.modalities import text
from harmonia.modalities.front_matter import split
from harmonia.modalities.metadata import metadata_of

NOTE = "Wash the leeks.\n\nCut them."


@pytest.mark.parametrize(
    ("front", "facts"),
    [
        ("---\ntitle: Leek soup\ntags: [soup, leek]\ndate: 2024-05-06\nserves: 4\ndone: true\n---\n",
         {"title": "Leek soup", "tags": ["soup", "leek"], "date": "2024-05-06", "serves": 4,
          "done": True}),
        ("---\ntags: soup, leek\nkeywords: [2024, winter]\n---\n",
         {"tags": ["soup", "leek"], "keywords": ["2024", "winter"]}),
        ("---\ntags:\n  - soup\n  - leek\n...\n", {"tags": ["soup", "leek"]}),
        ("---\ncountry: no\nat: 10:30\nzip: 01234567890123456789\nv: 1.2.3\nrange: 1e5\n---\n",
         {"country": "no", "at": "10:30", "zip": "01234567890123456789", "v": "1.2.3", "range": 1e5}),
        ("---\nfrom: 2024-05-06 10:11:12\ns: .5\nzoned: 2024-05-06T10:11:12+02:00\nbroken: 2024-13-45\n---\n",
         {"from": "2024-05-06T10:11:12", "s": 0.5, "zoned": "2024-05-06T10:11:12+02:00",
          "broken": "2024-13-45"}),
        ("---\nnested: {a: 1, b: [x]}\nnothing:\nlist: [{a: 1}, [2]]\nempty: ''\n---\n",
         {"nested": '{"a": 1, "b": ["x"]}', "list": ['{"a": 1}', "[2]"]}),
        ("---\nhuge: " + "9" * 5000 + "\ninf: .inf\nmost: 1e999\n1: one\n---\n",
         {"huge": "9" * 5000, "inf": ".inf", "1": "one"}),
        ('---\nhalf: "a\\uD800b"\nnul: "a\\0b"\n---\n', {"half": "a?b", "nul": "a b"}),
        ('+++\ntitle = "Leek soup"\ndate = 2024-05-06T10:11:12Z\n[extra]\na = 1\n+++\n',
         {"title": "Leek soup", "date": "2024-05-06T10:11:12+00:00", "extra": '{"a": 1}'}),
    ],
)  # fmt: skip
def test_front_matter_becomes_metadata(tmp_path: Path, front: str, facts: dict[str, Any]) -> None:
    assert split(front + NOTE) == (facts, NOTE)
    (tmp_path / "a.md").write_text(front + NOTE, encoding="utf-8")
    assert metadata_of(tmp_path / "a.md", "text") == facts
    (piece,) = text.windows(tmp_path / "a.md")
    assert piece.text == NOTE
    assert text.read(tmp_path / "a.md").text[int(piece.start or 0) : int(piece.end or 0)] == NOTE


@pytest.mark.parametrize(
    "broken",
    ["---\nnot yaml: [\n---\n", "---\na: &x [1]\nb: *x\n---\n", "---\njust words\n---\n",
     "---\n- a\n- b\n---\n",
     "--- \n\n---\n", "no front matter\n---\na: 1\n---\n", "---\nnever: closed\n", "---\n---\n",
     " ---\na: 1\n---\n",
     "---\na: !!python/object/apply:os.system [ls]\n---\n", "---\na: 1\n--- b\n", "+++\na = \n+++\n",
     "+++\na: 1\n---\n",
     "---\n" + "[" * 5000 + "\n---\n", "---\n" + "a: {" * 40 + "}" * 40 + "\n---\n", "---\n? [a]\n: b\n---\n",
     "---\n" + "".join(f"k{i}: 1\n" for i in range(100)) + "---\n", "---\n" + "a: b\n" * 20_000 + "---\n"],
)  # fmt: skip
def test_broken_front_matter_stays_text(tmp_path: Path, broken: str) -> None:
    began = time.process_time()
    assert split(broken + NOTE) == ({}, broken + NOTE)
    assert time.process_time() - began < 5
    (tmp_path / "a.md").write_text(broken + NOTE, encoding="utf-8")
    assert metadata_of(tmp_path / "a.md", "text") == {}
    whole = "".join("".join(piece.text.split()) for piece in text.windows(tmp_path / "a.md"))
    assert whole == "".join((broken + NOTE).split())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_line_ends(tmp_path: Path, encoding: str, end: str) -> None:
    note = f"---\nauthor: Jörg Müller\n---\nDie Brücke über den Fluß.\n{NOTE}".replace("\n", end)
    (tmp_path / "a.md").write_bytes(note.encode(encoding))
    assert metadata_of(tmp_path / "a.md", "text") == {"author": "Jörg Müller"}
    assert next(text.windows(tmp_path / "a.md")).text.startswith("Die Brücke")


def test_a_note_that_is_only_front_matter_is_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("---\ntitle: Leek soup\n---\n")
    assert metadata_of(tmp_path / "a.md", "text") == {"title": "Leek soup"}
    (piece,) = text.windows(tmp_path / "a.md")
    assert "Leek soup" in piece.text


def test_only_markdown_has_front_matter(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("---\na: 1\n---\n" + NOTE)
    assert metadata_of(tmp_path / "a.txt", "text") == {}
    assert next(text.windows(tmp_path / "a.txt")).text.startswith("---")


def test_a_note_does_not_say_where_it_is_nor_what_made_it(tmp_path: Path) -> None:
    front = "---\npath: /etc/passwd\nGenerated: true\nvector_stores: [vs_1]\nNamespace: a\nkept: x\n---\n"
    (tmp_path / "a.md").write_text(front + NOTE)
    assert metadata_of(tmp_path / "a.md", "text") == {"kept": "x"}


@given(st.text(max_size=200))
def test_any_front_matter(inside: str) -> None:
    facts, body = split(f"---\n{inside}\n---\nthe note")
    assert body.endswith("the note")
    json.dumps(facts, allow_nan=False).encode()
    assert all("\0" not in key and key for key in facts)
    assert (
        facts or inside in body or not inside.strip() or "---" in inside or "..." in inside or ":" in inside
    )
