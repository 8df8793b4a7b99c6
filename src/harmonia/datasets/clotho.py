"""Clotho (Drossos, Lipping and Virtanen, 2020): field recordings of 15 to 30 seconds, five captions each."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from harmonia.data.tables import Row
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    media_part,
    need,
    require_one,
    require_split,
    rows_to_records,
    split_filter,
    table_rows,
    text_parts,
    texts,
)
from harmonia.types import Record

HOW_TO_GET = (
    "load clotho_audio_*.7z (7 GB) and clotho_captions_*.csv of Clotho 2.1 from zenodo.org/records/4783391 "
    "and unpack the sounds there"
)
SPLITS = {"train": "development", "val": "validation", "test": "evaluation"}
"""Name of a split here, and in the names of the published files."""


def clotho(folder: str | Path | None = None, split: str = "train") -> Records:
    """Records of a sound and its five captions.

    Read: ``clotho_captions_{development,validation,evaluation}.csv`` as published (file_name, caption_1 to
    caption_5), and the sounds in ``development/``, ``validation/``, ``evaluation/``. ``split``: train
    (3,839), val (1,045), test (1,045), or all. Metadata: dataset, split, name, path.
    """
    home = dataset_folder(folder, "clotho", "Clotho", HOW_TO_GET)
    require_split(split, SPLITS, "Clotho")
    plan = []
    for name in filter(split_filter(split), SPLITS):
        file = SPLITS[name]
        table = require_one(home, [f"clotho_captions_{file}.csv"], "Clotho", HOW_TO_GET)
        places = (file, f"clotho_audio_{file}", f"clotho_audio_{file}/{file}", f"audio/{file}")
        plan.append((name, table, require_one(home, places, "Clotho", HOW_TO_GET)))
    return chain.from_iterable(_split(*one) for one in plan)


def _split(split: str, table: Path, sounds: Path) -> Records:
    def make(row: Row) -> Record:
        file = need(row, "file_name", str)
        captions = texts([row.get(f"caption_{number}") for number in range(1, 6)])
        sound = media_part("audio", sounds / file)
        return dataset_record("clotho", split, Path(file).stem, (sound, *text_parts(captions)))

    return rows_to_records(table, table_rows(table), make)
