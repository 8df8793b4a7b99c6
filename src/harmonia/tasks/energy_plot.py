"""Plots of the energy around a recall: the cue, the path of its retrieval, and the nearest memories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harmonia.collection.collection import Memory
from harmonia.collection.matrices import given_by
from harmonia.memory import Given, HarmonicMemory
from harmonia.memory.diagnostics import slots_of
from harmonia.memory.energy_slice import Landscape, landscape, settling_path
from harmonia.modalities import MODALITIES
from harmonia.tasks.report import record_name
from harmonia.types import Cue, HarmoniaError, Signal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

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
    # The level of the null slot follows from its probability at the cue.
    nothing = float(settled.nothing[0])
    null = math.log(nothing) / sharpness - float(settled.energies[0, 0]) if nothing > 0 else None
    chance = float(memory.chance(given.key, code))
    slots = replace(slots, betas=(sharpness / chance,))
    kept = [i for i, slot in enumerate(settled.slots[0, :SHOWN].tolist()) if slot >= 0]
    near = memory.matrices[given.key][settled.part[0][0, kept]]
    route = settling_path(slots, code, cue.trust, beta=sharpness, null=null, steps=steps)
    found = landscape(slots, near, route, beta=sharpness, null=null)
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
