"""MS-COCO captions: photos with five captions each (Lin et al., 2014, arXiv:1405.0312; Chen et al., 2015,
arXiv:1504.00325), by the official files or by the Karpathy split."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from harmonia.data.tables import Row
from harmonia.datasets.json_stream import json_items
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    json_rows,
    media_part,
    need,
    reason_of,
    require,
    require_one,
    require_split,
    rows_to_records,
    split_filter,
    split_name,
    text_parts,
    texts,
)
from harmonia.types import HarmoniaError, Record

HOW_TO_GET = (
    "load the images and annotations from cocodataset.org, Download (train2017.zip 18 GB, val2017.zip 1 GB, "
    "annotations_trainval2017.zip 241 MB), and unpack them there"
)
HOW_TO_GET_2014 = (
    "load train2014.zip (13 GB) and val2014.zip (6 GB) from cocodataset.org, Download, and unpack them there"
)
HOW_TO_GET_KARPATHY = (
    "dataset_{name}.json is in caption_datasets.zip (36 MB) on the page of Karpathy and Fei-Fei, Deep "
    "Visual-Semantic Alignments, cs.stanford.edu/people/karpathy/deepimagesent"
)


def coco(folder: str | Path | None = None, split: str = "train", *, year: int = 2017) -> Records:
    """Records of a photo and its captions, by ``annotations/captions_{train,val}{year}.json``.

    The photos lie in ``{split}{year}/``. ``split``: train, val, ``train+val`` or all. The official file lists
    captions in no order, so the captions of one split (about 100 MB) are held; records stream.
    Metadata: dataset, split, image_id, name, caption_ids, path, licence (the number that the file gives it).
    """
    home = dataset_folder(folder, "coco", "MS-COCO", HOW_TO_GET)
    require_split(split, ("train", "val"), "MS-COCO captions")
    plan = []
    for name in filter(split_filter(split), ("train", "val")):
        captions = f"captions_{name}{year}.json"
        table = require_one(home, (f"annotations/{captions}", captions), "MS-COCO", HOW_TO_GET)
        photos = require_one(home, (f"{name}{year}", f"images/{name}{year}"), "MS-COCO", HOW_TO_GET)
        plan.append((name, table, photos))
    return chain.from_iterable(_official(*one) for one in plan)


def _official(split: str, table: Path, photos: Path) -> Records:
    said: dict[int, list[tuple[int, str]]] = {}
    try:
        for row in json_items(table, "annotations"):
            match row:
                case {"image_id": int(image), "id": int(number), "caption": str(caption)} if caption.strip():
                    said.setdefault(image, []).append((number, caption))
    except (OSError, ValueError) as error:
        raise HarmoniaError(f"{table} is damaged: {reason_of(error)}; load it again") from error

    def make(row: Row) -> Record:
        image = need(row, "id", int)
        captions = texts([caption for _, caption in said.get(image, [])])
        file = need(row, "file_name", str)
        photo = media_part("image", photos / file)
        facts = {
            "image_id": image,
            "caption_ids": [number for number, _ in said[image]],
            "licence": row.get("license"),
        }
        return dataset_record("coco", split, Path(file).stem, (photo, *text_parts(captions)), **facts)

    yield from rows_to_records(table, json_rows(table, "images"), make)


def coco_karpathy(folder: str | Path | None = None, split: str = "train") -> Records:
    """Records of a photo and its captions, by ``dataset_coco.json`` (Karpathy and Fei-Fei, 2015).

    ``split``: train (82,783 photos), restval (30,504), val (5,000), test (5,000), several joined as
    ``train+restval`` (the usual training set) or all. The photos lie in ``train2014/`` and ``val2014/``.
    """
    home = dataset_folder(folder, "coco", "MS-COCO", HOW_TO_GET_2014)
    require_split(split, ("train", "restval", "val", "test"), "the Karpathy split of MS-COCO")
    photos = require_one(home, ("val2014", "images/val2014"), "MS-COCO", HOW_TO_GET_2014)
    return karpathy(home, "coco", split, photos.parent)


def karpathy(home: Path, name: str, split: str, photos: Path) -> Records:
    """Records of Karpathy's ``dataset_{name}.json`` (coco, flickr8k, flickr30k), as a stream.

    Photos lie in ``photos``, in the folder ``filepath`` there when the row has one.
    Metadata: dataset, split (restval of COCO keeps that name), image_id (of COCO, else the number in the
    file), name, path, caption_ids.
    """
    table = home / f"dataset_{name}.json"
    require(home, [table.name], f"the Karpathy split of {name}", HOW_TO_GET_KARPATHY.format(name=name))
    wanted = split_filter(split)

    def make(row: Row) -> Record | None:
        own = split_name(need(row, "split", str))
        if not wanted(own):
            return None
        sentences = [one for one in row.get("sentences") or () if isinstance(one, dict)]
        found = texts([one.get("raw") for one in sentences])
        inside = Path(str(row.get("filepath") or "")) / need(row, "filename", str)
        photo = media_part("image", photos / inside)
        facts = {
            "image_id": row.get("cocoid", row.get("imgid")),
            "caption_ids": [one["sentid"] for one in sentences if "sentid" in one],
        }
        return dataset_record(name, own, inside.stem, (photo, *text_parts(found)), **facts)

    return rows_to_records(table, json_rows(table, "images"), make)
