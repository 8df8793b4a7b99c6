"""Histograms of oriented gradients."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EPS = 1e-5


def hog(grey: NDArray[np.float32], orientations: int = 6, cell: int = 8) -> NDArray[np.float32]:
    """Gradient histograms of a picture's cells, scaled as one block: ``(rows, columns, orientations)``.

    The descriptor of Dalal and Triggs (2005) with a single block of all cells and without smoothing in them:
    central differences, unsigned orientation, votes of the magnitude, and the norm L2-Hys (unit length, no
    value above 0.2, unit length again). Ravelled, the same numbers as skimage.feature.hog.

    Args:
        grey: (height, width) lightness, both multiples of ``cell``.
        orientations: of how many bins 180 degrees are made.
        cell: side of a cell in pixels.
    """
    down, right = np.zeros_like(grey), np.zeros_like(grey)
    down[1:-1] = grey[2:] - grey[:-2]
    right[:, 1:-1] = grey[:, 2:] - grey[:, :-2]
    angle = np.rad2deg(np.arctan2(down, right, dtype=np.float64)) % 180
    votes = np.hypot(down, right, dtype=np.float64)
    bins = (angle // (180 / orientations))[..., None] == np.arange(orientations)
    rows, columns = grey.shape[0] // cell, grey.shape[1] // cell
    cells = (votes[..., None] * bins).reshape(rows, cell, columns, cell, orientations).mean(axis=(1, 3))
    block = np.minimum(cells / np.sqrt((cells**2).sum() + EPS**2), 0.2)
    out: NDArray[np.float32] = (block / np.sqrt((block**2).sum() + EPS**2)).astype(np.float32)
    return out
