"""Copies of a picture file without the metadata that may be broken, tried when the file itself is refused.

The picture's own data are never changed: what is cut or damaged there is refused in every copy.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import BinaryIO, Literal, TypeVar

from harmonia.types import HarmoniaError

T = TypeVar("T")

# Bytes that all texts of a PNG may take unpacked; more is no description of a picture.
_TEXT_MOST = 1 << 20
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PICTURE = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
# Flags of a WebP's header: colour profile, EXIF, XMP.
_WEBP_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}


def without_broken_metadata(file: BinaryIO, use: Callable[[BinaryIO], T]) -> T:
    """What ``use`` makes of a file or, where it refuses it, of the first copy that it does not refuse.

    Raises the HarmoniaError for the file itself when every copy is refused too.
    """
    try:
        return use(file)
    except HarmoniaError:
        for copy in _copies(file):
            try:
                return use(io.BytesIO(copy))
            except HarmoniaError:
                continue
        raise


def _copies(file: BinaryIO) -> Iterator[bytes]:
    """The file without more and more of its metadata: orientation and provenance are kept longest."""
    file.seek(0)
    head = file.read(12)
    makers: list[Callable[[bytes], bytes]]
    if head.startswith(_PNG):
        makers = [partial(_png, texts=True), partial(_png, texts=False)]
    elif head.startswith(b"\xff\xd8"):
        makers = [partial(_jpeg, keep=keep) for keep in ((_EXIF, _XMP), (_EXIF,), ())]
    elif head[:4] == b"RIFF" and head[8:] == b"WEBP":
        makers = [partial(_webp, keep=keep) for keep in ((b"EXIF", b"XMP "), (b"EXIF",), ())]
    elif head.startswith(b"GIF8"):
        makers = [_gif]
    else:
        return
    file.seek(0)
    data = file.read()
    seen = [data]
    for copy in (make(data) for make in makers):
        if copy not in seen:
            seen.append(copy)
            yield copy


def orientation_of(exif: bytes) -> int | None:
    """The orientation that EXIF gives, 1 to 8 (TIFF 6.0, tag 274); None without one.

    Pillow reads no tag behind one whose place lies outside the data; this looks at nothing but its own.
    """
    data = exif.removeprefix(_EXIF)
    order: Literal["little", "big"] = "big" if data[:2] == b"MM" else "little"
    at = int.from_bytes(data[4:8], order)
    count = int.from_bytes(data[at : at + 2], order)
    for start in range(at + 2, min(at + 2 + 12 * count, len(data) - 11), 12):
        if int.from_bytes(data[start : start + 2], order) == 274:
            wide = int.from_bytes(data[start + 2 : start + 4], order) == 4
            value = int.from_bytes(data[start + 8 : start + (12 if wide else 10)], order)
            return value if 1 <= value <= 8 else None
    return None


def idat_is_sound(file: BinaryIO) -> bool:
    """Whether the picture data of a PNG are as their checksums say, which Pillow does not look at."""
    file.seek(8)
    while len(head := file.read(8)) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"IDAT":
            content, check = file.read(size), file.read(4)
            if (
                len(content) == size
                and len(check) == 4
                and zlib.crc32(name + content).to_bytes(4, "big") != check
            ):
                return False
        elif name == b"IEND":
            break
        else:
            file.seek(size + 4, io.SEEK_CUR)
    return True


def _png(data: bytes, texts: bool) -> bytes:
    """A PNG without chunks that are broken, too large, or of no use here; with ``texts`` or without any."""
    kept, left, at, colour = [_PNG], _TEXT_MOST, len(_PNG), data[25:26]
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        whole = data[at : at + 12 + size]
        at += 12 + size
        if name in _PNG_PICTURE:
            kept.append(whole)
        elif zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:], "big"):
            continue
        elif name == b"tRNS":
            if colour == b"\3" or size == {b"\0": 2, b"\2": 6}.get(colour):
                kept.append(whole)
        elif name == b"eXIf" and size <= _TEXT_MOST:
            kept.append(whole)
        elif texts and name in (b"tEXt", b"zTXt", b"iTXt"):
            length = _text_size(name, whole[8:-4], left)
            if length is not None:
                left -= length
                kept.append(whole)
    return b"".join(kept)


def _text_size(name: bytes, content: bytes, most: int) -> int | None:
    """Bytes that a text of a PNG takes unpacked; None if broken or more than ``most``."""
    rest = content.partition(b"\0")[2]
    packed = {b"zTXt": rest[1:], b"iTXt": rest[2:].split(b"\0", 2)[-1] if rest[:1] == b"\1" else None}.get(
        name
    )
    if packed is None:
        return len(content) if len(content) < most else None
    inflate = zlib.decompressobj()
    try:
        length = len(content) + len(inflate.decompress(packed, most))
    except (zlib.error, ValueError):
        return None
    return length if length < most else None


def _jpeg(data: bytes, keep: tuple[bytes, ...]) -> bytes:
    """A JPEG of whose APP1 to APP13, APP15 and comments only those remain that begin with one of ``keep``.

    APP0 and APP14, which say how colours are stored, remain if they are long enough to say it.
    """
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes
            at += 1
            continue
        if marker == 0xDA:  # the picture itself
            break
        if 0xD0 <= marker <= 0xD7 or marker == 0x01:
            end = at + 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : end]
        if 0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE):
            sound = marker == 0xE1 and content.startswith(keep)
        elif marker in (0xE0, 0xEE):
            sound = len(content) >= 12
        else:
            sound = True
        if sound:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _webp(data: bytes, keep: tuple[bytes, ...]) -> bytes:
    """A WebP without colour profile, and with EXIF and XMP if named by ``keep``; its size is what it is.

    A file whose picture is cut off is left as it is.
    """
    kept, at = [], 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        whole = data[at : at + 8 + size + size % 2]
        at += 8 + size + size % 2
        if name in _WEBP_FLAGS:
            if name in keep and len(whole) >= 8 + size:
                kept.append(whole)
        elif len(whole) < 8 + size:
            return data
        elif name == b"VP8X" and size:
            drop = sum(flag for chunk, flag in _WEBP_FLAGS.items() if chunk not in keep)
            kept.append(whole[:8] + bytes([whole[8] & ~drop]) + whole[9:])
        else:
            kept.append(whole)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def _gif(data: bytes) -> bytes:
    """A GIF without what comes before its first frame, but for a well-formed control of that frame."""
    at = 13 + (3 << ((data[10] & 7) + 1) if len(data) > 10 and data[10] & 0x80 else 0)
    kept = [data[:at]]
    while data[at : at + 1] == b"!":
        start, at = at, at + 2
        while at < len(data) and data[at]:
            at += data[at] + 1
        at += 1
        if data[start + 1 : start + 3] == b"\xf9\x04" and at == start + 8:
            kept.append(data[start:at])
    return b"".join([*kept, data[at:]])
