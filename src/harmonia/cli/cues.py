"""The options that give cues, and the question that recall, retrieve and ask put to a memory."""

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
    """What a command asks: its cues, and the options of recall that were given."""

    memory: Path | None
    words: str | None
    files: dict[str, tuple[Path, ...]]
    against: tuple[str, ...]
    weights: dict[str, float]
    trust: float = float("inf")
    leave_out_cues: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """As the memory's own methods take it."""
        media = {name: files or None for name, files in self.files.items()}
        return {
            "text": self.words, **media, "against": self.against, "weights": self.weights,
            "leave_out_cues": self.leave_out_cues, **self.options,
        }  # fmt: skip


def question(
    memory: Path | None, text: Sequence[str], image: tuple[Path, ...], audio: tuple[Path, ...],
    video: tuple[Path, ...], against: tuple[str, ...], weight: Sequence[str], where: str | None, k: int,
    leave_out_cues: bool, trust: float = float("inf"), **options: Any,
) -> Question:  # fmt: skip
    """The question of a command with :func:`cue_options`."""
    files = {"image": image, "audio": audio, "video": video}
    options |= {"k": k, "where": where}
    return Question(
        memory, " ".join(text) or None, files, against, weights(weight), trust, leave_out_cues, options
    )


def cue_options(command: F) -> F:
    """The options that give cues."""
    file = click.Path(dir_okay=False, path_type=Path)
    decorators: list[Any] = [
        memory_option,
        click.argument("text", nargs=-1),
        click.option("--image", type=file, multiple=True, help="Image, or a part of one."),
        click.option("--audio", type=file, multiple=True, help="Audio, noisy or cut."),
        click.option("--video", type=file, multiple=True, help="Video; its audio is a cue too."),
        click.option("--not", "against", multiple=True, metavar="WORDS", help="Words that count against."),
        click.option("--weight", multiple=True, metavar="CUE=W", help="Weight of a cue, e.g. image=0.5."),
        click.option("--where", help="Condition on the metadata, e.g. \"tag = 'beach'\"."),
        click.option("-k", type=click.IntRange(1), default=5, show_default=True, help="Number of records."),
        click.option("--leave-out-cues", is_flag=True, help="Leave out the records of the cue files."),
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
