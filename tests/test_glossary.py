"""docs/glossary.md: every word is defined where the page says."""

from __future__ import annotations

import re

import pytest

from tests.places import ROOT

TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
LINKS = re.findall(r"\[(`?)(\w[\w.]*)`?\]\(([^)]+)\)", TEXT)


@pytest.mark.parametrize(("quoted", "name", "target"), LINKS)
def test_a_word_is_defined_where_it_is_said(quoted: str, name: str, target: str) -> None:
    text = (ROOT / "docs" / target).resolve().read_text(encoding="utf-8")
    if quoted:
        assert re.search(rf"^(class|def) {name}\b", text, re.MULTILINE)


def test_every_row_says_where() -> None:
    rows = [
        line
        for line in TEXT.splitlines()
        if line.startswith("| ") and not line.startswith(("| Word", "| ---"))
    ]
    words = [row.split("|")[1].strip() for row in rows]
    assert len(words) == len(set(words)) and all(re.search(r"\]\([^)]+\) \|$", row) for row in rows)
