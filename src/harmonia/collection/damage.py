"""Damage that photos and recordings suffer, done on purpose: a memory asks itself with such copies."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from harmonia.types import Signal

Random = np.random.Generator


def damaged(signal: Signal, rng: Random) -> Signal:
    """A damaged copy of an image or a recording; what of other modalities is given comes back as it is."""
    if signal.modality == "image":
        kinds = rng.choice(len(IMAGE), size=1 + int(rng.random() < 0.25), replace=False)
        picture = Image.fromarray(signal.array).convert("RGB")
        for kind in sorted(kinds.tolist()):
            picture = IMAGE[kind](picture, rng)
        return Signal("image", np.asarray(picture))
    if signal.modality == "audio":
        return Signal("audio", _noise(_cut(signal.array, rng), rng), rate=signal.rate)
    return signal


def _crop(picture: Image.Image, rng: Random) -> Image.Image:
    width, height = picture.size
    share = rng.uniform(0.5, 0.95)
    left, top = rng.uniform(0, 1 - share) * width, rng.uniform(0, 1 - share) * height
    box = (int(left), int(top), int(left + share * width) + 1, int(top + share * height) + 1)
    return picture.crop(box).resize(picture.size)


def _turn(picture: Image.Image, rng: Random) -> Image.Image:
    return picture.rotate(rng.uniform(-20, 20))


def _screenshot(picture: Image.Image, rng: Random) -> Image.Image:
    """The picture on a larger ground of one colour."""
    width, height = picture.size
    ground = Image.new("RGB", picture.size, tuple(int(v) for v in rng.integers(0, 256, 3)))
    share = rng.uniform(0.6, 0.95)
    small = picture.resize((max(1, int(width * share)), max(1, int(height * share))))
    place = (int(rng.uniform(0, 1 - share) * width), int(rng.uniform(0, 1 - share) * height))
    ground.paste(small, place)
    return ground


def _cover(picture: Image.Image, rng: Random) -> Image.Image:
    """Half of the picture, or a quarter of it, in one colour."""
    width, height = picture.size
    boxes = [
        (0, height // 2, width, height), (0, 0, width, height // 2), (width // 2, 0, width, height),
        (0, 0, width // 2, height), (width // 4, height // 4, 3 * width // 4, 3 * height // 4),
    ]  # fmt: skip
    covered = picture.copy()
    colour = (0, 0, 0) if rng.random() < 0.5 else tuple(int(v) for v in rng.integers(0, 256, 3))
    covered.paste(colour, boxes[int(rng.integers(len(boxes)))])
    return covered


def _blur(picture: Image.Image, rng: Random) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.01, 0.03) * max(picture.size)))


def _compress(picture: Image.Image, rng: Random) -> Image.Image:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=int(rng.integers(5, 40)))
    return Image.open(data).convert("RGB")


def _grain(picture: Image.Image, rng: Random) -> Image.Image:
    """Gaussian noise of a variance between 0.01 and 3, for values from 0 to 1."""
    values = np.asarray(picture, dtype=np.float32) / 255
    noisy = values + rng.normal(0.0, 10 ** rng.uniform(-1.0, 0.25), values.shape).astype(np.float32)
    return Image.fromarray((noisy.clip(0, 1) * 255).round().astype(np.uint8))


IMAGE: tuple[Callable[[Image.Image, Random], Image.Image], ...] = (
    _crop, _turn, _screenshot, _cover, _blur, _compress, _grain,
)  # fmt: skip
"""In the order in which they happen to one picture."""


def _cut(sound: NDArray[np.float32], rng: Random) -> NDArray[np.float32]:
    """Between a third and nine tenths of a recording (channels, samples)."""
    length = sound.shape[-1]
    kept = max(1, int(length * rng.uniform(0.33, 0.9)))
    first = int(rng.integers(0, length - kept + 1))
    return sound[..., first : first + kept]


def _noise(sound: NDArray[np.float32], rng: Random) -> NDArray[np.float32]:
    """White noise between a tenth of the sound's loudness and all of it."""
    loudness = float(np.sqrt(np.mean(sound.astype(np.float64) ** 2))) if sound.size else 0.0
    return (sound + rng.normal(0.0, loudness * 10 ** rng.uniform(-1.0, 0.0) + 1e-6, sound.shape)).astype(
        np.float32
    )
