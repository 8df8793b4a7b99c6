"""The cue options of recall, retrieve and ask, and the question that is built from them."""

from __future__ import annotations

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
    files = {"image": image, "audio": audio, "video": video}
    options |= {"k": k, "where": where}
    return Question(
        memory, " ".join(text) or None, files, against, weights(weight), trust, leave_out_cues, options
    )


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
