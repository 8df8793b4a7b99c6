"""The shipped model: its files, what it knows, and that it leaves to the descriptors what they do better."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import harmonia
from harmonia.collection.cues import make_query
from harmonia.collection.encoder_set import DEFAULT
from harmonia.collection.matrices import bridged
from harmonia.datasets.registry import reader
from harmonia.encoders import MINI, Bridge
from harmonia.encoders.base import Encoder
from harmonia.modalities import MODALITIES, audio, image
from harmonia.pretrained.loading import load_encoders
from harmonia.recipes.encoders.trimodal import ALIASES, NUMBERS, SOUNDS, digit_signals, hit_rate, means
from harmonia.training.record_arrays import Views
from harmonia.types import HarmoniaError, Record, Signal
from tests.media import make_photo, make_tone, make_video
from tests.places import DATA

needs_data = pytest.mark.skipif(
    not (DATA / "emoji").is_dir(), reason=f"no folder of real data at {DATA}: set HARMONIA_DATA"
)


WANTED = {"rose": "1F339", "guitar": "1F3B8", "rooster": "1F413", "cactus": "1F335"}


@pytest.fixture(scope="module")
def mini() -> dict[str, Encoder]:
    return {encoder.modality: encoder for encoder in load_encoders(("mini",))}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMONIA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def codes(encoder: Encoder, signals: list[Signal], records: list[int]) -> Views:
    return Views(torch.from_numpy(encoder.encode(signals)), torch.tensor(records))


def words(*languages: str) -> tuple[list[Signal], list[int]]:
    said = [(word, i) for language in languages for i, word in enumerate(NUMBERS[language].split())]
    return [Signal("text", word) for word, _ in said], [number for _, number in said]


def test_the_files_are_small_and_whole() -> None:
    files = {path.name: path.stat().st_size for path in MINI.iterdir()}
    assert set(files) == {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert sum(files.values()) < 12e6
    weights = load_file(MINI / "model.safetensors")
    assert {t.dtype for t in weights.values() if t.is_floating_point()} == {torch.float16}


def test_the_card_names_licences_and_figures() -> None:
    card = (MINI / "README.md").read_text(encoding="utf-8")
    for name in ("Noto Emoji", "Unicode CLDR", "MNIST", "Free Spoken Digit Dataset", "ESC-10"):
        assert name in card
    for licence in ("Apache 2.0", "CC BY-SA 4.0", "CC BY-SA 3.0", "CC BY 3.0", "CC0", "Unicode License"):
        assert licence in card
    assert "| digits: spoken to picture | 0." in card and "Limits" in card


def test_it_loads_and_encodes_each_modality_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the shipped model asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)
    make_photo(tmp_path / "a.png")
    make_tone(tmp_path / "a.wav", seconds=7)
    make_video(tmp_path / "a.mp4")
    encoders = load_encoders(("mini",))
    assert sorted(e.modality for e in encoders) == ["audio", "image", "text", "video"]
    assert len({e.space for e in encoders}) == 1
    for encoder in encoders:
        if encoder.modality == "text":
            signals = [Signal("text", "eine rote Rose"), Signal("text", "x")]
        else:
            path = next(p for p in tmp_path.iterdir() if p.suffix in MODALITIES[encoder.modality].SUFFIXES)
            signals = [next(iter(MODALITIES[encoder.modality].windows(path)))] * 2
        found = encoder.encode(signals)
        assert found.shape == (2, encoder.dim) and found.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(encoder.encode(signals[:1])[0], found[0], atol=1e-5)


def test_another_process_gives_the_same_codes(mini: dict[str, Encoder]) -> None:
    code = (
        "import sys; from harmonia import load_encoders; from harmonia.types import Signal; "
        "e = {e.modality: e for e in load_encoders(('mini',))}['text']; "
        "sys.stdout.write(e.name + ' ' + e.encode([Signal('text', 'gato')]).tobytes().hex())"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    name, found = run.stdout.split()
    assert name == mini["text"].name
    other = np.frombuffer(bytes.fromhex(found), dtype=np.float32)
    np.testing.assert_allclose(other, mini["text"].encode([Signal("text", "gato")])[0], atol=1e-6)


def test_number_words_of_many_languages_agree(mini: dict[str, Encoder]) -> None:
    english = codes(mini["text"], *words("en"))
    others = codes(mini["text"], *words("de", "fr", "es", "it", "pl", "ru", "fi", "ja", "hi", "vi"))
    assert hit_rate(others, english) > 0.95  # chance is 0.1


@needs_data
def test_digits_that_it_has_not_seen_are_found_across_modalities(mini: dict[str, Encoder]) -> None:
    held = digit_signals(DATA, dev=True)
    pictures = codes(mini["image"], held["image"][0][:100], held["image"][1][:100])
    spoken = codes(mini["audio"], held["audio"][0][::3], held["audio"][1][::3])
    said = means(codes(mini["text"], *held["text"]))
    assert hit_rate(pictures, said) > 0.9  # chance is 0.1 in all of these
    assert hit_rate(spoken, said) > 0.9
    assert hit_rate(spoken, pictures) > 0.9


@needs_data
def test_sounds_that_it_has_not_heard_are_found_by_words(mini: dict[str, Encoder]) -> None:
    held = [r for r in reader("esc10")(DATA / "esc10", split="test") if isinstance(r, Record)][::2]
    names = list(SOUNDS)
    kinds = [names.index(ALIASES.get(r.metadata["label"], r.metadata["label"])) for r in held]
    clips = codes(mini["audio"], [audio.read(r.parts[0].path or "") for r in held], kinds)
    said = codes(mini["text"], [Signal("text", name) for name in names], list(range(10)))
    assert hit_rate(clips, said) > 0.6  # chance is 0.1


@needs_data
def test_words_find_an_emoji_among_all(mini: dict[str, Encoder]) -> None:
    """Most of these names it has learned; chance is 0.005."""
    records = [r for r in reader("emoji")(DATA / "emoji", languages=["de"]) if isinstance(r, Record)][::8]
    names = [Signal("text", record.parts[1].text or "") for record in records]
    pictures = [image.read(record.parts[0].path or "") for record in records]
    each = list(range(len(records)))
    assert hit_rate(codes(mini["text"], names, each), codes(mini["image"], pictures, each)) > 0.6


def test_beside_other_models_it_only_bridges_modalities() -> None:
    beside = [e for e in load_encoders(DEFAULT) if isinstance(e, Bridge)]
    assert sorted(e.modality for e in beside) == ["audio", "image", "text", "video"]
    assert not any(isinstance(e, Bridge) for e in load_encoders(("mini",)))
    names = [e.name for e in load_encoders(("mini", "descriptors"))]
    assert sum(name.startswith("descriptor") for name in names) == 4


def test_records_with_words_are_recalled_as_by_the_descriptors_alone(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    lines = ["image,caption"]
    for i in range(6):
        make_photo(media / f"{i}.png", seed=i)
        lines.append(f"{i}.png,thing number {i}")
    (media / "manifest.csv").write_text("\n".join(lines))
    found = {}
    for models in (("descriptors",), None):
        collection = harmonia.open(tmp_path / str(models), models=models)
        collection.remember(media)
        for cue in (
            {"text": "number 3"},
            {"image": media / "4.png"},
            {"text": "5", "image": media / "5.png"},
        ):
            seen = collection.recall(**cue)
            found.setdefault(str(cue), []).append([(r.record.id, r.probability) for r in seen.records])
    for first, second in found.values():
        assert first == second


def test_a_store_of_descriptors_keeps_them(tmp_path: Path) -> None:
    make_photo(tmp_path / "a.png")
    harmonia.open(tmp_path / "old", models=["descriptors"]).remember(tmp_path / "a.png")
    again = harmonia.open(tmp_path / "old")
    assert again.encoders.names == ("descriptors",)
    assert again.recall(image=tmp_path / "a.png").records[0].rank == 1
    harmonia.open(tmp_path / "new").remember(tmp_path / "a.png")
    assert harmonia.open(tmp_path / "new").encoders.names == DEFAULT


@pytest.fixture
def wordless(tmp_path: Path) -> Path:
    """Four emoji, photos and tones, without any words."""
    media = tmp_path / "media"
    media.mkdir()
    for record in reader("emoji")(DATA / "emoji"):
        if isinstance(record, Record) and record.metadata["hexcode"] in WANTED.values():
            path = Path(record.parts[0].path or "")
            (media / f"{record.metadata['hexcode']}{path.suffix}").write_bytes(path.read_bytes())
    for i in range(4):
        make_photo(media / f"photo{i}.png", seed=i)
        make_tone(media / f"tone{i}.wav", hz=200.0 * (i + 1))
    return media


@needs_data
def test_words_find_pictures_that_have_none(wordless: Path, tmp_path: Path) -> None:
    collection = harmonia.open(tmp_path / "m")
    collection.remember(wordless)
    names = [collection.recall(text=word).records[0].record.metadata["name"] for word in WANTED]
    assert sum(name == code for name, code in zip(names, WANTED.values(), strict=True)) >= 3
    bare = harmonia.open(tmp_path / "bare", models=["descriptors"])
    bare.remember(wordless)
    with pytest.raises(HarmoniaError, match="nothing remembered can be compared"):
        bare.recall(text="rose")


@needs_data
def test_sounds_cross_only_where_no_other_sound_is_held(wordless: Path, tmp_path: Path) -> None:
    collection = harmonia.open(tmp_path / "m")
    collection.remember(wordless)
    _, memory = collection.bound()
    assert memory is not None
    sound = {"text": None, "image": None, "audio": wordless / "tone1.wav", "video": None}
    cues = collection.cues(make_query(sound))
    assert bridged(collection.encoders, memory, cues) == []
    assert collection.recall(audio=wordless / "tone1.wav").records[0].record.metadata["name"] == "tone1"
    silent = harmonia.open(tmp_path / "silent")
    silent.remember(sorted(wordless.glob("*.png")))
    _, memory = silent.bound()
    assert memory is not None
    (question,) = bridged(silent.encoders, memory, silent.cues(make_query(sound)))
    assert [channel.key.rsplit("/")[-1] for channel in question] == ["image"]
