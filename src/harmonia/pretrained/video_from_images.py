"""Video codes from an image encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from harmonia.encoders.base import Encoder, unit
from harmonia.encoders.descriptors.video import spread
from harmonia.types import Signal

FRAMES = 8


def with_video(encoders: Sequence[Encoder]) -> tuple[Encoder, ...]:
    """The encoders of a model, with a video encoder by frames if it has an image encoder but none for
    video."""
    if any(encoder.modality == "video" for encoder in encoders):
        return tuple(encoders)
    return (*encoders, *(FrameMean(encoder) for encoder in encoders if encoder.modality == "image"))


class FrameMean:
    """The mean of the image codes of 8 evenly spaced frames, in the space of the image encoder.

    The order of the frames is lost. Images, and texts if the space has them, retrieve the video.
    Reference: CLIP4Clip, Luo et al. 2021 (mean pooling).
    """

    modality = "video"

    def __init__(self, image: Encoder) -> None:
        self.image = image
        self.name = f"{image.name}/mean-of-{FRAMES}-frames"
        self.space = image.space
        self.dim = image.dim

    def encode(self, signals: Sequence[Signal]) -> NDArray[np.float32]:
        """Codes of videos (uint8 frames, at least one), float32 ``(n, dim)``, rows of unit norm."""
        clips = [spread(signal.array, FRAMES) for signal in signals]
        codes = self.image.encode([Signal("image", frame) for clip in clips for frame in clip])
        ends = np.cumsum([len(clip) for clip in clips])
        means = [codes[end - len(clip) : end].mean(axis=0) for end, clip in zip(ends, clips, strict=True)]
        return unit(np.asarray(means, dtype=np.float32).reshape(len(means), self.dim))
