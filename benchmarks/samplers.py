"""Samplers against diffusers' schedulers: same network, noise and times; and how near they come in few steps.

"Output" is the largest difference, in float32, of what the network sees at any step, or of the end, over the
largest value there. "Overhead" is the time of a step without the network: `scale_model_input` and `step` in a
diffusers pipeline's loop, and ours with the conversion of the network's output; one image of 28 x 28, the
schedule set anew for every run. "Spread" is the standard deviation of samples of N(0, 0.35^2) with the exact
score, over 0.35. "Guided" samples are of the right one of two such classes, at -0.5 and 0.5.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.common import Row, medians, report, row
from harmonia.generators.diffusion.guidance import classifier_free
from harmonia.generators.diffusion.paths import (
    EDM,
    PATHS,
    CondOT,
    GaussianPath,
    Prediction,
    VPLinear,
    prediction,
)
from harmonia.generators.diffusion.samplers import (
    DDIM,
    SAMPLERS,
    Ancestral,
    DPMSolverPP2M,
    Euler,
    Heun,
    Sampler,
)

SD = 0.35


@dataclass(frozen=True, slots=True)
class Pair:
    """Our sampler and theirs. ``goal``: whether the overhead of this one has one."""

    name: str
    scheduler: str
    settings: dict[str, Any]
    sampler: Sampler
    path: GaussianPath
    kind: str
    goal: bool = True


class Theirs(CondOT):
    """Even times down to 1/1000, then 0: those of FlowMatchHeunDiscreteScheduler."""

    def times(self, steps: int, start: float = 1.0) -> Tensor:
        """float64 (steps + 1,)."""
        return torch.cat([torch.linspace(start, 0.001, steps, dtype=torch.float64), torch.zeros(1)])


CHAIN = {"timestep_spacing": "trailing"}
PLAIN = CHAIN | {"clip_sample": False}
V = {"prediction_type": "v_prediction"}
PAIRS = (
    Pair("DDPM", "DDPMScheduler", PLAIN | V, Ancestral(), VPLinear(), "v"),
    Pair("DDIM", "DDIMScheduler", PLAIN | V, DDIM(), VPLinear(), "v"),
    Pair("DPM-Solver++(2M)", "DPMSolverMultistepScheduler", CHAIN | V, DPMSolverPP2M(), VPLinear(), "v"),
    Pair("Euler, EDM", "EDMEulerScheduler", V, Euler(), EDM(), "v"),
    Pair("DPM-Solver++(2M), EDM", "EDMDPMSolverMultistepScheduler", V, DPMSolverPP2M(), EDM(), "v"),
    Pair("Heun, flow", "FlowMatchHeunDiscreteScheduler", {}, Heun(), Theirs(), "velocity"),
    # theirs is two tensor operations and no conversion: nothing is left to save
    Pair("Euler, flow", "FlowMatchEulerDiscreteScheduler", {}, Euler(), CondOT(), "velocity", goal=False),
)


SCALED = Pair("Euler", "EulerDiscreteScheduler", CHAIN | V, Euler(), VPLinear(), "v")
"""Compared in time only: theirs keeps the samples at another scale."""


def scheduler_of(pair: Pair, steps: int) -> Any:
    """Theirs, its times set."""
    import diffusers

    scheduler = getattr(diffusers, pair.scheduler)(**pair.settings)
    _set(scheduler, pair, steps)
    return scheduler


def _set(scheduler: Any, pair: Pair, steps: int) -> None:
    if pair.name == "Euler, flow":
        scheduler.set_timesteps(sigmas=pair.path.times(steps)[:-1].tolist())
    else:
        scheduler.set_timesteps(steps)


def _step(scheduler: Any, output: Tensor, t: Tensor, x: Tensor, **options: Any) -> Tensor:
    """What a pipeline calls in a step; the network here is told x itself."""
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(x, t)
    after: Tensor = scheduler.step(output, t, x, return_dict=False, **options)[0]
    return after


def network() -> Callable[[Tensor], Tensor]:
    """A small convolutional one, with weights of no training."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.SiLU(), nn.Conv2d(8, 1, 3, padding=1))
    return lambda x: net(x / x.std())


def outputs(pair: Pair, steps: int, noise: Tensor) -> list[Row]:
    """Largest difference over all steps."""
    net = network()
    seen: list[Tensor] = []

    def predict(x: Tensor, t: Tensor) -> Prediction:
        seen.append(x)
        return prediction(pair.kind, pair.path, net(x), x, t)

    end = pair.sampler.run(predict, pair.path, noise, steps, generator=torch.Generator().manual_seed(1))
    scheduler, x, others = scheduler_of(pair, steps), noise, []
    if isinstance(pair.path, EDM):
        x = noise / pair.path.scale(torch.tensor(1.0))
    draw = {"generator": torch.Generator().manual_seed(1)}
    for t in scheduler.timesteps:
        others.append(x)
        x = _step(scheduler, net(x), t, x, **(draw if pair.name == "DDPM" else {}))
    both = zip([*seen, end], [*others, x], strict=True)
    worst = max(float((a - b).abs().max() / b.abs().max().clamp_min(1)) for a, b in both)
    return [row(f"{pair.name}, {steps} steps: output", 1e6 * worst, "millionths", goal=("<=", 100))]


def overhead(pair: Pair, steps: int, noise: Tensor, repeats: int) -> list[Row]:
    """Microseconds of a step without the network."""
    output = torch.randn_like(noise) * 0.1
    scheduler = scheduler_of(pair, steps)

    def ours() -> None:
        pair.sampler.run(lambda x, t: prediction(pair.kind, pair.path, output, x, t), pair.path, noise, steps)

    def theirs() -> None:
        _set(scheduler, pair, steps)
        x = noise
        for t in scheduler.timesteps:
            x = _step(scheduler, output, t, x)

    mine, other = (1e6 * seconds / steps for seconds in medians([ours, theirs], repeats))
    goal = ("<=", 0.5) if pair.goal else None
    return [row(f"{pair.name}: overhead", mine, "us/step", f"diffusers {pair.scheduler}", other, goal)]


def spread(name: str, path: GaussianPath, kind: str, steps: int) -> float:
    """Exact where the sampler is deterministic: the score is linear, so one sample tells."""

    def predict(x: Tensor, t: Tensor) -> Prediction:
        p = path.at(float(t))
        score = x / (p.alpha**2 * SD**2 + p.sigma**2)
        return Prediction(p.alpha * SD**2 * score, p.sigma * score)

    noise = torch.ones(1, 1, dtype=torch.float64)
    if kind == "ancestral":
        noise = torch.randn(100_000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = SAMPLERS[kind].run(predict, path, noise, steps, generator=torch.Generator().manual_seed(1))
    return float(x.square().mean().sqrt() / noise.square().mean().sqrt()) / SD


def spreads(counts: tuple[int, ...]) -> list[Row]:
    """One row for each path, sampler and number of steps."""
    rows = []
    for name, path in PATHS.items():
        path = EDM(sigma_data=SD) if name == "edm" else path
        for kind in SAMPLERS:
            for steps in counts:
                value = spread(name, path, kind, steps)
                rows.append(row(f"{name}, {kind}, {steps} steps: spread", value, "of 1"))
    return rows


def guided(scales: tuple[float, ...], counts: tuple[int, ...]) -> list[Row]:
    """Mean and spread of a class under classifier-free guidance, quantiles of noise for random numbers."""
    path, means = CondOT(), torch.tensor([-0.5, 0.5], dtype=torch.float64)
    noise = torch.special.ndtri((torch.arange(2001, dtype=torch.float64) + 0.5) / 2001)[:, None]

    def predict(x: Tensor, t: Tensor, scale: float) -> Prediction:
        p = path.at(float(t))
        variance = p.alpha**2 * SD**2 + p.sigma**2
        off = x - p.alpha * means
        x0, eps = means + p.alpha * SD**2 * off / variance, p.sigma * off / variance
        share = (-(off**2) / (2 * variance)).softmax(1)
        null = Prediction((share * x0).sum(1, keepdim=True), (share * eps).sum(1, keepdim=True))
        return classifier_free(Prediction(x0[:, 1:], eps[:, 1:]), null, scale)

    rows = []
    for scale in scales:
        for steps in counts:
            x = Heun().run(lambda x, t, s=scale: predict(x, t, s), path, noise, steps)  # type: ignore[misc]
            name = f"cond-ot, heun, {steps} steps, guidance {scale:g}"
            rows.append(row(f"{name}: mean", float(x.mean()), "of 0.5"))
            rows.append(row(f"{name}: spread", float(x.std()) / SD, "of 1"))
    return rows


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, for CI")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    noise = torch.randn(4 if quick else 16, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    rows = []
    with torch.no_grad():
        for pair in PAIRS:
            rows += outputs(pair, 10 if quick else 20, noise)
        for pair in (*PAIRS, SCALED):
            rows += overhead(pair, 10 if quick else 50, noise[:1], 3 if quick else 41)
        rows += spreads((5, 20) if quick else (5, 10, 20, 50))
        rows += guided((1, 2, 4), (10,) if quick else (10, 100))
    report("samplers", rows, quick)


if __name__ == "__main__":
    main()
