"""Colours of other spaces (Display P3, Adobe RGB, ProPhoto, a press) as sRGB, by the profile in the file."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

PROFILE_MOST = 1 << 24
"""Bytes of a profile; those of presses have a few millions."""


def in_srgb(image: Image.Image, profile: Any) -> Image.Image:
    """The image in sRGB; as it is where its profile says so, is broken, or is of another kind of image."""
    if not isinstance(profile, bytes) or not 128 < len(profile) <= PROFILE_MOST:
        return image
    if image.mode not in ("RGB", "RGBA", "CMYK") or profile[36:40] != b"acsp":
        return image
    from PIL import ImageCms

    if image.mode == "RGB" and image.has_transparency_data:
        image = image.convert("RGBA")
    try:
        found = ImageCms.getOpenProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(found).lower():
            return image
        shown = ImageCms.profileToProfile(
            image,
            found,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGBA" if image.mode == "RGBA" else "RGB",
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, MemoryError):
        return image
    return image if shown is None else shown
