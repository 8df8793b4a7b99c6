"""The demo: remember a collection of real media, recall whole records from parts of them.

``make demo`` runs it on the starter collection, ``make demo MEDIA=folder`` on the user's own files.
Everything it makes lies in the folder ``demo``: media, memory, cues and the contact sheet.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

import harmonia
from examples.starter import build
from harmonia.collection.collection import Memory
from harmonia.modalities import MODALITIES, audio, image, video
from harmonia.tasks.contact_sheet import draw_sheet, save_sheet
from harmonia.types import HarmoniaError, Recollection, Record, Signal

FOLDER = Path("demo")
ACROSS = 4


@dataclass(frozen=True)
class Try:
    """One recall of the demo: what is given, the record that should come first (its id or name).

    ``alone``: each cue by itself must fail, so that the cues are needed together.
    """

    what: str
    cues: Sequence[tuple[str, str | Path]]
    wanted: str
    alone: bool = False


def damaged(path: Path, variance: float, seed: int, *, lower: bool = False, crop: float = 1.0) -> Signal:
    """An image with Gaussian noise (variance on the [0, 1] scale), or only its centre or upper half."""
    pixels = image.read(path, max_side=512).array.astype(np.float32) / 255
    height, width, _ = pixels.shape
    top, left = int(height * (1 - crop) / 2), int(width * (1 - crop) / 2)
    pixels = pixels[top : height - top, left : width - left].copy()
    if lower:
        pixels[len(pixels) // 2 :] = 0
    pixels += np.random.default_rng(seed).normal(0, variance**0.5, pixels.shape)
    return Signal("image", (pixels.clip(0, 1) * 255).round().astype(np.uint8))


def noisy(sound: Signal, decibels: float, seed: int) -> Signal:
    """Audio with white noise at a signal-to-noise ratio in decibels."""
    noise = np.random.default_rng(seed).normal(0, 1, sound.array.shape)
    level = np.sqrt(np.mean(sound.array**2) / 10 ** (decibels / 10))
    mixed: NDArray[np.float32] = (sound.array + level * noise).astype(np.float32)
    return Signal("audio", mixed / max(1.0, float(np.abs(mixed).max())), rate=sound.rate)


def starter_tries(media: Path, cues: Path) -> Iterator[Try]:
    """Cues of several kinds for the starter collection; their files are written to ``cues``."""
    pictures, spoken = media / "pictures", media / "pictures" / "rocket.wav"

    def photo(name: str, signal: Signal) -> tuple[str, Path]:
        image.write(signal, cues / name)
        return "image", cues / name

    def sound(name: str, signal: Signal) -> tuple[str, Path]:
        audio.write(signal, cues / name)
        return "audio", cues / name

    half = photo("half-cat.png", damaged(pictures / "cat.png", 0.3, 1, lower=True))
    yield Try("the upper half of a photo, in noise", [half], "cat")
    crop = photo("cropped-man.png", damaged(pictures / "photographer.png", 0.05, 2, crop=0.86))
    yield Try("a note from a cropped, noised picture", [crop], "photographer")
    yield Try("a few words", [("text", "waves on a beach")], "surf")
    yield Try("words out of a long note", [("text", "lentils and garlic")], "lentil-soup")
    if spoken.exists():
        yield Try("noisy speech", [sound("noisy-speech.wav", noisy(audio.read(spoken), 5, 3))], "rocket")
    track = next(iter(video.windows(media / "videos" / "countdown.mp4"))).sound
    if track is not None:
        heard = sound("noisy-soundtrack.wav", noisy(track, 3, 4))
        yield Try("a video from its sound", [heard], "countdown")
    ride = next(iter(video.windows(media / "videos" / "ride.mp4")))
    cut = Signal("video", ride.array[: len(ride.array) // 2], rate=ride.rate, times=None, sound=None)
    video.write(cut, cues / "half-ride.mp4")
    yield Try("the first frames of a video, silent", [("video", cues / "half-ride.mp4")], "ride")
    patch = photo("patch.png", damaged(pictures / "motorcycle.png", 0.3, 0, crop=0.7))
    yield Try("two weak cues together", [("text", "red"), patch], "motorcycle", alone=True)


def own_tries(collection: Memory, cues: Path) -> Iterator[Try]:
    """Cues from the first records of each modality in the user's own media."""
    made: dict[str, int] = {}
    for record in collection.store.records():
        for part in record.parts:
            if made.get(part.modality, 0) >= 2 or part.path is None:
                continue
            try:
                cue = _own_cue(part.modality, collection.root / part.path, cues, sum(made.values()))
            except HarmoniaError as error:
                click.echo(f"left out: {error}", err=True)
                continue
            if cue:
                made[part.modality] = made.get(part.modality, 0) + 1
                yield Try(f"part of {Path(part.path).name} ({part.modality})", [cue], record.id)
                break


def _own_cue(modality: str, path: Path, cues: Path, number: int) -> tuple[str, str | Path] | None:
    target = cues / f"own-{number}"
    if modality == "image":
        image.write(damaged(path, 0.1, number, lower=True), target.with_suffix(".png"))
        return "image", target.with_suffix(".png")
    if modality == "audio" and path.suffix.lower() in audio.SUFFIXES:
        window = next(iter(audio.windows(path)))
        audio.write(noisy(window, 10, number), target.with_suffix(".wav"))
        return "audio", target.with_suffix(".wav")
    if modality == "text" and path.suffix.lower() in MODALITIES["text"].SUFFIXES:
        words = MODALITIES["text"].read(path).text.split()
        return "text", " ".join(words[:6])
    return None


def recall(collection: Memory, cues: Sequence[tuple[str, str | Path]]) -> Recollection:
    """Recall by all cues together."""
    given: dict[str, str | Path] = dict(cues)
    return collection.recall(**given, k=ACROSS)  # type: ignore[arg-type]


def first(found: Recollection, wanted: str) -> bool:
    """Whether the expected record (by id or name) ranks first."""
    record = found.records[0].record if found.records else None
    return record is not None and wanted in (record.id, record.metadata.get("name"))


@click.command()
@click.option("--media", type=click.Path(exists=True, path_type=Path), help="Your own files instead.")
def main(media: Path | None) -> None:
    """Remember, recall from parts, print the table, draw the contact sheet."""
    cues = FOLDER / "cues"
    cues.mkdir(parents=True, exist_ok=True)
    if media is None:
        source, root = FOLDER / "media", FOLDER / "memory"
        click.echo("making the starter collection of real media")
        for line in build(source).left_out:
            click.echo(f"left out: {line}")
    else:
        source, root = media, FOLDER / "own-memory"
    collection = harmonia.open(root)
    report = collection.remember(source, progress=True)
    status = collection.status()
    held = ", ".join(f"{count} {name}" for name, count in status["parts"].items())
    click.echo(f"remembered {report.remembered} records, knew {report.already}; parts held: {held}")
    for problem in report.problems:
        click.echo(f"not remembered: {problem.path}: {problem.reason}")
    tries = list(starter_tries(source, cues) if media is None else own_tries(collection, cues))
    if not tries:
        raise HarmoniaError(f"nothing in {source} to make a cue from: give photos, sounds or notes")
    found = [recall(collection, one.cues) for one in tries]
    good = [_holds(collection, one, f) for one, f in zip(tries, found, strict=True)]
    _print(tries, found, good)
    sheet = FOLDER / ("recollections.png" if media is None else "own-recollections.png")
    rows = [(one.cues, f) for one, f in zip(tries, found, strict=True)]
    save_sheet(draw_sheet(rows, collection.root, across=ACROSS), sheet)
    _farewell(sheet, root)
    if not all(good):
        sys.exit(f"harmonia: {good.count(False)} of {len(good)} cues did not bring their record first")


def _holds(collection: Memory, one: Try, found: Recollection) -> bool:
    return first(found, one.wanted) and not (one.alone and _answered_alone(collection, one))


def _answered_alone(collection: Memory, one: Try) -> bool:
    """Whether one of the cues by itself brings the record first, without "nothing here matches"."""
    alone = [recall(collection, [cue]) for cue in one.cues]
    return any(first(found, one.wanted) and not found.abstained for found in alone)


def _print(tries: Sequence[Try], found: Sequence[Recollection], good: Sequence[bool]) -> None:
    table = Table(box=box.SIMPLE_HEAD, title="Whole records from parts of them", title_justify="left")
    for column in ("given", "recalled first", "probability", "with it come", ""):
        table.add_column(column, justify="right" if column == "probability" else "left")
    for one, recollection, holds in zip(tries, found, good, strict=True):
        best = recollection.records[0]
        what = one.what + (" (each alone fails)" if one.alone and holds else "")
        name = str(best.record.metadata.get("name", best.record.id[:8]))
        parts = ", ".join(_kinds(best.record))
        cells = (what, name, f"{best.probability:.0%}", parts, "ok" if holds else "MISSED")
        table.add_row(*(Text(cell) for cell in cells))
    Console().print(table)


def _kinds(record: Record) -> list[str]:
    return list(dict.fromkeys(part.modality for part in record.parts))


def _farewell(sheet: Path, root: Path) -> None:
    click.echo(f"look at {sheet}: cues on the left, what came back on the right")
    click.echo(f"ask it yourself: .venv/bin/harmonia recall --memory {root} a voice counts down")


if __name__ == "__main__":
    try:
        main()
    except HarmoniaError as error:
        sys.exit(f"harmonia: {error}")
