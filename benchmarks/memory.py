"""The heart at size: speed against attention, faiss and entmax, and how well each kind of memory recalls.

Speed: 64 cues against 100,000 x 256 random unit codes, each cue its code plus Gaussian noise of the same
power (cosine 0.7), at the critical beta of that many slots. All sides use the same number of threads and run
in turns. Recall quality and noise are in ``benchmarks.quality``.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from functools import partial
from pathlib import Path

import entmax
import faiss
import numpy as np
import torch

from benchmarks.common import Row, data_folder, medians, report, row
from benchmarks.quality import damaged_pixels, noisy_clip
from harmonia.memory import Centering, Given, HarmonicMemory, Matrix, Tsallis, attend

CUES, SIZE = 64, 256
THREADS = 2
unit = torch.nn.functional.normalize
attention = torch.nn.functional.scaled_dot_product_attention


def codes_and_cues(count: int, size: int, cues: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random unit codes, and noisy copies of the first few."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.empty(count, size)
    for first in range(0, count, 100_000):
        rows = torch.randn(min(100_000, count - first), size, generator=generator)
        codes[first : first + 100_000] = unit(rows, dim=-1)
    noise = torch.randn(cues, size, generator=generator) / size**0.5
    return codes, unit(codes[:cues] + noise, dim=-1)


def speed(count: int, repeats: int) -> list[Row]:
    """One step of recall against attention, matrix product + topk, and faiss."""
    codes, cues = codes_and_cues(count, SIZE, CUES)
    matrix = Matrix(codes, Centering(torch.zeros(SIZE), torch.eye(SIZE) / SIZE, torch.zeros(SIZE)))
    # Critical: chance gives cosines of 1 / sqrt(d), and beta is sqrt(2 ln N) in units of that.
    beta = (2 * np.log(count) * SIZE) ** 0.5
    index = faiss.IndexFlatIP(SIZE)
    index.add(codes.numpy())
    dense = partial(attention, cues[None, None], codes[None, None], codes[None, None])
    wanted = dense(scale=beta)[0, 0]
    for found in (attend(matrix, cues, beta), attend(matrix, cues, beta, k=16)):
        assert torch.allclose(found.codes, wanted, atol=1e-5)
    best = (cues @ codes.T).topk(128)
    ours = attend(matrix, cues, beta, k=128)
    assert torch.allclose(ours.scores, best.values, atol=1e-5)
    sparse = attend(matrix, cues, beta, entropy=Tsallis(1.5))
    one = entmax.entmax15(beta * cues @ codes.T, dim=-1) @ codes
    assert torch.allclose(sparse.codes, one, atol=1e-4)
    single = cues[:1]
    times = medians(
        [
            lambda: dense(scale=beta),
            lambda: attend(matrix, cues, beta, k=64),
            lambda: attend(matrix, cues, beta, k=16),
            lambda: (cues @ codes.T).topk(128),
            lambda: attend(matrix, cues, beta, entropy=Tsallis(1.5)),
            lambda: index.search(cues.numpy(), 128),
            lambda: attend(matrix, cues, beta, k=128),
            lambda: index.search(single.numpy(), 128),
            lambda: attend(matrix, single, beta, k=128),
            lambda: dense(scale=beta / 4),
            lambda: attend(matrix, cues, beta / 4, k=64),
        ],
        repeats,
    )
    sdpa, exact, top, product, entmaxed, flat, ours64, flat1, ours1, smooth, ours_smooth = (
        1e3 * t for t in times
    )
    large = count >= 100_000
    what = f"{CUES} cues, {count} x {SIZE}"

    def goal(sign: str, bound: float) -> tuple[str, float] | None:
        return (sign, bound) if large else None

    return [
        row(f"softmax step, exact, {what}", exact, "ms", "torch SDPA", sdpa, goal("<=", 1.0)),
        row(f"softmax step, best 16, certified, {what}", top, "ms", "torch SDPA", sdpa, goal("<=", 0.7)),
        row(f"softmax step, exact, beta / 4 (flat), {what}", ours_smooth, "ms", "torch SDPA", smooth),
        row(f"entmax 1.5 step, {what}", entmaxed, "ms", "product, topk(128)", product, goal("<=", 1.3)),
        row(f"softmax step and best 128, {what}", ours64, "ms", "faiss IndexFlatIP", flat, goal("<=", 0.25)),
        row(f"softmax step and best 128, 1 cue, {count} x {SIZE}", ours1, "ms", "faiss IndexFlatIP", flat1,
            goal("<=", 1.3)),
    ]  # fmt: skip


def sparse_argmax(count: int, repeats: int) -> list[Row]:
    """entmax 1.5 of long rows of random scores against the entmax package."""
    rows = []
    for spread in (1.0, 3.0):
        scores = spread * torch.randn(CUES, count, generator=torch.Generator().manual_seed(1))
        mine, peer = Tsallis(1.5).argmax(scores), entmax.entmax15(scores, dim=-1, k=100)
        assert torch.allclose(mine, peer, atol=1e-5)
        one, other = medians(
            [partial(Tsallis(1.5).argmax, scores), partial(entmax.entmax15, scores, dim=-1, k=100)], repeats
        )
        what = f"entmax 1.5 of {CUES} x {count}, scores of spread {spread:g}"
        goal = ("<=", 0.2) if count >= 100_000 else None
        rows.append(row(what, one * 1e3, "ms", "entmax package, k=100", other * 1e3, goal))
    return rows


def int8(count: int, repeats: int) -> list[Row]:
    """An int8 copy in RAM, the float32 codes in a file: one cue, and whether the best ten are the same."""
    size, asked = 512, 50
    codes, cues = codes_and_cues(count, size, asked)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "codes.npy"
        np.save(path, codes.numpy())
        full = HarmonicMemory({"a": codes}, centre=False)
        mapped = torch.from_numpy(np.load(path, mmap_mode="c"))
        small = HarmonicMemory({"a": mapped}, centre=False, precision="int8")
        ram = small.matrices["a"].nbytes / full.matrices["a"].nbytes
        agree = []
        for cue in cues:
            wanted, found = (m.recall([Given("a", cue[None])], steps=0).slots[0, :10] for m in (full, small))
            agree.append(float(torch.isin(found, wanted).float().mean()))
        one = [Given("a", cues[:1])]
        mine, peer = medians([lambda: small.recall(one, steps=0), lambda: full.recall(one, steps=0)], repeats)
    what = f"{count} x {size}, 1 cue, int8 in RAM, float32 in a file"
    large = count >= 10**6
    return [
        row(f"{what}: top-10 recall", sum(agree) / asked, "fraction", goal=(">=", 0.995)),
        row(
            f"{what}: one step",
            mine * 1e3,
            "ms",
            "float32 scan",
            peer * 1e3,
            ("<=", 1 / 3) if large else None,
        ),
        row(f"{what}: RAM", ram, "of float32"),
    ]


def main() -> None:
    """Run the protocol; --quick is small."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="20,000 codes, few memories")
    quick = parser.parse_args().quick
    data = data_folder()
    torch.set_num_threads(THREADS)
    faiss.omp_set_num_threads(THREADS)
    repeats = 3 if quick else 15
    rows = speed(20_000 if quick else 100_000, repeats)
    rows += sparse_argmax(20_000 if quick else 100_000, repeats)
    gc.collect()
    rows += int8(50_000 if quick else 1_000_000, repeats)
    gc.collect()
    rows += damaged_pixels(data, quick)
    rows += noisy_clip(data)
    report("memory", rows, quick)


if __name__ == "__main__":
    main()
