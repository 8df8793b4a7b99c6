"""Broken metadata costs only itself: picture, orientation and provenance remain; damage is damage."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from harmonia.modalities import image
from harmonia.modalities.metadata import metadata_of
from harmonia.modalities.provenance import Mark
from harmonia.server.formats import kind_of
from harmonia.types import HarmoniaError, Signal
from tests.modalities.test_image_kinds import HEAD, PICTURE, PNG, REST, RGB, chunk, far, saved

TURN = Image.Exif()
TURN[274] = 6
TURNED = np.rot90(RGB, -1)
BROKEN_MPF = b"MPF\0II*\0\x08\0\0\0\xff\xff"


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def jpeg(exif: bytes = TURN.tobytes(), *segments: bytes) -> bytes:
    whole = saved("JPEG", quality=95, exif=exif)
    return whole[:2] + b"".join(segments) + whole[2:]


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    rows = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + rows + struct.pack("<I", 0)


UPRIGHT = (274, 3, 1, struct.pack("<HH", 6, 0))


@pytest.mark.parametrize(
    "entries",
    [
        ((34665, 4, 1, struct.pack("<I", 0xFFFFFFF0)), UPRIGHT),
        ((34853, 4, 1, struct.pack("<I", 8)), UPRIGHT),
        ((270, 2, 5000, struct.pack("<I", 99999)), UPRIGHT),
        ((271, 99, 1, bytes(4)), UPRIGHT),
        ((271, 2, 0xFFFFFFFF, bytes(4)), UPRIGHT),
        ((270, 11, 1, struct.pack("<f", float("nan"))), UPRIGHT),
        ((0x9C9B, 3, 2, struct.pack("<HH", 500, 600)), UPRIGHT),
        ((282, 5, 1, struct.pack("<I", 99999)), UPRIGHT),
    ],
    ids=str,
)
def test_a_broken_tag_of_exif_does_not_cost_the_orientation(entries: tuple[Any, ...]) -> None:
    for order in (entries, entries[::-1]):
        assert far(jpeg(exif(*order)), TURNED) < 3


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([256, 270, 271, 282, 305, 306, 315, 34665, 34853, 37510, 40091, 700, 33723]),
            st.integers(0, 20), st.integers(0, 2**32 - 1), st.binary(min_size=4, max_size=4),
        ),
        max_size=4,
    )
)  # fmt: skip
def test_no_tags_beside_the_orientation_cost_it_or_the_picture(
    tags: list[tuple[int, int, int, bytes]],
) -> None:
    assert far(jpeg(exif(UPRIGHT, *tags)), TURNED) < 3


@pytest.mark.parametrize(
    "segments",
    [
        (segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\xff\xff\xff\xff\x1c\x02"),),
        (segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\x08\x1c\x02\x78\xff\xff\xff\xff\xff"),),
        (segment(0xED, b""), segment(0xED, b"Photoshop 3.0\0"), segment(0xED, b"Photoshop 3.0\x008BIM")),
        (segment(0xE2, b"ICC_PROFILE\0\x09\x01xx"), segment(0xE2, b"ICC_PROFILE\0")),
        tuple(segment(0xE2, b"ICC_PROFILE\0" + bytes([i + 1, 200]) + bytes(60000)) for i in range(200)),
        (segment(0xE2, BROKEN_MPF),),
        (segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<<<"),) * 300,
        (segment(0xE0, b"JFIF\0"), segment(0xEE, b"Adobe")),
        (segment(0xFE, b"a" * 65000),) * 40,
    ],
    ids=lambda segments: repr(segments[0][:24]),
)
def test_a_broken_or_oversized_segment_does_not_cost_the_orientation(segments: tuple[bytes, ...]) -> None:
    assert far(jpeg(TURN.tobytes(), *segments), TURNED) < 3
    with pytest.raises(HarmoniaError):
        image.read(jpeg(TURN.tobytes(), *segments)[:-1500])


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"k\0" + b"z" * 900_000) * 80,
        chunk(b"zTXt", b"k\0\0" + zlib.compress(b"z" * 1_000_000)) * 80,
        chunk(b"iTXt", b"k\0\1\0\0\0not deflate"),
        chunk(b"tRNS", b"\0"),
        chunk(b"tRNS", b"\0\1\0\1\0\1", 3),
        chunk(b"bKGD", b"", 1) + chunk(b"sBIT", b"\0" * 9, 2) + chunk(b"hIST", b"1"),
        chunk(b"acTL", b"\0", 1) + chunk(b"fcTL", b"\0"),
    ],
    ids=lambda extra: extra[4:12].decode("latin-1"),
)
def test_chunks_of_a_png_cost_neither_the_picture_nor_its_orientation(extra: bytes) -> None:
    assert far(HEAD + extra + REST) == 0
    whole = saved("PNG", exif=TURN)
    assert far(whole[:33] + extra + whole[33:], TURNED) == 0


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 255), st.booleans())
def test_a_changed_byte_of_the_picture_is_damage_whatever_else_is_broken(
    at: int, bits: int, more: bool
) -> None:
    start = PNG.index(b"IDAT") + 4
    size = int.from_bytes(PNG[start - 8 : start - 4], "big")
    broken = bytearray(PNG)
    broken[start + at % (size + 4)] ^= bits  # the data, or their checksum
    extra = chunk(b"tEXt", b"k\0v", 1) if more else b""
    with pytest.raises(HarmoniaError, match="damaged"):
        image.read(bytes(broken[:33]) + extra + bytes(broken[33:]))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_the_size_that_a_webp_declares_may_lie(size: int) -> None:
    whole = saved("WEBP", lossless=True, exif=TURN.tobytes())
    if size < len(whole) - 8:  # a smaller size may leave out its last chunk, which is EXIF
        size = 0
    assert far(whole[:4] + struct.pack("<I", size) + whole[8:], TURNED) == 0


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_an_animation_that_is_cut_off_is_refused(share: float) -> None:
    other = PICTURE.transpose(Image.Transpose.ROTATE_180)
    whole = saved("WEBP", save_all=True, append_images=[other], lossless=True)
    with pytest.raises(HarmoniaError):
        image.read(whole[: int(len(whole) * share)])


GIF = saved("GIF", PICTURE.quantize(64))
COLOURS = np.asarray(PICTURE.quantize(64).convert("RGB"))
TABLE = 13 + (3 << ((GIF[10] & 7) + 1))


@settings(deadline=None, max_examples=120)
@given(st.lists(st.tuples(st.sampled_from([0x01, 0x77, 0xF9, 0xFE, 0xFF]),
                          st.lists(st.binary(min_size=1, max_size=40), max_size=3)), max_size=3))  # fmt: skip
def test_extensions_of_a_gif_cost_only_themselves(extensions: list[tuple[int, list[bytes]]]) -> None:
    extra = b"".join(
        bytes([0x21, label]) + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"
        for label, parts in extensions
        if label != 0xF9 or not parts or len(parts[0]) < 4  # a whole control may make colours transparent
    )
    assert far(GIF[:TABLE] + extra + GIF[TABLE:], COLOURS) < 1
    with pytest.raises(HarmoniaError):
        image.read((GIF[:TABLE] + extra + GIF[TABLE:])[:-600])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_broken_metadata_hides_neither_that_a_picture_was_generated_nor_what_else_it_says(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a{suffix}"
    image.write(Signal("image", RGB), path, Mark("model"))
    data = path.read_bytes()
    if suffix == ".png":
        data = data[:33] + chunk(b"gAMA", b"\0\0\0\1", 1) + data[33:]
    elif suffix == ".jpg":
        data = data[:2] + segment(0xE2, b"ICC_PROFILE\0") + data[2:]
    else:
        data = data[:4] + b"\xff\xff\xff\x7f" + data[8:]
    path.write_bytes(data)
    assert image.mark_of(path) is not None
    assert metadata_of(path, "image")["width"] == 96
    assert image.opacity(path) is None


def test_what_is_left_out_says_nothing_in_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(exif((270, 2, 5000, struct.pack("<I", 99999)), UPRIGHT)))
    (tmp_path / "b.jpg").write_bytes(jpeg(TURN.tobytes(), segment(0xE2, BROKEN_MPF)))
    code = f"from harmonia.modalities import image\nfor n in 'ab': image.read(rf'{tmp_path}/{{n}}.jpg')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


@pytest.mark.parametrize(
    ("form", "suffix"), [("JPEG2000", ".jp2"), ("JXL", ".jxl"), ("AVIF", ".avif"), ("HEIF", ".heic")]
)
def test_an_upload_of_every_format_is_known(form: str, suffix: str) -> None:
    import pillow_heif
    import pillow_jxl

    assert pillow_jxl
    pillow_heif.register_heif_opener()
    kind = kind_of(saved(form)[:512])
    assert kind is not None and (kind.modality, kind.suffix) == ("image", suffix)
