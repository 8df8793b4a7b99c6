"""Descriptor encoders: unit codes, the same everywhere, and near the whole when given a part."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from harmonia.encoders.base import Encoder, unit
from harmonia.encoders.descriptors.image import blank_cells
from harmonia.encoders.descriptors.text import tokens
from harmonia.pretrained.loading import load_encoders
from harmonia.types import MODALITIES, HarmoniaError, Signal
from tests.places import ROOT

ENCODERS = {encoder.modality: encoder for encoder in load_encoders()}
RATE = 16000


def photo(seed: int, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """Smooth blobs of colour with a 1/f-like spectrum, as in photos."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(size=(*size, 3)) for _ in (24, 8, 3)]
    blurred = [gaussian_filter(x, (s, s, 0)) for x, s in zip(layers, (24, 8, 3), strict=True)]
    picture = sum(x / x.std() * w for x, w in zip(blurred, (1.0, 0.6, 0.3), strict=True))
    return (np.clip(0.45 + 0.2 * picture, 0, 1) * 255).astype(np.uint8)


def noisy(pixels: np.ndarray, variance: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, variance**0.5, pixels.shape)
    return (np.clip(pixels / 255 + noise, 0, 1) * 255).astype(np.uint8)


def sound(seed: int, seconds: float = 2.0) -> np.ndarray:
    """A melody of random notes, each with a decay and two overtones."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    wave = np.zeros_like(time)
    for start, hz in zip(rng.uniform(0, seconds, 8), 2 ** rng.uniform(7, 11.5, 8), strict=True):
        t = np.maximum(time - start, 0)
        envelope = np.exp(-t / 0.15) * (t > 0)
        wave += envelope * sum(np.sin(2 * np.pi * hz * k * t) / k for k in (1, 2, 3))
    return (0.1 * wave[None]).astype(np.float32)


def clip(seed: int, frames: int = 12) -> np.ndarray:
    """A window that slides over a photo, in a direction of its own."""
    whole = photo(seed, (120, 160))
    step = np.random.default_rng(seed).integers(-1, 2, 2)
    at = [np.array([20, 20]) + i * step for i in range(frames)]
    return np.stack([whole[y : y + 80, x : x + 100] for y, x in at])


def images(*arrays: np.ndarray) -> list[Signal]:
    return [Signal("image", array) for array in arrays]


def sounds(*arrays: np.ndarray, rate: int = RATE) -> list[Signal]:
    return [Signal("audio", array, rate=rate) for array in arrays]


def texts(*strings: str) -> list[Signal]:
    return [Signal("text", string) for string in strings]


EXTREMES = {
    "text": texts("", "...!?", "a", "\ud800", "the " * 20000, "犬", "🐶", "Ωмега"),
    "image": images(
        *(np.full(s, v, np.uint8) for s in ((1, 1, 3), (1, 900, 3), (50, 40, 3)) for v in (0, 255)),
        photo(1),
    ),
    "audio": [
        *sounds(*(np.zeros((2, n), np.float32) for n in (0, 1, 5, RATE))),
        *sounds(np.ones((1, 1), np.float32), np.full((1, 900), np.nan, np.float32), sound(1)),
        *sounds(sound(2), rate=44100),
        *sounds(np.full((1, 3000), 1e-6, np.float32), rate=8000),
    ],
    "video": [
        Signal("video", frames)
        for frames in (clip(1), clip(1)[:1], clip(1)[:2], np.zeros((3, 1, 1, 3), np.uint8))
    ],
}


def centred(encoder: Encoder, stored: list[Signal], cues: list[Signal]) -> np.ndarray:
    """Cosines of cues with stored signals after the mean of the stored codes is taken out."""
    codes = encoder.encode(stored)
    mean = codes.mean(axis=0)
    return unit(encoder.encode(cues) - mean) @ unit(codes - mean).T


def found(similarity: np.ndarray) -> float:
    """Recall at 1 when cue i belongs to item i."""
    return float((similarity.argmax(axis=1) == np.arange(len(similarity))).mean())


def test_load_gives_one_descriptor_per_modality_in_order() -> None:
    encoders = load_encoders()
    assert [e.modality for e in encoders] == list(MODALITIES)
    assert len({e.name for e in encoders}) == len({e.space for e in encoders}) == 4
    assert all(e.dim <= 512 for e in encoders)
    assert [e.name for e in load_encoders(())] == [e.name for e in encoders]


def test_descriptors_import_neither_torch_nor_transformers() -> None:
    code = (
        "import sys; from harmonia import load_encoders; load_encoders(); "
        "sys.exit(bool({'torch', 'transformers', 'lancedb'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("modality", MODALITIES)
def test_codes_are_unit_and_do_not_depend_on_the_batch(modality: str) -> None:
    encoder, batch = ENCODERS[modality], EXTREMES[modality]
    codes = encoder.encode(batch)
    assert codes.shape == (len(batch), encoder.dim)
    assert codes.dtype == np.float32
    assert np.isfinite(codes).all()
    np.testing.assert_allclose(np.linalg.norm(codes, axis=1), 1, atol=1e-5)
    alone = np.concatenate([encoder.encode([signal]) for signal in batch])
    np.testing.assert_array_equal(codes, alone)
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_another_process_gives_the_same_codes() -> None:
    code = (
        "import sys, numpy as np; sys.path.insert(0, '.'); import tests.encoders.test_encoders as t;"
        "np.savez(sys.stdout.buffer, **{m: e.encode(t.EXTREMES[m]) for m, e in t.ENCODERS.items()})"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "7", "PATH": ""},
    )
    theirs = np.load(io.BytesIO(run.stdout))
    for modality, encoder in ENCODERS.items():
        np.testing.assert_allclose(theirs[modality], encoder.encode(EXTREMES[modality]), atol=1e-6)


def test_damaged_photos_find_the_whole() -> None:
    photos = [photo(seed) for seed in range(60)]
    encoder, stored = ENCODERS["image"], images(*photos)
    height, width = photos[0].shape[:2]
    upper = [p.copy() for p in photos]
    left = [p.copy() for p in photos]
    for up, le in zip(upper, left, strict=True):
        up[height // 2 :] = 0
        le[:, int(0.6 * width) :] = 0
    y, x = height // 5, width // 5
    cues = {
        "half": upper,
        "half, variance 0.1": [noisy(p, 0.1) for p in upper],
        "half, variance 1.0": [noisy(p, 1.0) for p in upper],
        "left 60 %, variance 0.1": [noisy(p, 0.1) for p in left],
        "centre 60 %": [p[y : height - y, x : width - x] for p in photos],
        "blur": [gaussian_filter(p, (5, 5, 0)) for p in photos],
        "dark": [p // 3 for p in photos],
    }
    for name, arrays in cues.items():
        assert found(centred(encoder, stored, images(*arrays))) >= 0.9, name
    others = centred(encoder, stored, stored)[~np.eye(len(photos), dtype=bool)]
    assert abs(others.mean()) < 0.05
    assert others.std() < 0.25


def test_blank_bands_are_found_under_noise() -> None:
    picture = photo(3, (64, 64))
    shown = blank_cells(picture.astype(np.float32) / 255)
    assert not shown.any()
    picture[40:] = 0
    for variance in (0.0, 0.1):
        blank = blank_cells(noisy(picture, variance).astype(np.float32) / 255)
        assert blank[10:].all()
        assert not blank[:9].any()


def test_noisy_sounds_find_the_clean_one() -> None:
    waves = [sound(seed) for seed in range(40)]
    encoder, stored = ENCODERS["audio"], sounds(*waves)
    rng = np.random.default_rng(0)

    def at(decibels: float) -> list[Signal]:
        power = [float((w**2).mean()) * 10 ** (-decibels / 10) for w in waves]
        return sounds(*(w + rng.normal(0, p**0.5, w.shape) for w, p in zip(waves, power, strict=True)))

    assert found(centred(encoder, stored, at(10))) == 1
    assert found(centred(encoder, stored, at(0))) >= 0.95
    quiet = encoder.encode(sounds(*(w * 0.01 for w in waves)))
    np.testing.assert_allclose((quiet * encoder.encode(stored)).sum(1), 1, atol=0.02)


def test_a_steady_background_is_taken_out() -> None:
    waves = [sound(seed) for seed in range(10)]
    hum = np.sin(2 * np.pi * 1000 * np.arange(waves[0].shape[1]) / RATE)
    mixed = [w + np.sqrt(2 * (w**2).mean()) * hum for w in waves]  # as loud as the sound itself
    clean, noisy_ = (ENCODERS["audio"].encode(sounds(*batch)) for batch in (waves, mixed))
    assert (clean * noisy_).sum(axis=1).mean() > 0.9


def test_sound_codes_agree_across_rates_and_channels() -> None:
    wave = sound(5)
    stereo = np.concatenate([wave, wave])
    half_rate = wave[:, ::2]  # the notes stay below its Nyquist frequency, most overtones too
    first, both, slow = ENCODERS["audio"].encode([*sounds(wave, stereo), *sounds(half_rate, rate=RATE // 2)])
    np.testing.assert_allclose(first, both, atol=1e-5)
    assert first @ slow > 0.9


def test_texts_find_what_shares_their_words() -> None:
    notes = texts(
        "A brown dog runs along the beach .",
        "Two men play guitar on a stage .",
        "Une fille à vélo près du château",
        "Ein Kind klettert auf einen großen Baum",
        "一个穿着泳装的女人躺在海水里",
        "Dentist appointment moved to Thursday",
    )
    cues = texts("dog beach", "GUITARS", "chateau", "kletern", "泳装女人", "dentsit")
    similarity = ENCODERS["text"].encode(cues) @ ENCODERS["text"].encode(notes).T
    own = np.eye(6, dtype=bool)
    assert similarity[own].min() > 0.15
    assert similarity[0, 0] > 0.5
    assert np.abs(similarity[~own]).max() < 0.15
    assert found(similarity) == 1


def test_common_words_weigh_little() -> None:
    encode = ENCODERS["text"].encode
    query, same, other = encode(texts("the dog in the park", "dog park", "the cat in the house"))
    assert query @ same > 0.8
    assert query @ other < 0.2


def test_tokens_fold_case_and_accents_and_split_ideograms() -> None:
    assert tokens("Ünïcode_X 🐶 中文, don't") == ["unicode", "x", "🐶", "中", "文", "don", "t"]


def test_parts_of_videos_find_the_whole() -> None:
    clips = [clip(seed) for seed in range(20)]
    stored = [Signal("video", c) for c in clips]
    cues = {
        "every other frame": [c[::2] for c in clips],
        "middle": [c[3:9] for c in clips],
        "noise": [noisy(c, 0.1) for c in clips],
        "one frame": [c[5:6] for c in clips],
    }
    for name, arrays in cues.items():
        similarity = centred(ENCODERS["video"], stored, [Signal("video", c) for c in arrays])
        assert found(similarity) == 1, name


def test_motion_counts() -> None:
    still = np.repeat(clip(1)[:1], 12, axis=0)
    blinking = still.copy()
    blinking[::2, :40, :50] //= 2
    a, b, c = ENCODERS["video"].encode([Signal("video", v) for v in (still, still[:6], blinking)])
    assert a @ b > 0.999
    assert a @ c < 0.97


@pytest.mark.parametrize(
    "signal",
    [
        Signal("image", np.zeros((0, 5, 3), np.uint8)),
        Signal("image", np.zeros((5, 5), np.uint8)),
        Signal("image", np.zeros((5, 5, 3), np.float32)),
        Signal("audio", np.zeros((1, 10), np.float32)),
        Signal("audio", np.zeros(10, np.float32), rate=RATE),
        Signal("video", np.zeros((0, 5, 5, 3), np.uint8)),
    ],
)
def test_malformed_signals_are_refused(signal: Signal) -> None:
    with pytest.raises(HarmoniaError, match="read the file with"):
        ENCODERS[signal.modality].encode([signal])


def test_unit_makes_blank_rows_the_first_axis() -> None:
    out = unit(np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, np.inf]]))
    np.testing.assert_allclose(out, [[0.6, 0.8], [1, 0], [1, 0]], atol=1e-7)
