"""A training-free video code: how its frames look on average, where and when they move.

The sound of a video is a part of its own and is not looked at here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harmonia.encoders.base import scaled, unit
from harmonia.encoders.descriptors import image
from harmonia.types import HarmoniaError, Signal

Array = NDArray[np.float32]

FRAMES, GRID, TIMES = 8, 8, 24
WEIGHT_WHERE, WEIGHT_WHEN = 1.0, 0.3
STILL = 0.3  # norm of a motion block that counts half: sensor noise stays far below, gestures near


class VideoDescriptor:
    """Hand-made video codes, ``dim`` 497. The same frames give the same code on any machine (to rounding)."""

    name = "descriptor-video-1"
    modality = "video"
    space = "descriptor-video-1"
    dim = image.APPEARANCE + GRID * GRID + TIMES

    def encode(self, signals: Sequence[Signal]) -> Array:
        """Codes of videos (uint8 frames, at least one), float32 ``(n, 497)``, rows of unit norm."""
        rows = [describe(signal.array) for signal in signals]
        return unit(np.asarray(rows, dtype=np.float32).reshape(len(rows), self.dim))


def describe(frames: NDArray[np.uint8]) -> Array:
    """The descriptor of uint8 ``(frames, height, width, 3)``, not yet of unit norm."""
    if frames.ndim != 4 or len(frames) == 0:
        raise HarmoniaError(
            f"a video must be uint8 (frames, height, width, 3), got {frames.dtype} {frames.shape}; "
            "read the file with harmonia.modalities.video"
        )
    looks = [image.describe(frame) for frame in spread(frames, FRAMES)]
    where, when = _motion(frames)
    return np.concatenate(
        [
            scaled(np.mean(looks, axis=0)[: image.APPEARANCE]),
            WEIGHT_WHERE * _damped(where),
            WEIGHT_WHEN * _damped(when),
        ]
    )


def spread(frames: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """At most ``count`` frames, evenly spread, the first and the last among them."""
    chosen: NDArray[np.uint8] = frames[np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))]
    return chosen


def _motion(frames: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Mean change of brightness from frame to frame, by 8 x 8 cells and by 24 points in time."""
    if len(frames) == 1:
        return np.zeros(GRID * GRID, dtype=np.float32), np.zeros(TIMES, dtype=np.float32)
    box = Image.Resampling.BOX
    cells = [Image.fromarray(f).convert("L").resize((GRID, GRID), box) for f in frames]
    change = np.abs(np.diff(np.stack([np.asarray(c, dtype=np.float32) for c in cells]), axis=0)) / 255
    by_time = change.mean(axis=(1, 2))
    points = np.linspace(0, len(by_time) - 1, TIMES)
    when = np.interp(points, np.arange(len(by_time)), by_time).astype(np.float32)
    return change.mean(axis=0).ravel(), when


def _damped(motion: Array) -> Array:
    """Motion about its mean, saturating, so that a still video has next to none."""
    centred = motion - motion.mean()
    out: Array = centred / (np.linalg.norm(centred) + np.float32(STILL))
    return out
