"""Which library opens which image.

Pillow reads nearly all of them; tifffile what TIFF has beyond 8 bits; pillow-heif, pillow-jxl-plugin and
rawpy are optional. The content says what a file is, not its name; only some RAW files need theirs, since
they are TIFF to anyone who does not know the camera.
"""

from __future__ import annotations

import io
import struct
import zlib
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
