"""A starter collection of real media, made without a download: ``python -m examples.starter FOLDER``.

The pictures come with scikit-image and scikit-learn, the speech from espeak-ng; the other sounds
are computed, the videos rendered from the pictures. Texts are in :mod:`examples.words`.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from examples import movies, sounds, words
from examples.speech import SpeechMissing, speak
from harmonia.modalities import audio, image, modality_of, video
from harmonia.modalities.limits import replacing
from harmonia.types import HarmoniaError, Signal

Write = Callable[[Path], None]


class PictureMissing(HarmoniaError):
    """Raised if an image is not among the files of the installed package."""


@dataclass(frozen=True)
class Summary:
    """The collection in ``folder``: its files by modality, how many of them this call has written,
    and one line for every file that could not be made."""

    folder: Path
    files: Mapping[str, int]
    written: int
    left_out: tuple[str, ...]


def build(folder: str | Path) -> Summary:
    """Write the collection; existing files are kept.

    About 40 records in ``pictures`` (each with a caption, some also spoken), ``album`` (details of
    pictures with a manifest), ``sounds``, ``videos`` and ``notes``. Without speech or without a
    picture, what needs it is left out.
    """
    folder = Path(folder)
    files: Counter[str] = Counter()
    written = 0
    left_out: list[str] = []
    try:
        for record in _plan(folder):
            for path, write in record:
                try:
                    written += _write_once(path, write)
                except (SpeechMissing, PictureMissing) as error:
                    left_out.append(f"{path.relative_to(folder)}: {error}")
                    if path == record[0][0]:
                        break  # what describes a missing file is left out with it
                else:
                    files[modality_of(path) or "other"] += 1
    except OSError as error:
        raise HarmoniaError(f"cannot write the collection into {folder}: {error}") from error
    return Summary(folder, dict(files), written, tuple(left_out))


def _write_once(path: Path, write: Write) -> bool:
    """Write a file unless it exists; returns whether it was written."""
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path)
    return True


def _plan(folder: Path) -> Iterator[list[tuple[Path, Write]]]:
    """The files of every record and the functions that write them; the first file is required."""
    yield [(folder / "CREDITS", partial(_write_text, words.CREDITS))]
    for name, picture in words.PICTURES.items():
        stem = folder / "pictures" / name
        suffix = Path(picture.source).suffix
        files: list[tuple[Path, Write]] = [
            (stem.with_suffix(suffix), partial(_copy_picture, picture.source)),
            (stem.with_suffix(".txt"), partial(_write_text, picture.caption + "\n")),
        ]
        if picture.voice:
            read_out = partial(_write_speech, picture.voice, picture.caption)
            files.append((stem.with_suffix(".wav"), read_out))
        yield files
    for name, detail in words.DETAILS.items():
        yield [(folder / "album" / f"{name}.jpg", partial(_write_detail, detail))]
    yield [(folder / "album" / "metadata.jsonl", _write_manifest)]
    for name, make in sounds.ALL.items():
        yield _described(folder / "sounds" / f"{name}.flac", partial(_write_sound, make), words.SOUNDS[name])
    for name, (voice, text, caption) in words.MESSAGES.items():
        yield _described(folder / "sounds" / f"{name}.wav", partial(_write_speech, voice, text), caption)
    for name, make_video in VIDEOS.items():
        yield _described(
            folder / "videos" / f"{name}.mp4", partial(_write_video, make_video), words.VIDEOS[name]
        )
    for name, note in words.NOTES.items():
        yield [(folder / "notes" / f"{name}.txt", partial(_write_text, note))]


def _described(path: Path, write: Write, caption: str) -> list[tuple[Path, Write]]:
    return [(path, write), (path.with_suffix(".txt"), partial(_write_text, caption + "\n"))]


# --- writers: what to write comes first, so that the plan can bind it


def _write_text(text: str, path: Path) -> None:
    with replacing(path) as draft:
        draft.write_text(text, "utf-8")


def _copy_picture(source: str, path: Path) -> None:
    with replacing(path) as draft:
        shutil.copyfile(_picture_path(source), draft)


def _write_detail(detail: words.Detail, path: Path) -> None:
    image.write(Signal("image", np.asarray(_picture(detail.source).crop(detail.box))), path)


def _write_manifest(path: Path) -> None:
    rows = [
        {"file_name": f"{name}.jpg", "caption": detail.caption, "tags": list(detail.tags)}
        for name, detail in words.DETAILS.items()
        if path.with_name(f"{name}.jpg").exists()
    ]
    _write_text("".join(json.dumps(row) + "\n" for row in rows), path)


def _write_sound(make: Callable[[], sounds.Samples], path: Path) -> None:
    audio.write(_sound(make), path)


def _write_speech(voice: str, text: str, path: Path) -> None:
    audio.write(speak(text, voice), path)


def _write_video(make: Callable[[], Signal], path: Path) -> None:
    video.write(make(), path)


# --- videos

# 192, 240 and 320 pixels wide, x264 (its macroblock tree) gave another file at every build
SIZE = (256, 192)


def _countdown() -> Signal:
    voice, text = words.COUNTDOWN
    picture = _picture("skimage/rocket.jpg")
    start, end = (160, 245, 400, 425), (230, 60, 410, 195)
    return movies.move(picture, start, end, SIZE, speak(text, voice, words_per_minute=120))


def _colour_wheel() -> Signal:
    return movies.turn(_picture("skimage/color.png"), -180, (256, 256), _sound(sounds.scale))


def _ride() -> Signal:
    picture = _picture("skimage/motorcycle_left.png")
    start, end = (10, 170, 330, 410), (400, 60, 720, 300)
    return movies.move(picture, start, end, SIZE, _sound(sounds.motor))


def _stargazing() -> Signal:
    picture = _picture("skimage/hubble_deep_field.jpg")
    start, end = (0, 61, 1000, 811), (60, 355, 180, 445)
    return movies.move(picture, start, end, SIZE, _sound(sounds.chord))


VIDEOS: dict[str, Callable[[], Signal]] = {
    "colour-wheel": _colour_wheel,
    "countdown": _countdown,
    "ride": _ride,
    "stargazing": _stargazing,
}


def _sound(make: Callable[[], sounds.Samples]) -> Signal:
    return Signal("audio", make().astype(np.float32)[None], rate=float(sounds.RATE))


# --- pictures of the installed packages


_FOLDERS = {"skimage": ("scikit-image", "data"), "sklearn": ("scikit-learn", "datasets/images")}


def _picture_path(source: str) -> Path:
    """The path of ``package/name``, located without importing the package or downloading."""
    package, name = source.split("/")
    project, folder = _FOLDERS[package]
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise PictureMissing(f"{project} is not installed; pip install {project}")
    path = Path(found.submodule_search_locations[0], folder, name)
    if not path.exists():
        raise PictureMissing(f"this version of {project} comes without {name}")
    return path


def _picture(source: str) -> Image.Image:
    with Image.open(_picture_path(source)) as opened:
        return opened.convert("RGB")


def main() -> None:
    """Write the collection to a folder and print a summary."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m examples.starter FOLDER")
    try:
        summary = build(sys.argv[1])
    except HarmoniaError as error:
        sys.exit(str(error))
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(summary.files.items()))
    print(f"{summary.folder}: {counts}; {summary.written} files written")
    for line in summary.left_out:
        print(f"left out: {line}")


if __name__ == "__main__":
    main()
