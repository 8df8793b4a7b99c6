"""What the media readers share: limits on size, opening a source, and errors that name it."""

from __future__ import annotations

import io
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harmonia.types import HarmoniaError

Source = str | Path | bytes | BinaryIO
"""Where media comes from: a path, the bytes of a file, or an open binary stream."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one file may make us decode; headers are checked before anything is decoded.

    ``pixels`` of one image or frame, ``seconds`` of audio or video, ``decoded_bytes`` that one
    signal may take in memory, ``text_bytes`` of a text file.
    """

    pixels: int = 200_000_000
    seconds: float = 6 * 3600.0
    decoded_bytes: int = 2 * 2**30
    text_bytes: int = 16 * 2**20

    def check_pixels(self, source: Source, width: int, height: int) -> None:
        """Raise HarmoniaError when an image of this size is too large."""
        if width * height > self.pixels:
            raise fail(
                source,
                f"has {width} x {height} pixels, over the limit of {self.pixels:,}",
                "scale it down, or raise Limits.pixels",
            )

    def check_seconds(self, source: Source, seconds: float) -> None:
        """Raise HarmoniaError when a recording of this length is too long."""
        if seconds > self.seconds:
            raise fail(
                source,
                f"lasts {seconds:,.0f} s, over the limit of {self.seconds:,.0f} s",
                "cut it into shorter files, or raise Limits.seconds",
            )

    def check_decoded(self, source: Source, size: float) -> None:
        """Raise HarmoniaError when ``size`` bytes are too many to hold in memory at once."""
        if size > self.decoded_bytes:
            raise fail(
                source,
                f"needs {size / 2**20:,.0f} MiB decoded, over the limit of "
                f"{self.decoded_bytes / 2**20:,.0f} MiB",
                "read it piece by piece with windows(), or raise Limits.decoded_bytes",
            )


LIMITS = Limits()


def name_of(source: Source) -> str:
    """How errors call a source: the file's name, or "the given data"."""
    path = source if isinstance(source, str | Path) else getattr(source, "name", None)
    if not isinstance(path, str | Path):
        return "the given data" if isinstance(source, bytes) else "the given stream"
    return "".join(c if c.isprintable() else "?" for c in Path(path).name or str(path))


def fail(source: Source, problem: str, remedy: str) -> HarmoniaError:
    """The error to raise: one line that names the source, what is wrong, and what to do."""
    return HarmoniaError(f"{name_of(source)} {' '.join(problem.split())}; {remedy}")


@contextmanager
def opened(source: Source, limits: Limits) -> Iterator[BinaryIO]:
    """Yield a seekable binary file at its start; only what was opened here is closed again.

    A stream that cannot seek is copied, to disk once it is large. Raises HarmoniaError for a
    source that is missing, unreadable or empty.
    """
    if isinstance(source, bytes):
        file: BinaryIO = io.BytesIO(source)
    elif isinstance(source, str | Path):
        file = _open_path(Path(source))
    else:
        file = source if source.seekable() else _copied(source, limits)
    try:
        if file.seek(0, io.SEEK_END) == 0:
            raise fail(source, "is empty", "choose another file")
        file.seek(0)
        yield file
    finally:
        if file is not source:
            file.close()


class Seekable:
    """A file for decoders in C: a seek to where no byte can be gives -1, as in C.

    They call it, so that an exception could only be printed, traceback and all.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """The new place, or -1; then the file is where it was."""
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


def _open_path(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError:
        raise fail(path, "does not exist", "check the path") from None
    except IsADirectoryError:
        raise fail(path, "is a folder", "give one of the files in it") from None
    except (OSError, ValueError) as error:
        raise fail(path, f"cannot be opened ({error})", "check its name and rights") from error


def _copied(stream: BinaryIO, limits: Limits) -> BinaryIO:
    copy = tempfile.SpooledTemporaryFile(max_size=64 * 2**20)  # noqa: SIM115 (the caller closes it)
    while block := stream.read(2**20):
        copy.write(block)
        limits.check_decoded(stream, copy.tell())
    return copy  # type: ignore[return-value]


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, of the same suffix; it takes its place at the end.

    Until then, and after any error, an older file at ``path`` is left as it was.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise fail(path, f"cannot be written: there is no folder {path.parent}", "create it first")
    temporary = path.with_name(f".harmonia-{uuid.uuid4().hex}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def caption_of(*texts: object) -> str | None:
    """One caption of the strings found inside a file: stripped, each once; None when nothing."""
    found = (" ".join(t.replace("\0", " ").split()) for t in texts if isinstance(t, str))
    kept = [t for t in dict.fromkeys(found) if t and t not in NOT_CAPTIONS]
    return ". ".join(t.rstrip(".") for t in kept)[:2000] or None


# what cameras write where the owner's words should be
NOT_CAPTIONS = {
    "OLYMPUS DIGITAL CAMERA",
    "SONY DSC",
    "MINOLTA DIGITAL CAMERA",
    "KONICA MINOLTA DIGITAL CAMERA",
    "DIGITAL CAMERA",
    "DCIM",
    "default",
}

_MAGIC = (
    (b"\xff\xd8\xff", "image"),
    (b"\x89PNG\r\n", "image"),
    (b"GIF8", "image"),
    (b"BM", "image"),
    (b"II*\0", "image"),
    (b"MM\0*", "image"),
    (b"II+\0", "image"),
    (b"MM\0+", "image"),
    (b"IIRO", "image"),
    (b"IIU\0", "image"),
    (b"FUJIFILMCCD-RAW", "image"),
    (b"\xff\x0a", "image"),
    (b"\xff\x4f\xff\x51", "image"),
    (b"\0\0\0\x0cjP  ", "image"),
    (b"\0\0\0\x0cJXL ", "image"),
    (b".snd", "audio"),
    (b"caff", "audio"),
    (b"#!AMR", "audio"),
    (b"riff", "audio"),
    (b"0&\xb2u\x8ef\xcf\x11", "video"),
    (b"fLaC", "audio"),
    (b"OggS", "audio"),
    (b"ID3", "audio"),
    (b"FORM", "audio"),
    (b"\x1aE\xdf\xa3", "video"),
)
_BRANDS = {b"M4A ": "audio", b"M4B ": "audio"} | dict.fromkeys(
    (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis", b"crx "), "image"
)
_RIFF = {b"WAVE": "audio", b"AVI ": "video", b"WEBP": "image"}


def sniff(head: bytes) -> str | None:
    """The modality that a file's first bytes (some 64 or more) look like, or None."""
    readable = bytes(range(32, 256)) + b"\t\n\r\f"
    if head and not head.translate(None, readable):
        return "text"
    if head[:4] in (b"RIFF", b"RIFX", b"RF64"):
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video")
    for magic, modality in _MAGIC:
        if head.startswith(magic):
            return modality
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] != 0xFE:
        # the frame sync of MP3 and of AAC; FF FE is the byte-order mark of UTF-16
        return "audio"
    return "text" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else None


def wrong_kind(source: Source, head: bytes, wanted: str, remedy: str) -> HarmoniaError:
    """The error for a file that is not of the ``wanted`` modality, or that is damaged."""
    article = {"image": "an image", "audio": "a sound", "video": "a video", "text": "text"}
    looks = sniff(head)
    if looks == wanted:
        return fail(
            source, f"is damaged: it starts like {article[wanted]} but cannot be read", "get an intact copy"
        )
    seen = f" (it looks like {article[looks]})" if looks else ""
    return fail(source, f"is not {article[wanted]}{seen}", remedy)
