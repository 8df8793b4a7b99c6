"""Media formats: file type detection by the first bytes, base64 and data URLs."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from pathlib import Path

from harmonia.modalities import modality_of, sniff
from harmonia.server.errors import ApiError

HEAD = 512
"""Number of first bytes that file type detection reads."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A file type. Only these content types are served for display in a browser."""

    modality: str
    suffix: str
    mime: str


# (offset, bytes, kind), from the formats' specifications; the first that fits counts.
_SIGNATURES: tuple[tuple[int, bytes, Kind], ...] = (
    (0, b"\xff\xd8\xff", Kind("image", ".jpg", "image/jpeg")),
    (0, b"\x89PNG\r\n", Kind("image", ".png", "image/png")),
    (0, b"GIF8", Kind("image", ".gif", "image/gif")),
    (8, b"WEBP", Kind("image", ".webp", "image/webp")),
    (0, b"BM", Kind("image", ".bmp", "image/bmp")),
    (0, b"II*\0", Kind("image", ".tiff", "image/tiff")),
    (0, b"MM\0*", Kind("image", ".tiff", "image/tiff")),
    (4, b"ftypavif", Kind("image", ".avif", "image/avif")),
    (0, b"\0\0\0\x0cjP  ", Kind("image", ".jp2", "image/jp2")),
    (0, b"\xff\x4f\xff\x51", Kind("image", ".j2k", "image/jp2")),
    (0, b"\0\0\0\x0cJXL ", Kind("image", ".jxl", "image/jxl")),
    (0, b"\xff\x0a", Kind("image", ".jxl", "image/jxl")),
    *(
        (4, b"ftyp" + brand, Kind("image", ".heic", "image/heic"))
        for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")
    ),
    (8, b"WAVE", Kind("audio", ".wav", "audio/wav")),
    (0, b"fLaC", Kind("audio", ".flac", "audio/flac")),
    (0, b"OggS", Kind("audio", ".ogg", "audio/ogg")),
    (0, b"ID3", Kind("audio", ".mp3", "audio/mpeg")),
    (0, b"FORM", Kind("audio", ".aiff", "audio/aiff")),
    (4, b"ftypM4A ", Kind("audio", ".m4a", "audio/mp4")),
    (4, b"ftypM4B ", Kind("audio", ".m4a", "audio/mp4")),
    (4, b"ftypqt", Kind("video", ".mov", "video/quicktime")),
    (4, b"ftyp3g", Kind("video", ".3gp", "video/3gpp")),
    (4, b"ftyp", Kind("video", ".mp4", "video/mp4")),
    (8, b"AVI ", Kind("video", ".avi", "video/x-msvideo")),
)
_AAC, _MP3 = Kind("audio", ".aac", "audio/aac"), Kind("audio", ".mp3", "audio/mpeg")
_WEBM, _MKV = Kind("video", ".webm", "video/webm"), Kind("video", ".mkv", "video/x-matroska")
_AUDIO = {".mp4": Kind("audio", ".m4a", "audio/mp4"), ".webm": Kind("audio", ".ogg", "audio/webm")}


def kind_of(head: bytes, name: str = "") -> Kind | None:
    """The type of a file that begins with ``head``, or None.

    The client's file name matters only for containers of either audio or video.
    """
    modality = sniff(head)
    if modality == "text":
        wide = head.startswith((b"\xff\xfe", b"\xfe\xff"))
        return Kind("text", ".txt", f"text/plain; charset={'utf-16' if wide else 'utf-8'}")
    if modality is None:
        return None
    kind = next((kind for offset, magic, kind in _SIGNATURES if head.startswith(magic, offset)), None)
    if kind is None and modality == "audio":
        # the two layer bits are zero in AAC, never in MP3
        kind = _MP3 if len(head) > 1 and head[1] & 0x06 else _AAC
    if kind is None and modality == "video":
        kind = _WEBM if b"webm" in head[:64] else _MKV
    if kind and kind.suffix in _AUDIO and modality_of(Path(name)) == "audio":
        return _AUDIO[kind.suffix]
    return kind


_DATA = re.compile(r"data:([\w.+/-]*)(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)
DATA_HEAD = 1024
"""Most characters of a data URL before its data: the search for their begin holds Python's lock."""


def decode_base64(text: str, param: str) -> bytes:
    """Decode plain base64 or a data URL; ApiError 400 for anything else."""
    head = _DATA.match(text[:DATA_HEAD])
    try:
        return base64.b64decode(text[head.end() :] if head else text, validate=True)
    except (binascii.Error, ValueError):
        raise ApiError(
            400, f"{param} is not valid base64: send data:image/png;base64,... or plain base64", param=param
        ) from None


def check_modality(data: bytes, modality: str, param: str) -> bytes:
    """Return ``data`` if its first bytes fit the modality; ApiError 400 otherwise."""
    sniffed = sniff(data[:512])
    if sniffed != modality and (sniffed, modality) != ("video", "audio"):
        raise ApiError(
            400, f"{param} is {sniffed or 'of unknown format'}, not {modality}",
            param=param, code="unsupported_media",
        )  # fmt: skip
    return data
