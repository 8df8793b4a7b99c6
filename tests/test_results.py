"""No document quotes a result that no benchmark printed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harmonia.encoders import MINI
from tests.places import ROOT
from tools.quoted_results import Block, blocks, pages, problems, rows

ROW = next(
    row
    for row in json.loads((ROOT / "benchmarks/results/recall.json").read_text(encoding="utf-8"))["rows"]
    if row["what"] == "caption alone: Recall@1"
)
MARKED = f"""# A page

<!-- results: recall.json ingest.json -->
| cue | recall | plain |
|---|---|---|
| caption alone: Recall@1 | {ROW["value"]} | {ROW["peer_value"]} |
| words <!-- harmonia --help --> | 54 ms | |
"""


def page(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path, prose", [pytest.param(*one, id=one[0].name) for one in pages()])
def test_every_quoted_figure_has_a_row(path: Path, prose: bool) -> None:
    assert problems(path, prose) == []


def test_the_readme_and_the_page_of_results_quote_many_figures() -> None:
    """So that the test above has something to look at."""
    for name, least in (("README.md", 4), ("results.md", 8)):
        path = next(path for path, _ in pages() if path.name == name)
        assert (
            sum(block.is_table and block.comment.startswith("<!-- results") for block in blocks(path))
            >= least
        )


def test_a_figure_that_is_right_passes(tmp_path: Path) -> None:
    assert problems(page(tmp_path, MARKED)) == []


@pytest.mark.parametrize(
    "old, new",
    [
        (str(ROW["value"]), str(ROW["value"] + 0.001)),
        (str(ROW["peer_value"]), "0.44 %"),
        ("54 ms", "5.4 ms"),
        ("caption alone", "a caption alone"),
        ("caption alone: Recall@1", "caption alone: Recall@5"),
    ],
)
def test_a_figure_that_is_wrong_is_found(tmp_path: Path, old: str, new: str) -> None:
    assert len(problems(page(tmp_path, MARKED.replace(old, new)))) >= 1


@pytest.mark.parametrize(
    "text",
    [
        "| what | value |\n|---|---|\n| recall | 0.94 |\n",
        "| what | value |\n|---|---|\n| recall | 94 of 100 |\n",
        "It recalls 94 % of them.\n",
        "* It takes 1.5 s.\n",
    ],
)
def test_a_figure_without_a_source_is_found(tmp_path: Path, text: str) -> None:
    assert len(problems(page(tmp_path, text), prose=True)) == 1
    reason = "<!-- not measured: a table of settings -->\n"
    assert problems(page(tmp_path, reason + text), prose=True) == []


def test_a_column_is_held_to_its_own_rows(tmp_path: Path) -> None:
    """The precision of a system is not taken for its recall."""
    text = """<!-- results: generation.json, rows "{row}: {column}" -->
| system | precision | recall |
|---|---|---|
| gan | 0.76 | 0.83 |
"""
    assert problems(page(tmp_path, text)) == []
    assert len(problems(page(tmp_path, text.replace("0.76", "0.83")))) == 1


def test_text_is_held_to_the_rows_it_names(tmp_path: Path) -> None:
    text = 'Help is there after 54 ms. <!-- results: ingest.json, rows "harmonia --help" -->\n'
    assert problems(page(tmp_path, text), prose=True) == []
    assert len(problems(page(tmp_path, text.replace("54", "45")), prose=True)) == 1


def test_code_and_headings_quote_nothing(tmp_path: Path) -> None:
    text = "# Version 1.5 s\n\n    take 1.5 s\n\n```\n| a | 1.5 |\n```\n\nSet `beta=1.5`.\n"
    assert [type(block) for block in blocks(page(tmp_path, text))] == [Block]
    assert problems(page(tmp_path, text), prose=True) == []


def test_the_card_of_the_shipped_encoder_agrees_with_its_results() -> None:
    """The card has the figures of the weights before they were rounded to float16."""
    card = (Path(MINI) / "README.md").read_text(encoding="utf-8")
    figures = dict(re.findall(r"^\| (\w+: [^|]+) \| ([\d.]+) \|$", card, re.MULTILINE))
    measured = {row["what"]: row["value"] for row in rows("mini.json")}
    assert set(figures) == set(measured)
    assert {what: float(value) for what, value in figures.items()} == pytest.approx(measured, abs=0.001)
