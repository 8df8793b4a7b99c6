"""Check that the documents quote only what a benchmark printed.

    python -m tools.quoted_results            # exit 1 with a line for every figure that has no row

A table or paragraph with measured figures stands below a comment that names its file of benchmarks/results/:

    <!-- results: memory.json -->
    <!-- results: generation.json, rows "{row}: {column}" -->
    <!-- results: recall.json ingest.json, rows "caption alone" "harmonia --help" -->

At the end of a list's item it stands in the last line. A line's figures must be among the rows of that file
whose ``what`` contains one of the patterns, in which ``{row}`` is the line's first cell; with ``{column}``,
the heading of the figure's column, ``what`` must equal the pattern, or begin with it if it ends in ``*``.
The default is "{row}". A comment inside a line, ``<!-- pattern; pattern -->``, replaces the patterns for
that line. A figure agrees with a row's value, peer or ratio if that rounds to what is printed; 0.94 may be
printed as 94 %, and 0.04 s as 40 ms. Numbers that stand in the row's own words (64 cues) agree as well.

A table of settings or formulas, whose numbers nobody measured, says so: ``<!-- not measured: why -->``.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"
DOCS = REPOSITORY / "docs"
DIARY = ("lab.md", "cli.md", "tree.md")
"""Pages without quoted results: the diary of experiments, and two that are generated."""
TEXTS = (
    "adversarial.md",
    "alignment.md",
    "autoencoders.md",
    "autoregressive.md",
    "diffusion.md",
    "generation-metrics.md",
    "imagine.md",
    "kernels.md",
    "memory.md",
    "metrics.md",
    "mini.md",
    "mteb.md",
    "openai-generation.md",
    "openai.md",
    "server.md",
    "text-to-image.md",
    "training.md",
)
"""Pages whose text is checked as well as their tables. In the text of others, numbers are versions, settings,
examples and bounds that tests hold."""
Row = dict[str, Any]

MARK = re.compile(r"<!-- results: ([\w .-]+?\.json)(?:, rows ((?:\"[^\"]+\" ?)+))? -->$")
EXEMPT = re.compile(r"<!-- not measured: .+ -->$")
INSIDE = re.compile(r"<!-- (.+?) -->")
NUMBER = re.compile(r"(?<![\w.,/^@-])-?\d[\d,]*(?:\.\d+)?(?![\w^]|[-/]\w|\.\d)")
MEASURED = re.compile(
    r"(?<![\w.,/^@-])(?<!Python )-?\d[\d,]*"
    r"(?:\.\d+|(?:\.\d+)? ?(?:%|(?:ms|s|times|points|dB|MiB|KB|files/s)\b))"
)


@dataclass(frozen=True)
class Block:
    """A table or a paragraph, the line it begins at, and the comment above it."""

    path: Path
    start: int
    lines: tuple[str, ...]
    comment: str

    @property
    def is_table(self) -> bool:
        """Whether it is a table; otherwise it is a paragraph or a list."""
        return self.lines[0].startswith("|")

    @property
    def measured(self) -> bool:
        """Whether it quotes figures: in a table a cell that begins with a number, or has one with decimals or
        a unit, outside of the headings and the first column."""
        if self.is_table:
            inner = [cell for line in self.lines[2:] for cell in cells(line)[1:]]
            return any(NUMBER.match(cell) or MEASURED.search(cell) for cell in inner)
        return any(MEASURED.search(plain(line)) for line in self.lines)


def plain(text: str) -> str:
    """A line without comments, code and the targets of links."""
    return re.sub(r"`[^`]*`|\]\([^)]*\)", " ", INSIDE.sub("", text))


def cells(line: str) -> list[str]:
    """The cells of a line of a table, without comments, code and bold type."""
    return [re.sub(r"\*\*", "", plain(cell)).strip() for cell in line.strip().strip("|").split("|")]


def blocks(path: Path) -> Iterator[Block]:
    """The tables and paragraphs of a page, outside of fenced and indented code."""
    fenced, comment, lines, start = False, "", list[str](), 0
    for number, line in enumerate([*path.read_text(encoding="utf-8").splitlines(), ""], 1):
        if line.startswith("```"):
            fenced = not fenced
        alone = fenced or line.startswith(("```", "    ", "#", "!["))
        table, marker = line.startswith("|"), bool(MARK.match(line) or EXEMPT.match(line))
        ends = alone or marker or not line.strip() or line.startswith("* ")
        if lines and (ends or table != lines[0].startswith("|")):
            last = MARK.search(lines[-1]) or EXEMPT.search(lines[-1])
            yield Block(path, start, tuple(lines), last[0] if last and not table else comment)
            lines, comment = [], ""
        if marker:
            comment = line
        elif line.strip() and not alone:
            start = start if lines else number
            lines.append(line)


@functools.cache
def rows(file: str) -> tuple[Row, ...]:
    """The rows of a results file."""
    return tuple(json.loads((RESULTS / file).read_text(encoding="utf-8"))["rows"])


def agrees(text: str, row: Row, behind: str) -> bool:
    """Whether the printed number is one of the row, by what stands behind it (%, ms) in that unit."""
    printed = float(text.replace(",", ""))
    scales = [1.0]
    if behind.startswith("%") and row["unit"] != "%":
        scales = [100.0]
    if re.match(r"ms\b", behind) and row["unit"] == "s":
        scales = [1000.0]
    half = 0.5 * 10.0 ** -len(text.partition(".")[2]) + 1e-9
    figures = [row[key] for key in ("value", "peer_value", "ratio") if row[key] is not None]
    if any(abs(printed - scale * figure) <= half for scale in scales for figure in figures):
        return True
    words = f"{row['what']} {row['unit']} {row['peer'] or ''} {row['goal'] or ''}".replace(",", "")
    return text.replace(",", "") in re.findall(r"\d+(?:\.\d+)?", words)


def named(row: Row) -> str:
    """What a row measures, without how far its seeds differ."""
    return re.sub(r" \(spread .*\)$", "", row["what"])


def fits(row: Row, pattern: str, exact: bool) -> bool:
    """Whether a pattern finds a row."""
    if exact and pattern.endswith("*"):
        return named(row).startswith(pattern[:-1])
    return named(row) == pattern if exact else pattern in row["what"]


def candidates(patterns: Sequence[str], files: Sequence[str], exact: bool) -> list[Row]:
    """The rows of the files that one of the patterns finds."""
    return [
        row for file in files for row in rows(file) if any(fits(row, pattern, exact) for pattern in patterns)
    ]


def wrong(block: Block) -> Iterator[str]:
    """The figures of a marked block that no row has, one line of text each."""
    found = MARK.match(block.comment)
    assert found is not None
    files = found[1].split()
    absent = [file for file in files if not (RESULTS / file).is_file()]
    if absent:
        yield f"{block.path.name}:{block.start}: there is no {absent[0]} in benchmarks/results"
        return
    patterns = re.findall(r'"([^"]+)"', found[2] or '"{row}"')
    lines = block.lines[2:] if block.is_table else [" ".join(block.lines)]
    heads = cells(block.lines[0]) if block.is_table else [""]
    for line in lines:
        parts = cells(line) if block.is_table else ["", plain(line)]
        comments = [] if MARK.search(line) else INSIDE.findall(line)
        inside = [one.strip() for comment in comments for one in comment.split(";")]
        for column, cell in enumerate(parts[1:], 1):
            head = heads[column] if column < len(heads) else ""
            keys = [p.replace("{row}", parts[0]).replace("{column}", head) for p in inside or patterns]
            exact = not inside and any("{column}" in pattern for pattern in patterns)
            known = candidates(keys, files, exact)
            if not known and NUMBER.search(cell):
                yield f"{block.path.name}:{block.start}: no row in {' '.join(files)} has {' or '.join(keys)}"
                continue
            for number in (NUMBER if block.is_table else MEASURED).finditer(cell):
                text = re.match(r"-?\d[\d,]*(?:\.\d+)?", number[0])
                assert text is not None
                behind = cell[number.start() + len(text[0]) :].lstrip() or head
                if not any(agrees(text[0], row, behind) for row in known):
                    yield f"{block.path.name}:{block.start}: {number[0]} is in no row for {' or '.join(keys)}"


def problems(path: Path, prose: bool = False) -> list[str]:
    """What is wrong with a page: unmarked figures of tables (with ``prose`` also of text), and wrong ones."""
    lines: list[str] = []
    for block in blocks(path):
        if MARK.match(block.comment):
            lines += wrong(block)
        elif block.measured and (block.is_table or prose) and not EXEMPT.match(block.comment):
            lines.append(f"{path.name}:{block.start}: figures without a comment that names their results")
    return lines


def pages() -> list[tuple[Path, bool]]:
    """The pages that are checked, and whether their text is as well as their tables."""
    docs = sorted(path for path in DOCS.rglob("*.md") if path.relative_to(DOCS).as_posix() not in DIARY)
    return [
        (REPOSITORY / "README.md", True),
        *((path, path.relative_to(DOCS).as_posix() in TEXTS) for path in docs),
    ]


def main() -> None:
    """Print every problem; exit 1 if there is one."""
    found = [line for path, prose in pages() for line in problems(path, prose)]
    print("\n".join(found), end="\n" * bool(found))
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
