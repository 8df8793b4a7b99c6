"""TIFF of every tone: as the 8-bit twin, or refused by a message that is true; never a wrong picture."""

from __future__ import annotations

import resource
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

from harmonia.modalities import Limits, image
from harmonia.types import HarmoniaError
from tests.modalities.test_image_kinds import DEEP, GREY, PICTURE, RGB, far, raw, saved, tiff

COLOURS = RGB.astype(np.uint16) * 257
FULL = DEEP.astype(np.uint32) * 65537
GREYS = np.repeat(GREY[..., None], 3, axis=2)
HALF = np.full_like(DEEP, 32768)


@pytest.mark.parametrize("max_side", [None, 48])
@pytest.mark.parametrize(
    ("tones", "right", "options"),
    [
        (FULL, GREYS, {}),
        (FULL // 2, GREYS / 2, {}),
        (2**32 - 1 - FULL, GREYS, {"photometric": "miniswhite"}),
        (COLOURS.astype(np.uint32) * 65537, RGB, {"photometric": "rgb"}),
        (np.dstack([COLOURS.astype(np.uint32) * 65537, np.full(DEEP.shape, 2**32 - 1, np.uint32)]), RGB,
         {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (np.dstack([COLOURS, HALF]), RGB / 2 + 127.5, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (np.dstack([COLOURS // 2, HALF]), RGB / 2 + 127.5,
         {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
        (np.dstack([COLOURS, HALF * 0]), RGB, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        (np.dstack([(RGB / 255).astype(np.float32), np.full(DEEP.shape, 0.5, np.float32)]), RGB / 2 + 127.5,
         {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        (GREY / 255, GREYS, {"photometric": "minisblack"}),
        (np.dstack([255 - GREY, GREY * 0 + 255]), GREYS,
         {"photometric": "miniswhite", "planarconfig": "contig", "extrasamples": ["unassalpha"]}),
        (DEEP, GREYS, {"bigtiff": True}),
        (DEEP, GREYS, {"tile": (16, 32), "compression": "zlib"}),
        (DEEP, GREYS, {"rowsperstrip": 8, "compression": "zlib", "predictor": True}),
        (COLOURS, RGB, {"photometric": "rgb", "compression": "lzma"}),
        ((DEEP // 2).astype(np.int16), GREYS, {}),
        (DEEP.astype(np.uint64) << 48, GREYS, {}),
        (np.dstack([255 - RGB, GREY * 0]), RGB, {"photometric": "separated"}),
        (np.dstack([65535 - COLOURS, DEEP * 0]), RGB, {"photometric": "separated"}),
        (np.dstack([(65535 - COLOURS) // 257, GREY * 0, GREY * 0 + 255]).astype(np.uint8), RGB,
         {"photometric": "separated", "extrasamples": ["unspecified"]}),
        (np.dstack([65535 - COLOURS, DEEP * 0, HALF]), RGB,
         {"photometric": "separated", "extrasamples": ["unspecified"]}),
    ],
    ids=str,
)  # fmt: skip
def test_tones_look_as_their_8_bit_twins_at_every_size(
    tones: Any, right: Any, options: dict[str, Any], max_side: int | None
) -> None:
    seen = image.read(tiff(tones, **options), max_side=max_side).array.astype(float)
    if max_side:
        twin = Image.fromarray(np.round(right).astype(np.uint8))
        right = np.asarray(twin.resize((48, 32), Image.Resampling.LANCZOS))
    assert seen.shape == right.shape
    assert np.abs(seen - right).mean() < 2


def with_tag(data: bytes, tag: int, value: int) -> bytes:
    """A little-endian TIFF with another value of a tag."""
    place = int.from_bytes(data[4:8], "little")
    for at in range(place + 2, place + 2 + 12 * int.from_bytes(data[place : place + 2], "little"), 12):
        if int.from_bytes(data[at : at + 2], "little") == tag:
            return data[: at + 8] + struct.pack("<I", value) + data[at + 12 :]
    raise AssertionError(f"no tag {tag}")


def test_packed_16_bit_scans_whose_zero_is_white_are_turned_over() -> None:
    scan = saved("TIFF", Image.fromarray(65535 - DEEP), compression="tiff_lzw")
    assert far(with_tag(scan, 262, 0), GREYS) < 1
    assert far(with_tag(scan, 262, 1), 255 - GREYS) < 1


def test_a_packing_that_needs_a_package_names_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    floats = saved("TIFF", Image.fromarray((1 - GREY / 255).astype(np.float32)), compression="tiff_lzw")
    path.write_bytes(with_tag(floats, 262, 0))
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from harmonia.modalities import image\nfrom harmonia.types import HarmoniaError\n"
        f"try: image.read('{path}')\nexcept HarmoniaError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'harmonia[tiff]'" in said.stdout and "damaged" not in said.stdout
    assert said.stderr == ""


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", ["lzw", "zstd", "zlib"])
@pytest.mark.parametrize(
    ("tones", "right", "options"),
    [
        (65535 - DEEP, GREYS, {"photometric": "miniswhite"}),
        ((GREY / 255).astype(np.float32), GREYS, {}),
        ((RGB / 255).astype(np.float32), RGB, {"photometric": "rgb"}),
        (FULL, GREYS, {}),
        (np.dstack([DEEP, HALF * 2 - 1]), GREYS,
         {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}),
    ],
    ids=str,
)  # fmt: skip
def test_with_the_package_every_packing_is_read(
    tones: Any, right: Any, options: dict[str, Any], order: Any, compression: Any
) -> None:
    pytest.importorskip("imagecodecs")
    packed = tiff(tones, byteorder=order, compression=compression, predictor=True, **options)
    assert far(packed, right) < 2


SCANS = {
    "plain": tiff(DEEP, rowsperstrip=8),
    "white": tiff(DEEP, rowsperstrip=8, photometric="miniswhite"),
    "packed": tiff(COLOURS, photometric="rgb", compression="zlib", rowsperstrip=8),
    "floats": tiff((RGB / 255).astype(np.float32), photometric="rgb", compression="zlib", rowsperstrip=8),
}


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(SCANS)), st.floats(0.02, 0.98))
def test_a_deep_tiff_that_is_cut_off_is_refused(name: str, share: float) -> None:
    whole = SCANS[name]
    picture = whole[: int(len(whole) * share)]
    with pytest.raises(HarmoniaError):
        image.read(picture)


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("strip", [0, 3, 7])
@pytest.mark.parametrize("tag", [273, 279])
def test_a_strip_that_is_missing_is_no_black_bar(name: str, strip: int, tag: int) -> None:
    data = bytearray(SCANS[name])
    place = int.from_bytes(data[4:8], "little")
    for at in range(place + 2, place + 2 + 12 * int.from_bytes(data[place : place + 2], "little"), 12):
        if int.from_bytes(data[at : at + 2], "little") == tag:
            size = 2 if data[at + 2] == 3 else 4
            values = int.from_bytes(data[at + 8 : at + 12], "little")
            data[values + size * strip : values + size * (strip + 1)] = bytes(size)
    with pytest.raises(HarmoniaError, match=r"truncated|damaged"):
        image.read(bytes(data))


@pytest.mark.parametrize(
    ("tones", "right", "options"),
    [
        (DEEP, GREYS, {}),
        (65535 - DEEP, GREYS, {"photometric": "miniswhite"}),
        (COLOURS, RGB, {"photometric": "rgb"}),
    ],
    ids=["grey", "white", "colour"],
)
def test_the_sizes_of_strips_may_be_left_out(tones: Any, right: Any, options: dict[str, Any]) -> None:
    whole = with_tag(tiff(tones, **options), 279, 0)
    assert far(whole, right) < 1
    with pytest.raises(HarmoniaError, match=r"truncated|damaged"):
        image.read(whole[: len(whole) * 3 // 4])


def test_a_small_tiff_that_unpacks_to_gigabytes_is_refused_before_it_does() -> None:
    pack = zlib.compressobj(9)
    packed = b"".join(pack.compress(bytes(1 << 24)) for _ in range(32)) + pack.flush()
    tags = [
        (256, 96),
        (257, 64),
        (258, 16),
        (259, 8),
        (262, 1),
        (273, 8),
        (277, 1),
        (278, 64),
        (279, len(packed)),
    ]
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    bomb = (
        b"II*\0"
        + struct.pack("<I", 8 + len(packed))
        + packed
        + struct.pack("<H", len(tags))
        + rows
        + bytes(4)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(HarmoniaError, match="more than its size"):
        image.read(bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB
    with pytest.raises(HarmoniaError, match="over the limit"):
        image.read(tiff(DEEP), limits=Limits(decoded_bytes=1000))


TAG = st.tuples(
    st.sampled_from([269, 270, 271, 282, 285, 305, 306, 700, 33432, 33723, 34377, 34675, 34853, 50838]),
    st.integers(0, 18), st.integers(0, 2**32 - 1), st.binary(min_size=4, max_size=4),
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(st.lists(TAG, max_size=3, unique_by=lambda tag: tag[0]), st.sampled_from(["8", "16", "float"]))
def test_broken_tags_cost_neither_picture_nor_orientation(tags: list[Any], depth: str) -> None:
    tones = {"8": RGB, "16": COLOURS, "float": (RGB / 255).astype(np.float32)}[depth]
    data = tiff(tones, photometric="rgb", software=False, resolution=None)
    place = int.from_bytes(data[4:8], "little")
    own = [data[at : at + 12] for at in range(place + 2, place + 2 + 12 * data[place], 12)]
    names = {tag for tag, *_ in tags} | {274}
    kept = [row for row in own if int.from_bytes(row[:2], "little") not in names]
    kept += [struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in tags]
    kept.append(struct.pack("<HHIHH", 274, 3, 1, 6, 0))
    kept.sort(key=lambda row: int.from_bytes(row[:2], "little"))
    broken = (
        data[:4] + struct.pack("<I", len(data)) + data[8:] + struct.pack("<H", len(kept)) + b"".join(kept)
    )
    assert far(broken + bytes(4), np.rot90(RGB, -1)) < 2


def test_the_data_say_what_is_raw_not_the_name(tmp_path: Path) -> None:
    for name in ("a.tif", "a.jpg"):
        (tmp_path / name).write_bytes(raw(6))
        assert image.read(tmp_path / name).array.shape == (48, 32, 3)
    assert image.read(raw(1)).array.shape == (32, 48, 3)
    for name, data in (("b.dng", tiff(RGB)), ("c.nef", tiff(COLOURS, photometric="rgb")),
                       ("d.cr2", saved("JPEG", quality=95)), ("e.arw", saved("PNG"))):  # fmt: skip
        (tmp_path / name).write_bytes(data)
        seen = image.read(tmp_path / name).array
        assert np.abs(seen.astype(float) - RGB).mean() < 3


def test_an_avif_of_a_general_brand_is_read() -> None:
    whole = saved("AVIF", PICTURE, quality=95)
    assert far(whole.replace(b"ftypavif", b"ftypmif1", 1)) < 12
