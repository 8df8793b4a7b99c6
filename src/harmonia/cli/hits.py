"""What recall and retrieve do with their hits: print paths, open a viewer, set the exit code."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from harmonia.cli.common import FEW_WORDS, built_in, find_memory, print_json, status_of
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


@contextmanager
def empty_as_json(memory: Path | None, as_json: bool, nothing: Callable[[], Json]) -> Iterator[None]:
    """Where there is nothing to recall from, print the document ``nothing`` with the error as its reason."""
    try:
        yield
    except Exception as error:
        from harmonia.types import HarmoniaError

        if as_json and isinstance(error, HarmoniaError) and not status_of(find_memory(memory)).get("records"):
            print_json({**nothing(), "abstained": True, "reason": str(error)})
        raise


def finish(
    found: Json, question: Question, shown: Shown, as_json: bool, show: Callable[[], None], tool: str
) -> None:
    """Show what was found as it was asked for, ``show`` as text; exit with code 1 if that is nothing."""
    root = find_memory(question.memory)
    files = [file for file in (path_of(record, root) for record in found["records"]) if file]
    only_paths, unsure = shown.paths or shown.null, found.get("abstained", False)
    if only_paths:
        for file in files:
            sys.stdout.buffer.write(os.fsencode(file) + (b"\0" if shown.null else b"\n"))
        sys.stdout.flush()
    elif as_json:
        empty = not found["records"] and not status_of(root).get("records")
        told = {"abstained": True, "reason": _why(question, root, tool)} if empty else {}
        print_json({**found, **told})
    else:
        show()
    if not found["records"]:
        click.echo(f"harmonia: {_why(question, root, tool)}", err=True)
    elif unsure and only_paths:
        click.echo("harmonia: nothing matches for sure; these are the nearest", err=True)
    # JSON says by itself that it abstains.
    if question.words and not as_json and (unsure or not _by_their_words(found)):
        _advise(found, root)
    if shown.preview and not only_paths and files:
        from harmonia.cli.terminal_pictures import show_pictures

        show_pictures(files)
    if shown.open_first and found["records"]:
        open_file(files)
    if not found["records"]:
        sys.exit(1)


def _by_their_words(found: Json) -> bool:
    """Whether the words found the first record by a text of it, not by its picture alone."""
    if not found["records"]:
        return False
    first = found["records"][0]
    match = first.get("matches", {}).get("text")
    return match is None or match["modality"] == "text"


def _advise(found: Json, root: Path) -> None:
    """Say what the built-in encoders cannot do, if there are images that words might have been meant for."""
    parts = [part["modality"] for record in found["records"] for part in record["parts"]]
    if built_in(root) and ("image" in parts or status_of(root).get("parts", {}).get("image")):
        click.echo(f"harmonia: {FEW_WORDS}", err=True)


def _why(question: Question, root: Path, tool: str) -> str:
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
