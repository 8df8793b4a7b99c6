"""The model: names saved and loaded, codes by encoder, cues to every matrix of their space."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import harmonia
from harmonia.collection.cues import make_query
from harmonia.collection.encoder_set import EncoderSet
from harmonia.collection.matrices import given_by
from harmonia.types import Code, Cue, HarmoniaError, Signal
from tests.media import make_photo, make_tone, scene, tone


def test_names_are_saved_and_loaded(tmp_path: Path) -> None:
    model = EncoderSet.load()
    model.save(tmp_path)
    again = EncoderSet.saved(tmp_path, model.infos())
    assert again.names == model.names == ("descriptors",)
    assert again.infos() == model.infos()
    assert EncoderSet.saved(tmp_path / "without", model.infos()).names == ("descriptors",)
    assert [e.modality for e in again.load_all()] == [e.modality for e in model.encoders]
    signal = Signal("text", "a dog")
    np.testing.assert_array_equal(again.encode([signal])[0][0].vector, model.encode([signal])[0][0].vector)


def test_a_description_without_encoders_is_read(tmp_path: Path) -> None:
    model = EncoderSet.load(("descriptors", "mini"))
    (tmp_path / "model.json").write_text('{"models": ["descriptors", "mini"]}')
    again = EncoderSet.saved(tmp_path, model.infos())
    assert again.infos() == model.infos()
    assert [e.name for e in again.bridges.encoders] == [e.name for e in model.bridges.encoders]
    changed = [replace(i, name=i.name.replace("harmonia-", "harmonia-0")) for i in model.infos()]
    with pytest.raises(HarmoniaError, match="made with other encoders"):
        EncoderSet.saved(tmp_path, changed)


def test_an_encoder_that_has_changed_is_refused_when_it_is_asked(tmp_path: Path) -> None:
    model = EncoderSet.load(("descriptors", "mini"))
    model.save(tmp_path)
    infos = [replace(i, name=i.name.replace("harmonia-", "harmonia-0")) for i in model.infos()]
    note = (tmp_path / "model.json").read_text().replace("harmonia-", "harmonia-0")
    (tmp_path / "model.json").write_text(note)
    again = EncoderSet.saved(tmp_path, infos)
    assert len(again.own.encode([Signal("text", "a dog")])[0]) == 1
    with pytest.raises(HarmoniaError, match="made with other encoders of 'mini'"):
        again.bridges.encode([Signal("text", "a dog")])


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"encoders": []}'])
def test_a_damaged_description_is_one_line(tmp_path: Path, damage: str) -> None:
    model = EncoderSet.load()
    model.save(tmp_path)
    (tmp_path / "model.json").write_text(damage)
    with pytest.raises(HarmoniaError, match=r"cannot read .*model\.json") as caught:
        EncoderSet.saved(tmp_path, model.infos())
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
    model = collection.encoders
    (code,) = model.own.encode([Signal("image", np.asarray(scene(0)))])[0]
    (given,) = given_by(model, memory, Cue("image", code, weight=2.0, trust=3.0))
    assert given.key in memory.matrices and (given.weight, given.trust) == (2.0, 3.0)
    for code in model.encode([Signal("text", "a dog")])[0]:
        assert given_by(model, memory, Cue("text", code)) == []
    stranger = Code("image", np.eye(505, dtype=np.float32)[0], "another space")
    assert given_by(model, memory, Cue("image", stranger)) == []


def test_an_empty_snapshot_has_no_memory(tmp_path: Path) -> None:
    make_photo(tmp_path / "a.png")
    collection = harmonia.open(tmp_path / "m")
    collection.remember(tmp_path / "a.png")
    collection.forget(where="name = 'a'")
    assert collection.bound()[1] is None
    with pytest.raises(HarmoniaError, match="empty"):
        collection.recall("a dog")


def test_words_find_a_photo_without_caption_through_a_shared_space(tmp_path: Path) -> None:
    pretrained = pytest.importorskip("tests.pretrained.test_hub")
    clip = pretrained.save_clip(tmp_path / "clip")
    for seed in range(3):
        make_photo(tmp_path / f"{seed}.png", seed=seed)
    collection = harmonia.open(tmp_path / "m", models=[str(clip)])
    collection.remember([tmp_path / f"{seed}.png" for seed in range(3)])
    spaces = {e.modality: e.space for e in collection.encoders.encoders}
    assert spaces["text"] == spaces["image"] != spaces["audio"]
    _, memory = collection.bound()
    assert memory is not None
    (cue,) = collection.cues(make_query({"text": "a red dog"}))
    (given,) = given_by(collection.encoders, memory, cue)
    assert given.key == next(e.name for e in collection.encoders.encoders if e.modality == "image")
    # The weights are random, so what must come first is what the model's own cosines say.
    code = collection.encoders.encode([Signal("text", "a red dog")])[0][0].vector
    expected = collection.retrieve("a red dog", k=3)
    best = max(float(row @ code) for row in collection.store.codes().encoders[given.key].codes)
    assert expected[0].similarity == pytest.approx(best, abs=1e-5)
    assert {r.record.id for r in collection.recall("a red dog", k=3).records} == {
        n.record.id for n in expected
    }
    # Opened without a word about the model, the memory loads its own.
    again = harmonia.open(tmp_path / "m")
    assert again.encoders.names == (str(clip),)
    assert again.encoders.infos() == collection.encoders.infos()
    with pytest.raises(HarmoniaError, match="made with other encoders") as caught:
        harmonia.open(tmp_path / "m", models=["descriptors"]).remember(tmp_path / "0.png")
    assert "\n" not in str(caught.value)
