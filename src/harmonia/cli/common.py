"""Options, opening of the memory and JSON output, shared by the commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from harmonia.collection.collection import Memory

FOLDER = ".harmonia"

memory_option = click.option(
    "--memory",
    "-m",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HARMONIA_MEMORY",
    help="Memory folder (default: the nearest .harmonia, here or above).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def find_memory(memory: Path | None) -> Path:
    """The given folder, else the nearest .harmonia here or above, else .harmonia here."""
    if memory is not None:
        return memory
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir():
            return folder / FOLDER
    return here / FOLDER


def open_memory(memory: Path | None) -> Memory:
    """Open the memory a command works on."""
    from harmonia.collection.collection import Memory

    return Memory(find_memory(memory))


def open_or_offer(memory: Path | None) -> Memory:
    """Open the memory. If there is none here but there are media, offer to remember these first.

    Raises HarmoniaError if there are no media either, or nobody to ask; Abort if the offer is declined.
    """
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
        raise HarmoniaError(f"no memory in {here}: run `harmonia remember .` first")
    click.confirm(f"There is no memory here. Remember the {count} records of this folder?", abort=True)
    report = collection.remember(here, progress=True)
    for problem in report.problems:
        click.echo(f"harmonia: {problem.path}: {problem.reason}", err=True)
    if report.stopped:
        raise click.Abort
    return collection


def status_of(root: Path) -> dict[str, Any]:
    """What the memory in a folder holds, counted; empty if there is none."""
    from harmonia import store

    return store.status(root) if store.exists(root) else {}


FEW_WORDS = (
    "the built-in encoders know few words for pictures; "
    "`harmonia remember FOLDER --into NEW --model openai/clip-vit-base-patch32` makes one that knows more"
)
"""What the built-in encoders cannot do, with the command that mends it."""


def built_in(root: Path) -> bool:
    """Whether the memory in a folder has only the built-in encoders, by the file that names its models."""
    try:
        models = json.loads((root / "model.json").read_text(encoding="utf-8"))["models"]
        return set(models) <= {"descriptors", "mini"}
    except (OSError, ValueError, KeyError, TypeError):
        return False


def print_json(value: object) -> None:
    """Print one JSON document to standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str))
