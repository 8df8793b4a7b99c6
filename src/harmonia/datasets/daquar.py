"""DAQUAR: questions and answers about indoor photos (Malinowski and Fritz, 2014, arXiv:1410.0210)."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

from harmonia.data.tables import Row, Rows
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    embedded_parts,
    last_tenth,
    media_part,
    need,
    require,
    require_split,
    rows_to_records,
    split_filter,
    text_lines,
    text_parts,
)
from harmonia.datasets.vqa import question_records
from harmonia.types import Part, Record

HOW_TO_GET = (
    "load qa.894.raw.train.txt and qa.894.raw.test.txt (1 MB; qa.37.raw.* is the reduced set) and "
    "nyu_depth_images.tar (about 0.4 GB) from the page of the Visual Turing Challenge, Max Planck Institute "
    "for Informatics, and unpack the photos there"
)
_IMAGE = re.compile(r"\bimage(\d+)\b")


def daquar(folder: str | Path | None = None, split: str = "train", *, classes: int = 894) -> Records:
    """Records of a photo and a question; the answer is metadata.

    Files: ``qa.{classes}.raw.{train,test}.txt`` (a line with a question that names its photo, a line with the
    answer; ``classes`` 894 or 37, the reduced set) and ``nyu_depth_images/image*.png``; or the tables
    ``qa.parquet`` and ``images.parquet`` of the train part, where val (dev) is the last tenth of the photos
    by number and train the rest.

    The photo's number is taken out of the question. Metadata: dataset, split, name, path, image_id, question,
    answer (as published) and ``answers`` (one for each thing it lists).
    """
    home = dataset_folder(folder, "daquar", "DAQUAR", HOW_TO_GET)
    if (home / "qa.parquet").exists():
        require_split(split, ("train", "val"), "this DAQUAR table")
        require(home, ["images.parquet"], "DAQUAR", HOW_TO_GET)
        return _table(home, split)
    require_split(split, ("train", "test"), "DAQUAR")
    names = list(filter(split_filter(split), ("train", "test")))
    require(home, [f"qa.{classes}.raw.{name}.txt" for name in names], "DAQUAR", HOW_TO_GET)
    require(home, ["nyu_depth_images"], "DAQUAR", HOW_TO_GET)
    return chain.from_iterable(_official(home, f"qa.{classes}.raw.{name}.txt", name) for name in names)


def _official(home: Path, file: str, split: str) -> Records:
    def make(row: Row) -> Record:
        photo = media_part("image", home / "nyu_depth_images" / f"{row['image_id']}.png")
        return _record(row, split, photo)

    return rows_to_records(home / file, _pairs(home / file), make)


def _pairs(path: Path) -> Rows:
    """A question's line and the answer's; a line that is missing costs its own pair only."""
    asked: tuple[int, str, str] | None = None
    for number, line in text_lines(path):
        named = _IMAGE.search(line)
        if named and line.endswith("?"):
            if asked:
                yield asked[0], "this question has no answer in the next line"
            asked = (number, line, named[0])
        elif asked:
            yield asked[0], {"question": asked[1], "answer": line, "image_id": asked[2]}
            asked = None
        else:
            yield number, "this is no question about an image, and no answer to one"
    if asked:
        yield asked[0], "this question has no answer in the next line"


def _table(home: Path, split: str) -> Records:
    photos = embedded_parts("image", home / "images.parquet", "image_id", "jpeg")
    held_out = last_tenth(photos, key=lambda name: int(re.sub(r"\D", "", str(name)) or 0))
    yield from question_records(home / "qa.parquet", photos, held_out, split, str, _record)


def _record(row: Row, split: str, photo: Part) -> Record:
    question, answer = _unnumbered(need(row, "question", str)), need(row, "answer", str)
    facts = {
        "image_id": row["image_id"],
        "question": question,
        "answer": answer,
        "answers": [one.strip() for one in answer.split(",") if one.strip()],
    }
    return dataset_record("daquar", split, row["image_id"], (photo, *text_parts([question])), **facts)


def _unnumbered(question: str) -> str:
    """The question without the name of its photo: an ending ``in the image3 ?`` goes, elsewhere ``image3``
    is the image."""
    question = re.sub(r"(\s*\?)+$", " ?", question)
    question = re.sub(r"( in| on| of)?( the| this)? image\d+ \?$", " ?", question)
    return _IMAGE.sub("image", question)
