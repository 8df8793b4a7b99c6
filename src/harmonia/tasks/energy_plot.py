"""Plots of the energy around a recall: the cue, the path of its retrieval, and the nearest memories.

The plane holds the two directions in which the cue, the path of its settling and the memories near it
differ most. A point (a, b) of it is the vector  origin + a e_1 + b e_2  in code space, scaled onto the unit
sphere, and the energy drawn there is that of this code, with all slots in the sum. A memory is drawn where
it falls when projected onto the plane at right angles. It need not lie on the slice: ``nearness`` is its
cosine with the code drawn at its place, and where that is far below 1 its valley is deeper than it looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from harmonia.collection.collection import Memory
from harmonia.collection.matrices import given_by
from harmonia.memory import Given, HarmonicMemory
from harmonia.memory.diagnostics import Slots, read, slots_of
from harmonia.modalities import MODALITIES
from harmonia.tasks.report import record_name
from harmonia.types import Cue, HarmoniaError, Signal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

# Room left around the points, as a share of their extent.
MARGIN = 0.25
# A state that moves less than this has come to rest.
REST = 1e-4
# Number of memories in the plot, and of the letters of their names.
SHOWN, LETTERS = 8, 28
INCHES, DPI = (9.5, 7.5), 110
# Positions that a name may take, in points above its memory.
HEIGHTS = (13, -13, 26, -26, 39, -39, 52)
# Okabe and Ito's palette, safe for colour blindness, on a map from dark blue to yellow.
CUE, SETTLED = "#D55E00", "#CC79A7"
NOTE = (
    "The plane of the first two principal directions of these points. The colour is the energy of each\n"
    "point, projected onto the sphere. A memory is drawn smaller the farther it lies off this plane."
)


@dataclass(frozen=True, slots=True, eq=False)
class Landscape:
    """Energies ``(G, G)``, row by ``y`` (G,) and column by ``x`` (G,), and points ``(.., 2)`` of the plane.

    ``memories`` (K, 2) and ``path`` (T, 2), from the cue to where it settled, have the energies ``depth``
    (K,) and ``path_energy`` (T,) of the codes themselves, and ``nearness`` (K,), ``path_nearness`` (T,).
    """

    x: Tensor
    y: Tensor
    energy: Tensor
    memories: Tensor
    depth: Tensor
    nearness: Tensor
    path: Tensor
    path_energy: Tensor
    path_nearness: Tensor


def landscape(slots: Slots, near: Tensor, path: Tensor, *, beta: float, grid: int = 81) -> Landscape:
    """The slice around the codes ``near`` (K, d) and a ``path`` (T, d), for ``slots`` of one matrix.

    ``beta`` is in units of chance, and so is the energy, that of softmax:
    -(1/beta) log sum_n e^{beta s_n}, every part a slot of its own; the pull of the cue is
    not in it.
    """
    points = torch.cat([path, near])
    origin = points.mean(dim=0)
    axes = torch.linalg.svd(points - origin, full_matrices=False).Vh[:2]
    flat = (points - origin) @ axes.T
    x, y = _range(flat[:, 0], grid), _range(flat[:, 1], grid)
    plane = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).reshape(-1, 2)

    def code_at(place: Tensor) -> Tensor:
        return torch.nn.functional.normalize(origin + place @ axes, dim=-1)

    def energy(states: Tensor) -> Tensor:
        total = read(slots, [states]).logsumexp
        return -total / beta

    own, nearness, steps = energy(points), (code_at(flat) * points).sum(dim=-1), len(path)
    return Landscape(
        x=x, y=y, energy=energy(code_at(plane)).reshape(grid, grid),
        memories=flat[steps:], depth=own[steps:], nearness=nearness[steps:],
        path=flat[:steps], path_energy=own[:steps], path_nearness=nearness[:steps],
    )  # fmt: skip


def settling_path(slots: Slots, cue: Tensor, trust: float, *, steps: int = 8) -> Tensor:
    """The states ``(T, d)`` of one unit ``cue`` (d,) as it settles in one matrix, the cue first.

    A clamped cue (infinite ``trust``) does not move: its readout, scaled to unit length, comes second.
    """
    path = [cue]
    for _ in range(1 if math.isinf(trust) else steps):
        found = read(slots, [path[-1][None]])
        pull = found.means[0][0]
        if math.isfinite(trust):
            pull = pull + trust * cue
        path.append(torch.nn.functional.normalize(pull, dim=-1))
        if float((path[-1] - path[-2]).norm()) < REST:
            break
    return torch.stack(path)


def _range(values: Tensor, grid: int) -> Tensor:
    low, high = float(values.min()), float(values.max())
    margin = MARGIN * max(high - low, 0.1)
    return torch.linspace(low - margin, high + margin, grid, dtype=values.dtype, device=values.device)


def draw_landscape(
    collection: Memory, cues: Sequence[Cue], path: Path, *, beta: float | None = None, steps: int = 8
) -> None:
    """Plot the energy around the first of ``cues`` that can be compared with any record, to ``path``.

    The plot is of this cue alone, among all records and with softmax. ``beta`` and ``steps`` are those of the
    recall. HarmoniaError if there is nothing to plot, or ``path`` cannot be written as an image.
    """
    table, memory = collection.bound()
    if memory is None:
        raise HarmoniaError(f"the memory in {collection.root} is empty: remember something first")
    cue, given = _first(collection, memory, cues)
    memory = memory.snapshot(counts=False)
    settled = memory.recall([replace(given, weight=1.0, trust=math.inf)], k=SHOWN, beta=beta)
    code = settled.state[0][0]
    slots = slots_of(memory, [given.key])
    sharpness = beta or memory.beta(slots.records)
    chance = float(memory.chance(given.key, code))
    slots = replace(slots, betas=(sharpness / chance,))
    kept = [i for i, slot in enumerate(settled.slots[0, :SHOWN].tolist()) if slot >= 0]
    near = memory.matrices[given.key][settled.part[0][0, kept]]
    route = settling_path(slots, code, cue.trust, steps=steps)
    found = landscape(slots, near, route, beta=sharpness)
    records = collection.store.records([table.record_ids[slot] for slot in settled.slots[0, kept].tolist()])
    of = {e.name: e.modality for e in collection.encoders.encoders}[given.key]
    title = f"Energy around the {cue.name} cue, among {slots.records:,} records with {of}"
    found = Landscape(*(getattr(found, field.name).cpu() for field in fields(found)))
    pixels = _draw(found, [record_name(record) for record in records], title)
    MODALITIES["image"].write(Signal("image", pixels), path)


def _first(collection: Memory, memory: HarmonicMemory, cues: Sequence[Cue]) -> tuple[Cue, Given]:
    for cue in cues:
        given = given_by(collection.encoders, memory, cue) if cue.weight > 0 else []
        if given:
            return cue, given[0]
    raise HarmoniaError("no landscape to draw: no cue can be compared with any record")


def _draw(
    found: Landscape, names: Sequence[str], title: str
) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Draw the plot as RGB pixels (h, w, 3)."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise HarmoniaError(
            "a landscape needs the package matplotlib: pip install 'harmonia[plots]'"
        ) from None
    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    x, y, energy = found.x.numpy(), found.y.numpy(), found.energy.numpy()
    filled = axes.contourf(x, y, energy, levels=24, cmap="cividis")
    axes.contour(x, y, energy, levels=24, colors="white", linewidths=0.3, alpha=0.4)
    figure.colorbar(filled, ax=axes, shrink=0.8, label="energy in units of chance (dark: attracts)")
    _points(axes, found)
    axes.set_title(title, fontsize=13, loc="left")
    axes.set_xlabel(NOTE, fontsize=9, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    figure.legend(loc="outside lower left", ncols=3, fontsize=9, frameon=False)
    canvas.draw()
    _labels(canvas, axes, found, names)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _points(axes: Axes, found: Landscape) -> None:
    size = 20.0 + 160.0 * found.nearness.numpy().clip(0.0, 1.0) ** 4
    spots, route = found.memories.numpy(), found.path.numpy()
    axes.scatter(spots[:, 0], spots[:, 1], s=size, c="white", edgecolors="black", label="memory", zorder=3)
    for begin, end in pairwise(route):
        arrow = {"arrowstyle": "-|>", "color": CUE, "linewidth": 2.0, "shrinkA": 0, "shrinkB": 5}
        axes.annotate("", end, begin, arrowprops=arrow, zorder=4)
    for what, marker, colour, step in (("cue", "X", CUE, 0), ("settled", "P", SETTLED, len(route) - 1)):
        own, near = float(found.path_energy[step]), float(found.path_nearness[step])
        label = f"{what}: energy {own:.2f}, cosine with slice {near:.2f}"
        left, bottom = route[step]
        axes.scatter(left, bottom, s=110, marker=marker, c=colour, edgecolors="black", label=label, zorder=5)


def _labels(canvas: FigureCanvasAgg, axes: Axes, found: Landscape, names: Sequence[str]) -> None:
    """Write each name above its memory, or at the nearest height that overlaps no other name."""
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=2.5, foreground="black")]
    placed: list[Bbox] = []
    for spot, name in zip(found.memories.numpy(), names, strict=True):
        short = name if len(name) <= LETTERS else name[: LETTERS - 1] + "…"
        label = axes.annotate(
            short, spot, xytext=(0, HEIGHTS[0]), textcoords="offset points", ha="center", va="center",
            color="white", fontsize=10, path_effects=outline, zorder=6,
        )  # fmt: skip
        for height in HEIGHTS:
            label.set_position((0, height))
            box = label.get_window_extent(canvas.get_renderer())
            if not any(box.overlaps(other) for other in placed):
                break
        placed.append(box)
