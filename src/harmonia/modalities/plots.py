"""Plots of audio, for the previews of audio and video."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

# dark blue, purple, orange, pale yellow: even steps of lightness
_HEAT = np.array([[8, 8, 40], [90, 20, 110], [200, 60, 80], [250, 160, 50], [255, 250, 190]])


def waveform(sound: NDArray[Any], width: int, height: int) -> NDArray[np.uint8]:
    """The envelope of ``(channels, samples)``, scaled to its peak: uint8 ``(height, width, 3)``."""
    samples = sound.mean(axis=0)
    edges = np.linspace(0, len(samples), width + 1).astype(int)
    pieces = [samples[a : max(b, a + 1)] for a, b in pairwise(edges)]
    peak = max(float(np.abs(samples).max(initial=0.0)), 1e-4)
    high = np.array([p.max(initial=0.0) for p in pieces]) / peak
    low = np.array([p.min(initial=0.0) for p in pieces]) / peak
    rows = np.linspace(1.05, -1.05, height)[:, None]
    half = 1.1 / height  # so that silence is a line
    filled = (rows <= high + half) & (rows >= low - half)
    colours = np.array([[250, 250, 252], [40, 90, 160]], np.uint8)
    return np.asarray(colours[filled.astype(int)])


def spectrogram(samples: NDArray[np.float32], rate: int, width: int, height: int) -> NDArray[np.uint8]:
    """The 80 dB below the loudest point of mono samples: uint8 ``(height, width, 3)``.

    The frequency axis is logarithmic, from 50 Hz at the bottom to half the rate.
    """
    length = 512
    samples = np.pad(samples, (0, max(0, length - len(samples))))
    hop = max(64, math.ceil(len(samples) / (4 * width)))
    # as many spans as there are whole hops, the first centred on the first sample
    padded = np.pad(samples, length // 2)
    spans = sliding_window_view(padded, length)[::hop][: max(1, len(samples) // hop)]
    power = np.abs(np.fft.rfft(spans * np.hanning(length + 1)[:-1]).T) ** 2
    level = 10 * np.log10(np.maximum(power, 1e-12))
    frequencies = np.geomspace(min(50, rate / 8), rate / 2, height)[::-1]
    rows = np.clip(np.round(frequencies / rate * length).astype(int), 0, level.shape[0] - 1)
    columns = np.linspace(0, level.shape[1] - 1, width).round().astype(int)
    shade = np.clip(1 + (level[np.ix_(rows, columns)] - level.max()) / 80, 0, 1)
    steps = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(shade, steps, _HEAT[:, c]) for c in range(3)], -1).astype(np.uint8)
