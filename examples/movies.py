"""Short videos rendered from images: pan and zoom, and rotation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harmonia.types import Signal

FRAMES_PER_SECOND = 12

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels of the image."""


def move(picture: Image.Image, start: Box, end: Box, size: tuple[int, int], sound: Signal) -> Signal:
    """Pan and zoom from one box of the image to another, for the duration of the audio."""
    steps = np.linspace(0, 1, _frame_count(sound))
    eased = steps * steps * (3 - 2 * steps)  # starts and ends slowly
    boxes = np.outer(1 - eased, start) + np.outer(eased, end)
    views = [picture.resize(size, Image.Resampling.BICUBIC, box=tuple(box)) for box in boxes]
    return _video(views, sound)


def turn(picture: Image.Image, degrees: float, size: tuple[int, int], sound: Signal) -> Signal:
    """Rotate the image around its centre, for the duration of the audio."""
    small = picture.resize(size, Image.Resampling.LANCZOS)
    angles = np.linspace(0, degrees, _frame_count(sound))
    return _video([small.rotate(angle, Image.Resampling.BICUBIC) for angle in angles], sound)


def _frame_count(sound: Signal) -> int:
    assert sound.rate is not None
    return int(sound.array.shape[1] / sound.rate * FRAMES_PER_SECOND + 0.5)


def _video(views: list[Image.Image], sound: Signal) -> Signal:
    frames: NDArray[np.uint8] = np.stack([np.asarray(view) for view in views])
    times = np.arange(len(views)) / FRAMES_PER_SECOND
    return Signal("video", frames, rate=float(FRAMES_PER_SECOND), times=times, sound=sound)
