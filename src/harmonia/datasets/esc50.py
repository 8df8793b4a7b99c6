"""ESC-50 (Piczak, 2015): 2,000 field recordings of five seconds in 50 classes; ESC-10 is its part with ten
classes that may be shared freely."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from harmonia.data.tables import TABLE_ERRORS, Row
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    embedded_part,
    media_part,
    need,
    reason_of,
    require,
    require_split,
    rows_to_records,
    split_filter,
    table_rows,
    text_parts,
)
from harmonia.types import HarmoniaError, Record

HOW_TO_GET = (
    "load it from github.com/karolpiczak/ESC-50 (600 MB: audio/ and meta/esc50.csv) and unpack it there"
)

Splitter = Callable[[int], str | None]


def esc50(
    folder: str | Path | None = None,
    split: str = "train",
    *,
    test_folds: Collection[int] = (5,),
    esc10_only: bool = False,
) -> Records:
    """Records of a sound and the name of its class ("chirping birds").

    Read: ``meta/esc50.csv`` as published (filename, fold, target, category, esc10, src_file, take) and the
    WAV files in ``audio/``. ``split``: test is the clips of ``test_folds``, train the other folds, or all;
    five-fold cross-validation runs with every fold in turn. Clips of one recording share a fold.
    ``esc10_only`` keeps the 400 clips of ESC-10.

    Metadata: dataset, split, name, path, label, label_id, fold, ``recording`` (the id on Freesound), take.
    """
    home = dataset_folder(folder, "esc50", "ESC-50", HOW_TO_GET)
    require_split(split, ("train", "test"), "ESC-50")
    require(home, ["meta/esc50.csv", "audio"], "ESC-50", HOW_TO_GET)
    table = home / "meta" / "esc50.csv"
    split_of = _splitter(split, test_folds)
    name = "esc10" if esc10_only else "esc50"

    def make(row: Row) -> Record | None:
        own = split_of(_whole_number(row, "fold"))
        if own is None or (esc10_only and need(row, "esc10", str).lower() != "true"):
            return None
        file, label = need(row, "filename", str), need(row, "category", str).replace("_", " ")
        sound = media_part("audio", home / "audio" / file)
        return dataset_record(
            name, own, Path(file).stem, (sound, *text_parts([label])), label=label,
            label_id=_whole_number(row, "target"), fold=_whole_number(row, "fold"),
            recording=row.get("src_file"), take=row.get("take"),
        )  # fmt: skip

    return rows_to_records(table, table_rows(table), make)


def esc10(
    folder: str | Path | None = None, split: str = "train", *, test_folds: Collection[int] | None = None
) -> Records:
    """Records of a sound and the name of its class, of the ten classes of ESC-10.

    Read: ``clips.parquet`` (file, label, label_id, fold, freesound_id, take, ogg, license) with the sounds
    inside it, else the published form as :func:`esc50` with ``esc10_only``. ``test_folds`` is the last
    fold there when not given. Metadata as :func:`esc50`, and ``license`` from the table.
    """
    home = dataset_folder(folder, "esc10", "ESC-10", HOW_TO_GET)
    table = home / "clips.parquet"
    if not table.exists():
        return esc50(home, split, test_folds=test_folds or (5,), esc10_only=True)
    require_split(split, ("train", "test"), "ESC-10")
    split_of = _splitter(split, test_folds or (_last_fold(table),))

    def make(row: Row) -> Record | None:
        own = split_of(need(row, "fold", int))
        if own is None:
            return None
        file, label = need(row, "file", str), need(row, "label", str)
        sound = embedded_part("audio", row.get("ogg"), file)
        return dataset_record(
            "esc10", own, Path(file).stem, (sound, *text_parts([label])), label=label,
            label_id=need(row, "label_id", int), fold=row["fold"],
            recording=row.get("freesound_id"), take=row.get("take"), license=row.get("license"),
        )  # fmt: skip

    return rows_to_records(table, table_rows(table), make)


def _splitter(split: str, test_folds: Collection[int]) -> Splitter:
    """The split of a fold when it is wanted, else None."""
    wanted = split_filter(split)

    def split_of(fold: int) -> str | None:
        own = "test" if fold in test_folds else "train"
        return own if wanted(own) else None

    return split_of


def _last_fold(table: Path) -> int:
    try:
        return int(pc.max(pq.read_table(table, columns=["fold"])["fold"]).as_py())
    except (*TABLE_ERRORS, pa.ArrowInvalid, KeyError, TypeError) as error:
        raise HarmoniaError(f"{table} cannot be read: {reason_of(error)}; load it again") from error


def _whole_number(row: Row, name: str) -> int:
    cell = need(row, name, str)
    if not cell.isdecimal():
        raise ValueError(f"its {name} is no number: {cell}")
    return int(cell)
