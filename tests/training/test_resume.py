"""A run that is killed (SIGKILL) again and again ends as one that was left alone.

``python tests/training/test_resume.py FOLDER`` is the run that gets killed.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from harmonia.training import TrainConfig, checkpoint, fit

STEPS = 120


class Noisy:
    """Augmented samples."""

    def __len__(self) -> int:
        return 200

    def batch(self, indices: Tensor, generator: torch.Generator) -> Tensor:
        return indices[:, None] / 200 + torch.randn(len(indices), 32, generator=generator)


class Twins(nn.Module):
    """Two optimizer groups, dropout, and a buffer that moves."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.left = nn.Sequential(nn.Linear(32, 64), nn.BatchNorm1d(64), nn.Dropout(0.3), nn.Linear(64, 32))
        self.right = nn.Linear(32, 32)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"left": list(self.left.parameters()), "right": list(self.right.parameters())}

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        left, right = self.left(x), self.right(x)
        return {
            "left": (left - right).square().mean(),
            "right": (right - left).square().mean() + right.norm(),
        }


def run(folder: Path) -> None:
    config = TrainConfig(
        steps=STEPS, batch=20, lr=0.003, warmup=20, ema=0.95, accumulate=2, save_every=4, log_every=2,
        evaluate_every=25, device="cpu",
    )  # fmt: skip
    score = {"evaluate": lambda model: {"score": float(model.right.weight.norm())}}
    fit(Twins(), Noisy(), config, folder, **score)  # type: ignore[arg-type]


def end(folder: Path) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = checkpoint.latest(folder)
    assert last is not None and last.state["step"] == STEPS
    tensors = {f"{f}/{k}": v for f in ("weights", "average", "optimizer") for k, v in last.tensors(f).items()}
    return [{k: v for k, v in line.items() if k != "samples/s"} for line in lines], tensors


def test_killed_twice(tmp_path: Path) -> None:
    # imported here, since this file also runs as a script, which does not see benchmarks/
    from benchmarks.crash_simulation import kill_and_resume

    run(tmp_path / "whole")
    command = [sys.executable, __file__, str(tmp_path / "killed")]
    struck = kill_and_resume(command, tmp_path / "killed", kills=2, within=0.25, seed=0)
    assert struck == 2
    (lines, tensors), (lines_killed, tensors_killed) = end(tmp_path / "whole"), end(tmp_path / "killed")
    assert lines == lines_killed
    assert tensors.keys() == tensors_killed.keys()
    assert all(torch.equal(tensors[name], tensors_killed[name]) for name in tensors)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    run(Path(sys.argv[1]))
