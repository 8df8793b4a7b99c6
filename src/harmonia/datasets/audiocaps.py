"""AudioCaps (Kim et al., 2019): captions that people wrote for clips of AudioSet."""

from __future__ import annotations

import csv
from itertools import chain
from pathlib import Path
from typing import Any

from harmonia.data.tables import Row, Rows
from harmonia.datasets.audioset import clip_index, find_clip
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    media_part,
    need,
    require,
    require_split,
    rows_to_records,
    split_filter,
    text_parts,
)
from harmonia.types import Record

HOW_TO_GET = (
    "load train.csv, val.csv and test.csv (5 MB) from github.com/cdjkim/audiocaps, folder dataset, and put "
    "the clips of AudioSet that they name as YTID.wav or .flac into a folder audio/ there"
)
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")


def audiocaps(folder: str | Path | None = None, split: str = "train") -> Records:
    """Records of a clip's sound and its captions: one in train, five in val and test.

    Read: ``train.csv``, ``val.csv``, ``test.csv`` as published (audiocap_id, youtube_id, start_time,
    caption), here or in ``dataset/``, and the ten-second clips, named as for
    :func:`~harmonia.datasets.audioset.audioset`, in a folder ``audio`` or one named as the split. ``split``:
    train (49,838 clips), val (495), test (975), or all.

    Metadata: dataset, split, name, path, youtube_id, start_seconds, and ``caption_ids``. A clip that is
    not there is a Problem.
    """
    home = dataset_folder(folder, "audiocaps", "AudioCaps", HOW_TO_GET)
    require_split(split, ("train", "val", "test"), "AudioCaps")
    chosen = list(filter(split_filter(split), ("train", "val", "test")))
    tables = home / "dataset" if (home / "dataset").is_dir() else home
    require(tables, [f"{name}.csv" for name in chosen], "AudioCaps", HOW_TO_GET)
    return chain.from_iterable([_split(home, name, tables / f"{name}.csv") for name in chosen])


def _split(home: Path, split: str, table: Path) -> Records:
    clips = clip_index(home, (split,))

    def make(row: Row) -> Record:
        youtube_id, start = need(row, "youtube_id", str), need(row, "start_time", float)
        sound = media_part("audio", find_clip(clips, youtube_id, start, start + 10))
        return dataset_record(
            "audiocaps", split, youtube_id, (sound, *text_parts(row["captions"])),
            youtube_id=youtube_id, start_seconds=start, caption_ids=row["caption_ids"],
        )  # fmt: skip

    return rows_to_records(table, _clips(table), make)


def _clips(table: Path) -> Rows:
    """One row for every clip with all its captions, which need not stand together in the file: the captions
    of one split (5 MB) are held."""
    clips: dict[tuple[str, float], tuple[int, dict[str, Any]]] = {}
    with table.open(encoding="utf-8-sig", newline="") as file:
        for number, row in enumerate(csv.DictReader(file), start=1):
            try:
                start = float(row["start_time"])
                identifier, youtube_id, caption = (
                    row[name].strip() for name in COLUMNS if name != "start_time"
                )
            except (KeyError, ValueError, TypeError, AttributeError):
                yield number, f"this is not a row of {', '.join(COLUMNS)}"
                continue
            if not caption:
                yield number, "its caption is missing"
                continue
            fresh: dict[str, Any] = {
                "youtube_id": youtube_id,
                "start_time": start,
                "captions": [],
                "caption_ids": [],
            }
            _, clip = clips.setdefault((youtube_id, start), (number, fresh))
            clip["captions"].append(caption)
            clip["caption_ids"].append(identifier)
    yield from clips.values()
