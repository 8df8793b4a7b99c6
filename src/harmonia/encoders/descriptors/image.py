"""A training-free image code: colour layout at two zooms, colour histogram, gradient histogram.

Everything is computed after averaging the picture down to 64 x 64, which removes most pixel noise,
and bands that show nothing (black bars, a covered half) are left out, so that a damaged photo still
finds the whole one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harmonia.encoders.base import scaled, unit
from harmonia.encoders.descriptors.hog import hog
from harmonia.types import HarmoniaError, Signal

Array = NDArray[np.float32]

SIDE, CELLS = 64, 16
CENTRE = (12, 12, 52, 52)  # the middle 62 % of SIDE: what a crop keeps
CENTRE_CELLS = (3 + (np.arange(CELLS) + 0.5) * 10 / CELLS).astype(int)
CHROMA_BINS = np.linspace(-50, 50, 5, dtype=np.float32)
APPEARANCE = CELLS**2 + 2 * (CELLS // 2) ** 2 + len(CHROMA_BINS) ** 2  # colours come first
GRADIENTS = 6 * 4 * 4
XYZ_OF_RGB = np.array(
    [[0.412453, 0.212671, 0.019334], [0.357580, 0.715160, 0.119193], [0.180423, 0.072169, 0.950227]],
    np.float32,
)  # rows for red, green and blue; D65 is white
WHITE = np.array([0.95047, 1.0, 1.08883], np.float32)

# Chosen on 1,000 Flickr8k photos: recall under noise and occlusion falls as any of these grows,
# recall under cropping falls as they shrink.
WEIGHT_CHROMA, WEIGHT_CENTRE, WEIGHT_HISTOGRAM, WEIGHT_GRADIENTS = 0.7, 0.7, 0.5, 0.5


class ImageDescriptor:
    """Hand-made image codes, ``dim`` 505. The same pixels give the same code on any machine (to rounding)."""

    name = "descriptor-image-1"
    modality = "image"
    space = "descriptor-image-1"
    dim = APPEARANCE + GRADIENTS

    def encode(self, signals: Sequence[Signal]) -> Array:
        """Codes of images (uint8 RGB of any size), float32 ``(n, 505)``, rows of unit norm."""
        rows = [describe(signal.array) for signal in signals]
        return unit(np.asarray(rows, dtype=np.float32).reshape(len(rows), self.dim))


def describe(pixels: NDArray[np.uint8]) -> Array:
    """The descriptor of one uint8 ``(height, width, 3)`` picture, not yet of unit norm."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise HarmoniaError(
            f"an image must be uint8 (height, width, 3), got {pixels.dtype} {pixels.shape}; "
            "read the file with harmonia.modalities.image"
        )
    box = Image.Resampling.BOX
    small = Image.fromarray(pixels).resize((SIDE, SIDE), box)
    shown = ~blank_cells(np.asarray(small, dtype=np.float32) / np.float32(255))
    whole = _lab(small.resize((CELLS, CELLS), box))
    centre = _lab(small.resize((CELLS, CELLS), box, box=CENTRE))
    shown_centre = shown[np.ix_(CENTRE_CELLS, CENTRE_CELLS)]
    # Whole and centre share coordinates, so that a cropped photo, whose whole is this centre,
    # still has a clear cosine with the photo it was cut from.
    layout = _layout(whole, shown) + WEIGHT_CENTRE * _layout(centre, shown_centre)
    grey = np.asarray(small.convert("L").reduce(2), dtype=np.float32) / np.float32(255)
    gradients = hog(grey).ravel()
    return np.concatenate(
        [
            scaled(layout),
            WEIGHT_HISTOGRAM * scaled(_chroma_histogram(whole[shown])),
            WEIGHT_GRADIENTS * scaled(gradients),
        ]
    )


def blank_cells(small: Array) -> NDArray[np.bool_]:
    """Which of the 16 x 16 cells lie in a band at the border that shows nothing.

    A row or column of cells is blank when its cells differ by no more than pixel noise explains
    (an F-test of the spread between cells against that within them) and it is as dark as the darker
    half of the picture. Only blank rows and columns that reach the border count.
    """
    pixels = SIDE // CELLS
    cells = small.mean(axis=2).reshape(CELLS, pixels, CELLS, pixels)
    level = cells.mean(axis=(1, 3))
    noise = cells.var(axis=(1, 3)) / pixels**2
    dark = np.quantile(level, 0.45)
    blank = np.zeros((CELLS, CELLS), dtype=bool)
    for level_, noise_, blank_ in ((level, noise, blank), (level.T, noise.T, blank.T)):
        flat = level_.var(axis=1, ddof=1) < 3 * noise_.mean(axis=1) + 1e-5
        empty = flat & (level_.mean(axis=1) <= dark)
        blank_ |= (np.logical_and.accumulate(empty) | np.logical_and.accumulate(empty[::-1])[::-1])[:, None]
    return blank if not blank.all() else np.zeros_like(blank)


def _lab(cells: Image.Image) -> Array:
    """CIE L*a*b* under D65 divided by 100, by the formulas of IEC 61966-2-1 and CIE 15."""
    rgb = np.asarray(cells, dtype=np.float32) / np.float32(255)
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = linear @ XYZ_OF_RGB / WHITE
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    lab: Array = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(
        np.float32
    ) / np.float32(100)
    return lab


def _layout(lab: Array, shown: NDArray[np.bool_]) -> Array:
    """Lightness of 16 x 16 and chroma of 8 x 8 cells, each quarter centred and scaled by itself."""
    weight = shown[..., None].astype(np.float32)
    coarse = (2, CELLS // 2, 2)
    sums = (lab * weight).reshape(CELLS // 2, *coarse, -1).sum(axis=(1, 3))
    counts = weight.reshape(CELLS // 2, *coarse, 1).sum(axis=(1, 3))
    chroma = (sums / np.maximum(counts, 1))[..., 1:]
    quarters = [
        _quarters(lab[..., :1], weight).ravel(),
        WEIGHT_CHROMA * _quarters(chroma, (counts >= 2).astype(np.float32)).ravel(),
    ]
    return scaled(np.concatenate(quarters))


def _quarters(cells: Array, weight: Array) -> Array:
    """The four quarters as rows, their weighted mean removed, their contrast brought close to 1."""
    half = cells.shape[0] // 2

    def split(grid: Array) -> Array:
        return grid.reshape(2, half, 2, half, -1).swapaxes(1, 2).reshape(4, half * half, -1)

    rows, kept = split(cells), split(weight)
    mean = (rows * kept).sum(axis=1, keepdims=True) / np.maximum(kept.sum(axis=1, keepdims=True), 1)
    rows = ((rows - mean) * kept).reshape(4, -1)
    out: Array = rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 0.1)
    return out


def _chroma_histogram(lab: Array) -> Array:
    """Square root of the soft joint histogram of a* and b*, ``(25,)``."""
    soft = np.exp(-0.5 * ((100 * lab[:, 1:, None] - CHROMA_BINS) / 20) ** 2)
    soft /= soft.sum(axis=2, keepdims=True)
    out: Array = np.sqrt(soft[:, 0].T @ soft[:, 1] / len(lab)).ravel()
    return out
