"""Media files gone wrong in every way that one can think of, drawn from a seed."""

from __future__ import annotations

import io
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.media import make_photo, make_tone, make_video

KINDS = {
    "photo.png": "image", "photo.jpg": "image", "photo.gif": "image", "photo.webp": "image",
    "photo.tiff": "image", "photo.bmp": "image", "tone.wav": "audio", "tone.flac": "audio",
    "tone.ogg": "audio", "tone.mp3": "audio", "tone.m4a": "audio", "film.mp4": "video", "film.webm": "video",
    "film.avi": "video",
}  # fmt: skip


class Mutant(NamedTuple):
    """A file: what was done to it, the modality and name that it claims, what it holds."""

    how: str
    modality: str
    name: str
    data: bytes


def mutants(count: int, seed: int = 0) -> Iterator[Mutant]:
    """``count`` files, every way in turn on every original in turn."""
    random = Random(seed)
    names, ways = list(KINDS), list(WAYS)
    for number in range(count):
        how, name = ways[number % len(ways)], names[number // len(ways) % len(names)]
        claimed = random.choice(names) if how in ("renamed", "polyglot", "zip_bomb", "page") else name
        yield Mutant(how, KINDS[claimed], claimed, WAYS[how](random, originals()[name]))


@cache
def originals() -> dict[str, bytes]:
    """The files before anything is done to them."""
    with tempfile.TemporaryDirectory() as folder:
        for name in KINDS:
            path = Path(folder) / name
            if KINDS[name] == "image":
                make_photo(path, seed=1, size=(64, 48))
            elif KINDS[name] == "audio":
                make_tone(path, seconds=0.3)
            else:
                make_video(path, seconds=0.4, size=(64, 48))
        return {name: (Path(folder) / name).read_bytes() for name in KINDS}


def _flipped(random: Random, data: bytes) -> bytes:
    """A few bits, anywhere."""
    found = bytearray(data)
    for _ in range(random.choice((1, 4, 32))):
        found[random.randrange(len(found))] ^= 1 << random.randrange(8)
    return bytes(found)


def _header(random: Random, data: bytes) -> bytes:
    """A few bytes of the first 64: sizes, counts, offsets."""
    found = bytearray(data)
    for _ in range(random.choice((1, 2, 6))):
        found[random.randrange(4, min(64, len(found)))] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
    return bytes(found)


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(1, len(data))]


def _holed(random: Random, data: bytes) -> bytes:
    """A stretch is missing, or is zero, or there twice."""
    begin = random.randrange(len(data))
    end = min(len(data), begin + random.randrange(1, len(data)))
    middle = random.choice((b"", bytes(end - begin), data[begin:end] * 2))
    return data[:begin] + middle + data[end:]


def _swapped(random: Random, data: bytes) -> bytes:
    """The head of another format."""
    other = random.choice(list(originals().values()))
    at = random.choice((4, 8, 12, 32, 128))
    return other[:at] + data[at:]


def _longer(random: Random, data: bytes) -> bytes:
    """Something comes after the end."""
    return data + random.choice((random.randbytes(5000), b"\0" * 5000, data))


def _same(random: Random, data: bytes) -> bytes:
    return data


def _polyglot(random: Random, data: bytes) -> bytes:
    """An archive at the end, or a page or a script at the beginning."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("../../evil.py"), "import os")  # of no time, so always the same
    page = b"<html><script>alert(1)</script></html>"
    return random.choice((data + file.getvalue(), file.getvalue() + data, page + data, data + page))


def _page(random: Random, data: bytes) -> bytes:
    """Text of kinds that a browser would run, or an XML parser choke on."""
    return random.choice((
        b"<!DOCTYPE html><script>alert(1)</script>",
        b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(1)</script></svg>',
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
        b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", b"#!/bin/sh\nreboot\n", b"\xff\xfe" + b"\xd8" * 99, b"\xef\xbb\xbf",
        b" " * 999,
        b"\x80\x04\x95\x1a\0\0\0\0\0\0\0\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
    ))  # fmt: skip


def _huge_png(random: Random, data: bytes) -> bytes:
    """A picture that says it is huge, and holds a little, or much that is zero."""
    side = random.choice((20_000, 65_535, 2**31 - 1, 2**32 - 1, 0))
    head = struct.pack(
        ">IIBBBBB", side, side, random.choice((1, 8, 16)), random.choice((0, 2, 3, 6)), 0, 0, 0
    )
    pixels = _zeros(random.choice((10, 3_000_000)))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _text_png(random: Random, data: bytes) -> bytes:
    """A small picture whose comments are megabytes when they are unpacked."""
    head = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    comment = _chunk(b"zTXt", b"a\0\0" + _zeros(20_000_000))
    rest = _chunk(b"IDAT", _zeros(4)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + comment * random.choice((1, 3)) + rest


def _endless_wav(random: Random, data: bytes) -> bytes:
    """A sound that says it has no samples a second, or too many, or is longer than it is."""
    rate, channels = random.choice((0, 1, 2**31, 44_100)), random.choice((0, 1, 65_535))
    body = struct.pack(
        "<HHIIHH", random.choice((1, 3, 65_534)), channels, rate, rate, random.choice((0, 2)), 16
    )
    size = random.choice((0xFFFFFFFF, 4, 2**31))
    begin = b"RIFF" + struct.pack("<I", size) + b"WAVEfmt " + struct.pack("<I", 16) + body
    return begin + b"data" + struct.pack("<I", size) + random.randbytes(400)


def _zip_bomb(random: Random, data: bytes) -> bytes:
    """An archive of nothing, very much of it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo("zeros"), bytes(5_000_000), zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _noise(random: Random, data: bytes) -> bytes:
    """The first bytes of a format, and then chance."""
    return data[: random.choice((0, 4, 12))] + random.randbytes(2000)


@cache
def _zeros(count: int) -> bytes:
    return zlib.compress(bytes(count))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


WAYS: dict[str, Callable[[Random, bytes], bytes]] = {
    "flipped": _flipped, "header": _header, "cut": _cut, "holed": _holed, "swapped": _swapped,
    "longer": _longer,
    "renamed": _same, "polyglot": _polyglot, "page": _page, "huge_png": _huge_png, "text_png": _text_png,
    "endless_wav": _endless_wav, "zip_bomb": _zip_bomb, "noise": _noise,
}  # fmt: skip
