"""Any dataset of Hugging Face's ``datasets`` library, or in the files it writes; nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harmonia.data.manifest import column_holds, plain_value, row_record
from harmonia.data.records import absolute
from harmonia.data.tables import TABLE_ERRORS, Row
from harmonia.datasets.reading import (
    Records,
    cache_folder,
    reason_of,
    require_split,
    rows_to_records,
    split_name,
)
from harmonia.types import MODALITIES, HarmoniaError, Record

_TYPES = {"Image": "image", "Audio": "audio", "Video": "video"}
_SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|val|dev|test)(?![a-z])")


def hub(source: Any, split: str = "train", *, columns: Mapping[str, str] | None = None) -> Records:
    """The records of a Hugging Face dataset, read as a stream.

    ``source``: a folder written by ``save_to_disk``; a folder with ``.parquet`` or ``.arrow`` files, as a
    clone of a dataset's repository has them, whose names tell the split (``train-00000-of-00012.parquet``;
    else train); or a ``Dataset``, ``IterableDataset`` or ``DatasetDict`` that you have loaded, also a
    streamed one.
    ``split``: one that it has, or all.

    ``columns`` says what columns hold, and only these are parts: ``{"img": "image", "about": "text"}``.
    Without it the column's type tells (Image, Audio, Video), or its name as in a manifest (``caption``,
    ``text``).
    Media are taken as the bytes that were stored, not decoded and written anew, and become files in the
    cache folder. Other columns are metadata; a ClassLabel is given by its name.

    Metadata: dataset (the folder's name), split, path, and the other columns.
    """
    if isinstance(source, str | Path):
        folder = absolute(source)
        name, splits = folder.name, _from_folder(folder)
    else:
        folder = Path.cwd()
        splits = dict(source) if isinstance(source, Mapping) else {str(source.split or "train"): source}
        name = str(next(iter(splits.values())).info.dataset_name or "hub")
    require_split(split, splits, f"the dataset {name}")
    chosen = [one for one in splits if split == "all" or split_name(one) == split_name(split)]
    plans = [(one, splits[one], _plan(splits[one], name, columns)) for one in chosen]
    return (record for plan in plans for record in _records(folder, name, *plan))


def _records(folder: Path, name: str, split: str, dataset: Any, plan: Mapping[str, str]) -> Records:
    features = dataset.features or {}
    labels = {column: feature.names for column, feature in features.items() if hasattr(feature, "int2str")}
    cache = cache_folder() / "media"

    def make(row: Row) -> Record:
        cells = {column: _label(value, labels.get(column)) for column, value in row.items()}
        parts: dict[str, list[Any]] = {}
        for column, modality in plan.items():
            value = cells.pop(column, None)
            parts.setdefault(modality, []).extend(value if isinstance(value, list) else [value])
        record = row_record(parts, folder / name, cache)
        facts = {column: plain for column, cell in cells.items() if (plain := plain_value(cell)) is not None}
        path = next((part.path for part in record.parts if part.path), str(folder))
        own = {"dataset": name, "split": split_name(split), "path": path}
        return Record("", record.parts, dict(record.metadata) | facts | own)

    return rows_to_records(folder, _rows(dataset), make)


def _rows(dataset: Any) -> Iterator[tuple[int, Row]]:
    stream = dataset.to_iterable_dataset() if hasattr(dataset, "to_iterable_dataset") else dataset
    yield from enumerate(stream.decode(False) if stream.features else stream, start=1)


def _label(value: Any, names: list[str] | None) -> Any:
    if names is None or not isinstance(value, int):
        return value
    return names[value] if 0 <= value < len(names) else None  # -1: not labelled


def _plan(dataset: Any, name: str, columns: Mapping[str, str] | None) -> dict[str, str]:
    """The modality of each column that holds parts; a HarmoniaError when there is none."""
    features = dataset.features or dict.fromkeys(next(iter(dataset), {}))
    for column, modality in (columns or {}).items():
        if column not in features:
            raise HarmoniaError(f"the dataset {name} has no column {column}; it has {', '.join(features)}")
        if modality not in MODALITIES:
            raise HarmoniaError(f"a column cannot hold {modality}; name one of {', '.join(MODALITIES)}")
    plan = dict(columns or {})
    for column, feature in () if plan else features.items():
        kind = type(getattr(feature, "feature", feature)).__name__  # of a list: of its items
        told = _TYPES.get(kind) or column_holds(column)
        if told in MODALITIES:
            plan[column] = told
    if not plan:
        found = ", ".join(features)
        raise HarmoniaError(f"no column of {name} is known to hold parts ({found}); say it with columns")
    return plan


# --- files of datasets


def _from_folder(folder: Path) -> dict[str, Any]:
    """The dataset of each split that lies in a folder; a HarmoniaError when there is none."""
    datasets = _datasets()
    if not folder.is_dir():
        raise HarmoniaError(f"there is no folder {folder}; give one that holds a dataset's files")
    try:
        if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(str(folder))
            return dict(loaded) if isinstance(loaded, Mapping) else {str(loaded.split or "train"): loaded}
        return {split: _open(datasets, paths) for split, paths in _by_split(folder).items()}
    except (*TABLE_ERRORS, ValueError) as error:
        reason = reason_of(error)
        raise HarmoniaError(f"the dataset in {folder} cannot be read: {reason}; load it again") from error


def _by_split(folder: Path) -> dict[str, list[str]]:
    by_split: dict[str, list[str]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix in (".parquet", ".arrow")):
        named = _SPLIT.search(str(path.relative_to(folder)).lower())
        by_split.setdefault(split_name(named[1]) if named else "train", []).append(str(path))
    if not by_split:
        raise HarmoniaError(f"there is no .parquet or .arrow file in {folder}; give the dataset's folder")
    return by_split


def _open(datasets: Any, paths: list[str]) -> Any:
    if paths[0].endswith(".parquet"):
        return datasets.IterableDataset.from_parquet([path for path in paths if path.endswith(".parquet")])
    return datasets.concatenate_datasets([datasets.Dataset.from_file(path) for path in paths])


def _datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        raise HarmoniaError("this needs the package datasets: pip install 'harmonia[train]'") from error
    return datasets
