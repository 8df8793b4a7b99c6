"""Images of generators: reading, writing with a provenance mark, and contact sheets."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

from harmonia.generators import Generator
from harmonia.modalities import image as pictures
from harmonia.modalities.provenance import Mark
from harmonia.types import HarmoniaError, Signal

CELL, GAP, LINE, ACROSS = 128, 8, 16, 8
INK, PAPER = "#1b1f24", "#ffffff"
SOLID = 250
"""Opacity, of 255, above which a pixel counts as known."""
Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A partial image: ``x`` (c, h, w) in [-1, 1], and ``mask`` bool (h, w), true where it is known."""

    x: Tensor
    mask: Tensor


def tensor_of(signal: Signal, shape: Shape) -> Tensor:
    """The image as float32 (c, h, w) in [-1, 1], cropped to the centre and scaled; grey for one channel."""
    channels, height, width = shape
    image = ImageOps.fit(Image.fromarray(signal.array), (width, height), Image.Resampling.LANCZOS)
    array = np.asarray(image.convert("L" if channels == 1 else "RGB"), dtype=np.float32)
    return torch.from_numpy(array.reshape(height, width, channels) / 127.5 - 1).permute(2, 0, 1).contiguous()


def signal_of(x: Tensor) -> Signal:
    """The RGB signal of an image (c, h, w) in [-1, 1]."""
    array = ((x.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    rgb = array.expand(3, -1, -1) if len(array) == 1 else array
    return Signal("image", np.ascontiguousarray(rgb.permute(1, 2, 0).numpy()))


def shape_of(generator: Generator) -> Shape:
    """Channels, height and width of a generator's samples; HarmoniaError if these are not images."""
    shape: Shape = tuple(generator.config.shape)
    if shape[0] not in (1, 3):
        raise HarmoniaError(
            f"this generator samples {shape[0]} channels, not an image: give a generator of images"
        )
    return shape


def read_known(path: Path, shape: Shape, mask: Path | None = None) -> Known:
    """Read a partial image: what is transparent, or white in ``mask``, is unknown, and 0 in ``x``.

    A pixel of the generator's grid is known if all that it covers is known; its value comes from known pixels
    alone. HarmoniaError if nothing is unknown, or nothing known.
    """
    signal = pictures.read(path)
    if mask is None:
        alpha = pictures.opacity(path)
        if alpha is None:
            raise HarmoniaError(
                f"{path.name} has no transparent part: make the part to inpaint transparent, or give --mask"
            )
        there = alpha > SOLID
    else:
        drawn = Image.fromarray(pictures.read(mask).array).convert("L")
        size = (signal.array.shape[1], signal.array.shape[0])
        there = np.asarray(drawn.resize(size, Image.Resampling.BILINEAR)) < 128
    known = _known(there, shape)
    if known.all() or not known.any():
        where = path.name if mask is None else mask.name
        what = "everything is known" if known.all() else "nothing is known"
        raise HarmoniaError(f"{where}: {what}; part of the image must be known and part must be inpainted")
    return Known(_values(signal, there, shape).where(known, torch.zeros(())), known)


def _known(there: NDArray[np.bool_], shape: Shape) -> Tensor:
    """The pixels of the generator's grid that cover known pixels only, bool (h, w)."""
    scale = min(size / n for size, n in zip(there.shape, shape[1:], strict=True))
    rows, columns = (_touched(size, n, scale) for size, n in zip(there.shape, shape[1:], strict=True))
    missing = torch.from_numpy(~there).float()
    return rows @ missing @ columns.T == 0


def _touched(size: int, n: int, scale: float) -> Tensor:
    """(n, size), 1 where one of n centred cells, each ``scale`` wide, covers a pixel."""
    edges = (size - n * scale) / 2 + torch.arange(n + 1, dtype=torch.float64)[:, None] * scale
    pixels = torch.arange(size)
    return ((pixels + 1 > edges[:-1] + 1e-6) & (pixels < edges[1:] - 1e-6)).float()


def _values(signal: Signal, there: NDArray[np.bool_], shape: Shape) -> Tensor:
    """As ``tensor_of``, from the known pixels alone, by normalised convolution."""
    image = Image.fromarray(signal.array).convert("L" if shape[0] == 1 else "RGB")
    planes = np.asarray(image, dtype=np.float32).reshape(*there.shape, -1).transpose(2, 0, 1)
    total = torch.stack([_fitted(plane * there, shape) for plane in planes])
    return (total / _fitted(there, shape)).round().clamp(0, 255) / 127.5 - 1


def _fitted(plane: NDArray[Any], shape: Shape) -> Tensor:
    """The centre of a plane (h, w) at the generator's size, in float32, since bytes would round."""
    image = Image.fromarray(plane.astype(np.float32))
    return torch.from_numpy(np.array(ImageOps.fit(image, shape[:0:-1], Image.Resampling.LANCZOS)))


@dataclass(frozen=True, slots=True)
class Drawn:
    """The files of the generated images, and their contact sheet."""

    files: tuple[Path, ...]
    sheet: Path


class Gallery:
    """A folder of generated images, each written atomically and marked, and their contact sheet."""

    def __init__(self, folder: Path, name: str, mark: Mark) -> None:
        self.folder, self.mark = folder, mark
        self.name = _file_name(name)
        self.files: list[Path] = []
        self._shown: list[Image.Image] = []
        self._given = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HarmoniaError(f"cannot create the folder {folder}: {error.strerror or error}") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise HarmoniaError(f"cannot write into {folder}: choose another folder with --out")

    def show(self, x: Tensor) -> None:
        """Add an input image (c, h, w), which is not generated, to the sheet."""
        self._shown.append(Image.fromarray(signal_of(x).array))
        self._given = True

    def add(self, x: Tensor, name: str = "", cue: str = "") -> Path:
        """Write an image (c, h, w) as ``NAME-1.png`` and so on, and add it to the sheet.

        ``name`` and ``cue`` default to those of the gallery.
        """
        file = self.folder / f"{_file_name(name) if name else self.name}-{len(self.files) + 1}.png"
        signal = signal_of(x)
        pictures.write(signal, file, replace(self.mark, cue=cue) if cue else self.mark)
        self.files.append(file)
        self._shown.append(Image.fromarray(signal.array))
        return file

    def sheet(self, title: str) -> Path:
        """Write the contact sheet of the images so far."""
        file = self.folder / f"{self.name}-sheet.png"
        mark = replace(self.mark, composite=self.mark.composite or self._given)
        pictures.write(Signal("image", np.asarray(grid(self._shown, title))), file, mark)
        return file


def _file_name(text: str) -> str:
    return "-".join(re.findall(r"\w+", text.casefold()))[:60].strip("-") or "picture"


def grid(shown: Sequence[Image.Image], title: str = "") -> Image.Image:
    """Images side by side; small ones are enlarged without smoothing."""
    across = min(len(shown), ACROSS)
    down = math.ceil(len(shown) / across)
    top = GAP + (LINE if title else 0)
    sheet = Image.new("RGB", (max(across, 4) * (CELL + GAP) + GAP, top + down * (CELL + GAP)), PAPER)
    if title:
        font = ImageFont.load_default(12)
        ImageDraw.Draw(sheet).text((GAP, GAP // 2), " ".join(title.split()), fill=INK, font=font)
    for number, picture in enumerate(shown):
        way = Image.Resampling.NEAREST if max(picture.size) < CELL else Image.Resampling.LANCZOS
        row, column = divmod(number, across)
        tile = ImageOps.contain(picture, (CELL, CELL), way)
        sheet.paste(tile, (GAP + column * (CELL + GAP), top + row * (CELL + GAP)))
    return sheet


def write_grid(x: Tensor, path: Path, mark: Mark) -> None:
    """Write images (n, c, h, w) as one file, atomically: the live preview."""
    shown = [Image.fromarray(signal_of(row).array) for row in x]
    pictures.write(Signal("image", np.asarray(grid(shown))), path, mark)
