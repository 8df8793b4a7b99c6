"""AudioSet (Gemmeke et al., 2017): ten-second clips of YouTube videos with labels of 527 classes of sound."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from harmonia.data.tables import TABLE_ERRORS, Row, Rows
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    media_part,
    need,
    reason_of,
    require,
    require_one,
    require_split,
    rows_to_records,
    split_filter,
    text_parts,
)
from harmonia.modalities import modality_of
from harmonia.types import HarmoniaError, Record

HOW_TO_GET = (
    "load the *_segments.csv and class_labels_indices.csv from research.google.com/audioset/download.html "
    "(100 MB); the sounds themselves are on YouTube or from those who hold copies: put them as "
    "YTID.wav or .flac into a folder audio/ there"
)
SPLITS = {"train": "balanced_train", "unbalanced": "unbalanced_train", "test": "eval"}
"""Name of a split here, and in the names of the published files."""


def audioset(folder: str | Path | None = None, split: str = "train") -> Records:
    """Records of a clip's sound and the names of its classes, a text for each.

    Read: ``balanced_train_segments.csv``, ``unbalanced_train_segments.csv`` and ``eval_segments.csv`` as
    published (comment lines with ``#``; YTID, start_seconds, end_seconds, positive_labels),
    ``class_labels_indices.csv``, and the clips as :func:`clip_index` finds them in a folder ``audio`` or one
    named as the split. ``split``: train (balanced, 22,160 clips), unbalanced (2,041,789), test (20,371), or
    all.

    Metadata: dataset, split, name, path, youtube_id, ``start_seconds`` and ``end_seconds`` in the video that
    the clip was cut from, ``labels`` and their ``label_ids``. A clip that is not there (many of the
    videos are gone) is a Problem.
    """
    home = dataset_folder(folder, "audioset", "AudioSet", HOW_TO_GET)
    require_split(split, SPLITS, "AudioSet")
    chosen = {name: SPLITS[name] for name in filter(split_filter(split), SPLITS)}
    files = [f"{file}_segments.csv" for file in chosen.values()]
    require(home, ["class_labels_indices.csv", *files], "AudioSet", HOW_TO_GET)
    names = _class_names(home / "class_labels_indices.csv")
    return chain.from_iterable([_split(home, name, file, names) for name, file in chosen.items()])


def _split(home: Path, split: str, file: str, names: dict[str, str]) -> Records:
    clips = clip_index(home, (file, f"{file}_segments", split))

    def make(row: Row) -> Record:
        youtube_id = need(row, "youtube_id", str)
        start, end = (_seconds(row, name) for name in ("start", "end"))
        identifiers = need(row, "labels", str).split(",")
        if unknown := [one for one in identifiers if one not in names]:
            raise ValueError(f"{unknown[0]} is in no row of class_labels_indices.csv")
        labels = [names[one] for one in identifiers]
        sound = media_part("audio", find_clip(clips, youtube_id, start, end))
        return dataset_record(
            "audioset", split, youtube_id, (sound, *text_parts(labels)), youtube_id=youtube_id,
            start_seconds=start, end_seconds=end, labels=labels, label_ids=identifiers,
        )  # fmt: skip

    table = home / f"{file}_segments.csv"
    return rows_to_records(table, _segments(table), make)


def _segments(table: Path) -> Rows:
    """The rows of a segments file: its labels are one quoted cell after a blank."""
    with table.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, skipinitialspace=True)
        for cells in reader:
            if not cells or cells[0].startswith("#"):
                continue
            row = dict(zip(("youtube_id", "start", "end", "labels"), cells, strict=False))
            yield reader.line_num, row if len(cells) == 4 else "this is not YTID, start, end, labels"


def _class_names(table: Path) -> dict[str, str]:
    """Display name by machine id (``/m/09x0r``)."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            return {row["mid"]: row["display_name"] for row in csv.DictReader(file)}
    except (*TABLE_ERRORS, KeyError) as error:
        raise HarmoniaError(f"{table} cannot be read: {reason_of(error)}; load it again") from error


def _seconds(row: Row, name: str) -> float:
    cell = need(row, name, str)
    try:
        return float(cell)
    except ValueError:
        raise ValueError(f"its {name} is no number: {cell}") from None


# --- clips of YouTube videos, for AudioCaps too


def clip_index(home: Path, names: Sequence[str]) -> dict[str, str]:
    """Path of every sound by its file's name without suffix, in the folders that copies of AudioSet use:
    ``NAME``, ``audio/NAME`` and ``audio`` for each of ``names``. A HarmoniaError when none is there."""
    folders = [home / place / name for name in names for place in ("", "audio", "audios", "wav", "flac")]
    folders += [home / place for place in ("audio", "audios", "wav", "flac")]
    found = [folder for folder in folders if folder.is_dir()]
    if not found:
        require_one(home, ["audio", *names], "the sound of AudioSet's clips", HOW_TO_GET)
    # the more special folder comes first and wins
    return dict(chain.from_iterable(_sounds(folder) for folder in reversed(found)))


def _sounds(folder: Path) -> Iterator[tuple[str, str]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if modality_of(entry.name) == "audio":
                yield entry.name.rpartition(".")[0], os.path.abspath(entry.path)  # noqa: PTH100


def find_clip(clips: dict[str, str], youtube_id: str, start: float, end: float | None = None) -> Path:
    """The file of a clip under any of the names that downloaders give it: ``YTID``, ``YTID_START`` or
    ``YTID_START_END`` with seconds or milliseconds, with or without a Y in front. A ValueError if missing."""
    starts = _written(start)
    spans = ["", *(f"_{one}" for one in starts)]
    if end is not None:
        ends = _written(end)
        spans += [f"_{a}{mark}{b}" for a, b in zip(starts, ends, strict=True) for mark in "_-"]
    for prefix in ("", "Y"):
        for span in spans:
            if path := clips.get(f"{prefix}{youtube_id}{span}"):
                return Path(path)
    raise ValueError(f"there is no sound file of the clip {youtube_id} at {start:g} s")


def _written(seconds: float) -> list[str]:
    return [f"{seconds:g}", f"{seconds:.1f}", f"{seconds:.3f}", f"{round(seconds * 1000)}"]
