"""Image files, by Pillow: upright, 8-bit RGB, alpha on white, with the caption found inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps, IptcImagePlugin
from PIL.PngImagePlugin import PngInfo

from harmonia.modalities import image_formats, xmp
from harmonia.modalities.image_colours import in_srgb
from harmonia.modalities.image_formats import (
    DAMAGE,
    developed,
    is_raw,
    open_image,
)
from harmonia.modalities.image_repair import idat_is_sound, orientation_of, without_broken_metadata
from harmonia.modalities.image_tiff import read_tiff, stretched
from harmonia.modalities.limits import LIMITS, Limits, Source, caption_of, fail, opened, replacing
from harmonia.modalities.provenance import Mark, from_xmp
from harmonia.types import HarmoniaError, Signal

SUFFIXES: tuple[str, ...] = image_formats.SUFFIXES

# Those that are written, and of these those that say that they were generated.
_WRITTEN = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_MARKED = ("JPEG", "PNG", "WEBP")


def read(source: Source, *, max_side: int | None = None, limits: Limits = LIMITS) -> Signal:
    """Decode an image to RGB uint8 ``(height, width, 3)``, turned upright by its EXIF tag.

    ``max_side`` scales the longer side down to that many pixels; a large JPEG is then decoded at
    reduced size, several times faster. Transparency shows white; of an animation the first frame
    is read; colours of another space become sRGB; 16-bit tones keep their full scale, tones without
    a scale (32-bit, float) are stretched.
    Raises HarmoniaError when the file is not an image, damaged, truncated, or over ``limits``.
    """
    with opened(source, limits) as file:
        rgb, caption = without_broken_metadata(file, lambda found: _decoded(source, found, max_side, limits))
    if max_side is not None:
        rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return Signal("image", np.array(rgb), caption=caption)


def _decoded(
    source: Source, file: BinaryIO, max_side: int | None, limits: Limits
) -> tuple[Image.Image, str | None]:
    """An image, upright and in 8-bit RGB, and its caption."""
    if is_raw(source, file):
        photo = developed(source, file, limits)
        if photo is not None:
            return _to_rgb(photo), None
    deep = read_tiff(source, file, limits)
    if deep is None:
        try:
            image = open_image(source, file)
        except HarmoniaError as error:
            deep = read_tiff(source, file, limits, shallow=True)
            if deep is None:
                raise _unsupported(source, error) from error
    if deep is not None:
        caption, profile = None, None
        with suppress(HarmoniaError):
            image = open_image(source, file)
            caption, profile = _caption(image), image.info.get("icc_profile")
        return in_srgb(ImageOps.exif_transpose(deep).convert("RGB"), profile), caption
    limits.check_pixels(source, *image.size)
    try:
        if max_side is not None and image.mode in ("L", "RGB", "CMYK"):
            image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
        image.load()
        _check_sums(source, image, file)
        profile = image.info.get("icc_profile")
        caption = _extras(image)
        return _to_rgb(in_srgb(image, profile)), caption
    except DAMAGE as error:
        raise fail(source, f"is damaged or truncated ({error})", "get an intact copy") from error


def _unsupported(source: Source, error: HarmoniaError) -> HarmoniaError:
    """The error for a TIFF of a kind that nothing here reads: it is not damaged."""
    if "unknown pixel mode" not in str(error):
        return error
    return fail(source, "is a TIFF of a kind that is not supported", "save it with 8 or 16 bits per sample")


def opacity(source: Source, *, limits: Limits = LIMITS) -> NDArray[np.uint8] | None:
    """How opaque each pixel is that ``read`` gives, uint8 ``(height, width)``; None where all wholly are.

    Raises HarmoniaError as ``read`` does.
    """
    with opened(source, limits) as file:
        return without_broken_metadata(file, lambda found: _opacity(source, found, limits))


def _opacity(source: Source, file: BinaryIO, limits: Limits) -> NDArray[np.uint8] | None:
    image = open_image(source, file)
    limits.check_pixels(source, *image.size)
    try:
        image.load()
        if not image.has_transparency_data:
            return None
        _extras(image)
        return np.array(image.convert("RGBA").getchannel("A"))
    except DAMAGE as error:
        raise fail(source, f"is damaged or truncated ({error})", "get an intact copy") from error


def _check_sums(source: Source, image: ImageFile.ImageFile, file: BinaryIO) -> None:
    if image.format == "PNG" and not idat_is_sound(file):
        raise fail(source, "is damaged (its data are not as their checksum says)", "get an intact copy")


def windows(source: Source, *, max_side: int | None = 1024, limits: Limits = LIMITS) -> Iterator[Signal]:
    """The whole image, scaled down to what an encoder may want to see: a still has one window."""
    yield read(source, max_side=max_side, limits=limits)


def _to_rgb(image: Image.Image) -> Image.Image:
    tags = getattr(image, "tag_v2", {})
    negative = tags.get(ExifTags.Base.PhotometricInterpretation) == 0
    if image.mode.startswith("I;16"):
        bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
        tones = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        # Pillow turns over only 8-bit tones whose zero is white
        return Image.fromarray(255 - tones if negative else tones).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(stretched(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _extras(image: ImageFile.ImageFile) -> str | None:
    """Turn the image upright in place and return its caption; what is broken of these costs only itself."""
    caption = _caption(image)
    # libraries raise many kinds of errors for broken tags
    with suppress(Exception):
        tags, raw = image.getexif(), image.info.get("exif")
        if ExifTags.Base.Orientation not in tags and isinstance(raw, bytes):
            tags[ExifTags.Base.Orientation] = orientation_of(raw) or 1
        ImageOps.exif_transpose(image, in_place=True)
    return caption


def _caption(image: ImageFile.ImageFile) -> str | None:
    """What people wrote into the file: EXIF, XMP, IPTC, or the text of a PNG; each saying once."""
    base = ExifTags.Base
    sources: tuple[Callable[[], Any], ...] = (
        lambda: _utf8(image.getexif().get(base.ImageDescription)),
        lambda: _wide(image.getexif().get(base.XPTitle)),
        lambda: _user_comment(image.getexif().get_ifd(ExifTags.IFD.Exif).get(base.UserComment)),
        lambda: _xmp_description(image.info.get("xmp")),
        lambda: _text(_iptc(image), "utf-8"),
        lambda: image.info.get("Title"),
        lambda: image.info.get("Description"),
    )
    found = []
    for source in sources:
        with suppress(Exception):
            found.append(source())
    return caption_of(*found)


def _wide(title: Any) -> Any:
    return _text(bytes(title), "utf-16-le") if isinstance(title, bytes | tuple) else title


def _text(raw: Any, encoding: str) -> str | None:
    return raw.decode(encoding, "replace") if isinstance(raw, bytes) else None


def _utf8(text: Any) -> Any:
    """Pillow reads EXIF strings as Latin-1, though nearly every writer now puts UTF-8 there."""
    try:
        return text.encode("latin-1").decode("utf-8") if isinstance(text, str) else text
    except UnicodeError:
        return text


def _user_comment(raw: Any) -> str | None:
    """EXIF 2.3, UserComment: eight bytes name the character code of the rest."""
    if not isinstance(raw, bytes):
        return raw if isinstance(raw, str) else None
    code, text = raw[:8], raw[8:]
    if code == b"UNICODE\0":
        big = text.startswith(b"\xfe\xff") or text[:1] == b"\0"
        return text.decode("utf-16-be" if big else "utf-16-le", "replace").lstrip("\ufeff")
    return text.decode("utf-8", "replace") if code in (b"ASCII\0\0\0", b"\0" * 8) else None


def _xmp_description(raw: Any) -> str | None:
    """The first ``dc:description`` of an XMP packet."""
    root = xmp.parsed(raw)
    found = None if root is None else root.find(".//{http://purl.org/dc/elements/1.1/}description")
    return None if found is None else " ".join(found.itertext()).strip()


def _iptc(image: ImageFile.ImageFile) -> bytes | None:
    """The caption of IPTC-IIM: record 2, data set 120."""
    found = (IptcImagePlugin.getiptcinfo(image) or {}).get((2, 120))
    return found[0] if isinstance(found, list) else found


def write(signal: Signal, path: str | Path, mark: Mark | None = None) -> None:
    """Write JPEG, PNG, WebP, GIF, BMP or TIFF by suffix, atomically. The caption is not written.

    ``mark`` says in the file that it was generated (JPEG, PNG or WebP); ``mark_of`` reads it.
    """
    path = Path(path)
    Image.init()
    name = Image.EXTENSION.get(path.suffix.lower())
    if name not in _WRITTEN:
        raise fail(path, "is of no format that can be written", "name it .png or .jpg")
    if mark is not None and name not in _MARKED:
        raise fail(path, "is of a format that cannot say that it was generated", "name it .png or .jpg")
    try:
        with replacing(path) as temporary:
            Image.fromarray(signal.array).save(temporary, name, quality=95, **_marked(name, mark))
    except (ValueError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise fail(path, f"cannot be written ({reason})", "name it .png, in a folder with room") from error


def mark_of(source: Source, *, limits: Limits = LIMITS) -> Mark | None:
    """How an image was generated, if its file says that it was; only the head of the file is read."""
    with opened(source, limits) as file:
        image = without_broken_metadata(file, lambda found: open_image(source, found))
        return from_xmp(image.info.get("xmp"))


def _marked(name: str, mark: Mark | None) -> dict[str, Any]:
    """What Pillow takes to write a mark: XMP, and the same in the plain words of PNG and EXIF."""
    if mark is None:
        return {}
    words = {key.partition(":")[2]: value for key, value in mark.facts().items()}
    tool = words.pop("CreatorTool")
    if name == "PNG":
        chunks = PngInfo()
        chunks.add_itxt("XML:com.adobe.xmp", mark.xmp().decode())
        for key, value in {"Software": tool, **words}.items():
            chunks.add_itxt(key, value) if not value.isascii() else chunks.add_text(key, value)
        return {"pnginfo": chunks}
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = tool
    return {"xmp": mark.xmp(), "exif": exif}


def preview(signal: Signal, size: int = 256) -> Image.Image:
    """The image scaled down to at most ``size`` pixels on its longer side."""
    image = Image.fromarray(signal.array)
    image.thumbnail((size, size), Image.Resampling.LANCZOS)
    return image
