"""TIFF that Pillow does not read, or reads with wrong tones: more than 8 bits and rare kinds, by tifffile.

tifffile unpacks LZW, ZSTD and other rare compressions by imagecodecs, which is optional.
"""

from __future__ import annotations

import logging
import lzma
import math
import zlib
from collections.abc import Iterator
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from harmonia.modalities.limits import Limits, Source, fail
from harmonia.types import HarmoniaError

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# 32-bit tones above this are of the full scale; below it they are counts without a scale.
_FULL_32 = 1 << 24
# Tags (TIFF 6.0, TIFF/EP): orientation, camera, other pictures in the file; whether a page is a reduced copy.
_ORIENTATION, _MAKE, _OTHERS, _DNG = 274, 271, 330, 50706
_SENSOR = (32803, 34892)

# tifffile logs every broken tag, which costs nothing here
logging.getLogger("tifffile").addHandler(logging.NullHandler())


def is_tiff(file: BinaryIO) -> bool:
    """Whether a file begins as a TIFF or a BigTIFF."""
    file.seek(0)
    return file.read(4) in MAGIC


def is_sensor_tiff(file: BinaryIO) -> bool:
    """Whether a TIFF holds the data of a camera's sensor, of which its first page may be a small copy."""
    import tifffile

    try:
        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            page: Any = tiff.pages[0]
            camera = _DNG in page.tags or _MAKE in page.tags
            return page.photometric in _SENSOR or (page.is_reduced and camera and _OTHERS in page.tags)
    except Exception:  # what is broken is for the decoder to say
        return False


def read_tiff(source: Source, file: BinaryIO, limits: Limits, *, shallow: bool = False) -> Image.Image | None:
    """A TIFF as 8-bit RGB, its orientation among its EXIF; None where Pillow reads it right.

    ``shallow`` takes those of up to 8 bits per sample, too. Raises HarmoniaError when data are missing or
    damaged, when the kind is not supported or needs a missing package, or over ``limits``.
    """
    if not is_tiff(file):
        return None
    import tifffile

    file.seek(0)
    page: Any = None
    pillow_can = False
    try:
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages[0]
            limits.check_pixels(source, page.imagewidth, page.imagelength)
            if page.photometric not in (0, 1, 2, 5) or (page.bitspersample <= 8 and not shallow):
                return None
            if page.dtype is None or page.dtype.kind not in "uif":
                raise _unsupported(source)
            pillow_can = _pillow_can(page)
            # some writers leave out the sizes of all strips, which follow from the picture
            unsized = page.compression == 1 and all(page.dataoffsets) and not any(page.databytecounts)
            if pillow_can and not shallow and (unsized or not _tifffile_can(page)):
                return None
            limits.check_decoded(source, page.nbytes)
            _check_segments(source, file, page)
            return _picture(page, _planes(page))
    except HarmoniaError:
        raise
    except Exception as error:  # tifffile raises many kinds for damaged files
        if page is None or (pillow_can and not shallow):
            return None
        if not _needs_package(error):
            raise fail(source, f"is damaged or truncated ({error})", "get an intact copy") from error
        try:
            import_module("imagecodecs")
        except ImportError:
            remedy = "pip install 'harmonia[tiff]', or save it without compression"
            raise fail(source, "is a TIFF of a compression for which a package is missing", remedy) from None
        raise _unsupported(source) from error


def _unsupported(source: Source) -> HarmoniaError:
    return fail(source, "is a TIFF of a kind that is not supported", "save it with 8 or 16 bits per sample")


def _needs_package(error: BaseException) -> bool:
    return "imagecodecs" in str(error) or isinstance(error, ImportError | NotImplementedError)


def _pillow_can(page: Any) -> bool:
    """Whether Pillow gives the tones of a deep page right; it mistakes the order of bytes of some others."""
    bits, whole = page.bitspersample, page.sampleformat == 1
    if page.photometric in (2, 5):
        return bool(whole and bits == 16)
    if page.samplesperpixel != 1:
        return False
    floats = page.sampleformat == 3 and bits == 32 and page.photometric == 1
    return bool((whole and bits in (12, 16)) or (floats and page.parent.byteorder == "<"))


def _tifffile_can(page: Any) -> bool:
    """Whether tifffile unpacks a page with the packages at hand."""
    import tifffile

    packing, predictor = page.compression, page.predictor
    usual = page.bitspersample in (16, 32, 64)
    return bool(usual and packing in tifffile.TIFF.DECOMPRESSORS and predictor in tifffile.TIFF.UNPREDICTORS)


def _check_segments(source: Source, file: BinaryIO, page: Any) -> None:
    """Raise HarmoniaError when strips or tiles are missing, or hold far more than the page has room for."""
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))
    if len(places) < math.prod(page.chunked) or not all(offset and count for offset, count in places):
        raise fail(source, "is truncated (parts of the picture are missing)", "get an intact copy")
    most = page.nbytes + (1 << 20)
    for offset, count in places:
        file.seek(offset)
        for size in _unpacked_sizes(page.compression, file, count):
            if size > most:
                raise fail(source, "is damaged (it unpacks to more than its size)", "get an intact copy")


def _unpacked_sizes(compression: int, file: BinaryIO, count: int) -> Iterator[int]:
    """How much of a strip has been unpacked, again and again; nothing for packings that cannot swell."""
    unpack: Any
    if compression in (8, 32946):
        unpack = zlib.decompressobj()
    elif compression == 34925:
        unpack = lzma.LZMADecompressor()
    else:
        if compression == 32773:  # PackBits: at most 64 times
            yield 64 * count if count > 1 << 24 else 0
        return
    block, size = 1 << 20, 0
    packed = file.read(count)
    while packed or not getattr(unpack, "needs_input", True):
        try:
            size += len(unpack.decompress(packed, block))
        except (zlib.error, lzma.LZMAError, EOFError):
            return  # the decoder says so
        yield size
        packed = getattr(unpack, "unconsumed_tail", b"")
        if unpack.eof:
            return


def _planes(page: Any) -> NDArray[Any]:
    """The samples of a page as ``(height, width, samples)``."""
    tones = np.asarray(page.asarray(maxworkers=1))
    if page.axes.startswith("S"):
        tones = np.moveaxis(tones, 0, -1)
    return tones.reshape(page.imagelength, page.imagewidth, -1)


def _picture(page: Any, tones: NDArray[Any]) -> Image.Image:
    colours = {2: 3, 5: 4}.get(page.photometric, 1)
    bits = page.bitspersample
    seen = _eight_bit(tones[..., :colours], bits)
    if page.photometric == 5:
        seen = np.asarray(Image.fromarray(np.ascontiguousarray(seen), "CMYK").convert("RGB"))
    seen = 255 - seen if page.photometric == 0 else seen
    # extra samples (TIFF 6.0): 0 unspecified, 1 alpha that colours are multiplied by already, 2 alpha
    kind = int(page.extrasamples[0]) if page.extrasamples else 2
    if tones.shape[2] > colours and kind in (1, 2):
        alpha = tones[..., colours : colours + 1]
        opaque = np.clip(np.nan_to_num(alpha / (1.0 if alpha.dtype.kind == "f" else 2.0**bits - 1)), 0, 1)
        shown = seen * opaque if kind == 2 else seen
        seen = np.clip(np.round(shown + 255 * (1 - opaque)), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.repeat(seen, 3, axis=2) if colours == 1 else np.ascontiguousarray(seen))
    turn = page.tags.get(_ORIENTATION)
    image.getexif()[ExifTags.Base.Orientation] = int(turn.value) if turn is not None else 1
    return image


def _eight_bit(tones: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    if tones.dtype.kind == "u" and bits < 8:
        return np.asarray(np.round(tones * (255 / (2**bits - 1))), np.uint8)
    if tones.dtype.kind == "u" and bits <= 16:
        return np.asarray(tones >> (bits - 8), np.uint8)
    return stretched(tones)


def stretched(tones: NDArray[Any]) -> NDArray[np.uint8]:
    """Tones of no fixed scale: [0, 1], 8-, 16- and 32-bit ranges are full scales, others are stretched.

    Of whole numbers with a sign, the full scale is the largest number of their type.
    """
    unsigned, signed = tones.dtype.kind == "u", tones.dtype.kind == "i"
    most = float(np.iinfo(tones.dtype).max) if tones.dtype.kind in "ui" else 0.0
    tones = np.nan_to_num(tones.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(tones.min()), float(tones.max())
    if low >= 0 and signed and most <= 32767:
        low, high = 0.0, most
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and 255 < high <= 65535:
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    elif unsigned and high >= _FULL_32:
        low, high = 0.0, most if high > 2.0**32 else 2.0**32 - 1
    scaled = (tones - low) * (255.0 / ((high - low) or 1.0))
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)
