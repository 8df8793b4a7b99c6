"""The chunks of WAV, RF64, Wave64, AIFF, AU and AVI files: where the samples lie, and how many there are.

libsndfile and FFmpeg silently shorten a file that was cut off, and stumble over sizes that are wrong. The
data decide: what the chunk of samples declares must be there, every other size may lie.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO, Literal

from harmonia.modalities.limits import Source, fail

# Recorders that stream write 0 as a size, or one near the maximum.
UNKNOWN_SIZE = 0x7FFFF000
# A chunk of samples is looked for by its name alone in as many bytes, where the sizes lead nowhere.
SEARCHED = 1 << 20
FORMAT_MOST = 64  # bytes of a format, the longest of which has 40

Order = Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class Samples:
    """The chunk of samples: its first byte, the bytes that it declares (None: unknown), those there are.

    ``format`` is a WAV's chunk of that name without its header, in little-endian order; ``regular`` says that
    readers find the samples by the sizes in the file.
    """

    start: int
    declared: int | None
    there: int
    format: bytes = b""
    regular: bool = True

    @property
    def cut(self) -> bool:
        """Whether fewer bytes are there than are declared."""
        return self.declared is not None and self.there < self.declared

    @property
    def repairable(self) -> bool:
        """Whether the sizes are wrong, and :func:`repaired` can write right ones."""
        return not self.regular and bool(self.format) and self.there < UNKNOWN_SIZE


def samples_of(file: BinaryIO) -> Samples | None:
    """Where the samples of a file lie; None if it is of another format, or has no such chunk."""
    file.seek(0)
    head = file.read(40)
    whole = file.seek(0, 2)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
        return _of_chunks(file, whole, "big" if head[:4] == b"RIFX" else "little", b"data")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return _of_avi(file, whole)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _of_chunks(file, whole, "big", b"SSND")
    if head[:4] == b".snd":
        start, size = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8))
        return Samples(start, size if 0 < size < UNKNOWN_SIZE else None, max(0, whole - start))
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return _of_wave64(file, whole)
    return None


def check_whole(source: Source, found: Samples | None) -> None:
    """Raise HarmoniaError if samples are missing."""
    if found is not None and found.cut:
        problem = f"is truncated: {found.there:,} of {found.declared:,} bytes of samples are there"
        raise fail(source, problem, "get an intact copy")


def repaired(file: BinaryIO, found: Samples) -> BinaryIO:
    """The same WAV with a header whose sizes are right."""
    size = found.there if found.declared is None else min(found.declared, found.there)
    body = b"WAVEfmt " + len(found.format).to_bytes(4, "little") + found.format
    body += b"\0" * (len(found.format) % 2) + b"data" + size.to_bytes(4, "little")
    head = b"RIFF" + (len(body) + size).to_bytes(4, "little") + body
    return io.BufferedReader(_Spliced(head, file, found.start, size))


def _of_chunks(file: BinaryIO, whole: int, order: Order, name: bytes) -> Samples | None:
    at, form, wide, regular = 12, b"", None, True
    while at + 8 <= whole:
        # a size may be wrong by one, or the pad byte of an odd number of bytes missing
        shift = next((s for s in (0, -1, 1) if _is_name(_bytes(file, at + s, 4))), None)
        if shift is None:
            break
        at, regular = at + shift, regular and shift == 0
        chunk = _bytes(file, at, 8)
        size = int.from_bytes(chunk[4:], order)
        if chunk[:4] == name:
            return _samples(at + 8, size if wide is None else wide, whole, form, regular)
        if chunk[:4] == b"fmt " and order == "little":
            form = _bytes(file, at + 8, min(size, FORMAT_MOST))
        elif chunk[:4] == b"ds64":
            wide = int.from_bytes(_bytes(file, at + 16, 8), "little")
        at += 8 + size + size % 2
    # the sizes lead nowhere: look for the names alone
    head = _bytes(file, 0, SEARCHED)
    found, described = head.find(name, 12), head.find(b"fmt ", 12)
    if found < 0:
        return None
    if not form and described >= 0 and order == "little":
        size = int.from_bytes(head[described + 4 : described + 8], "little")
        form = head[described + 8 : described + 8 + min(size, FORMAT_MOST)]
    return _samples(found + 8, int.from_bytes(head[found + 4 : found + 8], order), whole, form, False)


def _bytes(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _samples(start: int, size: int, whole: int, form: bytes, regular: bool) -> Samples:
    there = whole - start
    if size == 0 and there > 1:
        return Samples(start, None, there, form, False)
    # only a 64-bit size, which RF64 has beside it, may be as large as that
    unknown = UNKNOWN_SIZE <= size <= 0xFFFFFFFF
    return Samples(start, None if unknown else size, there, form, regular)


def _of_avi(file: BinaryIO, whole: int) -> Samples | None:
    """The list of the frames and the sound of a film."""
    at = 12
    while at + 12 <= whole:
        file.seek(at)
        chunk = file.read(12)
        size = int.from_bytes(chunk[4:8], "little")
        if chunk[:4] == b"LIST" and chunk[8:] == b"movi":
            return Samples(at + 8, size if 4 < size < UNKNOWN_SIZE else None, whole - at - 8)
        at += 8 + size + size % 2
    return None


def _of_wave64(file: BinaryIO, whole: int) -> Samples | None:
    at = 40
    while at + 24 <= whole:
        file.seek(at)
        chunk = file.read(24)
        size = int.from_bytes(chunk[16:], "little")
        if chunk[:4] == b"data":
            declared = size - 24 if 24 <= size < 1 << 62 else None
            return Samples(at + 24, declared, whole - at - 24)
        if size < 24:
            return None
        at += size + -size % 8
    return None


def _is_name(four: bytes) -> bool:
    return len(four) == 4 and all(32 <= byte < 127 for byte in four)


class _Spliced(io.RawIOBase):
    """A new head, then ``size`` bytes of a file from ``start`` on."""

    def __init__(self, head: bytes, file: BinaryIO, start: int, size: int) -> None:
        self.head, self.file, self.start, self.size = head, file, start, len(head) + size
        self.at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of any file."""
        self.at = max(0, offset + (0, self.at, self.size)[whence])
        return self.at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """The bytes from the head, or else from the file."""
        if self.at < len(self.head):
            data = self.head[self.at : self.at + len(buffer)]
        else:
            self.file.seek(self.start + self.at - len(self.head))
            data = self.file.read(max(0, min(len(buffer), self.size - self.at)))
        buffer[: len(data)] = data
        self.at += len(data)
        return len(data)
