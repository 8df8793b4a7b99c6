"""Flickr8k (Hodosh, Young and Hockenmaier, 2013) and Flickr30k (Young et al., 2014): photos of people and
animals with five captions each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from harmonia.data.tables import Row, Rows
from harmonia.datasets.coco import karpathy
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    embedded_part,
    listed,
    media_part,
    need,
    reason_of,
    require,
    require_one,
    require_split,
    rows_to_records,
    split_filter,
    split_name,
    table_rows,
    text_lines,
    text_parts,
    texts,
)
from harmonia.types import HarmoniaError, Part, Record

HOW_TO_GET_8K = (
    "ask for it at hockenmaier.cs.illinois.edu, Framing Image Description (Flickr8k_Dataset.zip 1 GB with "
    "the photos, Flickr8k_text.zip 2 MB with Flickr8k.token.txt and Flickr_8k.*Images.txt), unpack both there"
)
HOW_TO_GET_30K = (
    "ask for it at shannon.cs.illinois.edu/DenotationGraph (flickr30k-images.tar.gz 4 GB, flickr30k.tar.gz "
    "with results_20130124.token) and unpack both there; the split is in Karpathy's dataset_flickr30k.json"
)
_PHOTOS_8K = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")
_PHOTOS_30K = ("flickr30k-images", "flickr30k_images", "Images", "images")
_LISTS_8K = {"train": "trainImages", "val": "devImages", "test": "testImages"}


def flickr8k(
    folder: str | Path | None = None, split: str = "train", *, languages: Sequence[str] = ("en",)
) -> Records:
    """Records of a photo and its captions.

    Read, whichever lies in the folder: ``images_captions.parquet`` (photos inside it; with
    ``captions_multilingual.parquet`` also captions that people wrote or translated in the other
    ``languages``), ``dataset_flickr8k.json`` (Karpathy), or the official ``Flickr8k.token.txt`` with
    ``Flickr_8k.{train,dev,test}Images.txt`` and the photos in ``Flicker8k_Dataset/``.
    ``split``: train (6,000), val or dev (1,000), test (1,000), or all.

    Metadata: dataset, split, image_id (the file's name), name, and ``languages``, one for each caption. A
    photo without a caption in any of the languages is left out.
    """
    home = dataset_folder(folder, "flickr8k", "Flickr8k", HOW_TO_GET_8K)
    if (home / "images_captions.parquet").exists():
        require_split(split, ("train", "val"), "this Flickr8k table")
        return _table(home, split, languages)
    if tuple(languages) != ("en",):
        raise HarmoniaError(
            "other languages than en are in captions_multilingual.parquet with its photos only"
        )
    require_split(split, _LISTS_8K, "Flickr8k")
    if (home / "dataset_flickr8k.json").exists():
        return karpathy(home, "flickr8k", split, require_one(home, _PHOTOS_8K, "Flickr8k", HOW_TO_GET_8K))
    wanted = split_filter(split)
    lists = {name: f"Flickr_8k.{file}.txt" for name, file in _LISTS_8K.items() if wanted(name)}
    require(home, ["Flickr8k.token.txt", *lists.values()], "Flickr8k", HOW_TO_GET_8K)
    splits = {photo: name for name, file in lists.items() for photo in listed(home / file)}
    tokens = home / "Flickr8k.token.txt"
    photos = require_one(home, _PHOTOS_8K, "Flickr8k", HOW_TO_GET_8K)
    return _by_photo(tokens, _token_rows(tokens), "flickr8k", photos, splits.get)


def flickr30k(folder: str | Path | None = None, split: str = "train") -> Records:
    """Records of a photo and its captions.

    Read, whichever lies in the folder: ``dataset_flickr30k.json`` (Karpathy; train 29,000, val 1,014, test
    1,000), else ``results_20130124.token`` or the later ``results.csv``. These two know no split: ``all``, or
    the lists of photo numbers ``{train,val,test}.txt`` of Flickr30k Entities beside them. The photos lie in
    ``flickr30k-images/``. Metadata as :func:`flickr8k`.
    """
    home = dataset_folder(folder, "flickr30k", "Flickr30k", HOW_TO_GET_30K)
    require_split(split, ("train", "val", "test"), "Flickr30k")
    photos = require_one(home, _PHOTOS_30K, "Flickr30k", HOW_TO_GET_30K)
    if (home / "dataset_flickr30k.json").exists():
        return karpathy(home, "flickr30k", split, photos)
    tokens = require_one(home, ("results_20130124.token", "results.csv"), "Flickr30k", HOW_TO_GET_30K)
    rows = _token_rows(tokens) if tokens.suffix == ".token" else _bar_rows(tokens)
    wanted = split_filter(split)
    if wanted("all"):
        return _by_photo(tokens, rows, "flickr30k", photos, lambda photo: "all")
    lists = [name for name in ("train", "val", "test") if wanted(name)]
    require(home, [f"{name}.txt" for name in lists], "the split of Flickr30k", HOW_TO_GET_30K)
    splits = {f"{number}.jpg": name for name in lists for number in listed(home / f"{name}.txt")}
    return _by_photo(tokens, rows, "flickr30k", photos, splits.get)


def _token_rows(path: Path) -> Rows:
    """``photo.jpg#0<tab>caption``."""
    for number, line in text_lines(path):
        key, tab, caption = line.partition("\t")
        photo, mark, _ = key.rpartition("#")
        yield (
            number,
            {"photo": photo, "caption": caption} if tab and mark else "this is not photo#number, tab, text",
        )


def _bar_rows(path: Path) -> Rows:
    """``photo.jpg| 0| caption`` after a heading; one row of the published file lacks its second bar."""
    for number, line in text_lines(path):
        cells = [cell.strip() for cell in line.split("|", 2)]
        if cells[0] == "image_name":
            continue
        yield (
            number,
            {"photo": cells[0], "caption": cells[2]} if len(cells) == 3 else "this is not photo|number|text",
        )


def _by_photo(
    table: Path, rows: Rows, dataset: str, photos: Path, split_of: Callable[[str], str | None]
) -> Records:
    """One record for the rows in succession that name one photo, as the published files have them."""

    def photo_of(row: tuple[int, Row | str]) -> str:
        return row[1]["photo"] if not isinstance(row[1], str) else ""

    def said() -> Rows:
        for photo, group in groupby(rows, photo_of):
            lines = list(group)
            if photo:
                yield (
                    lines[0][0],
                    {
                        "photo": photo,
                        "captions": [row["caption"] for _, row in lines if not isinstance(row, str)],
                    },
                )
            else:
                yield from lines

    def make(row: Row) -> Record | None:
        split = split_of(row["photo"])
        if split is None:
            return None
        photo = media_part("image", photos / row["photo"])
        return _record(dataset, split, row["photo"], photo, texts(row["captions"]))

    return rows_to_records(table, said(), make)


def _record(
    dataset: str,
    split: str,
    image_id: str,
    photo: Part,
    captions: Sequence[str],
    languages: Sequence[str] = (),
) -> Record:
    spoken = list(languages) or ["en"] * len(captions)
    parts = (photo, *text_parts(captions))
    return dataset_record(dataset, split, Path(image_id).stem, parts, image_id=image_id, languages=spoken)


# --- the form in tables


def _table(home: Path, split: str, languages: Sequence[str]) -> Records:
    others = [language for language in languages if language != "en"]
    translated: dict[str, list[tuple[str, str]]] = {}
    if others:
        require(home, ["captions_multilingual.parquet"], "Flickr8k in other languages", HOW_TO_GET_8K)
        translated = _translated(home / "captions_multilingual.parquet", split, others)
    wanted = split_filter(split)
    table = home / "images_captions.parquet"

    def make(row: Row) -> Record | None:
        own = split_name(need(row, "split", str))
        if not wanted(own):
            return None
        image_id = need(row, "image_id", str)
        english = texts(row.get("captions")) if "en" in languages else []
        other = translated.get(image_id, [])
        if not english and not other:
            return None
        captions = [*english, *(caption for _, caption in other)]
        names = ["en"] * len(english) + [language for language, _ in other]
        return _record("flickr8k", own, image_id, embedded_part("image", row.get("jpeg")), captions, names)

    return rows_to_records(table, table_rows(table), make)


def _translated(table: Path, split: str, languages: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """(language, caption) by photo; the table is ordered by language, so these are held (about 20 MB)."""
    wanted, known = split_filter(split), set()
    said: dict[str, list[tuple[str, str]]] = {}
    try:
        for _, row in table_rows(table):
            if isinstance(row, str):
                continue
            known.add(row["lang"])
            if row["lang"] in languages and wanted(str(row["split"])):
                said.setdefault(row["image_id"], []).append((row["lang"], row["caption"]))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise HarmoniaError(f"{table} cannot be read: {reason_of(error)}; load it again") from error
    if absent := [language for language in languages if language not in known]:
        raise HarmoniaError(
            f"{table.name} has no captions in {', '.join(absent)}; it has {', '.join(sorted(known))}"
        )
    return said
