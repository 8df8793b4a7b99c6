"""Recipes on small classes, on tiny data in the published formats that these tests write."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from PIL import Image

from harmonia.pretrained.loading import load_encoders
from harmonia.recipes import prepare
from harmonia.recipes.encoders.mini import Mixture, read_emoji
from harmonia.recipes.encoders.trimodal import ALIASES, NUMBERS, SOUNDS, hit_rate, means, sound_signals
from harmonia.recipes.generators.pictures import DIGIT_WORDS
from harmonia.recipes.generators.recaption import RecaptionSettings, recaption
from harmonia.recipes.generators.run import GeneratorSettings
from harmonia.training import views
from harmonia.training.record_arrays import Pairs, Views
from harmonia.types import HarmoniaError, Signal

TINY = {"steps": "3", "vocabulary": "300", "device": "cpu"}


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tone(hz: float, rate: int, seconds: float) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def write_digits(folder: Path) -> None:
    """80 pictures, bright at the digit's place, and 20 tones, the higher the digit the higher."""
    (folder / "mnist").mkdir()
    labels = np.arange(80) % 10
    pictures = np.zeros((80, 28, 28), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        picture[2 * label : 2 * label + 8, 4:24] = 255
    np.savez(folder / "mnist" / "digits.npz", x=pictures, y=labels)
    (folder / "fsdd").mkdir()
    waves = [(tone(200 + 300 * (i % 10), 8000, 0.3) * 20000).astype(np.int16) for i in range(20)]
    np.savez(
        folder / "fsdd" / "digits.npz", audio=np.concatenate(waves),
        offset=np.cumsum([0, *map(len, waves)]), label=np.arange(20) % 10,
        speaker=np.array(["ann"] * 20), index=np.arange(20) // 10 * 7,
    )  # fmt: skip


def write_sounds(folder: Path) -> None:
    """Two clips of every class, one of fold 1 and one of fold 2; the first may not be used freely."""
    (folder / "esc10").mkdir()
    old = {new: was for was, new in ALIASES.items()}
    rows = []
    for number, name in enumerate(SOUNDS):
        for fold in (1, 2):
            file = io.BytesIO()
            soundfile.write(file, 0.5 * tone(150 * (number + 1), 16000, 0.5), 16000, format="OGG")
            rows.append(
                {"file": f"{name}-{fold}.ogg", "label": old.get(name, name), "label_id": number, "fold": fold,
                 "freesound_id": str(number), "take": "A", "ogg": file.getvalue(),
                 "license": "CC-BY" if number else "CC-Sampling+"}
            )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "esc10" / "clips.parquet")


def write_emoji(folder: Path, count: int = 30) -> None:
    """The emoji of the sounds and ``count`` others: plain colours, named in three languages."""
    (folder / "emoji").mkdir()
    codes = [code for group in SOUNDS.values() for code in group] + [f"E{i:03X}" for i in range(count)]
    rows = []
    for number, code in enumerate(codes):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (number * 37 % 256, number * 91 % 256, number * 53 % 256)).save(
            file, "PNG"
        )
        names = {language: f"{language} thing {number}" for language in ("de", "en", "en-gb")}
        tags = {language: [f"tag {number}", names[language]] for language in names}
        rows.append(
            {"hexcode": code, "emoji": "x", "name": names["en"], "group": "g", "subgroup": "s",
             "names": json.dumps(names), "tags": json.dumps(tags), "png": file.getvalue()}
        )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "emoji" / "noto.parquet")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_digits(folder)
    write_sounds(folder)
    write_emoji(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMONIA_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("digits", {"parts": "2"}),
        ("sounds", {"parts": "2", "resolution": "32", "seconds": "0.5"}),
        ("mini", {"size": "tiny", "batch": "8"}),
    ],
)
def test_a_recipe_trains_and_what_it_saves_encodes(
    name: str, settings: dict[str, str], data: Path, tmp_path: Path
) -> None:
    torch.manual_seed(5)  # what the process drew before does not count
    first = prepare(name, data, TINY | settings).train(tmp_path / "a")
    torch.manual_seed(6)
    second = prepare(name, data, TINY | settings).train(tmp_path / "b")
    assert first.result.step == 3
    assert first.figures == second.figures and all(0 <= value <= 1 for value in first.figures.values())
    files = [(out.model / "model.safetensors").read_bytes() for out in (first, second)]
    assert files[0] == files[1]
    loaded = {e.modality: e for e in load_encoders((str(first.model),))}
    assert loaded["text"].space == loaded["image"].space == loaded["audio"].space
    assert loaded["text"].encode([Signal("text", "seven")]).shape == (1, 128)
    assert "CC BY-SA" in (first.model / "README.md").read_text() or name == "sounds"


def test_held_out_names_are_in_no_training_text_of_their_emoji(data: Path) -> None:
    emoji = read_emoji(data)
    signals, records = emoji.train["text"]
    assert emoji.held
    for name, record in emoji.held:
        texts = [s.text for s, r in zip(signals, records, strict=True) if r == record]
        assert all(name not in text.split(", ") for text in texts)
    assert len(emoji.english) == len(emoji.train["image"][0]) == 30  # without those of the sounds


def test_clips_that_are_not_free_are_left_out_when_asked(data: Path) -> None:
    assert len(sound_signals(data)["audio"][0]) == 10
    assert len(sound_signals(data, free=True)["audio"][0]) == 9
    assert len(sound_signals(data, dev=True)["audio"][0]) == 10


def test_a_mixture_holds_every_class_once_in_every_batch(data: Path) -> None:
    run = prepare("mini", data, TINY | {"size": "tiny", "batch": "8", "films": "2"})
    assert isinstance(run.dataset, Mixture)
    indices = torch.arange(8)
    batch, again = (run.dataset.batch(indices, draws(3)) for _ in range(2))
    assert all(torch.equal(batch[name].inputs, again[name].inputs) for name in batch)
    assert set(batch["image"].record.tolist()) == set(range(28))
    assert set(batch["audio"].record.tolist()) == set(range(8, 28)) - {18}  # the class without a free clip
    assert batch["video"].record.tolist() == list(range(6, 28))


def test_number_words_are_ten_in_every_language() -> None:
    assert all(len(words.split()) == 10 for words in NUMBERS.values())
    assert all(len(set(words.split())) == 10 for words in NUMBERS.values())


def test_pictures_are_named_in_the_languages_asked_for(data: Path) -> None:
    emoji = data / "emoji"
    settings = GeneratorSettings(dataset="emoji", condition="text")
    assert settings.pictures(emoji).texts[1] == ("de thing 1", "en thing 1", "en-gb thing 1")
    assert replace(settings, languages="en, de").pictures(emoji).texts[1] == ("en thing 1", "de thing 1")
    with pytest.raises(HarmoniaError, match="without texts in xx: choose other languages"):
        replace(settings, languages="xx").pictures(emoji)
    digits = replace(settings, dataset="mnist", languages="de,zh").pictures(data / "mnist")
    assert set(digits.texts) < set(zip(DIGIT_WORDS["de"].split(), DIGIT_WORDS["zh"].split(), strict=True))
    with pytest.raises(HarmoniaError, match="without texts in xx: choose other languages"):
        replace(settings, dataset="mnist", languages="xx").pictures(data / "mnist")
    assert replace(settings, languages="EN_gb").pictures(emoji).texts[1] == ("en-gb thing 1",)
    recaptioned = RecaptionSettings()
    (first, *_) = recaption(recaptioned, "train", emoji)
    assert list(first) == ["en thing 0"] and "; round or square" in first["en thing 0"]


def test_hit_rate_and_means_by_hand() -> None:
    eye = torch.eye(3)
    gallery = Views(eye, torch.tensor([0, 1, 2]))
    queries = Views(torch.tensor([[0.9, 0.4, 0.0], [0.9, 0.4, 0.0]]), torch.tensor([0, 1]))
    assert hit_rate(queries, gallery) == 0.5
    assert hit_rate(queries, gallery, k=2) == 1.0
    mean = means(Views(eye, torch.tensor([4, 4, 7])))
    assert mean.record.tolist() == [4, 7]
    torch.testing.assert_close(mean.inputs, torch.tensor([[0.5**0.5, 0.5**0.5, 0.0], [0.0, 0.0, 1.0]]))


def test_noise_in_a_spectrogram_is_noise_in_its_sound() -> None:
    """At 20 dB below the loudest point what was louder stays, what was silent is lifted to about there."""
    mels = torch.full((1, 64, 100), -1.0)
    mels[:, 10] = 1.0
    noisy = views.in_noise(mels, torch.tensor([2.0]), draws())
    assert noisy.max() == 1.0 and noisy[0, 10].min() > 0.9
    rest = noisy[0, [i for i in range(64) if i != 10]]
    assert 0.35 < float(rest.mean()) < 0.55  # 2 of 8 decades below: 1 - 2 / 4


def test_views_change_some_and_keep_shapes() -> None:
    images = torch.randint(0, 256, (30, 3, 32, 32), dtype=torch.uint8, generator=draws())
    covered = views.cover_half(images, draws())
    changed = (covered != images).flatten(1).any(dim=1)
    assert 3 < int(changed.sum()) < 20
    shares = (covered != images).any(dim=1).float().mean(dim=(1, 2))[changed]
    assert bool(((shares > 0.4) & (shares <= 0.5)).all())
    ids = torch.arange(1, 11).repeat(40, 1)
    less = views.vary_words(ids, draws())
    assert bool((less[:, :2] == ids[:, :2]).all()) and 0.7 < float((less > 0).float().mean()) < 0.95
    films = views.synthetic_videos(images[:2], 4, 16, draws())
    assert films.shape == (2, 4, 3, 16, 16) and films.dtype == torch.uint8
    assert bool((films[:, 0] != films[:, -1]).any())


def test_a_pair_of_views_needs_two_rows() -> None:
    """Two parts of one record are drawn without repetition: this is why the emoji's pictures stand twice."""
    view = Views(torch.arange(6).float().view(3, 2), torch.tensor([0, 1, 2]))
    once = Pairs({"image": view}, per_record=2).batch(torch.arange(3), draws())
    assert len(once["image"].record) == 3
