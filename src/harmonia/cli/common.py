"""Options and output that several commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

if TYPE_CHECKING:
    from harmonia.collection.collection import Collection
    from harmonia.types import Part, Record

F = TypeVar("F", bound=Callable[..., Any])

FOLDER = ".harmonia"

memory_option = click.option(
    "--memory",
    "-m",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HARMONIA_MEMORY",
    help="Folder of the memory (default: .harmonia here or above).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


def cue_options(command: F) -> F:
    """The options that give cues, as recall and retrieve take them."""
    file = click.Path(dir_okay=False, path_type=Path)
    decorators: list[Any] = [
        memory_option,
        click.argument("text", nargs=-1),
        click.option("--image", type=file, multiple=True, help="A picture, or a part of one."),
        click.option("--audio", type=file, multiple=True, help="A sound, noisy or cut."),
        click.option("--video", type=file, multiple=True, help="A video; its sound counts too."),
        click.option("--not", "against", multiple=True, metavar="WORDS", help="Words that count against."),
        click.option(
            "--weight", multiple=True, metavar="CUE=W", help="How far a cue counts, e.g. image=0.5."
        ),
        click.option("--where", help="Condition on the metadata, e.g. \"tag = 'beach'\"."),
        click.option("-k", type=click.IntRange(1), default=5, show_default=True, help="How many records."),
        click.option("--leave-out-cues", is_flag=True, help="Leave out the records of the cue files."),
        json_option,
    ]
    decorated: Any = command
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return cast(F, decorated)


def weights(values: Sequence[str]) -> dict[str, float]:
    """``image=0.5`` pairs; a usage error for anything else."""
    found = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise click.UsageError(f"--weight takes CUE=NUMBER, such as image=0.5 (got {value!r})")
    return found


def find_memory(memory: Path | None) -> Path:
    """The folder given, else the nearest .harmonia here or above, else .harmonia here."""
    if memory is not None:
        return memory
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir():
            return folder / FOLDER
    return here / FOLDER


def open_memory(memory: Path | None) -> Collection:
    """Open the memory a command works on."""
    from harmonia.collection.collection import Collection

    return Collection(find_memory(memory))


def open_or_offer(memory: Path | None) -> Collection:
    """Open the memory; where there is none but media lie about, offer to remember them first."""
    collection = open_memory(memory)
    if collection.exists or memory is not None:
        return collection
    from harmonia.data import gather
    from harmonia.types import HarmoniaError, Record

    here = Path.cwd()
    count = sum(isinstance(item, Record) for item in gather([here]))
    if not count:
        raise HarmoniaError(f"no memory and no media in {here}: run `harmonia remember FOLDER` first")
    if not sys.stdin.isatty():
        raise HarmoniaError(f"nothing was remembered in {here} yet: run `harmonia remember .` first")
    click.confirm(f"No memory here yet, but {count} records of media. Remember them now?", abort=True)
    report = collection.remember(here, progress=True)
    for problem in report.problems:
        click.echo(f"harmonia: {problem.path}: {problem.reason}", err=True)
    if report.stopped:
        raise click.Abort
    return collection


def print_json(value: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def part_json(part: Part) -> dict[str, Any]:
    """A part for machines; ``text`` only where there is inline text."""
    found: dict[str, Any] = {
        "modality": part.modality,
        "path": part.path,
        "start": part.start,
        "end": part.end,
    }
    if part.text is not None:
        found["text"] = part.text
    return found


def record_json(record: Record, parts: Sequence[Part] | None = None) -> dict[str, Any]:
    """A record for machines, with the given parts or all of them."""
    return {
        "id": record.id,
        "parts": [part_json(part) for part in (record.parts if parts is None else parts)],
        "metadata": dict(record.metadata),
    }


def title(record: Record) -> str:
    """A line that a person recognises a record by."""
    metadata: Mapping[str, Any] = record.metadata
    text = next((part.text for part in record.parts if part.text), None)
    path = next((part.path for part in record.parts if part.path), None)
    name = str(metadata.get("name") or (Path(path).stem if path else record.id[:8]))
    return f"{name}: {shorten(text)}" if text else name


def shorten(text: str, width: int = 60) -> str:
    """The first words of a text, on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def where_in(part: Part) -> str:
    """Where a part is: file name and, for a window, its time."""
    name = Path(part.path).name if part.path else f"“{shorten(part.text or '', 30)}”"
    if part.start is None or part.modality == "text":
        return name
    return f"{name} {part.start:.0f}–{part.end or part.start:.0f} s"
