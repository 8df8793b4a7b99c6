"""Likelihoods that a memory fits to its own records: real pictures and words in a real store."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

import harmonia
from harmonia.collection.collection import LIKELIHOODS, Memory
from harmonia.collection.cues import make_query
from harmonia.collection.likelihoods import kind_of_words
from harmonia.types import HarmoniaError, Recollection

COLOURS = {"red": (220, 30, 30), "green": (30, 190, 40), "blue": (30, 40, 220), "yellow": (230, 220, 30)}
PLACES = [
    "harbour",
    "kitchen",
    "garden",
    "station",
    "museum",
    "bakery",
    "forest",
    "library",
    "bridge",
    "market",
]
THINGS = [
    "lantern",
    "kettle",
    "bicycle",
    "violin",
    "ladder",
    "compass",
    "teapot",
    "anchor",
    "pillow",
    "hammer",
]


def picture(colour: str, number: int) -> Image.Image:
    """A scene in shades of one colour."""
    rng = np.random.default_rng(number)
    base = np.array(COLOURS[colour])
    image = Image.new("RGB", (96, 96), tuple(int(v) for v in (base * rng.uniform(0.5, 0.9)).astype(int)))
    draw = ImageDraw.Draw(image)
    for _ in range(8):
        x, y = (int(v) for v in rng.integers(0, 70, 2))
        shade = np.clip(base * rng.uniform(0.6, 1.2) + rng.normal(0, 12, 3), 0, 255).astype(int)
        draw.ellipse((x, y, x + 30, y + 24), fill=tuple(int(v) for v in shade))
    return image


def filled(folder: Path, count: int, captioned: float = 0.75, calibrate: bool = True) -> Memory:
    """A memory of pictures of four colours; some of them have two captions that name the colour."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(count):
        colour = list(COLOURS)[number % 4]
        picture(colour, number).save(folder / f"{number:03}.png")
        place, thing = PLACES[number // 4 % 10], THINGS[(number // 40 + number) % 10]
        captions = [
            f"a {colour} {thing} in the {place}",
            f"{place} with something {colour}, a {thing} {number}",
        ]
        row: dict[str, object] = {"image": f"{number:03}.png", "colour": colour, "number": number}
        if (number // 4) % 4 < 4 * captioned:
            row["captions"] = captions
        rows.append(row)
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    memory = harmonia.open(folder / "memory", ("descriptors",))
    report = memory.remember(folder / "records.jsonl", calibrate=calibrate)
    assert not report.problems and report.remembered == count
    return memory


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    return filled(tmp_path_factory.mktemp("likelihoods") / "all", 160)


def colours(found: Recollection, captioned: bool) -> list[str]:
    """The colours of the records with captions, or without, best first."""
    kept = [one.record for one in found.records if (len(one.record.parts) > 1) == captioned]
    return [str(record.metadata["colour"]) for record in kept]


def test_a_memory_calibrates_itself_once_there_are_enough_records(memory: Memory) -> None:
    assert (memory.root / LIKELIHOODS).exists()
    found = memory.likelihoods
    assert found is not None
    assert {("descriptor-text-1",) * 2, ("descriptor-image-1",) * 2} <= set(found.ratios)
    assert all(ratio.scale > 0 for ratio in found.ratios.values())


def test_what_is_stored_is_never_refused(memory: Memory) -> None:
    records = memory.store.records(memory.store.ids())
    texts = [part.text for record in records for part in record.parts if part.text][::6]
    for one in memory.recall_many([make_query({"text": text}) for text in texts]):
        assert isinstance(one, Recollection)
        assert not one.abstained and one.records[0].matched
    files = [part.path for record in records for part in record.parts if part.modality == "image"][::16]
    for path in files:
        own = memory.recall(image=path)
        assert not own.abstained and own.records[0].record.parts[0].path == path


def test_words_that_many_records_hold_are_many_matches(memory: Memory) -> None:
    for word in ("red", "blue", "harbour", "violin"):
        found = memory.recall(word, k=8)
        assert not found.abstained
        assert all(one.matched for one in found.records[:3])


def test_words_of_no_record_match_nothing(memory: Memory) -> None:
    words = [
        "quarterly tax returns",
        "zebu",
        "photosynthesis",
        "xylem",
        "judo",
        "cuckoo",
        "wolf fjord",
        "hymn",
    ]
    answers = [memory.recall(word) for word in words]
    assert sum(not one.abstained for one in answers) <= 3


def test_words_find_pictures_without_captions(memory: Memory) -> None:
    """Through those that have captions, without any training but that of a few numbers in closed form."""
    assert ("descriptor-image-1", "descriptor-text-1") in memory.likelihoods.ratios  # type: ignore[union-attr]
    for colour in COLOURS:
        found = memory.recall(f"something {colour}", k=160)
        assert colours(found, captioned=True)[:10].count(colour) >= 9
        assert colours(found, captioned=False)[:5].count(colour) >= 4, colour


def test_a_second_right_cue_does_not_hurt(memory: Memory) -> None:
    records = [r for r in memory.store.records(memory.store.ids()) if len(r.parts) > 1][::5]
    right = {"image": 0, "both": 0}
    for record in records:
        pixels = np.asarray(Image.open(str(record.parts[0].path)).convert("RGB")).astype(float)
        pixels[48:] = 0
        rng = np.random.default_rng(int(record.metadata["number"]))
        noisy = (pixels + rng.normal(0, 60, pixels.shape)).clip(0, 255).astype(np.uint8)
        cue = harmonia.Signal("image", noisy)
        words = str(record.parts[1].text).rsplit(" ", 1)[0]
        for name, found in (("image", memory.recall(image=cue)), ("both", memory.recall(words, image=cue))):
            right[name] += found.records[0].record.id == record.id
    assert right["both"] >= right["image"]


def test_models_are_kept_and_can_be_deleted(tmp_path: Path) -> None:
    memory = filled(tmp_path / "m", 64)
    before = memory.recall("red lantern", k=5)
    again = harmonia.open(memory.root).recall("red lantern", k=5)
    assert [one.record.id for one in again.records] == [one.record.id for one in before.records]
    assert [one.score for one in again.records] == pytest.approx(
        [one.score for one in before.records], rel=1e-5
    )
    assert memory.forget_likelihoods() and not memory.forget_likelihoods()
    assert memory.likelihoods is None and memory.recall("red lantern").records


def test_few_records_have_no_models(tmp_path: Path) -> None:
    memory = filled(tmp_path / "m", 20)
    assert memory.likelihoods is None
    assert not (memory.root / LIKELIHOODS).exists()
    assert not memory.recall("red lantern").abstained


def test_a_damaged_file_says_what_to_do(tmp_path: Path) -> None:
    memory = filled(tmp_path / "m", 64)
    (memory.root / LIKELIHOODS).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{broken")
    with pytest.raises(HarmoniaError, match="harmonia learn"):
        harmonia.open(memory.root).recall("red")


def test_a_memory_that_has_grown_is_fitted_again(tmp_path: Path) -> None:
    memory = filled(tmp_path / "m", 64)
    first = (memory.root / LIKELIHOODS).stat().st_mtime_ns
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "one.txt").write_text("a single note", encoding="utf-8")
    memory.remember(notes)
    assert (memory.root / LIKELIHOODS).stat().st_mtime_ns == first
    for number in range(20):
        (notes / f"{number}.txt").write_text(f"note {number} about {THINGS[number % 10]}", encoding="utf-8")
    memory.remember(notes)
    assert (memory.root / LIKELIHOODS).stat().st_mtime_ns > first


@pytest.mark.parametrize(
    ("words", "kind"), [("dog", "1 words"), ("a red dog", "2 words"), ("", ""), ("the of", "2 words")]
)
def test_text_cues_are_told_apart_by_their_words(words: str, kind: str) -> None:
    assert kind_of_words(words) == kind
