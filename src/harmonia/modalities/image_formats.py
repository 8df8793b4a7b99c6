"""Which library opens which image.

Pillow reads nearly all of them; tifffile what TIFF has beyond 8 bits; pillow-heif, pillow-jxl-plugin and
rawpy are optional. The content says what a file is, not its name; only some RAW files need theirs, since
they are TIFF to anyone who does not know the camera.
"""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image, ImageFile

from harmonia.modalities.image_tiff import is_sensor_tiff, is_tiff
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

# Pillow warns of broken metadata, which are left out and cost nothing.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.\w+ImagePlugin")

_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")
_JXL = (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")
_RAW = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb")


def open_image(source: Source, file: BinaryIO) -> ImageFile.ImageFile:
    """Open an image without decoding it; HarmoniaError if it is none, damaged, or needs a missing package.

    Not by ``Image.open``: its size check obeys a process-wide setting, ours is ``limits``.
    """
    file.seek(0)
    head = file.read(64)
    if head[4:8] == b"ftyp" and head[8:12] in _HEIC_BRANDS and not _is_avif(head):
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


def _is_avif(head: bytes) -> bool:
    """Whether a file of a general brand (mif1, msf1) says among its other brands that it is AVIF."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[at : at + 4] for at in (8, *range(16, size - 3, 4))}
    return bool(brands & {b"avif", b"avis"}) and not brands & {b"heic", b"heix", b"hevc", b"heim", b"heis"}


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
    if not is_tiff(file):
        return False
    named = isinstance(source, str | Path) and Path(source).suffix.lower() in RAW_SUFFIXES
    return named or is_sensor_tiff(file)


def developed(source: Source, file: BinaryIO, limits: Limits) -> Image.Image | None:
    """The preview that the camera embedded, upright; where there is none, the sensor's data at half size.

    None for a plain TIFF, whatever its name.
    """
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
    except rawpy.LibRawFileUnsupportedError as error:
        if is_tiff(file) and not is_sensor_tiff(file):
            return None
        raise fail(source, f"is an unknown RAW photo ({_said(error)})", "export it as JPEG") from error
    except (rawpy.LibRawError, *DAMAGE) as error:
        problem = f"is a damaged or unknown RAW photo ({_said(error)})"
        raise fail(source, problem, "export it as JPEG") from error


def _said(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)


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
