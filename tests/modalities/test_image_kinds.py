"""Pictures of every format and tone, and pictures with broken metadata, which costs only itself."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import harmonia
from harmonia.modalities import image
from harmonia.types import HarmoniaError
from tests.media import scene

PICTURE = scene(3, (96, 64))
RGB = np.asarray(PICTURE)


def saved(form: str, picture: Image.Image = PICTURE, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def far(data: bytes, right: Any = RGB) -> float:
    """Mean difference of tones."""
    seen = image.read(data).array
    assert seen.shape == right.shape
    return float(np.abs(seen.astype(float) - right).mean())


def chunk(name: bytes, content: bytes, wrong: int = 0) -> bytes:
    check = (zlib.crc32(name + content) ^ wrong) & 0xFFFFFFFF
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)


PNG = saved("PNG")
HEAD, REST = PNG[:33], PNG[33:]
JPEG = saved("JPEG", quality=95)
ANCILLARY = [
    b"tEXt",
    b"zTXt",
    b"iTXt",
    b"iCCP",
    b"gAMA",
    b"pHYs",
    b"eXIf",
    b"tIME",
    b"cHRM",
    b"sRGB",
    b"spAL",
    b"zzzz",
]


@settings(deadline=None, max_examples=120)
@given(st.sampled_from(ANCILLARY), st.binary(max_size=80), st.integers(0, 2**32 - 1), st.booleans())
def test_an_ancillary_chunk_of_a_png_costs_only_itself(
    name: bytes, data: bytes, wrong: int, late: bool
) -> None:
    extra = chunk(name, data, wrong)
    assert far(PNG[:-12] + extra + PNG[-12:] if late else HEAD + extra + REST) == 0


@pytest.mark.parametrize("size", [1 << 20, 2 << 20, 30 << 20])
def test_a_bomb_in_a_chunk_costs_only_itself(size: int) -> None:
    bomb = zlib.compress(b"ab" * (size // 2))
    title = chunk(b"tEXt", b"Title\0harbour at night")
    for extra in (
        chunk(b"zTXt", b"workflow\0\0" + bomb),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + bomb),
        chunk(b"iCCP", b"p\0\0" + bomb),
    ):
        seen = image.read(HEAD + extra + title + REST)
        assert (seen.array == RGB).all()
        assert seen.caption == "harbour at night"


def test_the_picture_itself_must_be_whole() -> None:
    for broken in (
        PNG[:29] + b"\0\0\0\0" + REST,
        PNG[: len(PNG) // 2],
        HEAD + REST[:40] + bytes([REST[40] ^ 255]) + REST[41:],
        JPEG[: len(JPEG) // 2],
        saved("WEBP")[:200],
    ):
        with pytest.raises(HarmoniaError, match=r"damaged|truncated"):
            image.read(broken)


@settings(deadline=None, max_examples=120)
@given(st.integers(0xE1, 0xEF).filter(lambda m: m != 0xEE), st.binary(max_size=200), st.sampled_from(
    [b"", b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"Photoshop 3.0\x008BIM\x04\x04", b"MPF\0II*\0",
     b"ICC_PROFILE\0\x01\x09", b"http://ns.adobe.com/xap/1.0/\0"]
))  # fmt: skip
def test_a_segment_of_a_jpeg_costs_only_itself(marker: int, data: bytes, start: bytes) -> None:
    content = start + data
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
    turned = b"Exif" in start  # what is random may by chance turn the picture
    seen = image.read(JPEG[:2] + segment + JPEG[2:]).array
    assert seen.shape in ([RGB.shape, (96, 64, 3)] if turned else [RGB.shape])
    assert turned or np.abs(seen.astype(float) - RGB).mean() < 3


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([b"EXIF", b"ICCP", b"XMP "]), st.binary(max_size=80))
def test_a_chunk_of_a_webp_costs_only_itself(name: bytes, data: bytes) -> None:
    webp = saved("WEBP", lossless=True, xmp=b"<x/>", exif=Image.Exif().tobytes())
    extra = name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    body = webp[8:] + extra
    assert far(b"RIFF" + struct.pack("<I", len(body)) + body) < 1


def tiff(tones: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, tones, metadata=None, **options)
    return file.getvalue()


GREY = np.asarray(PICTURE.convert("L"))
DEEP = GREY.astype(np.uint16) * 257


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize(
    ("tones", "right", "options"),
    [
        (DEEP, GREY, {}),
        (65535 - DEEP, GREY, {"photometric": "miniswhite"}),
        (255 - GREY, GREY, {"photometric": "miniswhite"}),
        (DEEP.astype(np.uint32) * 65537, GREY, {}),
        (((2**32 - 1) - DEEP.astype(np.uint32) * 65537), GREY, {"photometric": "miniswhite"}),
        ((GREY / 255).astype(np.float32), GREY, {}),
        ((GREY / 255).astype(np.float16), GREY, {}),
        ((RGB / 255).astype(np.float32), RGB, {"photometric": "rgb"}),
        (RGB.astype(np.uint16) * 257, RGB, {"photometric": "rgb"}),
        (np.moveaxis(RGB.astype(np.uint16) * 257, -1, 0), RGB,
         {"photometric": "rgb", "planarconfig": "separate"}),
        (np.stack([DEEP, np.full_like(DEEP, 65535)], -1), GREY, {"extrasamples": ["unassalpha"],
         "photometric": "minisblack", "planarconfig": "contig"}),
        (np.dstack([RGB.astype(np.uint16) * 257, np.full_like(DEEP, 65535)]), RGB,
         {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    ],
    ids=str,
)  # fmt: skip
def test_deep_tones_look_as_their_8_bit_twins(
    tones: Any, right: Any, options: dict[str, Any], order: Any, compression: Any
) -> None:
    seen = image.read(tiff(tones, byteorder=order, compression=compression, **options)).array
    right = right if right.ndim == 3 else np.repeat(right[..., None], 3, axis=2)
    assert float(np.abs(seen.astype(float) - right).mean()) < 2


def test_16_bit_pngs_look_as_their_8_bit_twins() -> None:
    assert far(saved("PNG", Image.fromarray(DEEP)), np.repeat(GREY[..., None], 3, axis=2)) < 1


def test_what_nothing_reads_is_unsupported_not_damaged() -> None:
    with pytest.raises(HarmoniaError, match="not supported"):
        image.read(tiff(np.zeros((8, 8), np.complex64)))


@pytest.mark.parametrize(
    ("form", "name", "options"),
    [
        ("AVIF", "a.avif", {}), ("JPEG", "a.jfif", {}), ("JPEG", "a.jpe", {}), ("JPEG2000", "a.jp2", {}),
        ("JPEG2000", "a.j2k", {}), ("PNG", "a.jpg", {}), ("JPEG", "a.png", {}), ("WEBP", "a.jpg", {}),
        ("AVIF", "a.jpeg", {}), ("HEIF", "a.jpg", {}), ("JXL", "a.jxl", {}), ("JXL", "a.jpg", {}),
        ("PNG", "a.apng", {"save_all": True, "append_images": [scene(9, (96, 64))]}),
        ("GIF", "a.gif", {"save_all": True, "append_images": [scene(9, (96, 64))]}),
        ("WEBP", "a.webp", {"save_all": True, "append_images": [scene(9, (96, 64))]}),
        ("AVIF", "b.avif", {"save_all": True, "append_images": [scene(9, (96, 64))]}),
        ("MPO", "a.mpo", {"save_all": True, "append_images": [scene(9, (96, 64))]}),
    ],
)  # fmt: skip
def test_every_format_is_read_by_its_content_and_of_an_animation_the_first_frame(
    tmp_path: Path, form: str, name: str, options: dict[str, Any]
) -> None:
    import pillow_heif
    import pillow_jxl

    assert pillow_jxl
    pillow_heif.register_heif_opener()
    (tmp_path / name).write_bytes(saved(form, **options))
    assert far((tmp_path / name).read_bytes()) < 12
    memory = harmonia.open(tmp_path / "m")
    assert memory.remember(tmp_path).remembered == 1


@pytest.mark.parametrize(("turn", "shape"), [(1, (32, 48)), (6, (48, 32)), (3, (32, 48))])
def test_a_raw_photo_is_developed_where_it_has_no_preview(
    tmp_path: Path, turn: int, shape: tuple[int, int]
) -> None:
    path = tmp_path / "a.dng"
    path.write_bytes(raw(turn))
    seen = image.read(path).array
    assert seen.shape[:2] == shape
    corner = {1: seen[4, 4], 6: seen[4, -5], 3: seen[-5, -5]}[turn]
    assert corner[0] > 150 > 100 > corner[2]  # the sensor's first corner is red
    with pytest.raises(HarmoniaError, match="RAW"):
        (tmp_path / "b.dng").write_bytes(raw(1)[:300])
        image.read(tmp_path / "b.dng")


def raw(turn: int) -> bytes:
    """A DNG of four colours, by a sensor of red, green, green, blue."""
    colours = np.zeros((64, 96, 3))
    colours[:32, :48], colours[:32, 48:], colours[32:, :48], colours[32:, 48:] = np.eye(3)[[0, 1, 2, 1]]
    sensor = np.empty((64, 96))
    for y, x, c in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        sensor[y::2, x::2] = colours[y::2, x::2, c]
    matrix = tuple(n for value in np.eye(3).ravel() for n in (int(value * 10000), 10000))
    tags = [
        (274, "H", 1, turn, True), (271, "s", 0, "Test", True), (272, "s", 0, "Camera", True),
        (33421, "H", 2, (2, 2), True), (33422, "B", 4, bytes([0, 1, 1, 2]), True),
        (50706, "B", 4, bytes([1, 4, 0, 0]), True), (50707, "B", 4, bytes([1, 1, 0, 0]), True),
        (50708, "s", 0, "Test Camera", True), (50721, "2i", 9, matrix, True), (50778, "H", 1, 21, True),
        (50714, "H", 1, 0, True), (50717, "I", 1, 60000, True), (50728, "2I", 3, (1, 1, 1, 1, 1, 1), True),
    ]  # fmt: skip
    file = io.BytesIO()
    tifffile.imwrite(
        file, (sensor * 60000).astype(np.uint16), photometric=32803, extratags=tags, metadata=None
    )
    return file.getvalue()


@pytest.mark.parametrize(
    ("module", "name", "data", "extra"),
    [("rawpy", "a.dng", raw(1), "raw"), ("pillow_jxl", "a.jxl", saved("PNG"), "jxl")],
)
def test_a_missing_package_is_named(tmp_path: Path, module: str, name: str, data: bytes, extra: str) -> None:
    (tmp_path / name).write_bytes(b"\xff\x0a" + data if extra == "jxl" else data)
    code = (
        f"import sys; sys.modules['{module}'] = None\n"
        "from harmonia.modalities import image\nfrom harmonia.types import HarmoniaError\n"
        f"try: image.read('{tmp_path / name}')\nexcept HarmoniaError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert f"pip install 'harmonia[{extra}]'" in said
