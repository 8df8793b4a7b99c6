"""A training-free audio code: log-mel statistics, coarse time-frequency layout, modulation spectrum.

Loudness does not matter: levels are relative to the loud part of the clip, and a steady background
is subtracted band by band, so that a noisy recording still finds the clean one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from harmonia.encoders.base import scaled, unit
from harmonia.modalities.audio import mono
from harmonia.types import Signal

Array = NDArray[np.float32]

RATE, FRAME, HOP, BANDS = 16000, 512, 256, 48
BLOCK = 4096  # frames transformed at once, to bound memory on long clips
FLOOR = 0.1  # level, relative to the loud part of the clip, below which differences stop counting
QUIET = 1e-7  # about -100 dB of full scale: below this is silence
LAYOUT_TIMES, LAYOUT_BANDS = 12, 24
MODULATION_FRAMES, MODULATION_HOP, MODULATION_BANDS = 128, 32, 6  # 2 s windows every 0.5 s
MODULATION_EDGES = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 40])  # in steps of 0.49 Hz
WEIGHT_MODULATION = 0.7


def mel_filterbank() -> Array:
    """Triangular filters on the HTK mel scale from 50 Hz to 8 kHz, ``(BANDS, FRAME // 2 + 1)``."""
    low, high = 2595 * np.log10(1 + np.array([50, RATE / 2]) / 700)
    edges = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(FRAME, 1 / RATE)
    peaks = np.eye(BANDS + 2)[1:-1]
    bank = np.stack([np.interp(hz, edges, peak) for peak in peaks])
    bank /= bank.sum(axis=1, keepdims=True)
    return bank.astype(np.float32)


WINDOW = np.hanning(FRAME + 1)[:-1].astype(np.float32)  # periodic
MODULATION_WINDOW = np.hanning(MODULATION_FRAMES + 1)[:-1].astype(np.float32)
MEL = mel_filterbank()


class AudioDescriptor:
    """Hand-made audio codes, ``dim`` 438. Equal samples give equal codes on any machine (to rounding)."""

    name = "descriptor-audio-1"
    modality = "audio"
    space = "descriptor-audio-1"
    dim = 2 * BANDS + LAYOUT_TIMES * LAYOUT_BANDS + MODULATION_BANDS * (len(MODULATION_EDGES) - 1)

    def encode(self, signals: Sequence[Signal]) -> Array:
        """Codes of sounds (any rate and channels), float32 ``(n, 438)``, rows of unit norm."""
        rows = [describe(mono(signal, RATE)) for signal in signals]
        return unit(np.asarray(rows, dtype=np.float32).reshape(len(rows), self.dim))


def describe(wave: Array) -> Array:
    """The descriptor of mono samples at 16 kHz, not yet of unit norm; zeros for silence."""
    power = _mel_power(wave)
    loud = np.quantile(power.mean(axis=1), 0.95)
    power = np.maximum(power - np.quantile(power, 0.1, axis=0), 0)
    level = np.log1p(power / (FLOOR * loud + QUIET)).astype(np.float32)
    mean, spread, layout = level.mean(axis=0), level.std(axis=0), _layout(level)
    return np.concatenate(
        [
            scaled(mean - mean.mean()),
            scaled(spread - spread.mean()),
            scaled(layout - layout.mean()),
            WEIGHT_MODULATION * scaled(_modulation(level)),
        ]
    )


def _mel_power(wave: Array) -> Array:
    """Power in mel bands, ``(frames, BANDS)``; a clip shorter than one frame is padded."""
    wave = np.pad(wave, (0, max(0, FRAME - len(wave))))
    frames = sliding_window_view(wave, FRAME)[::HOP]
    blocks = [
        np.abs(np.fft.rfft(frames[i : i + BLOCK] * WINDOW, axis=1)) ** 2 @ MEL.T
        for i in range(0, len(frames), BLOCK)
    ]
    return np.concatenate(blocks).astype(np.float32)


def _layout(level: Array) -> Array:
    """Mean level in 12 spans of time by 24 pairs of bands."""
    edges = np.linspace(0, len(level), LAYOUT_TIMES + 1).astype(int)
    starts = np.minimum(edges[:-1], len(level) - 1)
    ends = np.maximum(edges[1:], starts + 1)
    spans = np.stack([level[a:b].mean(axis=0) for a, b in zip(starts, ends, strict=True)])
    out: Array = spans.reshape(LAYOUT_TIMES, LAYOUT_BANDS, -1).mean(axis=2)
    return out


def _modulation(level: Array) -> Array:
    """How fast the level of 6 wide bands rises and falls, 0.5 to 20 Hz; blind to when it does."""
    bands = level.reshape(len(level), MODULATION_BANDS, -1).mean(axis=2)
    bands = np.pad(bands, ((0, max(0, MODULATION_FRAMES - len(bands))), (0, 0)))
    spans = sliding_window_view(bands, MODULATION_FRAMES, axis=0)[::MODULATION_HOP]
    spans = (spans - spans.mean(axis=-1, keepdims=True)) * MODULATION_WINDOW
    spectrum = np.abs(np.fft.rfft(spans, axis=-1)).mean(axis=0)
    spectrum = np.add.reduceat(spectrum[:, : MODULATION_EDGES[-1]], MODULATION_EDGES[:-1], axis=1)
    out: Array = spectrum - spectrum.mean(axis=0)
    return out
