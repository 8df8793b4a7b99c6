"""Pictures with questions or statements: VQA v2 (Goyal et al., 2017, arXiv:1612.00837), easyVQA (Zhou, 2019)
and NLVR (Suhr et al., 2017). A record is a picture and a question; the answer is metadata, so that no code
is made from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from harmonia.data.tables import Row, Rows
from harmonia.datasets.json_stream import json_items
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    embedded_part,
    embedded_parts,
    json_rows,
    last_tenth,
    media_part,
    need,
    reason_of,
    require,
    require_one,
    require_split,
    rows_to_records,
    split_filter,
    table_rows,
    text_lines,
    text_parts,
)
from harmonia.types import Part, Record

HOW_TO_GET_VQA = (
    "load questions and annotations (v2_*.zip, about 50 MB) from visualqa.org, Download, and the photos "
    "train2014 (13 GB), val2014 (6 GB), test2015 (12 GB) from cocodataset.org, and unpack them there"
)
HOW_TO_GET_EASYVQA = (
    "take the folder data/ of the repository vzhou842/easy-VQA on GitHub (train/ and test/, each with "
    "questions.json and images/, a few MB)"
)
HOW_TO_GET_NLVR = "take the folder nlvr/ of the repository lil-lab/nlvr on GitHub (train/, dev/ and test/)"

_YEARS = {"train": "train2014", "val": "val2014", "test": "test2015", "test-dev": "test2015"}


def vqa(folder: str | Path | None = None, split: str = "train") -> Records:
    """Records of a photo and a question of VQA v2.

    Files: ``v2_OpenEnded_mscoco_{train2014,val2014,test2015,test-dev2015}_questions.json``,
    ``v2_mscoco_{train2014,val2014}_annotations.json`` and the photos ``train2014/COCO_train2014_*.jpg``.
    ``split``: train (443,757 questions), val (214,354), test, test-dev (both without answers), or several as
    ``train+val``. Both files stream; they are in one order, any other order only costs memory.

    Metadata: dataset, split, name, path, question_id, image_id, question, and where they are published
    ``answer`` (the most frequent), ``answers`` (all ten), question_type, answer_type.
    """
    home = dataset_folder(folder, "vqa", "VQA v2", HOW_TO_GET_VQA)
    require_split(split, _YEARS, "VQA v2")
    wanted = ["train", "val", "test"] if split == "all" else list(filter(split_filter(split), _YEARS))
    plan = []
    for name in wanted:
        place = "test-dev2015" if name == "test-dev" else _YEARS[name]
        questions = home / f"v2_OpenEnded_mscoco_{place}_questions.json"
        annotations = None if name.startswith("test") else home / f"v2_mscoco_{place}_annotations.json"
        files = [file.name for file in (questions, annotations) if file]
        require(home, files, "VQA v2", HOW_TO_GET_VQA)
        photos = require_one(home, (_YEARS[name], f"images/{_YEARS[name]}"), "VQA v2", HOW_TO_GET_VQA)
        plan.append((name, questions, annotations, photos))
    return chain.from_iterable(_vqa(*one) for one in plan)


def _vqa(split: str, questions: Path, annotations: Path | None, photos: Path) -> Records:
    def make(row: Row) -> Record:
        image_id, question = need(row, "image_id", int), need(row, "question", str)
        name = f"COCO_{photos.name}_{image_id:012d}"
        parts = (media_part("image", photos / f"{name}.jpg"), *text_parts([question]))
        facts = {key: row.get(key) for key in ("question_id", "image_id", "question_type", "answer_type")}
        if annotations is not None:
            facts["answer"] = need(row, "multiple_choice_answer", str)
            facts["answers"] = [need(one, "answer", str) for one in need(row, "answers", list)]
        return dataset_record("vqa", split, name, parts, question=question, **facts)

    if annotations is None:
        return rows_to_records(questions, json_rows(questions, "questions"), make)
    asked, answered = json_items(questions, "questions"), _annotations(annotations)
    return rows_to_records(questions, _joined(asked, answered, "question_id"), make)


def _joined(left: Iterable[Any], right: Iterable[Any], key: str) -> Rows:
    """Each row of the left with the row of the right that has the same key. Rows wait for their partner, so
    two files in one order stream and others still join."""
    waiting: tuple[dict[Any, tuple[int, Row]], dict[Any, tuple[int, Row]]] = ({}, {})
    for number, pair in enumerate(zip_longest(left, right), start=1):
        for side, row in enumerate(pair):
            if row is None:
                continue
            if not isinstance(row, dict) or not isinstance(row.get(key), int):
                yield number, f"it has no {key}"
                continue
            other = waiting[1 - side].pop(row[key], None)
            if other is None:
                waiting[side][row[key]] = (number, row)
            else:
                yield (number, row | dict(other[1])) if side == 0 else (other[0], dict(other[1]) | row)
    for number, row in waiting[0].values():
        yield number, f"question {row[key]} has no answers"
    for number, row in waiting[1].values():
        yield number, f"the answers to question {row[key]} have no question"


def _annotations(path: Path) -> Iterator[Any]:
    try:
        yield from json_items(path, "annotations")
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: {reason_of(error)}") from error


# --- easyVQA


def easyvqa(folder: str | Path | None = None, split: str = "train") -> Records:
    """Records of a rendered shape and a question.

    Files: ``{train,test}/questions.json`` (a list of [question, answer, image id]) and
    ``{train,test}/images/{image id}.png``; or the tables ``images.parquet`` and ``questions.parquet`` of the
    train part, where val (dev) is the last tenth by image id and train the rest.
    Metadata: dataset, split, name, path, image_id, question, answer.
    """
    home = dataset_folder(folder, "easyvqa", "easyVQA", HOW_TO_GET_EASYVQA)
    if (home / "questions.parquet").exists():
        require_split(split, ("train", "val"), "this easyVQA table")
        require(home, ["images.parquet"], "easyVQA", HOW_TO_GET_EASYVQA)
        return _easyvqa_table(home, split)
    require_split(split, ("train", "test"), "easyVQA")
    names = list(filter(split_filter(split), ("train", "test")))
    for name in names:
        require(home, [f"{name}/questions.json", f"{name}/images"], "easyVQA", HOW_TO_GET_EASYVQA)
    return chain.from_iterable(_easyvqa(home / name, name) for name in names)


def _easyvqa(place: Path, split: str) -> Records:
    def rows() -> Rows:
        for number, item in enumerate(json_items(place / "questions.json"), start=1):
            match item:
                case [str(question), str(answer), int(image_id)]:
                    yield number, {"question": question, "answer": answer, "image_id": image_id}
                case _:
                    yield number, "this is not [question, answer, image id]"

    def make(row: Row) -> Record:
        picture = media_part("image", place / "images" / f"{row['image_id']}.png")
        return _shape(row, split, picture)

    return rows_to_records(place / "questions.json", rows(), make)


def _easyvqa_table(home: Path, split: str) -> Records:
    pictures = embedded_parts("image", home / "images.parquet", "image_id", "png")
    held_out = last_tenth(pictures)
    yield from question_records(home / "questions.parquet", pictures, held_out, split, int, _shape)


def question_records(
    table: Path,
    images: Mapping[Any, Part],
    held_out: Container[Any],
    split: str,
    kind: type[int] | type[str],
    record: Callable[[Row, str, Part], Record],
) -> Records:
    """Records of the questions in a table, each about one of ``images``.

    Args:
        table: whose column ``image_id``, of type ``kind``, names the image.
        images: by id.
        held_out: ids of the images in the split val; the others are in train.
        split: of the records that are wanted.
        record: makes a record of a row, its split and its image.
    """
    wanted = split_filter(split)

    def make(row: Row) -> Record | None:
        image_id = need(row, "image_id", kind)
        if image_id not in images:
            raise ValueError(f"there is no image {image_id}")
        own = "val" if image_id in held_out else "train"
        return record(row, own, images[image_id]) if wanted(own) else None

    yield from rows_to_records(table, table_rows(table), make)


def _shape(row: Row, split: str, picture: Part) -> Record:
    question, answer = need(row, "question", str), need(row, "answer", str)
    facts = {"image_id": row["image_id"], "question": question, "answer": answer}
    return dataset_record("easyvqa", split, str(row["image_id"]), (picture, *text_parts([question])), **facts)


# --- NLVR


def nlvr(folder: str | Path | None = None, split: str = "train") -> Records:
    """Records of a rendered scene and a sentence about it, true or false.

    Files: ``{train,dev,test}/{split}.json`` (one JSON object a line) and
    ``{split}/images/*/{split}-{identifier}-0.png``, the first of the six orders of each scene; or the tables
    ``dev.parquet`` and ``test.parquet``. ``split``: train, val (dev) or test.
    Metadata: dataset, split, name, path, identifier, sentence, label (a truth value).
    """
    home = dataset_folder(folder, "nlvr", "NLVR", HOW_TO_GET_NLVR)
    tables = {"val": home / "dev.parquet", "test": home / "test.parquet"}
    if any(table.exists() for table in tables.values()):
        require_split(split, tables, "this NLVR table")
        names = list(filter(split_filter(split), tables))
        require(home, [tables[name].name for name in names], "NLVR", HOW_TO_GET_NLVR)
        return chain.from_iterable(_nlvr_table(tables[name], name) for name in names)
    folders = {"train": "train", "val": "dev", "test": "test"}
    require_split(split, folders, "NLVR")
    names = list(filter(split_filter(split), folders))
    for place in (folders[name] for name in names):
        require(home, [f"{place}/{place}.json", f"{place}/images"], "NLVR", HOW_TO_GET_NLVR)
    return chain.from_iterable(_nlvr(home / folders[name], name) for name in names)


def _nlvr(place: Path, split: str) -> Records:
    scenes = {path.name: path for path in place.glob("images/*/*-0.png")}
    table = place / f"{place.name}.json"

    def make(row: Row) -> Record:
        file = f"{place.name}-{need(row, 'identifier', str)}-0.png"
        return _statement(row, split, media_part("image", scenes.get(file, place / "images" / file)))

    yield from rows_to_records(table, _json_lines(table), make)


def _nlvr_table(table: Path, split: str) -> Records:
    return rows_to_records(
        table, table_rows(table), lambda row: _statement(row, split, embedded_part("image", row.get("png")))
    )


def _statement(row: Row, split: str, scene: Part) -> Record:
    identifier, sentence = need(row, "identifier", str), need(row, "sentence", str)
    truth = {"true": True, "false": False}.get(str(row.get("label")).lower())
    if truth is None:
        raise ValueError(f"its label is neither true nor false: {row.get('label')}")
    facts = {"identifier": identifier, "sentence": sentence, "label": truth}
    return dataset_record("nlvr", split, identifier, (scene, *text_parts([sentence])), **facts)


def _json_lines(path: Path) -> Iterator[tuple[int, Row | str]]:
    for number, line in text_lines(path):
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, f"this is not JSON: {error}"
            continue
        yield number, row if isinstance(row, dict) else "this is not a JSON object {...}"
