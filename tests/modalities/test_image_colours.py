"""Pictures in the colour spaces of phones, cameras and presses look as their twins in sRGB."""

from __future__ import annotations

import io
import struct
import time
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageCms

from harmonia.modalities import image

# red, green and blue of sRGB and of Display P3, as the standards of their primaries give them at D50
SRGB = ((0.4361, 0.2225, 0.0139), (0.3851, 0.7169, 0.0971), (0.1431, 0.0606, 0.7141))
P3 = ((0.5151, 0.2412, -0.0011), (0.2919, 0.6922, 0.0419), (0.1572, 0.0666, 0.7841))
ADOBE = ((0.6097, 0.3111, 0.0195), (0.2053, 0.6257, 0.0609), (0.1492, 0.0632, 0.7446))
GAMMA = 2.2


def profile(primaries: Any, name: str = "wide") -> bytes:
    """An ICC profile of version 2 with a matrix and a gamma (ICC.1:2001-04)."""

    def place(values: Any) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    text = name.encode() + b"\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(GAMMA * 256)) + b"\0\0"
    described = b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {b"desc": described + bytes(-len(described) % 4), b"wtpt": place((0.9642, 1.0, 0.8249))}
    tags |= {key: place(value) for key, value in zip((b"rXYZ", b"gXYZ", b"bXYZ"), primaries, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    at, table, content = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        table += key + struct.pack(">II", at + len(content), len(value))
        content += value
    white = struct.pack(">iii", 63190, 65536, 54061)
    head = struct.pack(">I4sI4s4s4s", at + len(content), b"\0" * 4, 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    head += bytes(12) + b"acsp" + bytes(28) + white
    return head + bytes(128 - len(head)) + table + content


# colours that all three spaces hold
TONES = np.random.default_rng(0).uniform(0.25, 0.7, (6, 8, 3)).repeat(8, 0).repeat(8, 1)


def written_in(space: Any, tones: NDArray[Any] = TONES) -> NDArray[np.float64]:
    """Linear tones of sRGB as numbers from 0 to 1 of another space."""
    linear = tones @ np.array(SRGB) @ np.linalg.inv(np.array(space))
    return np.asarray(np.clip(linear, 0, 1) ** (1 / GAMMA))


def saved(picture: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


@pytest.fixture(scope="module")
def right() -> NDArray[np.int16]:
    """The twin in sRGB, whose curve is not quite a gamma."""
    curve = np.where(TONES <= 0.0031308, TONES * 12.92, 1.055 * TONES ** (1 / 2.4) - 0.055)
    return np.asarray(np.round(curve * 255), np.int16)


@pytest.mark.parametrize("space", [P3, ADOBE, SRGB], ids=["p3", "adobe", "gamma"])
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP", "JPEG", "RGBA", "16-bit TIFF"])
def test_colours_of_other_spaces(space: Any, form: str, right: NDArray[np.int16]) -> None:
    tones, icc = written_in(space), profile(space)
    eight = np.round(tones * 255).astype(np.uint8)
    if form == "16-bit TIFF":
        out = io.BytesIO()
        deep = np.round(tones * 65535).astype(np.uint16)
        tifffile.imwrite(out, deep, photometric="rgb", iccprofile=icc)
        data = out.getvalue()
    elif form == "RGBA":
        opaque = np.full(eight.shape[:2], 255, np.uint8)
        data = saved(Image.fromarray(np.dstack([eight, opaque])), "PNG", icc_profile=icc)
    else:
        options = {"lossless": True} if form == "WEBP" else {"quality": 95, "subsampling": 0}
        data = saved(Image.fromarray(eight), form, icc_profile=icc, **options)
    seen = image.read(data).array.astype(np.int16)
    assert np.abs(seen - right).mean() < (3 if form == "JPEG" else 1.5)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "CMYK", "I;16"])
def test_a_profile_of_another_kind_of_picture_costs_nothing(mode: str) -> None:
    grey = np.linspace(0, 255, 60).astype(np.uint8)[None].repeat(40, 0)
    deep = Image.fromarray(grey.astype(np.uint16) * 257)
    picture = deep if mode == "I;16" else Image.fromarray(grey).convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    plain, profiled = saved(picture, form), saved(picture, form, icc_profile=profile(P3))
    assert np.array_equal(image.read(plain).array, image.read(profiled).array)


def test_srgb_stays_to_the_bit() -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    for icc in (ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), profile(SRGB, "sRGB")):
        assert np.array_equal(image.read(saved(picture, "PNG", icc_profile=icc)).array, np.asarray(picture))


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8), st.booleans())
def test_a_broken_profile_costs_only_itself(at: int, junk: bytes, cut: bool) -> None:
    whole = profile(ADOBE)
    broken = whole[:at] if cut else whole[:at] + junk + whole[at + len(junk) :]
    picture = Image.new("RGB", (30, 20), (200, 100, 50))
    begun = time.monotonic()
    assert image.read(saved(picture, "PNG", icc_profile=broken)).array.shape == (20, 30, 3)
    assert time.monotonic() - begun < 5
