"""The chunks of WAV, RF64, Wave64, AIFF, AU, CAF and AVI files: where samples lie, and how many there are.

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
FORMAT_MOST = 512  # bytes of a format: 40 in WAV, and a name besides in AIFF
_TAGS_MOST = 8  # ID3 tags that stand before a file of another format

Order = Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class Samples:
    """The chunk of samples: its first byte, the bytes that it declares (None: unknown), those there are.

    ``container`` is the name of the format; ``format`` says how the samples are stored, in its terms and in
    ``order``: the chunk of that name in WAV, COMM in AIFF, the header from its third number on in AU.
    ``regular`` says that readers find the samples by the sizes in the file.
    """

    start: int
    declared: int | None
    there: int
    format: bytes = b""
    regular: bool = True
    container: bytes = b"WAVE"
    order: Order = "little"

    @property
    def cut(self) -> bool:
        """Whether fewer bytes are there than are declared, in whole samples of all channels."""
        wide = int.from_bytes(self.format[12:14], self.order) if self.container == b"WAVE" else 1
        return self.declared is not None and self.there < self.declared - self.declared % max(wide, 1)

    @property
    def repairable(self) -> bool:
        """Whether the sizes are wrong, and :func:`repaired` can write right ones."""
        return not self.regular and bool(self.format) and self.there < UNKNOWN_SIZE


def behind_tags(file: BinaryIO) -> BinaryIO:
    """The file, or a view of it from behind the ID3 tags that some programs write before any format."""
    at = 0
    for _ in range(_TAGS_MOST):
        head = _bytes(file, at, 10)
        if not head.startswith(b"ID3"):
            break
        at += 10 + sum((byte & 127) << 7 * (3 - i) for i, byte in enumerate(head[6:]))
    if at == 0 or not head.startswith((b"RIFF", b"RIFX", b"RF64", b"FORM", b"OggS")):
        return file
    return io.BufferedReader(_Spliced(b"", file, at, file.seek(0, io.SEEK_END) - at))


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
    if head[:4] in (b".snd", b"dns."):
        return _of_au(file, whole, "big" if head[:4] == b".snd" else "little")
    if head[:4] == b"caff":
        return _of_caf(file, whole)
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return _of_wave64(file, whole)
    return None


def check_whole(source: Source, found: Samples | None) -> None:
    """Raise HarmoniaError if samples are missing."""
    if found is not None and found.cut:
        problem = f"is truncated: {found.there:,} of {found.declared:,} bytes of samples are there"
        raise fail(source, problem, "get an intact copy")


def repaired(file: BinaryIO, found: Samples) -> BinaryIO:
    """The same WAV, AIFF or AU with a header whose sizes are right."""
    size = found.there if found.declared is None else min(found.declared, found.there)

    def number(value: int) -> bytes:
        return value.to_bytes(4, found.order)

    if found.container == b".snd":
        name = b".snd" if found.order == "big" else b"dns."
        head = name + number(found.start) + number(size) + found.format
    else:
        wave = found.container == b"WAVE"
        described, samples = (b"fmt ", b"data") if wave else (b"COMM", b"SSND")
        body = found.container + described + number(len(found.format)) + found.format
        body += b"\0" * (len(found.format) % 2) + samples + number(size)
        name = (b"RIFF" if found.order == "little" else b"RIFX") if wave else b"FORM"
        head = name + number(len(body) + size) + body
    return io.BufferedReader(_Spliced(head, file, found.start, size))


def _of_chunks(file: BinaryIO, whole: int, order: Order, name: bytes) -> Samples | None:
    head = _bytes(file, 0, 12)
    container, described = head[8:], b"COMM" if name == b"SSND" else b"fmt "
    at, form, wide, regular = 12, b"", None, True

    def found(start: int, size: int, regular: bool) -> Samples:
        # of RF64 the 64-bit size counts; a file without it is a WAV by another name
        regular = regular and not (head[:4] == b"RF64" and wide is None)
        return _samples(start, size if wide is None else wide, whole, form, regular, container, order)

    while at + 8 <= whole:
        # a size may be wrong by one, or the pad byte of an odd number of bytes missing
        shift = next((s for s in (0, -1, 1) if _is_name(_bytes(file, at + s, 4))), None)
        if shift is None:
            break
        at, regular = at + shift, regular and shift == 0
        chunk = _bytes(file, at, 8)
        size = int.from_bytes(chunk[4:], order)
        if chunk[:4] == name:
            return found(at + 8, size, regular)
        if chunk[:4] == described:
            form = _bytes(file, at + 8, min(size, FORMAT_MOST))
        elif chunk[:4] == b"ds64":
            wide = int.from_bytes(_bytes(file, at + 16, 8), "little")
        at += 8 + size + size % 2
    # the sizes lead nowhere: look for the names alone
    head = _bytes(file, 0, SEARCHED)
    there, described_at = head.find(name, 12), head.find(described, 12)
    if there < 0:
        return None
    if not form and described_at >= 0:
        size = int.from_bytes(head[described_at + 4 : described_at + 8], order)
        form = head[described_at + 8 : described_at + 8 + min(size, FORMAT_MOST)]
    return found(there + 8, int.from_bytes(head[there + 4 : there + 8], order), False)


def _bytes(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _samples(
    start: int, size: int, whole: int, form: bytes, regular: bool, container: bytes, order: Order
) -> Samples:
    there = whole - start
    if size == 0 and there > 1:
        return Samples(start, None, there, form, False, container, order)
    # only a 64-bit size, which RF64 has beside it, may be as large as that
    unknown = UNKNOWN_SIZE <= size <= 0xFFFFFFFF or size >= 1 << 62
    regular = regular and size < 1 << 62
    return Samples(start, None if unknown else size, there, form, regular, container, order)


def _of_au(file: BinaryIO, whole: int, order: Order) -> Samples:
    start, size = (int.from_bytes(_bytes(file, at, 4), order) for at in (4, 8))
    there, known = max(0, whole - start), 0 < size < UNKNOWN_SIZE
    form = _bytes(file, 12, max(0, min(start - 12, SEARCHED)))
    return Samples(start, size if known else None, there, form, size > 0 or not there, b".snd", order)


def _of_caf(file: BinaryIO, whole: int) -> Samples | None:
    """Of a Core Audio Format file; its chunks have 64-bit sizes, -1 for one that goes to the end."""
    at = 8
    while at + 12 <= whole:
        chunk = _bytes(file, at, 12)
        size = int.from_bytes(chunk[4:], "big", signed=True)
        if chunk[:4] == b"data":
            return Samples(at + 12, size if size > 0 else None, whole - at - 12)
        if size < 0:
            return None
        at += 12 + size
    return None


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
