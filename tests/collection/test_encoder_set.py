"""The model: names saved and loaded, codes by encoder, cues to every matrix of their space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import harmonia
from harmonia.collection.encoder_set import EncoderSet
from harmonia.types import Code, Cue, HarmoniaError, Signal
from tests.media import make_photo, make_tone, scene, tone


def test_names_are_saved_and_loaded(tmp_path: Path) -> None:
    model = EncoderSet.load()
    model.save(tmp_path)
    again = EncoderSet.saved(tmp_path)
    assert again.names == model.names == ("descriptors",)
    assert again.infos() == model.infos()
    assert EncoderSet.saved(tmp_path / "without").names == ("descriptors",)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"encoders": []}'])
def test_a_damaged_description_is_one_line(tmp_path: Path, damage: str) -> None:
    EncoderSet.load().save(tmp_path)
    (tmp_path / "model.json").write_text(damage)
    with pytest.raises(HarmoniaError, match=r"cannot read .*model\.json") as caught:
        EncoderSet.saved(tmp_path)
    assert "\n" not in str(caught.value)


def test_codes_come_in_the_order_of_the_signals() -> None:
    model = EncoderSet.load()
    signals = [
        Signal("text", "a dog"),
        Signal("image", np.asarray(scene(1))),
        Signal("text", "a cat"),
        Signal("audio", tone()[None], rate=16000),
    ]
    codes = model.encode(signals)
    assert [[c.modality for c in found] for found in codes] == [["text"], ["image"], ["text"], ["audio"]]
    for signal, found in zip(signals, codes, strict=True):
        np.testing.assert_allclose(found[0].vector, model.encode([signal])[0][0].vector, atol=1e-6)
    assert model.encode([]) == []


def test_a_cue_goes_only_where_it_can_be_compared(tmp_path: Path) -> None:
    make_photo(tmp_path / "a.png")
    make_tone(tmp_path / "a.wav")
    collection = harmonia.open(tmp_path / "m")
    collection.remember([tmp_path / "a.png", tmp_path / "a.wav"])
    _, memory = collection.bound()
    assert memory is not None
    model = collection.model
    picture = Cue("image", Signal("image", np.asarray(scene(0))), weight=2.0, trust=3.0)
    (given,) = model.given(memory, picture)
    assert given.key in memory.matrices and (given.weight, given.trust) == (2.0, 3.0)
    assert model.given(memory, Cue("text", Signal("text", "a dog"))) == []
    stranger = Code("image", np.eye(505, dtype=np.float32)[0], "another space")
    assert model.given(memory, Cue("image", stranger)) == []


def test_an_empty_snapshot_has_no_memory(tmp_path: Path) -> None:
    make_photo(tmp_path / "a.png")
    collection = harmonia.open(tmp_path / "m")
    collection.remember(tmp_path / "a.png")
    collection.forget(where="name = 'a'")
    assert collection.bound()[1] is None
    with pytest.raises(HarmoniaError, match="empty"):
        collection.recall("a dog")


def test_words_find_a_photo_without_caption_through_a_shared_space(tmp_path: Path) -> None:
    pretrained = pytest.importorskip("test_encoders_pretrained")
    clip = pretrained.save_clip(tmp_path / "clip")
    for seed in range(3):
        make_photo(tmp_path / f"{seed}.png", seed=seed)
    collection = harmonia.open(tmp_path / "m", models=[str(clip)])
    collection.remember([tmp_path / f"{seed}.png" for seed in range(3)])
    spaces = {e.modality: e.space for e in collection.model.encoders}
    assert spaces["text"] == spaces["image"] != spaces["audio"]
    _, memory = collection.bound()
    assert memory is not None
    words = Cue("text", Signal("text", "a red dog"))
    (given,) = collection.model.given(memory, words)
    assert given.key == next(e.name for e in collection.model.encoders if e.modality == "image")
    # The weights are random, so what must come first is what the model's own cosines say.
    code = collection.model.encode([Signal("text", "a red dog")])[0][0].vector
    expected = collection.retrieve("a red dog", k=3)
    best = max(float(row @ code) for row in collection.store.codes().encoders[given.key].codes)
    assert expected[0].similarity == pytest.approx(best, abs=1e-5)
    assert {r.record.id for r in collection.recall("a red dog", k=3).records} == {
        n.record.id for n in expected
    }
    # Opened without a word about the model, the memory loads its own.
    again = harmonia.open(tmp_path / "m")
    assert again.model.names == (str(clip),)
    assert again.model.infos() == collection.model.infos()
    with pytest.raises(HarmoniaError, match="made with other encoders") as caught:
        harmonia.open(tmp_path / "m", models=["descriptors"]).remember(tmp_path / "0.png")
    assert "\n" not in str(caught.value)
