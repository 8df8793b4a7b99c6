"""One pass over an open video: sampled frames, and all of the audio, in file order."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harmonia.modalities import audio
from harmonia.modalities.limits import Limits, Source, fail, opened
from harmonia.modalities.pyav import (
    AudioDecoder,
    Decoder,
    caption_in,
    check_complete,
    check_rate,
    container_of,
    declared_seconds,
    decodable,
)
from harmonia.modalities.wav_chunks import check_whole, samples_of
from harmonia.types import HarmoniaError, Signal

_REMEDY = "give an MP4, MOV, MKV, WebM or AVI file"


class OnlySound(HarmoniaError):
    """A file has sound, and no picture but for cover art."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame, RGB uint8 ``(height, width, 3)``, and the second at which it is shown."""

    time: float
    rgb: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class _Block:
    """A block of audio, float32 ``(channels, samples)``, and the second at which it begins."""

    time: float
    samples: NDArray[np.float32]


class AudioTrack:
    """The decoded audio that no window has taken yet."""

    def __init__(self, source: Source, stream: Any, origin: float, limits: Limits) -> None:
        check_rate(source, stream.rate)
        self.source, self.stream, self.limits = source, stream, limits
        self.origin = origin
        self.decoder = AudioDecoder(source, stream, limits)
        self.blocks: deque[_Block] = deque()
        self.held = 0

    def add(self, packet: Any) -> None:
        """Decode a packet and keep its audio."""
        for time, samples in self.decoder.blocks(packet):
            self.held += samples.nbytes
            self.limits.check_decoded(self.source, self.held)
            self.blocks.append(_Block(time - self.origin, samples))

    @property
    def decoded_to(self) -> float:
        """The second up to which the audio has been decoded."""
        return self.decoder.clock - self.origin

    def check_fits(self, seconds: float) -> None:
        """Raise HarmoniaError when this much audio is too much to hold."""
        size = 4 * seconds * self.decoder.rate * self.decoder.channels
        self.limits.check_decoded(self.source, size)

    def cut(self, start: float, end: float) -> Signal | None:
        """Take the audio of a span, zeros where it has gaps; None when it is silent."""
        rate = self.decoder.rate
        self.check_fits(end - start)
        length = round((end - start) * rate)
        samples = np.zeros((self.decoder.channels, length), np.float32)
        while self.blocks and self.blocks[0].time < end:
            block = self.blocks.popleft()
            self.held -= block.samples.nbytes
            at = round((block.time - start) * rate)
            first, last = max(0, -at), min(block.samples.shape[1], length - at)
            if last > first:
                samples[:, at + first : at + last] = block.samples[:, first:last]
            if last < block.samples.shape[1]:  # the next window begins inside this block
                last = max(last, 0)
                rest = _Block(block.time + last / rate, block.samples[:, last:])
                self.blocks.appendleft(rest)
                self.held += rest.samples.nbytes
                break
        signal = Signal("audio", samples, float(rate), start, end)
        return None if audio.silent(signal) else signal


class VideoStream:
    """One pass over an open file: sampled frames, and all of the audio.

    Key frames come first, since they decode alone and cost a quarter of a full decode: only where
    they lie further apart than a quarter of the span is everything between them decoded too.
    """

    def __init__(self, source: Source, container: Any, limits: Limits, max_side: int) -> None:
        self.source, self.container = source, container
        self.limits, self.max_side = limits, max_side
        streams = decodable(source, container.streams.video)
        if not streams:
            error = fail(source, "has no video stream", "read it as audio, or " + _REMEDY)
            raise OnlySound(str(error)) if container.streams.audio else error
        self.stream = streams[0]
        limits.check_pixels(source, self.stream.width, self.stream.height)
        tracks = [s for s in container.streams.audio if s.codec_context is not None and s.rate]
        used = [self.stream, *tracks[:1]]
        self.origin = _start(container, used)
        self.duration = declared_seconds(container, used, self.origin)
        limits.check_seconds(source, self.duration or 0.0)
        self.sound = AudioTrack(source, tracks[0], self.origin, limits) if tracks else None
        self.rate = float(self.stream.average_rate) if self.stream.average_rate else None
        self.caption = caption_in(container)
        self.end = 0.0
        self.decoder = Decoder(source, self.stream, limits)
        self.size: tuple[int, int] | None = None
        self.sample(None, 1)
        self.due = self.intact_from = 0.0
        self.group: list[Any] = []
        self.whole = False

    def sample(self, span: float | None, count: int) -> None:
        """Ask for some ``count`` frames in every ``span`` seconds, at least about four."""
        self.spacing = (span or 8.0) / max(count, 1)
        self.gap = (span or 8.0) / 4

    def audio_decoded_to(self, second: float) -> bool:
        """Whether the audio has been decoded up to this second."""
        return self.sound is None or self.sound.decoded_to >= second

    def frames(self) -> Iterator[Frame]:
        """The frames, while ``sound`` fills too; HarmoniaError at the end if it came early."""
        seen = False
        streams = [self.stream] + ([self.sound.stream] if self.sound else [])
        for packet in self.container.demux(streams):
            if packet.stream.type == "video":
                for frame in self._feed(packet):
                    seen = True
                    yield frame
            elif self.sound is not None:
                self.sound.add(packet)
                self.end = max(self.end, self.sound.decoded_to)
            self.limits.check_seconds(self.source, self.end)
        if not seen:
            raise fail(self.source, "has no frame that can be decoded", "get an intact copy")
        check_complete(self.source, self.end, self.duration)

    def _feed(self, packet: Any) -> Iterator[Frame]:
        """Hold the packets since the last key frame back until it is clear how long they last."""
        if packet.size == 0:
            yield from self._key_frame()
            yield from self._decode(packet)
            return
        time = self._time(packet)
        self.end = max(self.end, time + float((packet.duration or 0) * packet.time_base))
        if packet.is_keyframe or not (self.group or self.whole):
            yield from self._key_frame()
            if not self.whole:
                self.intact_from = time
            self.group, self.whole = [packet], False
        elif self.whole:
            yield from self._decode(packet)
        else:
            self.group.append(packet)
            if time - self._time(self.group[0]) > self.gap:
                group, self.group, self.whole = self.group, [], True
                for held in group:
                    yield from self._decode(held)

    def _key_frame(self) -> Iterator[Frame]:
        """Of a short group the key frame alone, unless one was taken just before."""
        if self.group and self._time(self.group[0]) >= self.due - 1e-3:
            self.due = self._next_due(self._time(self.group[0]))
            yield from self._decode(self.group[0])
        self.group = []

    def _next_due(self, time: float) -> float:
        # on a fixed grid, so that frames a little late do not push the later ones back
        return (time // self.spacing + 1) * self.spacing

    def _time(self, packet: Any) -> float:
        stamp = packet.pts if packet.pts is not None else packet.dts
        return self.end if stamp is None else float(stamp * packet.time_base) - self.origin

    def _decode(self, packet: Any) -> Iterator[Frame]:
        for frame in self.decoder.frames(packet):
            time = self.end if frame.time is None else frame.time - self.origin
            # after a skipped group, frames shown before the key frame lack their references
            wanted = time >= max(self.due - 1e-3, self.intact_from)
            if frame.key_frame or wanted:
                self.due = max(self.due, self._next_due(time))
                yield Frame(max(time, 0.0), self._small(frame))

    def _small(self, frame: Any) -> NDArray[np.uint8]:
        self.limits.check_pixels(self.source, frame.width, frame.height)
        if self.size is None:
            ratio = self.stream.sample_aspect_ratio or 1
            width, height = float(frame.width * ratio), float(frame.height)
            scale = min(1.0, self.max_side / max(width, height))
            self.size = max(1, round(width * scale)), max(1, round(height * scale))
        rgb = frame.reformat(*self.size, format="rgb24", interpolation="AREA").to_ndarray()
        return np.ascontiguousarray(np.rot90(rgb, round(frame.rotation / 90)))


def _start(container: Any, streams: Sequence[Any]) -> float:
    """The second of the container's clock at which the first of the streams begins."""
    starts = [float(s.start_time * s.time_base) for s in streams if s.start_time is not None]
    return min(starts, default=(container.start_time or 0) / 1e6)


@contextmanager
def opened_video(source: Source, limits: Limits, max_side: int) -> Iterator[VideoStream]:
    """Open a video for one pass; HarmoniaError when it is none, damaged, or over ``limits``."""
    with opened(source, limits) as file:
        check_whole(source, samples_of(file))
        with container_of(source, file, "video", _REMEDY) as container:
            yield VideoStream(source, container, limits, max_side)
