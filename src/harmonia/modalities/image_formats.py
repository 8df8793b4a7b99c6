"""Which library opens which image, and how a broken piece of metadata is left out.

Pillow reads nearly all of them; tifffile what TIFF has beyond 8 bits; pillow-heif, pillow-jxl-plugin and
rawpy are optional. The content says what a file is, not its name; only some RAW files need theirs, since
they are TIFF to anyone who does not know the camera.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from harmonia.modalities.limits import Limits, Source, fail, name_of, wrong_kind

RAW_SUFFIXES = (
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef",
    ".srw", ".rwl", ".3fr", ".iiq", ".erf", ".mrw", ".x3f", ".kdc", ".dcr", ".mos",
)  # fmt: skip
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jxl", *RAW_SUFFIXES,
)  # fmt: skip

# Other plugins of Pillow start programs (EPS) or read rare, little tested formats.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000")
REMEDY = "give a JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC or JPEG 2000 file"

# what Pillow raises for damaged files, as found by feeding it many
DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, OverflowError, EOFError, MemoryError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_RAW = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb")
# Bytes that a compressed chunk of PNG metadata may take; more is no description of a picture.
_METADATA_MOST = 1 << 20
_PNG = b"\x89PNG\r\n\x1a\n"
# Ancillary chunks that change how a picture looks.
_PNG_LOOK = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS")


def open_image(source: Source, file: BinaryIO) -> ImageFile.ImageFile:
    """Open an image without decoding it; HarmoniaError if it is none, damaged, or needs a missing package.

    Not by ``Image.open``: its size check obeys a process-wide setting, ours is ``limits``.
    """
    file.seek(0)
    head = file.read(64)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS:
        return _by_plugin(source, file, "HEIC", "pillow_heif", "HeifImageFile", "heic")
    if head.startswith(_JXL):
        return _by_plugin(source, file, "JPEG XL", "pillow_jxl.JpegXLImagePlugin", "JXLImageFile", "jxl")
    Image.preinit()
    Image.init()
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(head[:16]) is True:
            file.seek(0)
            try:
                return factory(file, name_of(source))
            except DAMAGE as error:
                raise _damaged(source, name, error) from error
    raise wrong_kind(source, head, "image", REMEDY)


def _by_plugin(
    source: Source, file: BinaryIO, what: str, module: str, reader: str, extra: str
) -> ImageFile.ImageFile:
    try:
        opener = getattr(import_module(module), reader)
    except ImportError:
        remedy = f"pip install 'harmonia[{extra}]', or save it as JPEG"
        article = "an" if what.startswith("R") else "a"
        raise fail(source, f"is {article} {what} image, for which a package is missing", remedy) from None
    file.seek(0)
    try:
        return opener(file, name_of(source))  # type: ignore[no-any-return]
    except DAMAGE as error:
        raise _damaged(source, what, error) from error


def _damaged(source: Source, name: str, error: BaseException) -> Exception:
    return fail(source, f"is a damaged {name} image ({error})", "get an intact copy")


# RAW


def is_raw(source: Source, file: BinaryIO) -> bool:
    """Whether a file is the raw data of a camera's sensor."""
    file.seek(0)
    head = file.read(64)
    if head.startswith(_RAW) or head[4:12] == b"ftypcrx " or head[8:10] == b"CR":
        return True
    tiff = head[:4] in (b"II*\0", b"MM\0*")
    return tiff and isinstance(source, str | Path) and Path(source).suffix.lower() in RAW_SUFFIXES


def developed(source: Source, file: BinaryIO, limits: Limits) -> Image.Image:
    """The preview that the camera embedded, upright; where there is none, the sensor's data at half size."""
    try:
        rawpy = import_module("rawpy")
    except ImportError:
        remedy = "pip install 'harmonia[raw]', or export it as JPEG"
        raise fail(source, "is a RAW photo, for which a package is missing", remedy) from None
    file.seek(0)
    try:
        with rawpy.imread(file) as raw:
            limits.check_pixels(source, raw.sizes.width, raw.sizes.height)
            preview = _preview(rawpy, raw)
            if preview is not None:
                return preview
            return Image.fromarray(raw.postprocess(half_size=True, use_camera_wb=True))
    except (rawpy.LibRawError, *DAMAGE) as error:
        reason = error.args[0] if error.args else error
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else reason
        raise fail(source, f"is a damaged or unknown RAW photo ({reason})", "export it as JPEG") from error


def _preview(rawpy: Any, raw: Any) -> Image.Image | None:
    """The embedded preview, if it is there, whole, and not a mere thumbnail."""
    try:
        found = raw.extract_thumb()
    except rawpy.LibRawError:
        return None
    if found.format == rawpy.ThumbFormat.JPEG:
        try:
            image: Image.Image = open_image(b"", io.BytesIO(found.data))
            image.load()
        except Exception:
            return None
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
    else:
        image, turned = Image.fromarray(found.data), False
    if max(image.size) < 512 < max(raw.sizes.width, raw.sizes.height):
        return None
    # libraw counts quarter turns: 3 is 180 degrees, 5 is 90 to the left, 6 to the right
    turn = {3: 180, 5: 90, 6: 270}.get(raw.sizes.flip, 0)
    return image if turned or not turn else image.rotate(turn, expand=True)


# TIFF beyond 8 bits


def deep_tiff(source: Source, file: BinaryIO, limits: Limits) -> Image.Image | None:
    """A TIFF of more than 8 bits per sample, or of a kind that Pillow does not know, as 8-bit RGB.

    None if the file is no TIFF, is one that Pillow reads right, or one that tifffile does not read.
    """
    file.seek(0)
    if file.read(4) not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    import tifffile

    file.seek(0)
    try:
        with tifffile.TiffFile(file) as tiff:
            page: Any = tiff.pages[0]
            limits.check_pixels(source, page.imagewidth, page.imagelength)
            if page.bitspersample <= 8 or page.photometric not in (0, 1, 2):
                return None
            tones = _planes(page)
            if tones.dtype.kind not in "uif":
                return None
            bits, negative = page.bitspersample, page.photometric == 0
            turn = page.tags.get(274)
    except (*DAMAGE, tifffile.TiffFileError):
        return None
    colours = 3 if tones.shape[2] >= 3 else 1
    seen = _eight_bit(tones[..., :colours], bits)
    seen = 255 - seen if negative else seen
    if tones.shape[2] > colours:
        opaque = _eight_bit(tones[..., colours : colours + 1], bits).astype(np.float64) / 255
        seen = np.round(seen * opaque + 255 * (1 - opaque)).astype(np.uint8)
    image = Image.fromarray(np.repeat(seen, 3, axis=2) if colours == 1 else seen)
    image.getexif()[ExifTags.Base.Orientation] = int(turn.value) if turn is not None else 1
    return image


def _planes(page: Any) -> NDArray[Any]:
    """The samples of a page as ``(height, width, samples)``."""
    tones = np.asarray(page.asarray())
    if page.axes.startswith("S"):
        tones = np.moveaxis(tones, 0, -1)
    return tones.reshape(page.imagelength, page.imagewidth, -1)


def _eight_bit(tones: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if tones.dtype.kind == "u" and bits <= 16:
        return (tones >> (bits - 8)).astype(np.uint8)
    return stretched(tones)


def stretched(tones: NDArray[Any]) -> NDArray[np.uint8]:
    """Tones of no fixed scale: [0, 1] and 16-bit ranges are full scales, others are stretched."""
    tones = np.nan_to_num(tones.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(tones.min()), float(tones.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and 255 < high <= 65535:
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (tones - low) * (255.0 / ((high - low) or 1.0))
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


# Metadata that is left out


def without_broken_metadata(file: BinaryIO) -> BinaryIO | None:
    """The same PNG, JPEG or WebP without metadata that may be broken or too large; None if of another kind.

    Of a PNG only the chunks that are so are left out; of JPEG and WebP all metadata.
    """
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    if head.startswith(_PNG):
        return io.BytesIO(_PNG + b"".join(_sound_chunks(file.read()[8:])))
    if head.startswith(b"\xff\xd8"):
        return io.BytesIO(_bare_jpeg(file.read()))
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return io.BytesIO(_bare_webp(file.read()))
    return None


def _sound_chunks(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        whole = data[at : at + 12 + size]
        at += 12 + size
        if name in _PNG_LOOK or _is_sound(name, whole):
            yield whole


def _is_sound(name: bytes, whole: bytes) -> bool:
    """Whether a chunk is one that is read, is as its checksum says, and unpacks to a reasonable size."""
    content = whole[8:-4]
    if zlib.crc32(whole[4:-4]) != int.from_bytes(whole[-4:], "big") or len(content) > _METADATA_MOST:
        return False
    if name == b"zTXt":
        return _unpacks(content.partition(b"\0")[2][1:])
    if name == b"iTXt":
        rest = content.partition(b"\0")[2]
        packed = rest[:1] == b"\1"
        return not packed or _unpacks(rest[2:].split(b"\0", 2)[-1])
    return name in (b"tEXt", b"eXIf")


def _unpacks(packed: bytes) -> bool:
    inflate = zlib.decompressobj()
    try:
        return len(inflate.decompress(packed, _METADATA_MOST)) < _METADATA_MOST
    except zlib.error:
        return False


def _bare_jpeg(data: bytes) -> bytes:
    """A JPEG without APP1 to APP13, APP15 and comments; APP14 says how its colours are stored."""
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
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _bare_webp(data: bytes) -> bytes:
    """A WebP without colour profile, EXIF and XMP."""
    kept, at = [], 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        whole = data[at : at + 8 + size + size % 2]
        at += 8 + size + size % 2
        if name == b"VP8X":
            # the flags of the three
            whole = whole[:8] + bytes([whole[8] & ~0x2C]) + whole[9:]
        if name not in (b"ICCP", b"EXIF", b"XMP "):
            kept.append(whole)
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + len(body).to_bytes(4, "little") + body
