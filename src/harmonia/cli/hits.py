"""What recall and retrieve do with their hits: print paths, open a viewer, set the exit code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from harmonia.cli.common import FEW_WORDS, find_memory, knows_few_words, status_of
from harmonia.cli.cues import Question
from harmonia.cli.output import path_of

F = TypeVar("F", bound=Callable[..., Any])
Json = Mapping[str, Any]


@dataclass(frozen=True)
class Shown:
    """How the hits are shown."""

    paths: bool = False
    null: bool = False
    open_first: bool = False
    preview: bool = False


def hit_options(command: F) -> F:
    """Add the options of :class:`Shown` to a command."""
    for option in (
        click.option("--preview", is_flag=True,
                     help="Show the pictures in the terminal (kitty, iTerm2, sixel)."),
        click.option("--open", "open_first", is_flag=True,
                     help="Open the first hit with the system's viewer."),
        click.option("-0", "--null", "null", is_flag=True,
                     help="Print only the paths, each ended by NUL (xargs -0)."),
        click.option("--paths", is_flag=True, help="Print only the paths of the hits, one per line."),
    ):  # fmt: skip
        command = option(command)
    return command


def finish(found: Json, question: Question, shown: Shown, show: Callable[[], None], tool: str) -> None:
    """Show what was found as it was asked for, and exit with code 1 if nothing matches."""
    root = find_memory(question.memory)
    matched = bool(found["records"]) and not found.get("abstained", False)
    files = [file for file in (path_of(record, root) for record in found["records"]) if file]
    if shown.paths or shown.null:
        for file in files if matched else ():
            sys.stdout.buffer.write(os.fsencode(file) + (b"\0" if shown.null else b"\n"))
        sys.stdout.flush()
    else:
        show()
    if not matched:
        click.echo(f"harmonia: {_why(found, question, root, tool)}", err=True)
    if question.words and not matched and knows_few_words(root):
        click.echo(f"harmonia: {FEW_WORDS}", err=True)
    if matched and shown.preview and not (shown.paths or shown.null):
        from harmonia.cli.terminal_pictures import show_pictures

        show_pictures(files)
    if matched and shown.open_first:
        open_file(files)
    if not matched:
        sys.exit(1)


def _why(found: Json, question: Question, root: Path, tool: str) -> str:
    if found["records"]:
        return "nothing matches; these are the nearest records"
    if not status_of(root).get("records"):
        return f"the memory in {root} is empty: run `harmonia remember FOLDER` first"
    if question.options.get("where"):
        return "nothing matches: no record fulfils --where (`harmonia status` lists the columns)"
    if question.leave_out_cues:
        return "nothing matches: no other record can be compared with the cues"
    if tool == "retrieve":
        return (
            "nothing matches: retrieve compares a cue only with records that have its modality; "
            "`harmonia recall` also looks across modalities"
        )
    return "nothing matches: no record can be compared with the cues"


def open_file(files: list[str]) -> None:
    """Open the first file with the system's opener; HarmoniaError if there is none, or it fails."""
    from harmonia.types import HarmoniaError

    if not files:
        raise HarmoniaError("no hit has a file to open")
    if not Path(files[0]).is_file():
        raise HarmoniaError(
            f"{files[0]} is missing: `harmonia remember` its new folder, and its path follows"
        )
    if sys.platform == "win32":
        os.startfile(files[0])
        return
    name = "open" if sys.platform == "darwin" else "xdg-open"
    opener = shutil.which(name)
    if opener is None:
        raise HarmoniaError(f"cannot open {files[0]}: the command {name} is not installed")
    done = subprocess.run([opener, files[0]], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise HarmoniaError(f"{name} cannot open {files[0]}: {said}")
