"""FFmpeg through PyAV, as audio and video share it: open safely, decode audio, name errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

import av
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray

from harmonia.modalities.limits import Limits, Seekable, Source, caption_of, fail, wrong_kind

# Playlists and concat scripts would make FFmpeg open other files and addresses: not in this list.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,"
    "mp3,aac,ac3,eac3,ogg,flac,wav,w64,aiff,au,caf,amr"
)
_RATES = range(100, 1_000_001)


@contextmanager
def container_of(source: Source, file: BinaryIO, wanted: str, remedy: str) -> Iterator[Any]:
    """Yield an open PyAV container; every failure of FFmpeg becomes a HarmoniaError."""
    file.seek(0)
    head = file.read(64)
    file.seek(0)
    try:
        container = av.open(
            Seekable(file), "r", options={"format_whitelist": _FORMATS}, metadata_errors="replace"
        )
    except av.FFmpegError as error:
        raise wrong_kind(source, head, wanted, remedy) from error
    with container:
        try:
            yield container
        except av.FFmpegError as error:
            problem = f"is damaged and cannot be decoded ({error.strerror})"
            raise fail(source, problem, "get an intact copy") from error


def caption_in(container: Any) -> str | None:
    """Title, comment and description from the tags of the file or of its first streams."""
    tags: dict[str, str] = {}
    for holder in (container, *list(container.streams)[:2]):
        for name, value in holder.metadata.items():
            tags.setdefault(name.lower(), value)
    return caption_of(*(tags.get(name) for name in ("title", "description", "comment")))


def decodable(source: Source, streams: Any) -> list[Any]:
    """The streams that FFmpeg can decode, cover art aside; HarmoniaError if all are unknown."""
    found = [s for s in streams if not s.disposition & Disposition.attached_pic]
    known = [s for s in found if s.codec_context is not None]
    if found and not known:
        raise fail(source, "uses an unknown codec or is damaged", "convert it, or get an intact copy")
    return known


def declared_seconds(container: Any, streams: Sequence[Any], origin: float = 0.0) -> float | None:
    """The length that the header declares for some of its streams, from ``origin`` on; None if for none.

    The container's own length is that of its longest track, which may be another one, and in Matroska it is
    counted from zero.
    """
    found = [seconds for stream in streams if (seconds := _ends(stream)) is not None]
    if found:
        return max(0.0, max(found) - origin)
    if container.duration is None or len(container.streams) > len(streams):
        return None
    from_zero = origin if container.format.name.startswith("matroska") else 0.0
    return max(0.0, float(container.duration / 1e6) - from_zero)


def _ends(stream: Any) -> float | None:
    """The second of the container's clock at which a stream ends, as it declares."""
    if stream.duration is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    # Matroska notes it in a tag
    found = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", "").rstrip("\0"))
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3]) if found else None


def check_rate(source: Source, rate: int) -> None:
    """Raise HarmoniaError for a sample rate that no recorder writes."""
    if rate not in _RATES:
        raise fail(source, f"claims {rate} samples per second", "get an intact copy")


class Decoder:
    """Decodes the packets of one stream. A few damaged ones are dropped, as players do."""

    def __init__(self, source: Source, stream: Any, limits: Limits) -> None:
        self.source = source
        self.packets = 0
        self.damaged = 0
        if stream.type == "video":
            stream.codec_context.options = {"max_pixels": str(limits.pixels)}
            stream.thread_type = "AUTO"

    def frames(self, packet: Any) -> list[Any]:
        """The frames that come out once ``packet`` has gone in; an empty packet flushes."""
        self.packets += 1
        try:
            return packet.decode()  # type: ignore[no-any-return]
        except av.error.InvalidDataError:
            self.damaged += 1
            if self.damaged > 3 + self.packets // 20:
                raise
            return []


class AudioDecoder(Decoder):
    """Decodes audio packets to ``(second, float32 (channels, samples))``.

    Rate and channels stay those of the stream, whatever a later frame claims.
    """

    def __init__(self, source: Source, stream: Any, limits: Limits) -> None:
        super().__init__(source, stream, limits)
        self.rate, self.channels, self.layout = stream.rate, stream.channels, stream.layout
        self._check_channels(stream.channels)
        self.form: tuple[str, str, int] | None = None
        self.clock = 0.0

    def blocks(self, packet: Any) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """The blocks that come out once ``packet`` has gone in."""
        for frame in self.frames(packet):
            self._check_channels(frame.layout.nb_channels)
            # a real gap moves the clock; time stamps rounded to milliseconds do not
            if frame.time is not None and abs(frame.time - self.clock) > 0.05:
                self.clock = frame.time
            form = (frame.format.name, frame.layout.name, frame.sample_rate)
            if form != self.form:
                self.resampler = av.AudioResampler("fltp", self.layout, self.rate)
                self.form = form
            for piece in self.resampler.resample(frame):
                block = tidy(piece.to_ndarray())
                yield self.clock, block
                self.clock += block.shape[1] / self.rate

    def _check_channels(self, channels: int) -> None:
        # PyAV 18 reads past the end of a planar frame of more than eight, and crashes
        if not 1 <= channels <= 8:
            remedy = "mix it to at most eight channels, or get an intact copy"
            raise fail(self.source, f"claims {channels} channels", remedy)


def tidy(block: NDArray[Any]) -> NDArray[np.float32]:
    """Samples as finite float32 in [-1, 1]."""
    out = np.nan_to_num(block.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
    return np.clip(out, -1.0, 1.0, out=out)


def check_complete(source: Source, decoded: float, declared: float | None) -> None:
    """Raise HarmoniaError when clearly fewer seconds were decoded than the header declares."""
    if declared is not None and decoded < declared - max(0.3, 0.02 * declared):
        raise fail(
            source,
            f"is truncated: {decoded:.1f} of {declared:.1f} s could be read",
            "get an intact copy",
        )
