"""What of a partial picture a generator is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from harmonia.modalities import image as pictures
from harmonia.tasks.image_io import read_known, tensor_of
from harmonia.types import HarmoniaError


def cut(path: Path, side: int = 64, column: int = 33) -> Path:
    """Black, and right of a column transparent, with white under it."""
    rgba = np.zeros((side, side, 4), np.uint8)
    rgba[:, :column, 3] = 255
    rgba[:, column:, :3] = 255
    Image.fromarray(rgba).save(path)
    return path


@pytest.mark.parametrize("side", [64, 28, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_hidden_does_not_leak_into_what_is_known(tmp_path: Path, side: int, channels: int) -> None:
    known = read_known(cut(tmp_path / "cut.png", side, side // 2 + 1), (channels, 28, 28))
    assert known.x.shape == (channels, 28, 28) and known.x.dtype == torch.float32
    # column j lies over what is from j to j + 1, in 28ths of the side: all of it has to be there
    covered = torch.arange(1, 29) * side <= (side // 2 + 1) * 28
    assert torch.equal(known.mask, covered.expand(28, 28))
    assert (known.x[:, known.mask] + 1).abs().max() < 1e-6
    assert (known.x[:, ~known.mask] == 0).all()


def test_a_picture_all_there_has_the_values_that_generators_are_trained_on(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    rgba = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).convert("RGBA")
    rgba.putpixel((60, 45), (0, 0, 0, 0))
    rgba.save(tmp_path / "dot.png")
    known = read_known(tmp_path / "dot.png", (3, 32, 32))
    assert (~known.mask).sum() == 1, "one pixel that is missing is missed, however many there are beside it"
    far = torch.ones(32, 32, dtype=torch.bool)
    far[12:20, 12:20] = False
    whole = tensor_of(pictures.read(tmp_path / "dot.png"), (3, 32, 32))
    assert (known.x - whole)[:, far].abs().max() < 3 / 255


@pytest.mark.parametrize("size", [(41, 90), (90, 41), (64, 64), (20, 31), (29, 28)])
def test_a_hole_takes_every_pixel_that_lies_over_it(tmp_path: Path, size: tuple[int, int]) -> None:
    rgba = Image.new("RGBA", size, "red")
    x, y = size[0] // 2, size[1] // 2 + 3
    rgba.putpixel((x, y), (0, 0, 0, 0))
    rgba.save(tmp_path / "dot.png")
    mask = read_known(tmp_path / "dot.png", (3, 28, 28)).mask
    scale = min(size) / 28
    left, top = ((side - min(size)) / 2 for side in size)
    for row in range(28):
        for column in range(28):
            across, down = (
                min(at + 1, start + (i + 1) * scale) - max(at, start + i * scale)
                for at, start, i in ((x, left, column), (y, top, row))
            )
            assert bool(mask[row, column]) is not (across > 1e-4 and down > 1e-4)


def test_half_transparent_is_not_known(tmp_path: Path) -> None:
    rgba = np.full((28, 28, 4), 255, np.uint8)
    rgba[:, 10:, 3], rgba[:, 20:, 3] = 200, 0
    Image.fromarray(rgba).save(tmp_path / "soft.png")
    assert read_known(tmp_path / "soft.png", (3, 28, 28)).mask.sum(1).tolist() == [10] * 28
    Image.new("RGBA", (28, 28), (0, 0, 0, 9)).save(tmp_path / "faint.png")
    with pytest.raises(HarmoniaError, match="nothing is known"):
        read_known(tmp_path / "faint.png", (3, 28, 28))


def test_a_mask_leaves_only_what_it_does_not_touch(tmp_path: Path) -> None:
    picture = Image.new("L", (64, 64))
    picture.paste(255, (33, 0, 64, 64))
    picture.save(tmp_path / "picture.png")
    picture.save(tmp_path / "mask.png")
    known = read_known(tmp_path / "picture.png", (1, 28, 28), tmp_path / "mask.png")
    assert known.mask.any() and (known.x[:, known.mask] + 1).abs().max() < 1e-6
