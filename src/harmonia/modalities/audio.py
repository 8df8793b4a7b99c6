"""Audio files: soundfile for WAV, FLAC and Ogg, PyAV for MP3, M4A, AAC and the audio of videos."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from harmonia.modalities.limits import LIMITS, Limits, Seekable, Source, fail, opened, replacing
from harmonia.modalities.plots import spectrogram, waveform
from harmonia.modalities.pyav import (
    AudioDecoder,
    caption_in,
    check_complete,
    check_rate,
    container_of,
    declared_seconds,
    decodable,
    tidy,
)
from harmonia.modalities.resampling import resample
from harmonia.modalities.wav_chunks import behind_tags, check_whole, repaired, samples_of
from harmonia.types import HarmoniaError, Signal

SUFFIXES: tuple[str, ...] = (
    ".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".m4b", ".aac", ".aiff", ".aif",
    ".caf", ".amr", ".au", ".snd", ".w64", ".wma", ".mka", ".weba", ".ac3",
)  # fmt: skip

SILENCE = 1e-4
"""Samples that never exceed this (-80 dBFS) are silent."""

SHORTEST = 0.5
"""Seconds: a last piece shorter than this joins the window before it."""

_SOUNDFILE_MAGIC = (b"RIFF", b"RIFX", b"RF64", b"riff", b"fLaC", b"OggS", b"FORM", b".snd", b"dns.", b"caff")
_MP3_TAGS, _MP3_SEARCHED = 8, 4096  # ID3 tags that are skipped, bytes after them with the first frame in them
# The first frame of an MP3 may hold, after 4 bytes and its side information, the number of frames instead of
# sound. The lowest bit of the flags says that the number is there.
_MP3_HEADER = re.compile(
    rb"\xff(?P<version>[\xe2\xe3\xf2\xf3\xfa\xfb]).{2}"
    rb"(?:(?:.{9}|.{17}|.{32})(?:Xing|Info)(?P<flags>.{4})|.{32}VBRI.{10})(?P<frames>.{4})",
    re.DOTALL,
)
_REMEDY = "give a WAV, FLAC, OGG, MP3, M4A or AAC file"


@dataclass(frozen=True, slots=True)
class _Stream:
    """An open audio file: blocks of float32 ``(channels, samples)`` that are decoded as they are taken.

    ``seconds`` is the length that the header declares, None where it declares none.
    """

    rate: int
    channels: int
    seconds: float | None
    caption: str | None
    blocks: Iterator[NDArray[np.float32]]


def read(source: Source, *, limits: Limits = LIMITS) -> Signal:
    """Decode a whole audio file: float32 ``(channels, samples)`` at the file's own rate.

    Raises HarmoniaError when the file is not audio, damaged, truncated, or too long to hold.
    """
    with _opened_audio(source, limits) as stream:
        limits.check_decoded(source, (stream.seconds or 0) * stream.rate * stream.channels * 4)
        blocks, size = [], 0
        for block in stream.blocks:
            blocks.append(block)
            size += block.nbytes
            limits.check_decoded(source, size)
        samples = np.concatenate(blocks, axis=1)
        return Signal("audio", samples, rate=float(stream.rate), caption=stream.caption)


def windows(source: Source, *, seconds: float = 5.0, limits: Limits = LIMITS) -> Iterator[Signal]:
    """Consecutive windows of ``seconds``, decoded as they are taken, with ``start`` and ``end``.

    A last piece shorter than ``SHORTEST`` joins the window before it. Silent windows are left out;
    of a wholly silent file the first one is kept, so that the file is still remembered.
    """
    if seconds < SHORTEST:
        raise ValueError(f"seconds must be at least {SHORTEST}")
    first_silent: Signal | None = None
    audible = False
    with _opened_audio(source, limits) as stream:
        limits.check_decoded(source, (seconds + SHORTEST) * stream.rate * stream.channels * 4)
        for window in _cut(stream, seconds):
            if not silent(window):
                audible = True
                yield window
            elif first_silent is None:
                first_silent = window
    if not audible and first_silent is not None:
        yield first_silent


def _cut(stream: _Stream, seconds: float) -> Iterator[Signal]:
    length = round(seconds * stream.rate)
    tail = round(SHORTEST * stream.rate)
    begin, held = 0, 0
    parts: list[NDArray[np.float32]] = []

    def window(samples: NDArray[np.float32]) -> Signal:
        rate = stream.rate
        end = begin + samples.shape[1]
        return Signal("audio", samples, float(rate), begin / rate, end / rate,
                      caption=stream.caption)  # fmt: skip

    for block in stream.blocks:
        parts.append(block)
        held += block.shape[1]
        if held < length + tail:
            continue
        joined = np.concatenate(parts, axis=1)
        # keep back what may turn out to be a short last piece
        while joined.shape[1] >= length + tail:
            yield window(joined[:, :length].copy())
            begin += length
            joined = joined[:, length:]
        parts, held = [joined], joined.shape[1]
    if held:
        yield window(np.concatenate(parts, axis=1))


@contextmanager
def _opened_audio(source: Source, limits: Limits) -> Iterator[_Stream]:
    """Open with soundfile what it reads well, the rest with PyAV; check the header and the end."""
    with opened(source, limits) as given:
        file = _with_right_sizes(source, behind_tags(given))
        file.seek(0)
        head = file.read(12)
        ours = head.startswith(_SOUNDFILE_MAGIC) and head[8:] != b"AVI " and _soundfile_reads(file)
        reader = _by_soundfile if ours else _by_pyav
        with reader(source, file, limits) as stream:
            check_rate(source, stream.rate)
            if stream.seconds is not None:
                limits.check_seconds(source, stream.seconds)
            yield replace(stream, blocks=_checked(source, stream, limits))


def _checked(source: Source, stream: _Stream, limits: Limits) -> Iterator[NDArray[np.float32]]:
    samples = 0
    for block in stream.blocks:
        samples += block.shape[1]
        limits.check_seconds(source, samples / stream.rate)
        yield block
    if not samples:
        raise fail(source, "has no samples", "choose another file")
    check_complete(source, samples / stream.rate, stream.seconds)


@contextmanager
def _by_soundfile(source: Source, file: BinaryIO, limits: Limits) -> Iterator[_Stream]:
    caption = _tags(file)
    file.seek(0)
    try:
        with soundfile.SoundFile(Seekable(file)) as sound:
            seconds = sound.frames / sound.samplerate

            def blocks() -> Iterator[NDArray[np.float32]]:
                size = max(1, 2**18 // sound.channels)
                while len(block := sound.read(size, dtype="float32", always_2d=True)):
                    yield tidy(block.T)

            yield _Stream(sound.samplerate, sound.channels, seconds, caption, blocks())
    except soundfile.LibsndfileError as error:
        problem = f"is a damaged or truncated audio file ({error.error_string})"
        raise fail(source, problem, "get an intact copy") from error


def _soundfile_reads(file: BinaryIO) -> bool:
    """Whether libsndfile opens a file and reads its beginning; what it cannot, FFmpeg may."""
    file.seek(0)
    try:
        with soundfile.SoundFile(Seekable(file)) as sound:
            # a FLAC that was streamed declares no length: libsndfile then says 2^63 - 1, and fails at the end
            known = sound.frames < 2**62
            return known and (len(sound.read(1024, dtype="float32")) > 0 or not sound.frames)
    except soundfile.LibsndfileError:
        return False


def _with_right_sizes(source: Source, file: BinaryIO) -> BinaryIO:
    """The file, or a view of it whose sizes are right; HarmoniaError if samples are missing."""
    found = samples_of(file)
    check_whole(source, found)
    return repaired(file, found) if found is not None and found.repairable else file


@contextmanager
def _by_pyav(source: Source, file: BinaryIO, limits: Limits) -> Iterator[_Stream]:
    declared, samples = None, _mp3_samples(file)
    with container_of(source, file, "audio", _REMEDY) as container:
        streams = decodable(source, container.streams.audio)
        if not streams:
            raise fail(source, "has no audio stream", _REMEDY)
        stream = streams[0]
        if container.format.name.startswith(("mov", "matroska", "flac", "asf")):
            start = float((stream.start_time or 0) * stream.time_base)
            declared = declared_seconds(container, [stream], start)
        check_rate(source, stream.rate)
        if samples is not None and container.format.name == "mp3":
            declared = samples / stream.rate
        decoder = AudioDecoder(source, stream, limits)
        blocks = (b for packet in container.demux(stream) for _, b in decoder.blocks(packet))
        yield _Stream(stream.rate, stream.channels, declared, caption_in(container), blocks)


def _mp3_samples(file: BinaryIO) -> int | None:
    """The samples that the Xing, Info or VBRI header of an MP3 declares; None where only a guess is left."""
    at = 0
    for _ in range(_MP3_TAGS):
        file.seek(at)
        head = file.read(10)
        if not head.startswith(b"ID3"):
            break
        at += 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(head[6:]))
    found = _MP3_HEADER.search(head + file.read(_MP3_SEARCHED))
    if not found or (found["flags"] is not None and not found["flags"][3] & 1):
        return None
    samples = 1152 if found["version"][0] & 8 else 576  # of a frame
    return int.from_bytes(found["frames"], "big") * samples or None


def _tags(file: BinaryIO) -> str | None:
    """The caption by FFmpeg, which knows the tags of all formats."""
    try:
        with container_of(b"", file, "audio", _REMEDY) as container:
            return caption_in(container)
    except HarmoniaError:
        return None  # a caption is welcome, not needed


def silent(signal: Signal) -> bool:
    """Whether no sample is louder than -80 dBFS."""
    return float(np.abs(signal.array).max(initial=0.0)) <= SILENCE


def mono(signal: Signal, rate: int) -> NDArray[np.float32]:
    """The mean of the channels at ``rate`` samples per second, float32 ``(samples,)``.

    Polyphase resampling; between odd rates the ratio is rounded to terms below 1000. Samples that are
    not finite become 0. HarmoniaError for a signal that is not ``(channels, samples)`` with a rate.
    """
    samples = signal.array
    if samples.ndim != 2 or signal.rate is None or not signal.rate > 0:
        raise HarmoniaError(
            f"audio must be (channels, samples) with a rate, got {samples.shape} at {signal.rate}; "
            "read the file with harmonia.modalities.audio"
        )
    wave = np.nan_to_num(samples.mean(axis=0, dtype=np.float32), posinf=0.0, neginf=0.0)
    ratio = Fraction(rate / signal.rate).limit_denominator(1000)
    if ratio != 1 and len(wave):
        wave = resample(wave, ratio.numerator, ratio.denominator)
    return np.ascontiguousarray(wave, dtype=np.float32)


def write(signal: Signal, path: str | Path) -> None:
    """Write WAV, FLAC, OGG or MP3, as the suffix says, atomically. The caption is not written."""
    path = Path(path)
    if path.suffix.lower() not in (".wav", ".flac", ".ogg", ".mp3"):
        raise fail(path, "is of no format that can be written", "name it .wav, .flac or .ogg")
    with replacing(path) as temporary:
        try:
            soundfile.write(temporary, signal.array.T, round(signal.rate or 0))
        except (soundfile.LibsndfileError, ValueError) as error:
            problem = f"cannot hold this audio ({error})"
            raise fail(path, problem, "name it .wav, which holds any") from error


def preview(signal: Signal, size: int = 256) -> Image.Image:
    """The waveform above the spectrogram, a square of ``size`` pixels.

    The spectrogram's frequency axis is logarithmic, from 50 Hz to 8 kHz (or half the rate).
    """
    rate = min(round(signal.rate or 16000), 16000)
    top = size // 3
    drawn = (
        waveform(signal.array, size, top),
        spectrogram(mono(signal, rate), rate, size, size - top),
    )
    return Image.fromarray(np.concatenate(drawn))
