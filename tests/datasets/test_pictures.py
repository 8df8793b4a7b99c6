"""The readers of public picture datasets, on tiny files in the published formats and on the shared data."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from harmonia.data.records import Problem
from harmonia.datasets.coco import coco, coco_karpathy
from harmonia.datasets.daquar import daquar
from harmonia.datasets.emoji import emoji
from harmonia.datasets.flickr import flickr8k, flickr30k
from harmonia.datasets.json_stream import json_items
from harmonia.datasets.mnist import mnist, mnist_arrays, mnist_verify
from harmonia.datasets.pacs import pacs
from harmonia.datasets.reading import (
    cache_folder,
    data_folder,
    dataset_folder,
    require,
    require_split,
    rows_to_records,
    split_filter,
    verify,
)
from harmonia.datasets.registry import DATASETS, reader
from harmonia.datasets.vqa import easyvqa, nlvr, vqa
from harmonia.types import HarmoniaError, Record
from tests.allocations import peak_of
from tests.media import make_photo
from tests.places import DATA

SHARED = DATA
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"the shared data are not at {SHARED}")


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMONIA_CACHE", str(tmp_path / "cache"))


def split_up(stream: Iterator[Record | Problem]) -> tuple[list[Record], list[str]]:
    """The records, and why the others could not be one."""
    everything = list(stream)
    records = [one for one in everything if isinstance(one, Record)]
    return records, [one.reason for one in everything if isinstance(one, Problem)]


def said(record: Record) -> list[str]:
    """The texts of a record."""
    return [part.text for part in record.parts if part.text is not None]


def photo_of(record: Record) -> Path:
    """The file of its first part, which is a picture."""
    assert record.parts[0].modality == "image"
    return Path(str(record.parts[0].path))


def write(path: Path, content: Any) -> Path:
    """A text as it is, bytes as they are, anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def photos(folder: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        make_photo(folder / name, seed=seed, size=(16, 12))


def table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


# --- what the readers share


@pytest.mark.parametrize("indent", [None, 2])
def test_json_streams_what_json_loads(tmp_path: Path, indent: int | None) -> None:
    draw = random.Random(0)
    rows = [{"id": i, "text": 'é"\\]}' * draw.randrange(400), "n": draw.random()} for i in range(900)]
    whole = {"info": {"a": [1, 2]}, "skipped": [[1], {}], "year": 2014, "rows": rows, "after": None}
    path = write(tmp_path / "a.json", json.dumps(whole, indent=indent))
    assert list(json_items(path, "rows")) == rows
    assert list(json_items(path, "skipped")) == [[1], {}]
    assert list(json_items(write(tmp_path / "b.json", json.dumps(rows, indent=indent)))) == rows
    numbers = list(range(0, 3_000_000, 7))
    assert list(json_items(write(tmp_path / "c.json", numbers))) == numbers  # some straddle two chunks
    assert list(json_items(write(tmp_path / "d.json", " [ ] "))) == []


@pytest.mark.parametrize("text", ["", "{", "[1 2]", '{"rows": 3}', '{"other": []}', '{"rows": [1', "null"])
def test_json_that_is_damaged_says_so(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"cut or damaged|has no 'rows'"):
        list(json_items(write(tmp_path / "a.json", text), "rows"))


def test_json_is_what_json_loads_says(tmp_path: Path) -> None:
    whole: dict[str, Any] = {
        "nested": {"rows": [0]},
        "rows": [{"item": [1, {"item": None}]}, [[]], "é 😀 \u2028", 2**80, -0.5, 1e300, True, ""],
    }
    whole["rows"].append("half \ud83d")  # whoever reads the record says so: it is to come through as it is
    path = write(tmp_path / "half.json", whole)
    assert list(json_items(path, "rows")) == whole["rows"]
    del whole["rows"][-1]
    for text in (json.dumps(whole), json.dumps(whole, ensure_ascii=False)):
        for start in (b"", codecs.BOM_UTF8):
            (tmp_path / "a.json").write_bytes(start + text.encode())
            assert list(json_items(tmp_path / "a.json", "rows")) == whole["rows"]


def refuse_nested(path: Path, key: str | None) -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        list(json_items(path, key))


@pytest.mark.parametrize("opening", ["[", '[{"a":', '{"rows": [{"a":'])
def test_json_that_is_nested_too_deep_costs_little(tmp_path: Path, opening: str) -> None:
    path = write(tmp_path / "a.json", opening * 1_000_000)
    _, peak = peak_of(refuse_nested, path, "rows" if "rows" in opening else None)
    assert peak < 64_000_000


def rows_of(path: Path) -> int:
    return sum(1 for _ in json_items(path, "rows"))


def test_json_streams_in_little_memory(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("w") as file:
        row = json.dumps({"caption": "x" * 200})
        file.write('{"rows": [' + ",".join([row] * 40_000) + "]}")
    assert (tmp_path / "a.json").stat().st_size > 8_000_000
    count, peak = peak_of(rows_of, tmp_path / "a.json")
    assert count == 40_000
    assert peak < 1_500_000


def test_data_folder_is_the_environment_else_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMONIA_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.setenv("HARMONIA_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(HarmoniaError, match="not a directory"):
        data_folder()
    monkeypatch.delenv("HARMONIA_DATA")
    (tmp_path / "shared" / "data").mkdir(parents=True)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    assert data_folder() == tmp_path / "shared" / "data"


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("HARMONIA_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "harmonia"


def test_checksums_published_and_beside_the_data(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d", "e"):
        (tmp_path / name).write_bytes(name.encode())
    sums = {name: hashlib.sha256(name.encode()).hexdigest() for name in "abcde"}
    write(tmp_path / "SHA256SUMS", f"{sums['b']}  b\n{sums['c'].upper()} *./c\n# a comment\n")
    write(tmp_path / "d.md5", hashlib.md5(b"d").hexdigest() + "  d\n")
    assert verify(tmp_path, "abcde", {"a": sums["a"]}) == (["a", "b", "c", "d"], ["e"])
    (tmp_path / "c").write_bytes(b"another")
    with pytest.raises(HarmoniaError, match="is damaged: its sha256 is"):
        verify(tmp_path, "abc")


def test_splits() -> None:
    assert [name for name in ("train", "dev", "test") if split_filter("validation+test")(name)] == [
        "dev",
        "test",
    ]
    assert split_filter("all")("restval")
    require_split("train+dev", ("train", "val"), "X")
    with pytest.raises(HarmoniaError, match="X has no split 'tset' here; name one of train, test, all"):
        require_split("train+tset", ("train", "test"), "X")


def test_a_row_that_fails_is_a_problem_and_a_bug_is_not(tmp_path: Path) -> None:
    def make(row: Any) -> Record | None:
        if row["n"] == 2:
            raise ValueError("it is two")
        return None if row["n"] == 3 else Record("", (), {"n": row["n"] / row["n"]})

    rows = enumerate([{"n": 1}, {"n": 2}, "it is cut", {"n": 3}, {"n": 4}], start=1)
    records, problems = split_up(rows_to_records(tmp_path, rows, make))
    assert len(records) == 2
    assert problems == ["row 2: it is two", "row 3: it is cut"]
    with pytest.raises(ZeroDivisionError):
        list(rows_to_records(tmp_path, iter([(1, {"n": 0})]), make))


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in ("webdataset", "hub")])
def test_every_reader_says_how_to_get_what_is_absent(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARMONIA_DATA", str(tmp_path))
    for place in (None, tmp_path / "nowhere", tmp_path):
        with pytest.raises(HarmoniaError) as caught:
            next(iter(reader(name)(place)))
        message = str(caught.value)
        assert "\n" not in message
        assert any(verb in message for verb in ("load ", "take ", "ask for ")), message


def test_there_is_no_such_dataset(tmp_path: Path) -> None:
    with pytest.raises(HarmoniaError, match="no dataset 'cooc': name one of coco, "):
        reader("cooc")
    with pytest.raises(HarmoniaError, match=r"X is not complete in .*: no b, no c; load it"):
        write(tmp_path / "a", "")
        require(tmp_path, ["a", "b", "c"], "X", "load it")
    with pytest.raises(HarmoniaError, match=r"X is not here \(no folder .*\); load it"):
        dataset_folder(tmp_path / "x", "x", "X", "load it")


# --- photos and captions


def coco_folder(tmp_path: Path) -> Path:
    photos(tmp_path, "val2017/000000000009.jpg", "val2017/000000000025.jpg", "val2017/000000000030.jpg")
    images = [
        {"id": n, "file_name": f"{n:012d}.jpg", "license": 3, "height": 12, "width": 16}
        for n in (9, 25, 30, 31)
    ]
    captions = [(25, 1, "A giraffe. "), (9, 2, "A plate\n"), (25, 3, "A tall animal"), (31, 4, "Gone")]
    annotations = [{"image_id": image, "id": n, "caption": caption} for image, n, caption in captions]
    whole = {"info": {"year": 2017}, "images": images, "licenses": [], "annotations": annotations}
    write(tmp_path / "annotations" / "captions_val2017.json", whole)
    return tmp_path


def test_coco_by_the_official_file(tmp_path: Path) -> None:
    records, problems = split_up(coco(coco_folder(tmp_path), "val"))
    assert [record.metadata["image_id"] for record in records] == [9, 25]
    assert said(records[1]) == ["A giraffe.", "A tall animal"]
    assert photo_of(records[1]) == tmp_path / "val2017" / "000000000025.jpg"
    assert records[1].metadata == {
        "dataset": "coco",
        "split": "val",
        "name": "000000000025",
        "path": str(tmp_path / "val2017" / "000000000025.jpg"),
        "image_id": 25,
        "caption_ids": [1, 3],
        "licence": 3,
    }
    assert all(record.id == "" and record.parts[0].digest == "" for record in records)
    assert len(problems) == 2
    assert problems[0] == "row 3: it has no captions"
    assert problems[1].startswith("row 4: there is no file")


def test_coco_damaged_and_incomplete(tmp_path: Path) -> None:
    path = coco_folder(tmp_path) / "annotations" / "captions_val2017.json"
    with pytest.raises(
        HarmoniaError, match=r"no annotations/captions_train2017.json; load .*cocodataset.org"
    ):
        coco(tmp_path, "train+val")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(HarmoniaError, match=r"captions_val2017.json is damaged: it is cut"):
        list(coco(tmp_path, "val"))
    with pytest.raises(HarmoniaError, match="no split 'test'"):
        coco(tmp_path, "test")


def karpathy_file(path: Path, name: str, rows: list[tuple[str, str, str, list[str]]]) -> None:
    images = [
        {
            "filename": file,
            "imgid": number,
            "split": split,
            "sentids": [10 * number, 10 * number + 1],
            "sentences": [
                {"tokens": text.split(), "raw": text, "imgid": number, "sentid": 10 * number + n}
                for n, text in enumerate(captions)
            ],
        }
        | ({"filepath": place, "cocoid": 100 + number} if place else {})
        for number, (place, file, split, captions) in enumerate(rows)
    ]
    write(path, {"images": images, "dataset": name})


def test_karpathy_splits(tmp_path: Path) -> None:
    photos(tmp_path, "train2014/a.jpg", "val2014/b.jpg", "val2014/c.jpg")
    rows = [
        ("train2014", "a.jpg", "train", ["one", "two"]),
        ("val2014", "b.jpg", "restval", ["three"]),
        ("val2014", "c.jpg", "test", ["half \ud83d"]),
        ("val2014", "c.jpg", "val", []),
    ]
    karpathy_file(tmp_path / "dataset_coco.json", "coco", rows)
    assert [said(record) for record in split_up(coco_karpathy(tmp_path))[0]] == [["one", "two"]]
    records, _ = split_up(coco_karpathy(tmp_path, "train+restval"))
    assert [record.metadata["split"] for record in records] == ["train", "restval"]
    assert records[1].metadata["image_id"] == 101
    assert records[1].metadata["caption_ids"] == [10]
    assert photo_of(records[1]) == tmp_path / "val2014" / "b.jpg"
    assert split_up(coco_karpathy(tmp_path, "val+test")) == (
        [],
        ["row 3: it is not UTF-8, or holds half a character", "row 4: it has no captions"],
    )


def flickr_folder(tmp_path: Path) -> Path:
    photos(tmp_path / "Flicker8k_Dataset", "1_a.jpg", "2_b.jpg", "3_c.jpg")
    lines = [
        "1_a.jpg#0\tA dog .",
        "1_a.jpg#1\tA brown dog",
        "2_b.jpg#0\tA cat",
        "broken",
        "3_c.jpg#0\tA bird",
    ]
    write(tmp_path / "Flickr8k.token.txt", "\n".join(lines))
    for name, photo in (("train", "1_a.jpg\n"), ("dev", "2_b.jpg\n"), ("test", "3_c.jpg\n4_d.jpg\n")):
        write(tmp_path / f"Flickr_8k.{name}Images.txt", photo)
    return tmp_path


def test_flickr8k_by_the_official_files(tmp_path: Path) -> None:
    home = flickr_folder(tmp_path)
    records, problems = split_up(flickr8k(home))
    assert said(records[0]) == ["A dog .", "A brown dog"]
    assert len(records) == 1
    assert problems == ["row 4: this is not photo#number, tab, text"]
    assert records[0].metadata["languages"] == ["en", "en"]
    assert split_up(flickr8k(home, "dev"))[0][0].metadata["split"] == "val"
    assert [record.metadata["name"] for record in split_up(flickr8k(home, "all"))[0]] == ["1_a", "2_b", "3_c"]
    (home / "Flickr_8k.devImages.txt").unlink()
    assert len(split_up(flickr8k(home, "test"))[0]) == 1
    with pytest.raises(HarmoniaError, match=r"no Flickr_8k.devImages.txt; ask for it"):
        flickr8k(home, "val")
    with pytest.raises(HarmoniaError, match=r"captions_multilingual.parquet"):
        flickr8k(home, languages=["de"])


def test_flickr8k_by_the_karpathy_file(tmp_path: Path) -> None:
    home = flickr_folder(tmp_path)
    karpathy_file(home / "dataset_flickr8k.json", "flickr8k", [("", "2_b.jpg", "train", ["Another"])])
    records, _ = split_up(flickr8k(home))
    assert said(records[0]) == ["Another"]
    assert records[0].metadata["dataset"] == "flickr8k"
    assert photo_of(records[0]).name == "2_b.jpg"


def test_flickr30k_in_its_three_forms(tmp_path: Path) -> None:
    photos(tmp_path / "flickr30k-images", "10.jpg", "20.jpg")
    write(
        tmp_path / "results.csv",
        "image_name| comment_number| comment\n10.jpg| 0| A man | a hat\n20.jpg| 4   A dog\n",
    )
    records, problems = split_up(flickr30k(tmp_path, "all"))
    assert said(records[0]) == ["A man | a hat"]
    assert problems == ["row 3: this is not photo|number|text"]
    write(tmp_path / "results_20130124.token", "10.jpg#0\tA man\n10.jpg#1\tA hat\n20.jpg#0\tA dog\n")
    assert [said(one) for one in split_up(flickr30k(tmp_path, "all"))[0]] == [["A man", "A hat"], ["A dog"]]
    with pytest.raises(HarmoniaError, match=r"no train.txt"):
        flickr30k(tmp_path)
    write(tmp_path / "train.txt", "20\n")
    assert [said(one) for one in split_up(flickr30k(tmp_path))[0]] == [["A dog"]]
    karpathy_file(tmp_path / "dataset_flickr30k.json", "flickr30k", [("", "10.jpg", "test", ["Said"])])
    assert [said(one) for one in split_up(flickr30k(tmp_path, "test"))[0]] == [["Said"]]


def counted(folder: Path) -> tuple[int, int, Record]:
    """How many photos and captions there are, and the last record."""
    count = captions = 0
    for record in flickr8k(folder, "dev"):
        assert isinstance(record, Record)
        count, captions = count + 1, captions + len(said(record))
    return count, captions, record


@needs_shared
def test_flickr8k_shared() -> None:
    (count, captions, record), peak = peak_of(counted, SHARED / "flickr8k")
    assert (count, captions) == (1000, 5000)
    assert peak < 8_000_000
    with Image.open(photo_of(record)) as photo:
        assert photo.size == (128, 128)


@needs_shared
def test_flickr8k_shared_in_other_languages() -> None:
    records, problems = split_up(flickr8k(SHARED / "flickr8k", "dev", languages=["en", "de", "fr"]))
    assert not problems
    spoken = [language for record in records for language in record.metadata["languages"]]
    assert {name: spoken.count(name) for name in set(spoken)} == {"en": 5000, "de": 934 + 4670, "fr": 934}
    assert all(len(said(record)) == len(record.metadata["languages"]) for record in records)
    with pytest.raises(HarmoniaError, match="no captions in xx; it has ar, cs, de, en, fr, zh"):
        list(flickr8k(SHARED / "flickr8k", languages=["xx"]))
    with pytest.raises(HarmoniaError, match="no split 'test'"):
        flickr8k(SHARED / "flickr8k", "test")


# --- questions


def vqa_folder(tmp_path: Path, order: list[int]) -> Path:
    photos(tmp_path / "val2014", "COCO_val2014_000000000042.jpg")
    asked = [{"image_id": 42, "question": f"Is it {n}?", "question_id": n} for n in range(4)]
    answered = [
        {
            "question_type": "is it",
            "multiple_choice_answer": "yes",
            "answers": [{"answer": f"a{k}", "answer_confidence": "yes", "answer_id": k} for k in range(10)],
            "image_id": 42,
            "answer_type": "yes/no",
            "question_id": n,
        }
        for n in order
    ]
    write(tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json", {"info": {}, "questions": asked})
    write(tmp_path / "v2_mscoco_val2014_annotations.json", {"info": {}, "annotations": answered})
    return tmp_path


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 0, 1]])
def test_vqa_joins_questions_and_answers(tmp_path: Path, order: list[int]) -> None:
    records, problems = split_up(vqa(vqa_folder(tmp_path, order), "val"))
    assert not problems
    by_id = {record.metadata["question_id"]: record for record in records}
    assert sorted(by_id) == [0, 1, 2, 3]
    assert all(said(by_id[n]) == [f"Is it {n}?"] for n in by_id)
    facts = by_id[2].metadata
    assert facts["answer"] == "yes"
    assert facts["answers"] == [f"a{k}" for k in range(10)]
    assert facts["answer_type"] == "yes/no"
    assert facts["name"] == "COCO_val2014_000000000042"


def test_vqa_without_answers_and_damaged(tmp_path: Path) -> None:
    home = vqa_folder(tmp_path, [0, 1, 3, 9])
    records, problems = split_up(vqa(home, "val"))
    assert len(records) == 3
    assert [reason.partition(": ")[2] for reason in problems] == [
        "question 2 has no answers",
        "the answers to question 9 have no question",
    ]
    answers = home / "v2_mscoco_val2014_annotations.json"
    answers.write_bytes(answers.read_bytes()[:1500])
    _, problems = split_up(vqa(home, "val"))
    assert problems[-1].startswith(
        "this file cannot be read on: v2_mscoco_val2014_annotations.json: it is cut"
    )
    with pytest.raises(HarmoniaError, match=r"no v2_mscoco_train2014_annotations.json; load .*visualqa.org"):
        vqa(home)
    photos(home / "test2015", "COCO_test2015_000000000007.jpg")
    asked = [{"image_id": 7, "question": "What?", "question_id": 1}]
    write(home / "v2_OpenEnded_mscoco_test-dev2015_questions.json", {"questions": asked})
    records, problems = split_up(vqa(home, "test-dev"))
    assert not problems
    assert "answer" not in records[0].metadata


def test_easyvqa_by_its_files(tmp_path: Path) -> None:
    photos(tmp_path / "train" / "images", "0.png", "1.png")
    rows = [["What colour?", "red", 0], ["Is it round?", "no", 1], ["Is it?", "yes"], ["Is it?", "yes", 9]]
    write(tmp_path / "train" / "questions.json", rows)
    records, problems = split_up(easyvqa(tmp_path))
    assert [record.metadata["answer"] for record in records] == ["red", "no"]
    assert photo_of(records[1]) == tmp_path / "train" / "images" / "1.png"
    assert problems[0] == "row 3: this is not [question, answer, image id]"
    assert problems[1].startswith("row 4: there is no file")


def test_nlvr_by_its_files(tmp_path: Path) -> None:
    photos(tmp_path / "dev" / "images", "5/dev-72-0-0.png", "5/dev-72-0-1.png")
    rows = [
        {"sentence": "There is a box", "identifier": "72-0", "label": "true", "structured_rep": []},
        {"sentence": "Gone", "identifier": "73-0", "label": "false"},
        {"sentence": "Perhaps", "identifier": "72-0", "label": "maybe"},
    ]
    write(tmp_path / "dev" / "dev.json", "\n".join([*map(json.dumps, rows), "{"]))
    records, problems = split_up(nlvr(tmp_path, "val"))
    assert len(records) == 1
    assert records[0].metadata["label"] is True
    assert photo_of(records[0]).name == "dev-72-0-0.png"
    assert [reason.split(":")[0] for reason in problems] == ["row 2", "row 3", "row 4"]


def test_daquar_by_its_files(tmp_path: Path) -> None:
    photos(tmp_path / "nyu_depth_images", "image3.png", "image7.png")
    lines = [
        "what is on the desk in the image3 ?",
        "book, scissor",
        "what is the largest object in this image7 ? ?",
        "what colour is the image7 near the door ?",
        "red",
        "blue",
        "what is gone in the image9 ?",
        "this",
    ]
    write(tmp_path / "qa.37.raw.train.txt", "\n".join(lines))
    records, problems = split_up(daquar(tmp_path, classes=37))
    assert [said(record) for record in records] == [
        ["what is on the desk ?"],
        ["what colour is the image near the door ?"],
    ]
    assert records[0].metadata["answers"] == ["book", "scissor"]
    assert records[0].metadata["image_id"] == "image3"
    assert [reason.split(":")[0] for reason in problems] == ["row 3", "row 6", "row 7"]


@needs_shared
def test_questions_shared() -> None:
    for read, name, pictures, questions in ((daquar, "daquar", 794, 6795), (easyvqa, "easyvqa", 4000, 38575)):
        records, problems = split_up(read(SHARED / name, "all"))
        assert not problems
        assert len(records) == questions
        assert all(one.metadata["answer"] and photo_of(one) for one in records)
        train, dev = (
            {one.metadata["image_id"] for one in records if one.metadata["split"] == split}
            for split in ("train", "val")
        )
        assert not train & dev
        assert pictures * 0.09 < len(dev) <= pictures * 0.11
    assert sum(1 for _ in nlvr(SHARED / "nlvr", "all")) == 1979


# --- pictures with labels and names


def idx(path: Path, array: Any) -> None:
    head = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = head + array.astype(np.uint8).tobytes()
    write(path, gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("ending", [".gz", ""])
@pytest.mark.parametrize("family", ["mnist", "fashion", "emnist-letters"])
def test_mnist_family(tmp_path: Path, family: str, ending: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28))
    labels = np.arange(6) % 3 + 1
    start = "emnist-letters-test" if family.startswith("emnist") else "t10k"
    idx(tmp_path / f"{start}-images-idx3-ubyte{ending}", pixels)
    idx(tmp_path / f"{start}-labels-idx1-ubyte{ending}", labels)
    write(tmp_path / "emnist-letters-mapping.txt", "1 65 97\n2 66 98\n3 67 99\n")
    upright = pixels.swapaxes(1, 2) if family.startswith("emnist") else pixels
    arrays, numbers = mnist_arrays(tmp_path, "test", family=family)
    assert arrays.dtype == np.uint8
    assert (arrays == upright).all()
    assert numbers.tolist() == labels.tolist()
    records, problems = split_up(mnist(tmp_path, "test", family=family))
    assert not problems
    assert [record.metadata["label"] for record in records] == labels.tolist()
    with Image.open(photo_of(records[4])) as picture:
        assert (np.asarray(picture) == upright[4]).all()
    names = {"mnist": "one", "fashion": "trouser", "emnist-letters": "A"}
    assert records[0].metadata["label_name"] == names[family]
    with pytest.raises(HarmoniaError, match=r"is not complete in .*-images-idx3-ubyte.gz; load"):
        mnist(tmp_path, "train", family=family)


def test_mnist_damaged(tmp_path: Path) -> None:
    pictures, labels = tmp_path / "train-images-idx3-ubyte.gz", tmp_path / "train-labels-idx1-ubyte.gz"
    idx(pictures, np.random.default_rng(0).integers(0, 256, (4, 28, 28)))
    idx(labels, np.arange(3))
    records, problems = split_up(mnist(tmp_path))
    assert len(records) == 3
    assert problems == ["this file cannot be read on: the numbers of pictures and labels differ"]
    with pytest.raises(HarmoniaError, match="differ in length"):
        mnist_arrays(tmp_path)
    idx(labels, np.arange(4))
    whole = pictures.read_bytes()
    for content in (
        whole[:1500],
        b"no gzip",
        gzip.compress(gzip.decompress(whole)[:2000]),
        gzip.compress(b"x"),
    ):
        pictures.write_bytes(content)
        assert len(split_up(mnist(tmp_path))[1]) == 1
        with pytest.raises(HarmoniaError, match=r"train-images-idx3-ubyte.gz is damaged"):
            mnist_arrays(tmp_path)
    with pytest.raises(HarmoniaError, match="is damaged: its md5 is"):
        mnist_verify(tmp_path)
    assert mnist_verify(tmp_path, family="emnist-letters") == ([], [labels.name, pictures.name][::-1])
    with pytest.raises(HarmoniaError, match="no family 'qmnist'"):
        mnist(tmp_path, family="qmnist")


@needs_shared
def test_mnist_shared() -> None:
    pixels, labels = mnist_arrays(SHARED / "mnist")
    assert pixels.shape == (8000, 28, 28)
    assert set(labels.tolist()) == set(range(10))
    stream = mnist(SHARED / "mnist")
    for index in range(20):
        record = next(stream)
        assert isinstance(record, Record)
        with Image.open(photo_of(record)) as picture:
            assert (np.asarray(picture) == pixels[index]).all()
        assert record.metadata["label"] == labels[index]


def test_pacs_by_its_folders(tmp_path: Path) -> None:
    files = ["photo/dog/1.jpg", "photo/house/2.jpg", "sketch/dog/3.png", "sketch/dog/4.png"]
    photos(tmp_path / "kfold", *files)
    write(tmp_path / "kfold" / "sketch" / "dog" / "notes.txt", "no picture")
    records, problems = split_up(pacs(tmp_path, "all"))
    assert not problems
    assert [photo_of(one).relative_to(tmp_path / "kfold").as_posix() for one in records] == files
    assert (records[2].metadata["domain"], records[2].metadata["label"]) == ("sketch", "dog")
    assert len(split_up(pacs(tmp_path, "all", domains=["photo"]))[0]) == 2
    with pytest.raises(HarmoniaError, match=r"no photo_train_kfold.txt; load PACS.zip"):
        pacs(tmp_path)
    write(tmp_path / "splits" / "photo_crossval_kfold.txt", "photo/dog/1.jpg 1\nphoto/dog/9.jpg 1\nodd\n")
    records, problems = split_up(pacs(tmp_path, "val", domains=["photo"]))
    assert [one.metadata["split"] for one in records] == ["val"]
    assert problems[0].startswith("row 2: there is no file")
    assert problems[1] == "row 3: this is not domain/class/file"
    with pytest.raises(HarmoniaError, match="no domain 'art'"):
        pacs(tmp_path, domains=["art"])


def test_pacs_table_keeps_every_tenth_row_for_development(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    row = {"domain": "photo", "label": "dog", "jpeg": (tmp_path / "a.jpg").read_bytes()}
    table(tmp_path / "images.parquet", [row | {"file": f"{n}.jpg"} for n in range(1, 22)])
    assert [one.metadata["name"] for one in split_up(pacs(tmp_path, "dev"))[0]] == ["10", "20"]
    assert len(split_up(pacs(tmp_path))[0]) == 19
    assert not split_up(pacs(tmp_path, domains=["sketch"]))[0]


@needs_shared
def test_pacs_shared() -> None:
    records, problems = split_up(pacs(SHARED / "pacs", "all"))
    assert not problems
    splits = [one.metadata["split"] for one in records]
    assert (splits.count("train"), splits.count("val")) == (4484 - 448, 448)
    assert {one.metadata["domain"] for one in records} == {"photo", "sketch"}
    assert len({one.metadata["label"] for one in records}) == 7


XML = """<?xml version="1.0" encoding="UTF-8"?>
<ldml><identity><language type="{}"/></identity><annotations>{}</annotations></ldml>"""


def test_emoji_by_noto_and_cldr(tmp_path: Path) -> None:
    photos(tmp_path / "png" / "128", "emoji_u1f436.png", "emoji_u0023_fe0f_20e3.png", "emoji_ufe4e5.png")
    dog = '<annotation cp="🐶">dog | face | pet</annotation>'
    dog += '<annotation cp="🐶" type="tts">dog face</annotation>'
    write(tmp_path / "annotations" / "en.xml", XML.format("en", dog))
    write(
        tmp_path / "annotations" / "zh_Hant.xml",
        XML.format("zh", '<annotation cp="🐶" type="tts">狗臉</annotation>'),
    )
    key = '<annotation cp="#\ufe0f⃣" type="tts">keycap: #</annotation>'
    write(tmp_path / "annotationsDerived" / "en.xml", XML.format("en", key))
    records, problems = split_up(emoji(tmp_path))
    assert problems == ["row 3: no annotation names emoji_ufe4e5.png"]
    assert [said(record) for record in records] == [["keycap: #"], ["dog face", "狗臉"]]
    assert records[1].metadata["languages"] == ["en", "zh-hant"]
    assert records[1].metadata["tags"] == ["dog", "face", "pet"]
    assert (records[1].metadata["hexcode"], records[1].metadata["emoji"]) == ("1F436", "🐶")
    records, _ = split_up(emoji(tmp_path, languages=["en"], keywords=True))
    assert said(records[1]) == ["dog face", "dog, face, pet"]
    with pytest.raises(HarmoniaError, match="no file for the language xx"):
        list(emoji(tmp_path, languages=["xx"]))
    write(tmp_path / "annotations" / "en.xml", "<ldml>")
    with pytest.raises(HarmoniaError, match=r"en.xml cannot be read"):
        list(emoji(tmp_path))


@needs_shared
def test_emoji_shared() -> None:
    records, problems = split_up(emoji(SHARED / "emoji"))
    assert not problems
    assert len(records) == 1674
    assert len({language for one in records for language in one.metadata["languages"]}) == 28
    german, _ = split_up(emoji(SHARED / "emoji", languages=["de"]))
    [dog] = [one for one in german if one.metadata["emoji"] == "🐶"]
    assert said(dog) == ["Hundegesicht"]
    assert "dog" in dog.metadata["tags"]


# --- tables that are damaged


def test_rows_of_a_table_that_are_damaged(tmp_path: Path) -> None:
    photos(tmp_path, "a.jpg")
    jpeg = (tmp_path / "a.jpg").read_bytes()
    good = {"image_id": "a.jpg", "split": "train", "captions": ["One"], "jpeg": jpeg}
    rows = [
        good,
        good | {"jpeg": None},
        good | {"jpeg": b"no photo"},
        good | {"captions": []},
        good | {"split": None},
    ]
    table(tmp_path / "images_captions.parquet", rows)
    records, problems = split_up(flickr8k(tmp_path))
    assert len(records) == 1
    assert photo_of(records[0]).read_bytes() == jpeg
    assert problems == [
        "row 2: its image has no bytes",
        "row 3: its bytes are no known kind of image file",
        "row 4: it has no captions",
        "row 5: its split is missing",
    ]
    whole = (tmp_path / "images_captions.parquet").read_bytes()
    (tmp_path / "images_captions.parquet").write_bytes(whole[:-20])
    assert split_up(flickr8k(tmp_path))[1][0].startswith("this file cannot be read on: ")


def test_questions_whose_picture_is_damaged(tmp_path: Path) -> None:
    photos(tmp_path, "a.png", "b.png")
    png = (tmp_path / "a.png").read_bytes()
    table(tmp_path / "images.parquet", [{"image_id": 0, "png": png}, {"image_id": 1, "png": b"x"}])
    questions = [{"question": "Is it?", "answer": "no", "image_id": n} for n in (0, 1, 0)]
    table(tmp_path / "questions.parquet", [*questions, {"question": "", "answer": "no", "image_id": 0}])
    records, problems = split_up(easyvqa(tmp_path, "all"))
    assert len(records) == 2
    assert problems == ["row 2: there is no image 1", "row 4: its question is missing"]
    assert len(split_up(easyvqa(tmp_path, "dev"))[0]) == 2  # the last tenth of one picture
    assert not split_up(easyvqa(tmp_path, "train"))[0]


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path, "a.jpg")
    row = {"domain": "photo", "label": "dog", "file": "a.jpg", "jpeg": (tmp_path / "a.jpg").read_bytes()}
    table(tmp_path / "images.parquet", [row])
    monkeypatch.setenv("HARMONIA_CACHE", str(tmp_path / "a.jpg"))
    with pytest.raises(HarmoniaError, match=r"cannot write into .*; make room or set HARMONIA_CACHE"):
        list(pacs(tmp_path))
