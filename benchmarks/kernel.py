"""What a memory of constant size costs and gives: random features against the exact scan.

Real codes: CLIP vectors of photos and pixels of MNIST, each centred and made unit. (a) the error of the
kernel sum against N and Y; (b) how many features sharp recall needs; (c) time and RAM of a query; (d) where
they may be worth it: the smooth energy at low beta, and novelty; (e) insertion. Writes docs/kernels.png.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np
import torch

from benchmarks.common import REPOSITORY, Row, data_folder, medians, report, row
from harmonia.memory import attend
from harmonia.memory.random_features import KernelMemory, draw_frequencies

matplotlib.use("Agg")
from matplotlib import pyplot

unit = torch.nn.functional.normalize
Curve = tuple[str, list[float], list[float]]


def codes_of(data: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Centred unit codes ``(n, d)`` of photos and of digits, and the digits' labels."""
    clip = torch.from_numpy(np.load(data / "flickr8k/clip_vitb32_images.npz")["image_emb"].astype(np.float32))
    mnist = np.load(data / "mnist/digits.npz")
    digits = torch.from_numpy(mnist["x"].astype(np.float32)).flatten(1)
    order = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))
    centred = [unit(c - c.mean(0), dim=-1) for c in (clip, digits[order])]
    return centred[0], centred[1], torch.from_numpy(mnist["y"])[order]


def filled(codes: torch.Tensor, count: int, beta: float, seed: int = 0, **options: str) -> KernelMemory:
    """A kernel memory of all the codes, with ``count`` frequencies."""
    memory = KernelMemory(draw_frequencies(codes.shape[1], count, seed=seed), beta, **options)  # type: ignore[arg-type]
    memory.insert(codes)
    return memory


def exact_sum(codes: torch.Tensor, at: torch.Tensor, beta: float) -> torch.Tensor:
    """sum_n exp(-beta |x_n - g|^2 / 2), float64."""
    return torch.exp(beta * (at.double() @ codes.double().T - 1)).sum(-1)


def damaged(codes: torch.Tensor, noise: float, seed: int) -> torch.Tensor:
    """Codes with Gaussian noise, of cosine about 1 / sqrt(1 + noise)."""
    drawn = torch.randn(codes.shape, generator=torch.Generator().manual_seed(seed)) / codes.shape[1] ** 0.5
    return unit(codes + noise**0.5 * drawn, dim=-1)


def errors(
    codes: torch.Tensor, counts: Sequence[int], features: Sequence[int]
) -> tuple[list[Row], list[Curve]]:
    """(a) Root mean square error of the sum, far from all codes, and sqrt(N / 2Y)."""
    rows, curves, beta = [], [], 60.0
    for y in features:
        measured = []
        for n in counts:
            held = codes[:n]
            away = unit(torch.randn(200, codes.shape[1], generator=torch.Generator().manual_seed(n)), dim=-1)
            square = [
                (filled(held, y, beta, seed).kernel_sum(away).double() - exact_sum(held, away, beta))
                .square()
                .mean()
                for seed in range(3)
            ]
            found, law = math.sqrt(float(torch.stack(square).mean())), math.sqrt(n / (2 * y))
            measured.append(found)
            rows.append(
                row(f"error of the kernel sum, N = {n}, Y = {y}", found, "of one kernel", "sqrt(N / 2Y)", law)
            )
        curves.append((f"Y = {y}", list(map(float, counts)), measured))
    ratios = [r["ratio"] for r in rows]
    spread = max(max(ratios), 1 / min(ratios))
    # Real codes are not strangers to each other: |T| is above sqrt(N) where they crowd.
    rows.append(row("greatest factor between error and law", spread, "times", goal=("<=", 2.0)))
    return rows, curves


def sharp(codes: torch.Tensor, ratios: Sequence[int]) -> tuple[list[Row], list[Curve]]:
    """(b) Cues of cosine 0.95 among 200 codes: the mean cosine they settle at, against features per code."""
    rows, curves, n = [], [], 200
    held, cues = codes[:n], damaged(codes[:100], 0.1, n)
    for beta in (20.0, 60.0):
        exact = unit(attend(held, cues, beta, k=1).codes, dim=-1)
        best = float((exact * codes[:100]).sum(-1).mean())
        found = []
        for ratio in ratios:
            settled = filled(held, ratio * n, beta).descend(cues, steps=30).codes
            found.append(float((settled * codes[:100]).sum(-1).mean()))
            what = f"sharp recall, N = {n}, beta {beta:g}, Y = {ratio} N"
            rows.append(row(what, found[-1], "cosine", "exact step", best))
        curves.append((f"beta = {beta:g} (exact {best:.2f})", list(map(float, ratios)), found))
    return rows, curves


def speed(
    codes: torch.Tensor, counts: Sequence[int], features: int, repeats: int
) -> tuple[list[Row], list[Curve]]:
    """(c) One query of 64 cues: constant for features, O(N) for the scan; and bytes."""
    rows, exact_times, kernel_times, beta = [], [], [], 2.0
    cues = codes[:64]
    generator = torch.Generator().manual_seed(1)
    for n in counts:
        held = unit(torch.randn(n, codes.shape[1], generator=generator), dim=-1)
        memory = filled(held, features, beta)
        scan, kernel = medians(
            [partial(attend, held, cues, beta, k=1), partial(memory.energy, cues)], repeats
        )
        exact_times.append(scan * 1e3)
        kernel_times.append(kernel * 1e3)
        what = f"64 cues, N = {n} x {codes.shape[1]}, Y = {features}"
        rows.append(row(f"{what}: time", kernel * 1e3, "ms", "exact attention", scan * 1e3))
        kept = memory.nbytes + memory.frequencies.nbytes
        rows.append(
            row(f"{what}: RAM, frequencies included", kept / 2**20, "MiB", "codes", held.nbytes / 2**20)
        )
    sizes = list(map(float, counts))
    return rows, [("exact scan", sizes, exact_times), (f"Y = {features}", sizes, kernel_times)]


def smooth(
    name: str, held: torch.Tensor, seen: torch.Tensor, strangers: torch.Tensor, features: Sequence[int]
) -> tuple[list[Row], list[Curve]]:
    """(d) Energy and novelty: can codes ``seen`` be told from ``strangers`` by the energy of ``held``?"""
    rows, curves, both = [], [], torch.cat([seen, strangers])
    for beta in (2.0, 10.0, 40.0):
        exact = exact_sum(held, both, beta).log()
        ceiling = auroc(exact[: len(seen)], exact[len(seen) :])
        found = []
        for y in features:
            energy = -filled(held, y, beta).energy(both).double() * beta
            found.append(auroc(energy[: len(seen)], energy[len(seen) :]))
            off = float((energy - exact).abs().median())
            rows.append(row(f"{name}, beta {beta:g}, Y = {y}: error of log sum", off, "nats"))
            rows.append(row(f"{name}, beta {beta:g}, Y = {y}: AUROC", found[-1], "", "exact", ceiling))
        curves.append((f"{name}, beta {beta:g} (exact {ceiling:.2f})", list(map(float, features)), found))
    return rows, curves


def auroc(positive: torch.Tensor, negative: torch.Tensor) -> float:
    """The share of pairs in the right order; ties count half, so an energy at its floor is chance."""
    above, level = positive[:, None] > negative[None], positive[:, None] == negative[None]
    return float((above.double() + 0.5 * level.double()).mean())


def editing(codes: torch.Tensor, features: int, repeats: int) -> list[Row]:
    """(e) One insertion, whatever is held."""
    rows = []
    for n in (100, 1000):
        memory = filled(codes[:n], features, 2.0)
        (taken,) = medians([partial(memory.insert, codes[:1])], repeats)
        rows.append(row(f"insert one code, N = {n}, Y = {features}", taken * 1e3, "ms"))
    return rows


def draw(panels: Sequence[tuple[str, str, str, list[Curve], bool]], path: Path) -> None:
    """Four panels: title, x label, y label, curves, logarithmic y."""
    figure, axes = pyplot.subplots(2, 2, figsize=(10, 7.5), layout="constrained")
    for axis, (title, across, up, curves, logarithmic) in zip(axes.flat, panels, strict=True):
        for label, x, y in curves:
            axis.plot(x, y, marker="o", label=label)
        axis.set(
            title=title, xlabel=across, ylabel=up, xscale="log", yscale="log" if logarithmic else "linear"
        )
        axis.grid(alpha=0.3)
        if not logarithmic:
            low, high = axis.get_ylim()
            axis.set_ylim(low, high + 0.6 * (high - low))
        axis.legend(fontsize=8)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Run the protocol; --quick is small and draws nothing."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer codes and features")
    quick = parser.parse_args().quick
    torch.set_num_threads(2)
    clip, digits, label = codes_of(data_folder())
    repeats = 3 if quick else 9
    many = (256,) if quick else (64, 256, 1024, 4096, 16_384)
    a, errors_drawn = errors(
        clip, (64, 256) if quick else (16, 64, 256, 1000), (256,) if quick else (256, 2048)
    )
    b, sharp_drawn = sharp(digits, (1, 16) if quick else (1, 4, 16, 64, 128))
    c, speed_drawn = speed(digits, (1000, 10_000) if quick else (1000, 10_000, 100_000), 4096, repeats)
    low, high = digits[label < 5], digits[label >= 5]
    d, kinds = smooth("new digits 0-4 or 5-9", low[:2000], low[2000:2500], high[:500], many)
    same, same_drawn = smooth(
        "noisy held photo or another", clip[:800], damaged(clip[:200], 0.3, 5), clip[800:], many
    )
    d += same
    smooth_drawn = [*kinds[:2], *same_drawn[1:]]
    rows = a + b + c + d + editing(clip, 4096, repeats)
    # The picture after the results, which name the commit and whether anything differs from it.
    report("kernel", rows, quick)
    if not quick:
        law = [("sqrt(N / 2Y), Y = 256", [16.0, 1000.0], [math.sqrt(16 / 512), math.sqrt(1000 / 512)])]
        panels = [
            ("Error of the kernel sum", "memories N", "rms error (one kernel = 1)", errors_drawn + law, True),
            (
                "Sharp recall (200 digits)",
                "features per memory Y/N",
                "mean cosine (the cue: 0.95)",
                sharp_drawn,
                False,
            ),
            ("Time of 64 cues", "memories N", "ms", speed_drawn, True),
            ("Novelty: of a kind, of one", "features Y", "AUROC", smooth_drawn, False),
        ]
        draw(panels, REPOSITORY / "docs/kernels.png")


if __name__ == "__main__":
    main()
