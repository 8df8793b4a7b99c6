"""WebDataset shards and Hugging Face datasets: read, written, split among processes, damaged."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
import webdataset as wds
from torch.utils.data import DataLoader

import datasets
from harmonia.data.records import Problem
from harmonia.datasets.hub import hub
from harmonia.datasets.shards import write_shards
from harmonia.datasets.webdataset import ShardSamples, webdataset
from harmonia.types import HarmoniaError, Part, Record
from tests.media import make_photo, make_tone, make_video

datasets.disable_progress_bars()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARMONIA_CACHE", str(tmp_path / "cache"))


def sorted_out(found: Iterable[Record | Problem]) -> tuple[list[Record], list[str]]:
    everything = list(found)
    records = [one for one in everything if isinstance(one, Record)]
    return records, [one.reason for one in everything if isinstance(one, Problem)]


def texts(record: Record) -> list[str]:
    return [part.text for part in record.parts if part.modality == "text" and part.text]


def photo(folder: Path, seed: int = 0) -> bytes:
    return make_photo(folder / f"photo{seed}.jpg", seed=seed, size=(32, 24)).read_bytes()


def shard(path: Path, files: Sequence[tuple[str, bytes]]) -> Path:
    """A tar file made without webdataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def small_shards(folder: Path, shards: int = 4, size: int = 3) -> str:
    """Shards of texts: 0, 1, 2 in the first, and so on."""
    for number in range(shards):
        rows = range(number * size, number * size + size)
        shard(
            folder / f"words-train-{number:03d}.tar", [(f"{row:05d}.txt", str(row).encode()) for row in rows]
        )
    return str(folder / f"words-train-{{000..{shards - 1:03d}}}.tar")


def words(samples: Iterable[dict]) -> list[int]:
    return [int(sample["text"][0].text) for sample in samples]


# --- reading


def test_samples_in_the_published_layout(tmp_path):
    """As img2dataset writes them: the caption in .txt and again in .json, among other facts."""
    image = photo(tmp_path)
    facts = {
        "caption": "a red box",
        "url": "http://x/y.jpg",
        "width": 32,
        "path": "/old",
        "exif": {"a": 1},
        "no": None,
    }
    files = [
        ("a/0001.jpg", image),
        ("a/0001.json", json.dumps(facts).encode()),
        ("a/0001.txt", b"a red box\n"),
        ("a/0002.CLS", b"7"),
        ("a/0002.png", make_photo(tmp_path / "p.png", size=(8, 8)).read_bytes()),
        ("a/0002.json", json.dumps({"captions": ["one", "two"]}).encode()),
        ("a/0003.npy", b"numbers"),
        ("a/0004.jpg", image),
        ("a/0004.json", b"{broken"),
        ("a/0005.jpg", b"no picture at all"),
        ("a/00055.txt", bytes(range(256)) * 4),
        ("a/0006.seg.flac", make_tone(tmp_path / "t.flac", seconds=0.1).read_bytes()),
    ]
    path = shard(tmp_path / "cc3m" / "00000.tar", files)
    records, problems = sorted_out(webdataset(path))
    assert [record.metadata["name"] for record in records] == ["0001", "0002", "0005", "0006"]
    first = records[0]
    assert texts(first) == ["a red box"]
    assert Path(first.parts[0].path).read_bytes() == image
    assert first.metadata == {
        "dataset": "cc3m", "split": "all", "name": "0001", "path": first.parts[0].path,
        "url": "http://x/y.jpg", "width": 32, "exif": '{"a": 1}',
    }  # fmt: skip
    assert texts(records[1]) == ["one", "two"] and records[1].metadata["label"] == 7
    assert records[3].parts[0].modality == "audio"
    assert problems[0] == "sample a/0003: none of its files is a part of a record: npy"
    assert problems[1].startswith("sample a/0004: its .json is not JSON")
    assert problems[2].startswith("sample a/00055: its text cannot be read")
    assert len(problems) == 3


def test_shards_by_folder_pattern_and_split(tmp_path):
    pattern = small_shards(tmp_path, shards=3)
    shard(tmp_path / "words-val-000.tar", [("x.txt", b"99")])
    assert len(sorted_out(webdataset(tmp_path))[0]) == 10
    assert len(sorted_out(webdataset(tmp_path, "train"))[0]) == 9
    assert len(sorted_out(webdataset([pattern, tmp_path / "words-val-000.tar"]))[0]) == 10
    assert sorted_out(webdataset(tmp_path, "val"))[0][0].metadata["split"] == "val"
    with pytest.raises(HarmoniaError, match=r"there is no shard .*words-train-003.tar"):
        webdataset(tmp_path / "words-train-{000..003}.tar")
    with pytest.raises(HarmoniaError, match=r"no .tar file with test in its name"):
        webdataset(tmp_path, "test")


def test_names_that_webdataset_would_run_are_files_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shard(tmp_path / "pipe:touch owned", [("x.txt", b"words")])
    assert texts(sorted_out(webdataset("pipe:touch owned"))[0][0]) == ["words"]
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("cut", ["in a file", "between files", "in a header"])
def test_a_cut_shard_gives_what_is_whole_and_a_problem(tmp_path, cut):
    path = shard(tmp_path / "s.tar", [(f"{n}.txt", b"word" * 300) for n in range(3)])
    # every member takes a header of 512 bytes and 1,200 bytes filled up to 1,536
    length = {"in a file": 4096 + 900, "between files": 4096, "in a header": 4096 + 100}[cut]
    path.write_bytes(path.read_bytes()[:length])
    records, problems = sorted_out(webdataset(path))
    assert [record.metadata["name"] for record in records] in (["0", "1"], ["0"])
    assert len(problems) == 1 and "s.tar is damaged or cut" in problems[0] and "load it again" in problems[0]


def test_a_damaged_shard_does_not_stop_the_others(tmp_path):
    pattern = small_shards(tmp_path, shards=3)
    (tmp_path / "words-train-001.tar").write_bytes(b"this is no archive" * 100)
    records, problems = sorted_out(webdataset(pattern))
    assert len(records) == 6 and len(problems) == 1
    with pytest.raises(HarmoniaError, match=r"words-train-001.tar is damaged"):
        list(ShardSamples(pattern))
    seen: list[Problem] = []
    assert words(ShardSamples(pattern, on_problem=seen.append)) == [0, 1, 2, 6, 7, 8]
    assert seen[0].path.endswith("words-train-001.tar")


# --- training


def test_samples_are_decoded_in_memory(tmp_path):
    files = [
        ("1.jpg", photo(tmp_path)),
        ("1.txt", b"a box"),
        ("1.wav", make_tone(tmp_path / "t.wav", seconds=0.1).read_bytes()),
        ("1.mp4", make_video(tmp_path / "v.mp4", seconds=0.5).read_bytes()),
        ("1.json", b'{"year": 1999}'),
        ("2.jpg", photo(tmp_path)[:300]),
    ]
    path = shard(tmp_path / "s.tar", files)
    seen: list[Problem] = []
    (sample,) = ShardSamples(path, on_problem=seen.append)
    assert sample["key"] == "1" and sample["metadata"] == {"year": 1999}
    assert sample["image"][0].array.shape == (24, 32, 3)
    assert sample["audio"][0].array.shape == (1, 1600)
    assert sample["video"][0].sound is not None
    assert sample["text"][0].text == "a box"
    assert seen[0].reason.startswith("sample 2: ")
    assert not (tmp_path / "cache").exists()
    with pytest.raises(HarmoniaError, match=r"s.tar, sample 2: "):
        list(ShardSamples(path))


def test_ranks_and_workers_share_the_shards(tmp_path, monkeypatch):
    pattern = small_shards(tmp_path, shards=4)
    loader = DataLoader(ShardSamples(pattern), batch_size=None, num_workers=2)
    assert sorted(words(loader)) == list(range(12))
    seen = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        seen.append(words(ShardSamples(pattern)))
    assert seen == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11]]
    monkeypatch.setenv("WORLD_SIZE", "5")
    with pytest.raises(HarmoniaError, match="4 shards are too few for 5 ranks"):
        list(ShardSamples(pattern))


def test_order_is_given_by_seed_and_epoch(tmp_path):
    samples = ShardSamples(small_shards(tmp_path), shuffle=8, seed=1)
    first = words(samples)
    assert sorted(first) == list(range(12)) and first != sorted(first)
    assert words(samples) == first
    samples.set_epoch(1)
    assert words(samples) != first and sorted(words(samples)) == list(range(12))


# --- writing


def test_written_shards_come_back_whole(tmp_path):
    records = []
    for seed in range(5):
        image = make_photo(tmp_path / f"{seed}.jpg", seed=seed, size=(16, 16))
        parts = [
            Part("image", path=str(image)),
            Part("text", text=f"photo {seed}"),
            Part("text", text="hund 犬"),
        ]
        if seed == 2:
            parts.append(Part("audio", path=str(make_tone(tmp_path / "t.wav", seconds=0.1))))
        records.append(Record("", tuple(parts), {"name": f"n{seed}", "path": str(image), "year": seed}))
    written = write_shards(records, tmp_path / "out" / "photos-%06d.tar", size=2)
    assert [path.name for path in written] == [f"photos-00000{n}.tar" for n in range(3)]
    assert sorted((tmp_path / "out").iterdir()) == written
    back, problems = sorted_out(webdataset(written))
    assert problems == [] and [texts(record) for record in back] == [texts(record) for record in records]
    assert [len(record.parts) for record in back] == [3, 3, 4, 3, 3]
    assert back[4].metadata["name"] == "n4" and back[4].metadata["year"] == 4
    for old, new in zip(records, back, strict=True):
        assert Path(new.parts[0].path).read_bytes() == Path(old.parts[0].path).read_bytes()
    again = write_shards(records, tmp_path / "again" / "photos-%06d.tar", size=2)
    assert again[0].read_bytes() == written[0].read_bytes()


def test_webdataset_reads_what_is_written(tmp_path):
    image = make_photo(tmp_path / "p.jpg", size=(16, 12))
    record = Record("", (Part("image", path=str(image)), Part("text", text="a box")), {"name": "x"})
    (path,) = write_shards([record], tmp_path / "s-%d.tar")
    (sample,) = wds.WebDataset(str(path), shardshuffle=False).decode("rgb8")
    assert sample["jpg"].shape == (12, 16, 3) and sample["txt"] == "a box" and sample["json"] == {"name": "x"}


def test_what_cannot_be_written(tmp_path):
    good = Record("", (Part("text", text="word"),))
    bad = Record("", (Part("image", path=str(tmp_path / "gone.jpg")),))
    with pytest.raises(HarmoniaError, match=r"gone.jpg cannot be read: no such file"):
        write_shards([good, bad], tmp_path / "s-%d.tar", size=1)
    assert list(tmp_path.iterdir()) == [tmp_path / "s-0.tar"]
    with pytest.raises(HarmoniaError, match=r"give a pattern as photos-%06d.tar"):
        write_shards([good], tmp_path / "s.tar")


# --- Hugging Face datasets


@pytest.fixture
def dataset(tmp_path) -> datasets.Dataset:
    columns = {
        "img": [photo(tmp_path, seed) for seed in range(3)],
        "about": ["one", "two", "three"],
        "sound": [
            {"bytes": make_tone(tmp_path / "t.wav", seconds=0.1).read_bytes(), "path": "t.wav"},
            None,
            None,
        ],
        "label": [0, 1, -1],
    }
    features = {
        "img": datasets.Image(),
        "about": datasets.Value("string"),
        "sound": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        "label": datasets.ClassLabel(names=["cat", "dog"]),
    }
    plain = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return plain.cast_column("sound", datasets.Audio())  # Audio itself encodes with torchcodec only


def check(records: list[Record], tmp_path: Path) -> None:
    assert [[part.modality for part in record.parts] for record in records] == [
        ["image", "audio"],
        ["image"],
        ["image"],
    ]
    assert Path(records[1].parts[0].path).read_bytes() == photo(tmp_path, 1)
    assert [record.metadata.get("label") for record in records] == ["cat", "dog", None]
    assert [record.metadata["about"] for record in records] == ["one", "two", "three"]


def test_hub_reads_every_form_of_a_dataset(tmp_path, dataset):
    dataset.save_to_disk(str(tmp_path / "disk"))
    dataset.to_parquet(str(tmp_path / "clone" / "data" / "train-00000-of-00001.parquet"))
    dataset.to_parquet(str(tmp_path / "clone" / "data" / "validation-00000-of-00001.parquet"))
    forms = (
        dataset,
        dataset.to_iterable_dataset(),
        datasets.DatasetDict(train=dataset),
        tmp_path / "disk",
        tmp_path / "clone",
    )
    for form in forms:
        records, problems = sorted_out(hub(form))
        assert problems == []
        check(records, tmp_path)
    records, _ = sorted_out(hub(tmp_path / "clone", "dev"))
    assert records[0].metadata["dataset"] == "clone" and records[0].metadata["split"] == "val"
    assert len(list(hub(tmp_path / "clone", "all"))) == 6
    (arrow,) = (tmp_path / "disk").glob("*.arrow")
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "data.arrow").write_bytes(arrow.read_bytes())
    check(sorted_out(hub(tmp_path / "plain"))[0], tmp_path)


def test_hub_columns(tmp_path, dataset):
    records, _ = sorted_out(hub(dataset, columns={"img": "image", "about": "text", "label": "text"}))
    assert texts(records[0]) == ["one", "cat"] and texts(records[2]) == ["three"]
    assert [part.modality for part in records[0].parts] == ["image", "text", "text"]
    with pytest.raises(HarmoniaError, match="has no column foo; it has img, about"):
        hub(dataset, columns={"foo": "image"})
    with pytest.raises(HarmoniaError, match="cannot hold smell"):
        hub(dataset, columns={"img": "smell"})
    with pytest.raises(HarmoniaError, match=r"known to hold parts \(label\); say it with columns"):
        hub(dataset.select_columns(["label"]))
    several = datasets.Dataset.from_dict({"captions": [["a", "b"], []], "year": [1, 2]})
    records, problems = sorted_out(hub(several))
    assert texts(records[0]) == ["a", "b"] and records[0].metadata["year"] == 1
    assert problems == ["row 2: it has no part: every column of parts is empty"]


def test_hub_absent_and_damaged(tmp_path, dataset):
    with pytest.raises(HarmoniaError, match="there is no folder"):
        hub(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(HarmoniaError, match=r"no .parquet or .arrow file"):
        hub(tmp_path / "empty")
    with pytest.raises(HarmoniaError, match="has no split 'test'"):
        hub(dataset, "test")
    path = tmp_path / "cut" / "train.parquet"
    dataset.to_parquet(str(path))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(HarmoniaError, match=r"the dataset in .*cut cannot be read: .*load it again"):
        hub(tmp_path / "cut")
