"""Many recalls at once answer as each would by itself."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import harmonia
from harmonia.collection.cues import Query, RecallOptions, make_query
from harmonia.types import HarmoniaError, Recollection
from tests.media import make_photo, make_tone


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> harmonia.Memory:
    folder = tmp_path_factory.mktemp("many")
    for seed in range(12):
        make_photo(folder / f"photo {seed}.png", seed=seed)
        (folder / f"photo {seed}.txt").write_text(
            f"the photo number {seed} of a {['red', 'green', 'blue'][seed % 3]} thing"
        )
    make_tone(folder / "tone.wav")
    collection = harmonia.open(folder / "store", models=["descriptors"])
    collection.remember(folder)
    return collection


def questions(memory: harmonia.Memory) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Cues by modality, and what else a recall takes."""
    media = memory.root.parent
    return [
        *(({"text": f"photo number {i}"}, {}) for i in range(5)),
        ({"image": media / "photo 3.png"}, {}),
        ({"image": media / "photo 4.png", "text": "red thing"}, {"weights": {"text": 0.5}}),
        ({"audio": media / "tone.wav"}, {}),
        ({"text": "green"}, {"against": ["photo number 1"]}),
    ]


def same(one: Recollection, other: Recollection) -> None:
    assert [r.record.id for r in one.records] == [r.record.id for r in other.records]
    assert [r.probability for r in one.records] == pytest.approx(
        [r.probability for r in other.records], abs=1e-5
    )
    assert one.certificate.energies == pytest.approx(other.certificate.energies, abs=1e-5)
    assert one.abstained == other.abstained
    for a, b in zip(one.records, other.records, strict=True):
        assert dict(a.shares) == pytest.approx(dict(b.shares), abs=1e-4)
        assert {n: m.part for n, m in a.matches.items()} == {n: m.part for n, m in b.matches.items()}


def test_each_query_is_answered_as_if_alone(memory: harmonia.Memory) -> None:
    asked = questions(memory)
    many = memory.recall_many([make_query(given, **more) for given, more in asked])
    for (given, more), found in zip(asked, many, strict=True):
        assert isinstance(found, Recollection)
        same(found, memory.recall(**given, **more))


def test_a_condition_holds_for_all(memory: harmonia.Memory) -> None:
    where = "name = 'photo 2'"
    for found in memory.recall_many(
        [make_query(given) for given, _ in questions(memory)[:3]], RecallOptions(where=where)
    ):
        assert isinstance(found, Recollection)
        assert {r.record.metadata["name"] for r in found.records} == {"photo 2"}


def test_what_is_wrong_with_one_query_is_its_answer_only(memory: harmonia.Memory, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no picture")
    bad: list[Query] = [make_query({"image": tmp_path / "broken.png"}), []]
    good = make_query({"text": "photo number 1"})
    *wrong, right = memory.recall_many([*bad, good])
    assert all(isinstance(one, HarmoniaError) for one in wrong)
    assert isinstance(right, Recollection)
    same(right, memory.recall(text="photo number 1"))
    assert memory.recall_many([]) == []
    with pytest.raises(HarmoniaError, match="nothing to recall by"):
        make_query({})
    with pytest.raises(HarmoniaError, match="no cue is called 'sound'"):
        make_query({"text": "red"}, weights={"sound": 1.0})


def test_a_batch_is_faster_than_one_after_the_other(memory: harmonia.Memory) -> None:
    asked = [make_query({"text": f"photo number {i}"}) for i in range(32)]
    memory.recall_many(asked[:2])
    start = time.process_time()
    memory.recall_many(asked)
    together = time.process_time() - start
    start = time.process_time()
    for query in asked:
        memory.recall_many([query])
    assert together < time.process_time() - start
