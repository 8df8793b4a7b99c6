"""The cue options of recall, retrieve and ask, and the question that is built from them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from harmonia.cli.common import memory_option

F = TypeVar("F", bound=Callable[..., Any])
FILES = ("image", "audio", "video")


@dataclass(frozen=True)
class Question:
    """The cues of a command, and those options of recall that were given."""

    memory: Path | None
    words: str | None
    files: dict[str, tuple[Path, ...]]
    against: tuple[str, ...]
    weights: dict[str, float]
    trust: float = float("inf")
    leave_out_cues: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the memory's own methods."""
        media = {name: files or None for name, files in self.files.items()}
        return {
            "text": self.words, **media, "against": self.against, "weights": self.weights,
            "leave_out_cues": self.leave_out_cues, **self.options,
        }  # fmt: skip


def make_question(
    memory: Path | None, text: Sequence[str], image: tuple[Path, ...], audio: tuple[Path, ...],
    video: tuple[Path, ...], against: tuple[str, ...], weight: Sequence[str], where: str | None, k: int,
    leave_out_cues: bool, trust: float = float("inf"), **options: Any,
) -> Question:  # fmt: skip
    """Build the question from the values of :func:`cue_options`."""
    words, given = _sorted(text)
    files = {
        "image": image + given["image"],
        "audio": audio + given["audio"],
        "video": video + given["video"],
    }
    options |= {"k": k, "where": where}
    return Question(
        memory, " ".join(words) or None, files, against, weights(weight), trust, leave_out_cues, options
    )


def _sorted(text: Sequence[str]) -> tuple[list[str], dict[str, tuple[Path, ...]]]:
    """The words among the arguments, and the files, by modality; the content of a text file is words.

    A file has a suffix or a folder in its name, so that a file called "waves" leaves the word alone.
    UsageError for the name of a media file that does not exist.
    """
    words: list[str] = []
    files: dict[str, tuple[Path, ...]] = dict.fromkeys(FILES, ())
    for argument in text:
        path = Path(argument).expanduser()
        named = bool(path.suffix) or os.sep in argument
        if not named or (any(c.isspace() for c in argument.strip()) and not _is_file(path)):
            words.append(argument)
            continue
        if not _is_file(path):
            if argument.endswith(os.sep):
                raise click.UsageError(f"{argument} is a folder or missing: give a file, or words")
            if _has_media_suffix(path):
                raise click.UsageError(f"there is no file {argument}: check the path")
            words.append(argument)
            continue
        modality = _content(path)
        if modality == "text":
            from harmonia.modalities import text as texts

            words.append(str(texts.read(path).data))
        else:
            files[modality] += (path,)
    return words, files


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long for a name, or with a NUL
        return False


def _has_media_suffix(path: Path) -> bool:
    if len(path.suffix) > 9 or not path.stem:
        return False
    from harmonia.modalities import modality_of

    return modality_of(path) is not None


def _content(path: Path) -> str:
    """The modality of a file: what its first bytes say, else its suffix; HarmoniaError if neither does."""
    from harmonia.modalities import modality_of, sniff
    from harmonia.types import HarmoniaError

    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise HarmoniaError(f"{path} cannot be read ({error.strerror}): check its rights") from error
    named, seen = modality_of(path), sniff(head)
    # A container may hold sound alone, and a text-based image begins like text: there the suffix knows more.
    if named and (seen is None or seen == "text" or {named, seen} == {"audio", "video"}):
        return named
    if seen is None:
        raise HarmoniaError(
            f"{path} is neither an image, a sound, a video nor text: give another file, or words"
        )
    return seen


def cue_options(command: F) -> F:
    """Add the cue options to a command."""
    file = click.Path(dir_okay=False, path_type=Path)
    decorators: list[Any] = [
        memory_option,
        click.argument("text", nargs=-1),
        click.option("--image", type=file, multiple=True, help="Image cue, or part of an image."),
        click.option("--audio", type=file, multiple=True, help="Audio cue; it may be noisy or cut."),
        click.option("--video", type=file, multiple=True, help="Video cue; its audio track is a cue too."),
        click.option(
            "--not", "against", multiple=True, metavar="WORDS", help="Words to count against a record."
        ),
        click.option(
            "--weight", multiple=True, metavar="CUE=W", help="Weight of a cue, e.g. image=0.5; repeatable."
        ),
        click.option("--where", help="Filter on the metadata, e.g. \"tag = 'beach'\"."),
        click.option(
            "-k", type=click.IntRange(1), default=5, show_default=True, help="Number of records to show."
        ),
        click.option("--leave-out-cues", is_flag=True, help="Exclude records that hold a cue file."),
    ]
    decorated: Any = command
    for decorator in reversed(decorators):
        decorated = decorator(decorated)
    return cast(F, decorated)


def weights(values: Sequence[str]) -> dict[str, float]:
    """Parse ``image=0.5`` pairs; UsageError for anything else."""
    parsed = {}
    for value in values:
        name, _, number = value.rpartition("=")
        try:
            parsed[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            raise click.UsageError(f"--weight takes CUE=NUMBER, such as image=0.5 (got {value!r})")
    return parsed
