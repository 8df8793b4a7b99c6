"""recall and retrieve over a real store: cues of every kind, conditions, abstention, certificates."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

import harmonia
from harmonia.collection.collection import Memory
from harmonia.collection.cues import make_query
from harmonia.collection.sentences import answer_text, explanation
from harmonia.tasks.contact_sheet import draw_sheet, save_sheet
from harmonia.types import HarmoniaError, Recollection, Signal
from tests.media import make_photo, make_tone, make_video, scene, tone

CAPTIONS = (
    "a brown dog runs on the beach",
    "two children play chess indoors",
    "an old lighthouse above stormy waves",
    "red lanterns hang in a narrow street",
    "a violinist tunes her instrument",
    "snow covers the mountain village",
)
HERTZ = (220.0, 330.0, 550.0, 880.0, 1320.0, 2200.0)


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    """Six records of a photo, a sound and a caption, with metadata from a manifest."""
    root = tmp_path_factory.mktemp("recall")
    rows = []
    for number, (caption, hz) in enumerate(zip(CAPTIONS, HERTZ, strict=True)):
        make_photo(root / f"{number}.png", seed=number)
        make_tone(root / f"{number}.wav", hz=hz)
        rows.append(
            {
                "image": f"{number}.png",
                "audio": f"{number}.wav",
                "caption": caption,
                "name": str(number),
                "year": 2015 + number,
                "place": "sea" if number in (0, 2) else "land",
            }
        )
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    collection = harmonia.open(root / ".harmonia")
    assert collection.remember(root).remembered == 6
    return collection


def found(recollection: Recollection) -> list[str]:
    return [r.record.metadata["name"] for r in recollection.records]


def half(number: int) -> Signal:
    """The left half of a photo; the rest is black."""
    pixels = np.array(scene(number))
    pixels[:, pixels.shape[1] // 2 :] = 0
    return Signal("image", pixels)


def noisy(number: int, level: float = 0.2) -> Signal:
    wave = tone(hz=HERTZ[number])
    noise = np.random.default_rng(number).normal(0, level, len(wave))
    return Signal("audio", (wave + noise).astype(np.float32)[None], rate=16000)


@pytest.mark.parametrize("number", range(6))
def test_any_part_brings_back_the_whole(memory: Memory, number: int) -> None:
    cues = {"text": " ".join(CAPTIONS[number].split()[-3:]), "image": half(number), "audio": noisy(number)}
    for modality, cue in cues.items():
        best = memory.recall(**{modality: cue}).records[0]
        assert best.record.metadata["name"] == str(number), modality
        assert {p.modality for p in best.record.parts} == {"text", "image", "audio"}
        assert set(best.matches) == {modality}


def test_cues_are_bound_together(memory: Memory) -> None:
    both = memory.recall(image=half(2), audio=noisy(2, level=1.0))
    assert found(both)[0] == "2"
    assert set(both.records[0].shares) == {"image", "audio"}
    alone = memory.recall(audio=noisy(2, level=1.0))
    assert both.records[0].probability > alone.records[0].probability


def test_cues_come_as_files_bytes_and_several(memory: Memory) -> None:
    file = memory.root.parent / "3.png"
    for cue in (file, str(file), file.read_bytes()):
        assert found(memory.recall(image=cue))[0] == "3"
    two = memory.recall(image=[file, half(3)])
    assert set(two.records[0].shares) == {"image 1", "image 2"}


def test_where_filters_on_metadata(memory: Memory) -> None:
    assert set(found(memory.recall(image=half(1), where="place = 'sea'"))) == {"0", "2"}
    assert found(memory.recall(image=half(1), where="year >= 2020 and place = 'land'")) == ["5"]
    with pytest.raises(HarmoniaError, match=r"columns are .*place"):
        memory.recall(image=half(1), where="colour = 'red'")


def test_a_condition_that_leaves_no_record_is_answered_by_nothing(memory: Memory) -> None:
    recollection = memory.recall(image=half(1), where="year = 1900")
    assert not recollection.records and recollection.abstained and recollection.certificate.nothing == 1.0
    assert answer_text(recollection).startswith("Nothing that is remembered matches")
    assert "none fulfils the condition" in " ".join(explanation(recollection))
    assert memory.retrieve(image=half(1), where="year = 1900") == ()
    everything = set(memory.store.ids())
    several = memory.recall_many([make_query({"image": half(1)})] * 2, leave_out=everything)
    assert all(isinstance(one, Recollection) and one.abstained and not one.records for one in several)


def test_words_against_push_a_record_down(memory: Memory) -> None:
    with_ = {r.record.metadata["name"]: r for r in memory.recall("dog lighthouse", k=6).records}
    without = memory.recall("dog lighthouse", against=["lighthouse waves"], k=6)
    after = {r.record.metadata["name"]: r for r in without.records}
    assert found(without)[0] == "0"
    assert after["2"].probability < with_["2"].probability
    assert after["2"].shares["not lighthouse waves"] < 0


def test_weights_decide_between_cues(memory: Memory) -> None:
    for weights, winner in (({"image": 3.0, "audio": 0.1}, "1"), ({"image": 0.1, "audio": 3.0}, "4")):
        assert found(memory.recall(image=half(1), audio=noisy(4), weights=weights))[0] == winner
    with pytest.raises(HarmoniaError, match=r"no cue is called 'imgae'.*image"):
        memory.recall(image=half(1), weights={"imgae": 2.0})


def test_k_and_leaving_out_the_cue(memory: Memory) -> None:
    assert [r.rank for r in memory.recall(image=half(0), k=3).records] == [1, 2, 3]
    assert len(memory.recall(image=half(0), k=50).records) == 6
    with pytest.raises(HarmoniaError, match="at least 1"):
        memory.recall(image=half(0), k=0)
    file = memory.root.parent / "0.png"
    assert "0" in found(memory.recall(image=file, k=6))
    left = found(memory.recall(image=file, k=6, leave_out_cues=True))
    assert len(left) == 5 and "0" not in left


def test_an_unrelated_cue_abstains(memory: Memory) -> None:
    unrelated = memory.recall("xylograph quetzal byzantium")
    assert unrelated.abstained and unrelated.certificate.nothing > 0.2
    assert not unrelated.records[0].matched
    assert not memory.recall(CAPTIONS[3]).abstained


def test_a_cue_that_nothing_can_be_compared_with(memory: Memory, tmp_path: Path) -> None:
    film = make_video(tmp_path / "film.mp4", sound=False)
    bare = harmonia.open(tmp_path / "bare", models=["descriptors"])
    bare.remember(make_photo(tmp_path / "photo.png"))
    with pytest.raises(HarmoniaError, match="nothing remembered can be compared with a cue of video"):
        bare.recall(video=film)
    with pytest.raises(HarmoniaError, match="nothing to recall by"):
        memory.recall()
    with pytest.raises(HarmoniaError, match="empty"):
        memory.recall("   ")
    with pytest.raises(HarmoniaError, match=r"nothing remembered|no memory"):
        harmonia.open(tmp_path / "none").recall("dog")


@pytest.mark.parametrize("trust", [0.5, 2.0, 20.0, float("inf")])
@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_the_certificate_holds(memory: Memory, trust: float, alpha: float) -> None:
    recollection = memory.recall(image=half(5), audio=noisy(5), trust=trust, alpha=alpha)
    c = recollection.certificate
    energies = np.array(c.energies)
    assert len(energies) == c.steps + 1 and np.isfinite(energies).all()
    assert (np.diff(energies) <= 1e-5 * np.abs(energies).max()).all()
    assert 0 <= c.tail_mass <= 1 and 0 <= c.nothing <= 1 and c.error_bound >= 0
    assert c.candidates is None
    total = sum(r.probability for r in recollection.records)
    assert total == pytest.approx(1, abs=1e-3)
    for r in recollection.records:
        assert sum(map(abs, r.shares.values())) == pytest.approx(1, abs=1e-5)
    for code in recollection.codes.values():
        assert np.linalg.norm(code.vector) == pytest.approx(1, abs=1e-3)


def test_fewer_candidates_are_said(memory: Memory) -> None:
    small = Memory(memory.root, ram=1)
    assert found(small.recall(image=half(4)))[0] == "4"


def test_plain_search(memory: Memory) -> None:
    file = memory.root.parent / "1.png"
    cosine = memory.retrieve(image=file, k=3)
    euclidean = memory.retrieve(image=file, k=3, metric="euclidean")
    assert [n.record.id for n in cosine] == [n.record.id for n in euclidean]
    assert cosine[0].similarity == pytest.approx(1, abs=1e-5)
    assert euclidean[0].similarity == pytest.approx(0, abs=1e-2)
    # codes are unit vectors, so the two agree: d^2 = 2 - 2 cos
    for a, b in zip(cosine, euclidean, strict=True):
        assert b.similarity**2 == pytest.approx(2 - 2 * a.similarity, abs=1e-3)
    assert {n.record.metadata["place"] for n in memory.retrieve(image=file, where="place = 'sea'")} == {"sea"}


def test_recall_sees_what_another_added(tmp_path: Path) -> None:
    make_photo(tmp_path / "a.png", seed=1)
    make_photo(tmp_path / "b.png", seed=2)
    mine, other = harmonia.open(tmp_path / "m"), harmonia.open(tmp_path / "m")
    mine.remember(tmp_path / "a.png")
    assert found(mine.recall(image=tmp_path / "b.png")) == ["a"]
    other.remember(tmp_path / "b.png")
    assert found(mine.recall(image=tmp_path / "b.png"))[0] == "b"
    other.forget(where="name = 'b'")
    assert found(mine.recall(image=tmp_path / "b.png")) == ["a"]


def test_a_video_is_found_by_a_frame_of_sound(tmp_path: Path) -> None:
    make_video(tmp_path / "low.mp4", hz=300, seed=1)
    make_video(tmp_path / "high.mp4", hz=1700, seed=2)
    memory = harmonia.open(tmp_path / "m")
    memory.remember([tmp_path / "low.mp4", tmp_path / "high.mp4"])
    wave = (tone(hz=1700) + np.random.default_rng(0).normal(0, 0.1, 32000)).astype(np.float32)
    soundfile.write(tmp_path / "cue.wav", wave, 16000)
    assert found(memory.recall(audio=tmp_path / "cue.wav"))[0] == "high"
    bound = memory.recall(video=tmp_path / "low.mp4")
    assert found(bound)[0] == "low" and set(bound.records[0].shares) == {"video", "video sound"}


def test_a_sheet_is_drawn_after_the_originals_are_gone(tmp_path: Path) -> None:
    for seed in range(3):
        make_photo(tmp_path / f"{seed}.jpg", seed=seed)
    memory = harmonia.open(tmp_path / "m")
    memory.remember([tmp_path / f"{seed}.jpg" for seed in range(3)], copy=True)
    cue = tmp_path / "cue.jpg"
    (tmp_path / "1.jpg").rename(cue)
    for seed in (0, 2):
        (tmp_path / f"{seed}.jpg").unlink()
    rows = [([("image", cue)], memory.recall(image=cue))]
    with_copies = np.asarray(draw_sheet(rows, memory.root))
    elsewhere = np.asarray(draw_sheet(rows, tmp_path / "nowhere"))
    assert (with_copies != elsewhere).any(axis=2).sum() > 10_000  # pictures, not grey tiles
    save_sheet(draw_sheet(rows, memory.root), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG"
