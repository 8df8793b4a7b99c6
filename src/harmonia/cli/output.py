"""Text output of the commands, from the JSON of records and recollections (docs/cli.md)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

Json = Mapping[str, Any]


def shorten(text: str, width: int = 60) -> str:
    """The text on one line, cut to ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def title(record: Json) -> str:
    """A line that identifies a record: its name, and its first text."""
    text = next((part["text"] for part in record["parts"] if part.get("text")), None)
    path = next((part["path"] for part in record["parts"] if part.get("path")), None)
    name = str(record["metadata"].get("name") or (Path(path).stem if path else record["id"][:8]))
    return f"{name}: {shorten(text)}" if text else name


def path_of(record: Json, root: Path) -> str | None:
    """The file of a record: of its first image, sound or video, else of its text; None if it has none.

    Copied media lie in the folder of the memory, ``root``.
    """
    parts = sorted(record["parts"], key=lambda part: bool(part["modality"] == "text"))
    path = next((part["path"] for part in parts if part.get("path")), None)
    return None if path is None else os.path.abspath(root / path)  # noqa: PTH100 (links stay as they are)


def where_in(part: Json) -> str:
    """The location of a part: the file name, and the time of a window."""
    name = Path(part["path"]).name if part.get("path") else f"“{shorten(part.get('text') or '', 30)}”"
    if part["unit"] != "seconds":
        return name
    return f"{name} {part['start']:.0f}–{part['end'] or part['start']:.0f} s"


def print_recollection(recollection: Json, root: Path, *, explain: bool) -> None:
    """Print a table of the records, each cue's share and its match, and then the certificate."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console, certificate = Console(), recollection["certificate"]
    if not recollection["records"]:
        return
    if recollection["abstained"]:
        console.print(
            f"Nothing here matches ({certificate['nothing']:.0%} of unrelated cues do as well). The nearest:",
            highlight=False,
        )
    cues = list(dict.fromkeys(name for record in recollection["records"] for name in record["shares"]))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, justify in (("", "right"), ("prob.", "right"), ("record", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for name in cues:
        table.add_column(shorten(name, 20), justify="right")
    table.add_column("why")
    for record in recollection["records"]:
        why = [
            f"{shorten(name, 20)}: {where_in(match)} ({match['similarity']:.2f})"
            for name, match in record["matches"].items()
        ]
        cells = [str(record["rank"]), f"{record['probability']:.1%}", f"{title(record)}\n{record['id'][:8]}"]
        cells += [f"{record['shares'].get(name, 0.0):.0%}" for name in cues]
        # What comes from files is text, never markup.
        table.add_row(*(Text(cell) for cell in [*cells, "\n".join(why)]))
    console.print(table)
    for record in recollection["records"]:
        # not in the table, which would break a path into lines
        if path := path_of(record, root):
            click.echo(f"{record['rank']:2d} {path}")
    click.echo()
    steps, energies = certificate["steps"], certificate["energies"]
    moved = f"settled in {steps} steps, energy {energies[0]:.3f} -> {energies[-1]:.3f}, " if steps else ""
    unrelated = f"{certificate['nothing']:.1%} of unrelated cues do as well"
    console.print(
        f"{moved}tail mass {certificate['tail_mass']:.1e}, {unrelated}",
        style="dim",
        highlight=False,
    )
    if explain:
        _explain(recollection)


def _explain(recollection: Json) -> None:
    for record in recollection["records"]:
        adds = " ".join(f"{add:+.2f} ({shorten(name, 20)})" for name, add in record["adds"].items())
        click.echo(f"score {record['rank']}: {record['score']:.2f} = {adds}   {shorten(title(record), 40)}")
    for sentence in recollection["explanation"]:
        click.echo(sentence)


def print_neighbours(neighbours: Json, root: Path) -> None:
    """Print a line for each record: rank, similarity, id, title, path."""
    for record in neighbours["records"]:
        line = f"{record['rank']:3d}  {record['similarity']:6.3f}  {record['id'][:8]}  {title(record)}"
        path = path_of(record, root)
        click.echo(f"{line}  {path}" if path else line)
