"""Samplers: on Gaussians and mixtures whose scores are known, and step for step as diffusers' schedulers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harmonia.generators.diffusion.paths import (
    EDM,
    PATHS,
    CondOT,
    GaussianPath,
    Prediction,
    VariancePreserving,
    VPCosine,
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
    Predict,
    Sampler,
    Track,
)
from harmonia.types import HarmoniaError

SD = 0.35


def gaussian(path: GaussianPath, sd: float = SD, mean: float = 0.0) -> Predict:
    """The posterior means of both ends where the data is N(mean, sd^2): a perfect network."""

    def predict(x: Tensor, t: Tensor) -> Prediction:
        p = path.at(float(t))
        score = (x - p.alpha * mean) / (p.alpha**2 * sd**2 + p.sigma**2)
        return Prediction(mean + p.alpha * sd**2 * score, p.sigma * score)

    return predict


def mixture(path: GaussianPath, means: Tensor, shares: Tensor, sd: float) -> Predict:
    """The same for a mixture of one-dimensional Gaussians, of x (n, 1)."""

    def predict(x: Tensor, t: Tensor) -> Prediction:
        p = path.at(float(t))
        variance = p.alpha**2 * sd**2 + p.sigma**2
        off = x - p.alpha * means
        weight = (shares.log() - off**2 / (2 * variance)).softmax(1)
        score = (weight * off).sum(1, keepdim=True) / variance
        x0 = (weight * (means + p.alpha * sd**2 * off / variance)).sum(1, keepdim=True)
        return Prediction(x0, p.sigma * score)

    return predict


def spread(sampler: Sampler, path: GaussianPath, steps: int, n: int = 1) -> float:
    """Standard deviation of samples of N(0, SD^2) over SD; exact, from one sample, if deterministic."""
    noise = torch.ones(1, 1, dtype=torch.float64)
    if n > 1:
        noise = torch.randn(n, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    draw = torch.Generator().manual_seed(1)
    x = sampler.run(gaussian(path), path, noise, steps, generator=draw)
    return float(x.square().mean().sqrt() / noise.square().mean().sqrt()) / SD


@pytest.mark.parametrize("name", ["vp-cosine", "cond-ot"])
def test_second_order_errors_fall_faster_than_first_order_ones(name: str) -> None:
    path = PATHS[name]
    for sampler, order in ((DDIM(), 1), (Euler(), 1), (Heun(), 2), (DPMSolverPP2M(), 2)):
        a, b = (abs(spread(sampler, path, steps) - 1) for steps in (100, 200))
        # the last step, to no noise, is one of first order, as in the papers
        assert a / b > {1: 1.9, 2: 2.3}[order], sampler
        assert a < {1: 0.03, 2: 0.005}[order], sampler


@pytest.mark.parametrize("name", PATHS)
def test_every_sampler_ends_with_the_data_s_spread(name: str) -> None:
    path = EDM(sigma_data=SD) if name == "edm" else PATHS[name]
    for kind, sampler in SAMPLERS.items():
        found = spread(sampler, path, 200, n=8000 if kind == "ancestral" else 1)
        assert found == pytest.approx(1, abs=0.08 if kind == "ancestral" else 0.025), kind


@pytest.mark.parametrize("name", PATHS)
def test_euler_is_ddim_without_noise(name: str) -> None:
    path, noise = PATHS[name], torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    means = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    predict = mixture(path, means, torch.tensor([0.3, 0.7]).double(), 0.2)
    torch.testing.assert_close(Euler().run(predict, path, noise, 9), DDIM().run(predict, path, noise, 9))


@pytest.mark.parametrize("name", PATHS)
def test_ddim_of_eta_one_is_the_reverse_chain(name: str) -> None:
    path, noise = PATHS[name], torch.randn(50, 1, dtype=torch.float64)
    both = [
        sampler.run(gaussian(path), path, noise, 20, generator=torch.Generator().manual_seed(3))
        for sampler in (DDIM(eta=1), Ancestral())
    ]
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("path", [VPLinear(), VPCosine(), VPLinear(T=100)], ids=str)
def test_a_step_of_the_chain_is_the_right_reverse_step(path: VariancePreserving) -> None:
    beta = path.betas()
    abar = (1 - beta).cumprod(0)
    epsilon, x = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for k in (1, path.T // 2, path.T - 2):
        deviation = (beta[k] * (1 - abar[k - 1]) / (1 - abar[k])).sqrt()
        z = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
        right = (x - beta[k] / (1 - abar[k]).sqrt() * epsilon) / (1 - beta[k]).sqrt() + deviation * z
        points = (path.at((k + 1) / path.T), path.at(k / path.T))
        track = Track(tuple(torch.tensor(p.t, dtype=torch.float64) for p in points), points)
        walk = Ancestral().walk(
            lambda y, t: prediction("epsilon", path, epsilon, y, t),
            x,
            track,
            torch.Generator().manual_seed(7),
        )
        torch.testing.assert_close(next(walk)[0], right)


def test_the_reverse_step_without_abar_collapses() -> None:
    """(x_t - sqrt(beta_t) eps) / sqrt(1 - beta_t), as often printed, undoes all noise in every step."""
    path = VPLinear()
    beta = path.betas()
    abar = (1 - beta).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    epsilon = (1 - abar).sqrt() / (abar * SD**2 + 1 - abar)  # of x = 1
    added = beta * (1 - before) / (1 - abar)

    def ratio(share: Tensor, added: Tensor) -> float:
        variance = 1.0
        for factor, more in zip(
            ((1 - share * epsilon) ** 2 / (1 - beta)).flip(0), added.flip(0), strict=True
        ):
            variance = float(factor * variance + more)
        return variance**0.5 / SD

    assert ratio(beta / (1 - abar).sqrt(), added) == pytest.approx(1, abs=0.02)
    assert ratio(beta.sqrt(), added) < 0.4  # only the noise of the last steps is left
    assert ratio(beta.sqrt(), 0 * added) < 1e-6


@pytest.mark.parametrize("name", ["vp-linear", "vp-cosine", "cond-ot", "edm"])
def test_a_mixture_gets_its_shares_means_and_spread(name: str) -> None:
    path = PATHS[name]
    means, shares, sd = torch.tensor([-1.0, 1.0]).double(), torch.tensor([0.3, 0.7]).double(), 0.2
    n = 4001
    even = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    noise = torch.special.ndtri(even)[
        :, None
    ]  # the flow is monotone, so quantiles of noise give those of data
    steps = 300 if name == "vp-linear" else 100  # its last step is a large one
    for kind, sampler in SAMPLERS.items():
        draw = torch.Generator().manual_seed(0)
        x = sampler.run(mixture(path, means, shares, sd), path, noise, steps, generator=draw)
        high = x[:, 0] > 0
        slack = 0.03 if kind == "ancestral" else 0.015
        assert float(high.double().mean()) == pytest.approx(0.7, abs=slack), kind
        assert float(x[high].mean()) == pytest.approx(1, abs=0.02), kind
        assert float(x[high].std()) == pytest.approx(sd, rel=0.08), kind


def test_the_same_seed_gives_the_same_samples_and_every_step_is_told() -> None:
    path, noise, told = CondOT(), torch.randn(4, 1, 3, 3), []
    runs = [
        Ancestral().run(
            gaussian(path),
            path,
            noise,
            6,
            generator=torch.Generator().manual_seed(seed),
            watch=lambda step, steps, x0: told.append((step, steps, x0.shape)),
        )
        for seed in (5, 5, 6)
    ]
    assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])
    assert told[:6] == [(step, 6, noise.shape) for step in range(1, 7)]
    assert runs[0].dtype == torch.float32 and runs[0].shape == noise.shape


def test_a_partial_start_keeps_what_it_begins_from() -> None:
    path, draw = CondOT(), torch.Generator().manual_seed(0)
    begin, noise = (torch.randn(500, 1, generator=draw, dtype=torch.float64) for _ in range(2))
    begin = begin * SD
    near, far = (
        Euler().run(gaussian(path), path, noise, 50, start=start, begin=begin) for start in (0.1, 0.7)
    )
    like = [float(torch.corrcoef(torch.stack([x, begin])[..., 0])[0, 1]) for x in (near, far)]
    assert like[0] > 0.9 > 0.5 > like[1] > 0
    assert float(far.std() / SD) == pytest.approx(1, abs=0.1)
    with pytest.raises(HarmoniaError, match="start must be in"):
        Euler().run(gaussian(path), path, noise, 5, start=0.5)


# --- as diffusers, step for step ---------------------------------------------------------------------------


def network(x: Tensor, t: float) -> Tensor:
    """Some smooth function of a noisy sample and its time."""
    mixed = x.roll(1, -1) * 0.6 + x * 0.3
    return (mixed * (1 + t)).tanh() + 0.1 * (5 * mixed + t).sin()


def ours(
    sampler: Sampler, path: GaussianPath, kind: str, noise: Tensor, steps: int, seed: int = 0
) -> list[Tensor]:
    """What the network saw, and the samples."""
    seen: list[Tensor] = []

    def predict(x: Tensor, t: Tensor) -> Prediction:
        seen.append(x)
        return prediction(kind, path, network(x, float(t)), x, t)

    end = sampler.run(predict, path, noise, steps, generator=torch.Generator().manual_seed(seed))
    return [*seen, end]


def theirs(
    scheduler: Any, noise: Tensor, time: Callable[[int, Tensor], float], scale: bool = False, **options: Any
) -> list[Tensor]:
    """The same by a scheduler; its own input scaling is for networks of another convention, and left out."""
    x, seen = noise, []
    for i, t in enumerate(scheduler.timesteps):
        seen.append(x)
        if scale:
            scheduler.scale_model_input(x, t)
        x = scheduler.step(network(x, time(i, t)), t, x, return_dict=False, **options)[0]
    return [*seen, x]


def same(a: list[Tensor], b: list[Tensor], tolerance: float) -> None:
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=tolerance, atol=tolerance)


NOISE = torch.randn(4, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(11))
CHAIN: dict[str, Any] = {"timestep_spacing": "trailing"}
KINDS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}


def of_chain(i: int, t: Tensor) -> float:
    return (int(t) + 1) / 1000


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("beta", ["linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, None])
def test_the_chains_are_diffusers_step_for_step(kind: str, beta: str, eta: float | None) -> None:
    diffusers = pytest.importorskip("diffusers")
    path = VPLinear() if beta == "linear" else VPCosine()
    kindness = diffusers.DDPMScheduler if eta is None else diffusers.DDIMScheduler
    scheduler = kindness(beta_schedule=beta, prediction_type=KINDS[kind], clip_sample=False, **CHAIN)
    scheduler.alphas_cumprod = (1 - path.betas()).cumprod(0)  # theirs, without float32's rounding
    scheduler.one = scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
    scheduler.set_timesteps(10)
    options = {"generator": torch.Generator().manual_seed(0)} | ({} if eta is None else {"eta": eta})
    sampler = Ancestral() if eta is None else DDIM(eta=eta)
    same(ours(sampler, path, kind, NOISE, 10), theirs(scheduler, NOISE, of_chain, **options), 1e-7)


@pytest.mark.parametrize("steps", [4, 20])
def test_dpm_solver_is_diffusers_step_for_step(steps: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    noise = NOISE.float()
    scheduler = diffusers.DPMSolverMultistepScheduler(prediction_type="v_prediction", **CHAIN)
    scheduler.set_timesteps(steps)
    same(ours(DPMSolverPP2M(), VPLinear(), "v", noise, steps), theirs(scheduler, noise, of_chain), 2e-5)


def test_flow_matching_is_diffusers_step_for_step() -> None:
    diffusers = pytest.importorskip("diffusers")
    noise, path = NOISE.float(), CondOT()
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(sigmas=path.times(8)[:-1].tolist())
    found = theirs(scheduler, noise, lambda i, t: float(t) / 1000)
    same(ours(Euler(), path, "velocity", noise, 8), found, 1e-5)


def test_heun_of_flow_matching_is_diffusers_step_for_step() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.FlowMatchHeunDiscreteScheduler()
    scheduler.set_timesteps(8)

    class Spaced(CondOT):
        def times(self, steps: int, start: float = 1.0) -> Tensor:
            """Theirs: even down to 1/1000, then 0."""
            return torch.cat([torch.linspace(1, 0.001, steps, dtype=torch.float64), torch.zeros(1)])

    noise = NOISE.float()
    found = theirs(scheduler, noise, lambda i, t: float(t) / 1000)
    same(ours(Heun(), Spaced(), "velocity", noise, 8), found, 2e-5)


EULER, MULTISTEP = (Euler(), "EDMEulerScheduler"), (DPMSolverPP2M(), "EDMDPMSolverMultistepScheduler")


@pytest.mark.parametrize(("sampler", "name"), [EULER, MULTISTEP])
def test_edm_is_diffusers_step_for_step(sampler: Sampler, name: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    path, noise = EDM(), NOISE.float()
    scheduler = getattr(diffusers, name)(prediction_type="v_prediction")
    scheduler.set_timesteps(12)
    times = path.times(12)
    begun = noise / path.scale(times[0]).float()
    found = theirs(scheduler, begun, lambda i, t: float(times[i]), scale=True)
    same(ours(sampler, path, "v", noise, 12), found, 1e-4)


def test_heun_of_edm_is_diffusers_step_for_step() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.HeunDiscreteScheduler(use_karras_sigmas=True, prediction_type="epsilon")
    scheduler.set_timesteps(8)
    sigmas = scheduler.sigmas.double()
    path = EDM(sigma_min=float(sigmas[-2]), sigma_max=float(sigmas[0]))
    noise = NOISE.float()
    x, seen = noise / path.scale(torch.tensor(1.0)), []

    def time(sigma: Tensor) -> float:
        return float((sigma / path.sigma_max) ** (1 / path.rho))

    for i, t in enumerate(scheduler.timesteps):
        seen.append(x)
        x = scheduler.step(network(x, time(sigmas[i])), t, x, return_dict=False)[0]
    same(ours(Heun(), path, "epsilon", noise, 8), [*seen, x], 1e-4)


def test_a_run_is_that_of_a_diffusers_pipeline() -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    network = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16),
        norm_num_groups=4, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    ).eval()  # fmt: skip
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=True)
    pipeline = diffusers.DDIMPipeline(network, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        batch_size=2, generator=torch.Generator().manual_seed(0), num_inference_steps=10, output_type="np"
    ).images  # fmt: skip
    path = VPLinear()

    def predict(x: Tensor, t: Tensor) -> Prediction:
        step = round(float(t) * path.T) - 1
        return prediction("epsilon", path, network(x, step).sample, x, t)

    noise = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours = DDIM().run(predict, path, noise, 10)
    shown = (ours / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    assert float(shown.std()) > 0.05
    torch.testing.assert_close(shown, torch.from_numpy(theirs), rtol=1e-4, atol=1e-4)
