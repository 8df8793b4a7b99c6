"""docs/glossary.md: every word is defined where the page says."""

from __future__ import annotations

import importlib
import re

import pytest

from tests.places import ROOT

TEXT = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
NAMES = re.findall(r"`(harmonia(?:\.\w+)+)`", TEXT)
LINKS = re.findall(r"\]\(([^)#]+)\)", TEXT)


@pytest.mark.parametrize("name", NAMES)
def test_a_word_is_defined_where_it_is_said(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module), attribute)
    assert found.__module__ == module and found.__name__ == attribute


@pytest.mark.parametrize("link", LINKS)
def test_a_link_leads_to_a_page(link: str) -> None:
    assert (ROOT / "docs" / link).is_file()


def test_every_row_says_where() -> None:
    rows = [
        line
        for line in TEXT.splitlines()
        if line.startswith("| ") and not line.startswith(("| Word", "| ---"))
    ]
    words = [row.split("|")[1].strip() for row in rows]
    assert len(words) == len(set(words)) and len(words) > 20
    assert all(re.search(r"(\]\([^)]+\)|`harmonia[\w.]+`) \|$", row) for row in rows)
