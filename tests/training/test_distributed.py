"""Two processes (gloo, by torchrun) compute what one computes.

``torchrun --nproc-per-node 2 tests/training/test_distributed.py FOLDER`` is what the test starts.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from harmonia.objectives.global_batch import gather
from harmonia.training import Result, Stopped, TrainConfig, fit, load_weights

CONFIG = TrainConfig(steps=8, batch=16, lr=0.01, warmup=2, save_every=4, log_every=1, device="cpu", ema=0.9)


class Pairs:
    """Two views of 48 things; the second is missing for some."""

    def __init__(self) -> None:
        draws = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(2, 48, 12, generator=draws)

    def __len__(self) -> int:
        return 48

    def batch(self, indices: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        return {"x": self.x[indices], "y": self.y[indices]}


class Contrast(nn.Module):
    """CLIP's loss over the global batch; one tower is not used by any loss of the first steps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.x, self.y = (nn.ModuleList([nn.Linear(12, 24), nn.Linear(24, 8)]) for _ in range(2))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.late = nn.Linear(12, 8)
        self.register_buffer("calls", torch.tensor(0))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"all": list(self.parameters())}

    def embed(self, tower: nn.ModuleList, x: Tensor) -> Tensor:
        for layer in tower:
            x = layer(x).tanh()
        return nn.functional.normalize(x, dim=-1)

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        self.calls += 1
        x, y = gather(self.embed(self.x, batch["x"])), gather(self.embed(self.y, batch["y"]))
        scores = self.scale.exp() * x @ y.T
        target = torch.arange(len(x))
        loss = nn.functional.cross_entropy(scores, target) + nn.functional.cross_entropy(scores.T, target)
        if self.calls > 3:
            loss = loss + self.late(batch["x"]).square().mean()
        return {"all": loss}


class Adversaries(nn.Module):
    """Two groups; the maker's second layer has a gradient on the main process only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.maker, self.judge = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12)), nn.Linear(12, 1)
        self.unused = nn.Parameter(torch.ones(3, 3))

    def groups(self) -> dict[str, list[nn.Parameter]]:
        return {"maker": [*self.maker.parameters(), self.unused], "judge": list(self.judge.parameters())}

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        made, real = self.judge(self.maker(batch["x"])), self.judge(batch["y"])
        return {"maker": -made.mean(), "judge": made.sigmoid().mean() - real.sigmoid().mean()}


class Sometimes(Adversaries):
    """A part of the network that only the main process's samples pass through."""

    def losses(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        losses = super().losses(batch)
        if not dist.is_initialized() or dist.get_rank() == 0:
            first = batch["x"][:8] if not dist.is_initialized() else batch["x"]
            losses["maker"] = losses["maker"] + self.unused.sum() * first.mean() / (
                1 + (not dist.is_initialized())
            )
        return losses


def score(model: nn.Module) -> dict[str, float]:
    return {"score": float(sum(p.sum() for p in model.parameters()))}


CASES: dict[str, tuple[type[nn.Module], TrainConfig]] = {
    "contrast": (Contrast, CONFIG),
    "accumulated": (Contrast, dataclasses.replace(CONFIG, accumulate=2)),
    "adversaries": (Adversaries, CONFIG),
    "sometimes": (Sometimes, CONFIG),
    "sharded": (Contrast, dataclasses.replace(CONFIG, shard=True)),
    "stopped": (Contrast, CONFIG),
    "sharded-stopped": (Contrast, dataclasses.replace(CONFIG, shard=True)),
}


def stop(model: nn.Module, line: dict[str, float]) -> None:
    """One process alone hears the signal."""
    if line["step"] == 5 and dist.get_rank() == 1:
        os.kill(os.getpid(), 15)


def start(folder: Path, case: str) -> Result | None:
    make, config = CASES[case]
    if not case.endswith("stopped"):
        return fit(make(), Pairs(), config, folder / case, evaluate=None if config.shard else score)
    try:
        fit(make(), Pairs(), config, folder / case, callbacks=[stop])
    except Stopped:
        return None
    raise AssertionError("the signal was not heard")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("distributed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*command, __file__, str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def losses(folder: Path) -> dict[str, list[float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 1 + len(lines)))
    names = [name for name in lines[0] if name.startswith("loss")]
    return {name: [line[name] for line in lines] for name in names}


@pytest.mark.parametrize("case", [case for case in CASES if not case.endswith("stopped")])
def test_two_processes_are_one(folder: Path, tmp_path: Path, case: str) -> None:
    make, config = CASES[case]
    alone = make()
    fit(alone, Pairs(), dataclasses.replace(config, shard=False), tmp_path)
    one, two = losses(tmp_path), losses(folder / case)
    assert one.keys() == two.keys()
    for name in one:
        assert len(one[name]) == 8 and one[name][0] != one[name][-1]
        assert two[name] == pytest.approx(one[name], rel=2e-4, abs=1e-6)
    load_weights(together := make(), folder / case)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", ["stopped", "sharded-stopped"])
def test_one_process_goes_on_where_two_stopped(folder: Path, case: str) -> None:
    result = fit(Contrast(), Pairs(), CONFIG, folder / case)
    assert result.step == 8
    assert losses(folder / case)["loss"] == pytest.approx(losses(folder / "contrast")["loss"], rel=2e-4)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    for name in CASES:
        start(Path(sys.argv[1]), name)
    dist.destroy_process_group()
