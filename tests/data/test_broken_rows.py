"""A row that is badly written costs itself; the others, and the file, are read."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harmonia.data import Problem, gather
from harmonia.types import Record


def read(path: Path) -> tuple[list[str], list[str]]:
    """The texts of the records, and the rows that are problems."""
    everything = list(gather([path]))
    texts = [one.parts[0].text or "" for one in everything if isinstance(one, Record)]
    return texts, [one.reason for one in everything if isinstance(one, Problem)]


BROKEN = [
    '"Sunset" at sea', '"never closed', '"a" "b"', '"a"b"', '"one\nand "two" lines"', '""a', '"a\n"b',
]  # fmt: skip


@pytest.mark.parametrize("wrong", BROKEN)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("last", ["last", '"last, of all"', '"two\nlines"'])
def test_a_badly_quoted_row_leaves_the_others(tmp_path: Path, wrong: str, delimiter: str, last: str) -> None:
    path = tmp_path / "m.csv"
    rows = ["size,caption", "1,first", f"2,{wrong}", "3,after", f"4,{last}"]
    path.write_text("\n".join(row.replace(",", delimiter, 1) for row in rows) + "\n", "utf-8")
    texts, problems = read(path)
    assert texts[0] == "first" and texts[-1] == last.strip('"')
    assert "after" in texts and problems and problems[0].startswith("row 2: it ")


@given(
    st.lists(st.text("ab,;\n\r\" é中\t'", min_size=1, max_size=8).filter(str.strip), min_size=1, max_size=6)
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_well_quoted_is_read_as_it_is(tmp_path: Path, cells: list[str]) -> None:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows([["caption", "size"], *([cell, 1] for cell in cells)])
    (tmp_path / "m.csv").write_text(out.getvalue(), "utf-8", newline="")
    assert read(tmp_path / "m.csv") == (cells, [])


@given(st.text('ab,"\n', max_size=60))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_before_and_after_any_characters(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "m.csv"
    path.write_text(f"caption,size\nfirst,1\n{wrong}\n\nlast row of all,1\n", "utf-8")
    texts, _ = read(path)
    assert texts[0] == "first"
    if wrong.count('"') < 2:
        assert texts[-1] == "last row of all"


def test_long_cells_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("caption,size\n" + "word " * 100_000 + ',1\n"' + "line\n" * 50_000 + '",2\n', "utf-8")
    texts, problems = read(path)
    assert not problems and [len(text) for text in texts] == [500_000, 250_000]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"])
def test_encodings_of_tables(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("caption;size\r\nCafé à Zürich;1\r\nnaïve, déjà vu;2\r\n".encode(encoding))
    assert read(path) == (["Café à Zürich", "naïve, déjà vu"], [])
    path = tmp_path / "m.jsonl"
    lines = [json.dumps({"text": "Café à Zürich"}, ensure_ascii=False), "{wrong", '{"text": "two"}']
    path.write_bytes("\r\n".join(lines).encode("utf-16" if encoding == "cp1252" else encoding))
    texts, problems = read(path)
    assert texts == ["Café à Zürich", "two"]
    assert [problem[:6] for problem in problems] == ["row 2:"]


@pytest.mark.parametrize("blank", ["", "\n\n"])
@pytest.mark.parametrize(
    ("first", "delimiter"),
    [("", ","), ("", ";"), ("", "\t"), ("", "|"), ("sep={}\n", ";"), ("SEP={}\r\n", "^")],
)
@pytest.mark.parametrize("space", ["", " "])
def test_tables_are_written_in_many_ways(
    tmp_path: Path, blank: str, first: str, delimiter: str, space: str
) -> None:
    path = tmp_path / "m.csv"
    rows = [["size", "caption"], ["1", '"two; three, four|five"'], ["2", '"a ""b"""'], ["3", 'plain 5" disk']]
    lines = [(delimiter + space).join(row) for row in rows]
    path.write_text(blank + first.format(delimiter) + "\n".join(lines), "utf-8")
    (one, *_) = [record for record in gather([path]) if isinstance(record, Record)]
    assert one.metadata["size"] == 1
    assert read(path) == (["two; three, four|five", 'a "b"', 'plain 5" disk'], [])


def test_stray_bytes_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_bytes("caption,size\rfirst café,1\rsecond\0one with é,2\r".encode() + b"third \xff one,3\r\n")
    texts, problems = read(path)
    assert not problems
    assert texts == ["first café", "second\ufffdone with é", "third \ufffd one"]


def test_a_wrong_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"text": "one"}\n{"text": "t\xff"}\n{"text": "a\0"}\n{"text": "b"\n{"text": "two"}')
    texts, problems = read(path)
    assert texts == ["one", "two"]
    assert [problem.split(":")[0] for problem in problems] == ["row 2", "row 3", "row 4"]
