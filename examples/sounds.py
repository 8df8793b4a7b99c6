"""Synthesised sounds, mono float32 ``(samples,)`` at :data:`RATE`, peak 0.7."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import signal

RATE = 22050  # the rate of espeak-ng, so that all sounds of the collection have one

Samples = NDArray[np.float64]


def bell() -> Samples:
    """Three strokes. The partials of a bell are not harmonic: hum, prime, minor third, fifth..."""
    ratios = (0.5, 1.0, 1.19, 1.5, 2.0, 2.51, 2.66, 3.01, 4.1)
    time = _seconds(2.2)
    stroke = np.zeros(time.size)
    for i, ratio in enumerate(ratios):
        partial = np.sin(2 * np.pi * 220 * ratio * time) * np.exp(-time * (0.8 + ratio))
        stroke += partial / (1 + 0.4 * i)
    return _place([(0.0, stroke), (1.2, stroke), (2.4, stroke)])


def birdsong() -> Samples:
    """Rising and falling whistles, and a trill."""
    up, down = _whistle(2600, 4200, 0.16), _whistle(4800, 3000, 0.22)
    trill = _place([(0.055 * i, _whistle(5200, 4400, 0.05)) for i in range(10)])
    phrase = _place([(0.0, up), (0.22, down), (0.55, up), (0.75, trill)])
    return _place([(0.1, phrase), (1.7, phrase), (3.2, down)])


def drums() -> Samples:
    """Two bars of eighths at 112 beats a minute."""
    rng = np.random.default_rng(7)
    short, long = _seconds(0.08), _seconds(0.25)
    bass = signal.chirp(long, 150, 0.25, 45) * np.exp(-long * 14)
    noise = rng.standard_normal((2, long.size))
    snare = _band(noise[0], 1200, 6000) * np.exp(-long * 18) * 0.7
    hat = _band(noise[1], 7000, 10500)[: short.size] * np.exp(-short * 60) * 0.4
    beats: list[tuple[float, Samples]] = []
    for eighth in range(16):
        at = eighth * 60 / 112 / 2
        beats.append((at, hat))
        if eighth % 8 in (0, 3, 4):
            beats.append((at, bass))
        if eighth % 4 == 2:
            beats.append((at, snare))
    return _place(beats)


def melody() -> Samples:
    """A slow tune of decaying tones, as a music box has."""
    tune = (76, 79, 84, 83, 79, 76, 77, 74, 72)
    return _place([(0.42 * i, _pluck(_hertz(note), 1.1)) for i, note in enumerate(tune)])


def siren() -> Samples:
    """A sawtooth whose pitch swings between 500 and 1300 Hz, nearest in the middle."""
    time = _seconds(4.0)
    pitch = 900 - 400 * np.cos(2 * np.pi * time / 1.6)
    tone = signal.sawtooth(2 * np.pi * np.cumsum(pitch) / RATE, width=0.7)
    return _level(_band(tone, 300, 4000) * (0.15 + signal.windows.hann(time.size)))


def surf() -> Samples:
    """Noise that swells twice; the higher the swell, the brighter."""
    time = _seconds(5.0)
    noise = np.random.default_rng(11).standard_normal(time.size)
    swell = np.sin(np.pi * time / 2.5) ** 4
    return _level(_band(noise, 80, 500) * (0.2 + swell) + _band(noise, 500, 5000) * swell**2)


def scale() -> Samples:
    """A major scale of eight steps, 3 seconds long."""
    notes = (60, 62, 64, 65, 67, 69, 71, 72)
    return _place([(0.36 * i, _pluck(_hertz(note), 0.48)) for i, note in enumerate(notes)], 3.0)


def motor() -> Samples:
    """A two-stroke motor that revs up: pulses, from 22 to 70 a second."""
    time = _seconds(3.0)
    speed = 22 + 48 * (time / 3) ** 2
    pulses = signal.sawtooth(2 * np.pi * np.cumsum(speed) / RATE, width=0.05) ** 5
    rattle = np.random.default_rng(3).standard_normal(time.size) * (pulses > 0.3)
    return _level(_band(pulses + 0.3 * rattle, 30, 1800))


def chord() -> Samples:
    """An organ chord that swells and fades in 3 seconds."""
    time = _seconds(3.0)
    tones = np.zeros(time.size)
    for note in (48, 55, 60, 64, 71):
        for harmonic in (1, 2, 3):
            tones += np.sin(2 * np.pi * _hertz(note) * harmonic * time) / harmonic**2
    return _level(tones * signal.windows.hann(time.size))


ALL: dict[str, Callable[[], Samples]] = {
    "bell": bell,
    "birdsong": birdsong,
    "drums": drums,
    "melody": melody,
    "siren": siren,
    "surf": surf,
}
"""The sounds without a video in the collection."""


def _seconds(duration: float) -> Samples:
    return np.arange(round(duration * RATE)) / RATE


def _hertz(note: int) -> float:
    """The frequency of a MIDI note number in equal temperament."""
    return 440.0 * math.pow(2, (note - 69) / 12)


def _pluck(hertz: float, duration: float) -> Samples:
    time = _seconds(duration)
    tone = np.sin(2 * np.pi * hertz * time) + 0.3 * np.sin(2 * np.pi * 3 * hertz * time)
    soft_ends = np.clip(np.minimum(time / 0.005, (duration - time) / 0.05), 0, 1)
    return np.asarray(tone * np.exp(-time * 5) * soft_ends)


def _whistle(start: float, end: float, duration: float) -> Samples:
    time = _seconds(duration)
    return np.asarray(signal.chirp(time, start, duration, end) * signal.windows.hann(time.size))


def _band(samples: Samples, low: float, high: float) -> Samples:
    sections = signal.butter(2, (low, high), "bandpass", fs=RATE, output="sos")
    return np.asarray(signal.sosfilt(sections, samples))


def _place(events: Sequence[tuple[float, Samples]], duration: float = 0.0) -> Samples:
    """The sum of sounds that start at the given seconds; ``duration`` cuts or pads it."""
    ends = [round(start * RATE) + samples.size for start, samples in events]
    out = np.zeros(max(ends))
    for (_, samples), end in zip(events, ends, strict=True):
        out[end - samples.size : end] += samples
    if duration:
        size = round(duration * RATE)
        out = np.pad(out[:size], (0, max(0, size - out.size)))
    return _level(out)


def _level(samples: Samples) -> Samples:
    return np.asarray(0.7 * samples / np.abs(samples).max())
