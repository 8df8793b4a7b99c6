"""The parts of the descriptors against scikit-image and SciPy: stored codes must not change."""

from __future__ import annotations

import io
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import scipy.fft
from PIL import Image
from scipy.signal import ShortTimeFFT, get_window, resample_poly
from skimage.color import rgb2lab
from skimage.feature import hog as peer_hog

from harmonia.encoders.base import unit
from harmonia.encoders.descriptors import audio as audio_descriptor
from harmonia.encoders.descriptors import image as image_descriptor
from harmonia.encoders.descriptors.hog import hog
from harmonia.modalities import audio
from harmonia.modalities.plots import spectrogram
from harmonia.modalities.resampling import resample
from harmonia.types import Signal

DATA = Path(os.environ.get("HARMONIA_DATA", Path(__file__).parents[3] / "shared" / "data"))


def embedded(file: str, column: str, count: int) -> list[bytes]:
    """Files inside the first rows of a table of the data folder."""
    if not (DATA / file).exists():
        pytest.skip(f"no {DATA / file}: set HARMONIA_DATA")
    batch = next(pq.ParquetFile(DATA / file).iter_batches(count, columns=[column]))
    found: list[bytes] = batch[column].to_pylist()
    return found


def shapes_and_greys(photos: list[np.ndarray]) -> list[np.ndarray]:
    """The photos; in grey; tiny, wide and tall; noise; and every grey level flat."""
    rng = np.random.default_rng(0)
    greys = [np.repeat(p.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2) for p in photos]
    cuts = [p[area] for p in photos for area in (np.s_[:1], np.s_[:, :1], np.s_[:3, :5], np.s_[20:24])]
    noise = [
        rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((1, 1), (2, 3), (64, 64), (8, 900))
    ]
    flat = [np.full((9, 7, 3), level, np.uint8) for level in range(0, 256, 5)]
    return [*photos, *greys, *cuts, *noise, *flat]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    files = embedded("flickr8k/images_captions.parquet", "jpeg", 150)
    files += embedded("emoji/noto.parquet", "png", 100) + embedded("easyvqa/images.parquet", "png", 20)
    return shapes_and_greys([np.asarray(Image.open(io.BytesIO(f)).convert("RGB")) for f in files])


def noise_and_tone(samples: int, rate: float) -> np.ndarray:
    time = np.arange(samples) / rate
    noise = np.random.default_rng(samples).normal(0, 0.1, samples)
    return (0.4 * np.sin(2 * np.pi * 440 * time) + noise).astype(np.float32)


def test_gradient_histograms_are_scikit_images(pictures: list[np.ndarray]) -> None:
    for pixels in pictures:
        small = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BOX).convert("L")
        grey = np.asarray(small, np.float32) / 255
        peer = peer_hog(grey, orientations=6, pixels_per_cell=(8, 8), cells_per_block=(4, 4))
        np.testing.assert_allclose(hog(grey).ravel(), peer, rtol=0, atol=1e-6)
    grey = np.random.default_rng(0).random((40, 60)).astype(np.float32)
    peer = peer_hog(grey, orientations=9, pixels_per_cell=(10, 10), cells_per_block=(4, 6))
    np.testing.assert_allclose(hog(grey, 9, 10).ravel(), peer, rtol=0, atol=1e-6)


def test_colours_are_scikit_images(pictures: list[np.ndarray]) -> None:
    whole = np.arange(64**3).reshape(512, 512)  # every fourth level of red, green and blue with every other
    cube = np.stack([whole % 64, whole // 64 % 64, whole // 4096], axis=-1).astype(np.uint8) * 4
    for pixels in [cube, *pictures]:
        peer = rgb2lab(pixels.astype(np.float32) / 255) / 100
        np.testing.assert_allclose(image_descriptor._lab(Image.fromarray(pixels)), peer, rtol=0, atol=2e-6)


def test_picture_codes_are_those_with_scikit_image(
    pictures: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = np.stack([image_descriptor.describe(p) for p in pictures])

    def lab(cells: Image.Image) -> np.ndarray:
        found: np.ndarray = rgb2lab(np.asarray(cells, np.float32) / 255).astype(np.float32) / 100
        return found

    monkeypatch.setattr(image_descriptor, "_lab", lab)
    monkeypatch.setattr(
        image_descriptor,
        "hog",
        lambda grey: peer_hog(grey, orientations=6, pixels_per_cell=(8, 8), cells_per_block=(4, 4)),
    )
    peers = np.stack([image_descriptor.describe(p) for p in pictures])
    np.testing.assert_allclose(unit(own), unit(peers), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 44101, 48000, 96000, 997])
def test_resampling_is_scipys(rate: int) -> None:
    ratio = Fraction(16000 / rate).limit_denominator(1000)
    for samples in (1, 2, 37, 2 * rate):
        wave = noise_and_tone(samples, rate)
        peer = resample_poly(wave, ratio.numerator, ratio.denominator)
        found = resample(wave, ratio.numerator, ratio.denominator)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, peer, rtol=0, atol=1e-6)


def test_sound_codes_are_those_with_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    clips = [audio.read(file) for file in embedded("esc10/clips.parquet", "ogg", 60)]
    # The clips are at 16 kHz: the same samples at other rates have to be resampled.
    clips += [
        Signal("audio", clip.array, rate=rate)
        for clip, rate in zip(clips, [8000.0, 22050.0, 44100.0, 48000.0] * 15, strict=True)
    ]
    encoder = audio_descriptor.AudioDescriptor()
    own = encoder.encode(clips)
    monkeypatch.setattr(np, "fft", scipy.fft)
    monkeypatch.setattr(audio, "resample", resample_poly)
    peers = encoder.encode(clips)
    assert not np.array_equal(own, peers)  # so they are the peers' indeed
    np.testing.assert_allclose(own, peers, rtol=0, atol=2e-5)
    assert (own.astype(np.float64) * peers).sum(axis=1).min() > 1 - 1e-6


@pytest.mark.parametrize("samples", [1, 512, 577, 16000, 300001])
def test_spectrograms_are_scipys(samples: int) -> None:
    """Colours run over the 80 dB below the loudest point: compare what they should be."""
    rate, width, height = 16000, 64, 48
    wave = noise_and_tone(samples, rate)
    drawn = spectrogram(wave, rate, width, height)
    padded = np.pad(wave, (0, max(0, 512 - samples)))
    hop = max(64, -(-len(padded) // (4 * width)))
    transform = ShortTimeFFT(get_window("hann", 512), hop, rate, fft_mode="onesided")
    power = transform.spectrogram(padded, p0=0, p1=max(1, len(padded) // hop))
    level = 10 * np.log10(np.maximum(power, 1e-12))
    rows = np.clip(np.round(np.geomspace(50, 8000, height)[::-1] / rate * 512).astype(int), 0, 256)
    columns = np.linspace(0, level.shape[1] - 1, width).round().astype(int)
    shade = np.clip(1 + (level[np.ix_(rows, columns)] - level.max()) / 80, 0, 1)
    green = np.interp(shade, np.linspace(0, 1, 5), [8, 20, 60, 160, 250])  # rises with the level
    assert np.abs(drawn[..., 1] - green).max() < 1 + 1e-6
