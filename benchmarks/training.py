"""What the training loop costs, and that it goes on exactly: against bare PyTorch, same towers and data.

The towers and photos are those of `harmonia.recipes.encoders.image_text`. The loop and a bare one run in
turns of 40
steps each, in one process, so that other load meets both; while the bare one runs, the loop makes its next
two batches ahead. Losses are compared in processes of their own, for their peak memory. "Killed" is SIGKILL
at a random moment of the run, ten times.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.common import REPOSITORY, Row, report, row
from benchmarks.crash_simulation import kill_and_resume
from harmonia.objectives import info_nce
from harmonia.recipes.encoders.image_text import ImageTextSettings, cmhn
from harmonia.recipes.run import Run
from harmonia.training import TrainConfig, fit
from harmonia.training.record_arrays import Pairs, Views

DIM = 512


def some(settings: ImageTextSettings, photos: int = 1024) -> Run:
    """The run of the recipe on the first photos."""
    run = cmhn(None, settings)
    parts = {}
    for name, view in run.dataset.parts.items():
        kept = view.record < photos
        parts[name] = Views(view.inputs[kept], view.record[kept])
    return replace(run, dataset=Pairs(parts, per_record={"image": 1, "text": settings.captions}))


def throughput(steps: int, turns: int) -> list[Row]:
    """Samples per second of ``fit`` and of a bare loop: the same model, batches and optimizer, in turns."""
    settings = ImageTextSettings(captions=2, steps=steps * turns, device="cpu")
    ours, bare = some(settings), some(settings)
    config, model, data = ours.config, bare.model, bare.dataset
    decayed = [p for p in model.groups()["alignment"] if p.ndim >= 2]
    rest = [p for p in model.groups()["alignment"] if p.ndim < 2]
    groups = [{"params": decayed}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay)
    draw = torch.Generator().manual_seed(0)

    def plain() -> float:
        begun = time.perf_counter()
        for _ in range(steps):
            indices = torch.randperm(len(data), generator=draw)[: config.batch]
            loss = model.losses(data.batch(indices, draw))["alignment"]
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return time.perf_counter() - begun

    taken: list[tuple[float, float]] = []
    clock = {"at": time.perf_counter()}

    def turn(_: torch.nn.Module, line: Mapping[str, float]) -> None:
        loop = time.perf_counter() - clock["at"]
        taken.append((loop, plain()))
        clock["at"] = time.perf_counter()

    timed = TrainConfig(**(vars(config) | {"log_every": steps, "save_every": steps * turns}))
    with tempfile.TemporaryDirectory() as folder:
        fit(ours.model, data, timed, folder, callbacks=[turn])
    samples = steps * config.batch
    loop, other = (statistics.median(t[i] for t in taken[1:]) for i in (0, 1))
    return [row("the loop", samples / loop, "samples/s", "bare PyTorch", samples / other, (">=", 0.97))]


def _ours(x: Tensor, y: Tensor) -> Tensor:
    return info_nce(x, y, 14.0)


def _chunked(x: Tensor, y: Tensor) -> Tensor:
    return info_nce(x, y, 14.0, chunk=512)


def _transformers(x: Tensor, y: Tensor) -> Tensor:
    from transformers.models.clip.modeling_clip import image_text_contrastive_loss

    loss: Tensor = image_text_contrastive_loss(14.0 * y @ x.T)
    return loss


def _plain(x: Tensor, y: Tensor) -> Tensor:
    scores, target = 14.0 * x @ y.T, torch.arange(len(x))
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "info_nce": _ours,
    "info_nce, chunks of 512": _chunked,
    "transformers' CLIP loss": _transformers,
    "plain InfoNCE": _plain,
}


def _peak() -> int:
    """KiB; ru_maxrss would be that of the parent process, which exec hands on."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def _measure(name: str, batch: int, answer: multiprocessing.Queue[tuple[float, float]]) -> None:
    torch.set_num_threads(1)
    x, y = (F.normalize(torch.randn(batch, DIM), dim=1).requires_grad_() for _ in range(2))
    loss = LOSSES[name]
    loss(x[:64], y[:64]).backward()
    before = _peak()
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        loss(x, y).backward()
        times.append(time.perf_counter() - begun)
    peak = _peak() - before
    answer.put((statistics.median(times), peak / 2**10))


def losses(batch: int) -> list[Row]:
    """Seconds and MiB of forward and backward of a batch, on one core."""
    context = multiprocessing.get_context("spawn")
    found = {}
    for name in LOSSES:
        answer = context.Queue()
        process = context.Process(target=_measure, args=(name, batch, answer))
        process.start()
        found[name] = answer.get()
        process.join()
    rows = []
    for name in list(LOSSES)[:2]:
        for peer in list(LOSSES)[2:]:
            for i, (what, unit) in enumerate((("time", "s"), ("peak memory", "MiB"))):
                goal = ("<=", 1.0) if (i == 0) == (name == "info_nce") else None
                value, other = found[name][i], found[peer][i]
                rows.append(row(f"{name}, batch {batch}: {what}", value, unit, peer, other, goal))
    return rows


def worker(folder: Path, steps: int) -> None:
    """A short run in ``folder``, as one process or as one of those of torchrun."""
    torch.set_num_threads(1)
    run = some(ImageTextSettings(size="tiny", captions=2, steps=steps, batch=64, device="cpu"), photos=256)
    config = TrainConfig(**(vars(run.config) | {"log_every": 1, "save_every": 5}))
    fit(run.model, run.dataset, config, folder)


def _command(folder: Path, steps: int) -> list[str]:
    return [sys.executable, "-m", "benchmarks.training", "--worker", str(folder), "--steps", str(steps)]


def killed(kills: int, steps: int, root: Path) -> list[Row]:
    """Whether a run that is killed again and again ends with the weights of an undisturbed one."""
    calm, struck = root / "calm", root / "struck"
    subprocess.run(_command(calm, steps), check=True, capture_output=True)
    hits = kill_and_resume(_command(struck, steps), struck, kills=kills, within=1.5)
    ends = [sorted(folder.rglob("weights.safetensors"))[-1] for folder in (calm, struck)]
    a, b = (load_file(end) for end in ends)
    same = a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    return [
        row(f"killed {hits} times: weights bit for bit those of a calm run", float(same), "0 or 1",
            goal=(">=", 1.0)),
        row("kills that struck", hits, "kills", goal=(">=", kills)),
    ]  # fmt: skip


def scaling(steps: int, root: Path) -> list[Row]:
    """Samples per second of one process and of two (gloo), one core each, at the same global batch."""
    rate = {}
    for count in (1, 2):
        folder = root / f"processes-{count}"
        tool = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "--standalone"]
        command = [*tool, "-m", *_command(folder, steps)[2:]]
        subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        rate[count] = statistics.median(line["samples/s"] for line in lines[5:] if "samples/s" in line)
    return [row("two processes", rate[2], "samples/s", "one process", rate[1])]


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for CI")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=60, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.steps)
        return
    quick = args.quick
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = throughput(*((2, 3) if quick else (40, 6)))
        rows += losses(512 if quick else 8192)
        rows += killed(*((1, 12) if quick else (10, 400)), root)
        rows += scaling(12 if quick else 60, root)
    report("training", rows, quick)


if __name__ == "__main__":
    main()
