"""Gaussian paths: forward marginals, the chain, conversions of what a network puts out, the loss."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from harmonia.generators.diffusion.paths import (
    EDM,
    PARAMETERISATIONS,
    PATHS,
    GaussianPath,
    VariancePreserving,
    VPCosine,
    VPLinear,
    prediction,
    target,
)
from harmonia.objectives import prediction_loss
from harmonia.types import HarmoniaError

EACH = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
CHAINS = pytest.mark.parametrize("path", [VPLinear(), VPCosine(), VPLinear(T=50), VPCosine(T=7)], ids=str)


def parts(n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    x0, eps = (torch.randn(n, 3, 2, generator=draw, dtype=torch.float64) for _ in range(2))
    return x0, eps


@CHAINS
def test_the_chain_has_the_marginals_of_the_path(path: VariancePreserving) -> None:
    mean, variance = 1.0, 0.0
    for k, beta in enumerate(path.betas().tolist()):
        mean, variance = mean * (1 - beta) ** 0.5, variance * (1 - beta) + beta
        point = path.at((k + 1) / path.T)
        assert point.alpha == pytest.approx(mean, rel=1e-9)
        assert point.sigma**2 == pytest.approx(variance, rel=1e-9)
    assert path.at(0.0).alpha == 1 and path.at(0.0).sigma == 0


@CHAINS
def test_variance_is_preserved_between_the_steps_of_the_chain(path: VariancePreserving) -> None:
    t = torch.rand(500, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(path.alpha(t) ** 2 + path.sigma(t) ** 2, torch.ones_like(t))
    order = t.sort().values
    assert (path.alpha(order).diff() < 0).all() and (path.sigma(order).diff() > 0).all()


@pytest.mark.parametrize(("path", "name"), [(VPLinear(), "linear"), (VPCosine(), "squaredcos_cap_v2")])
def test_the_chains_are_those_of_diffusers(path: VariancePreserving, name: str) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.DDPMScheduler(beta_schedule=name).alphas_cumprod.double()
    ours = path.alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000) ** 2
    torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-6)  # theirs is a float32 product


def test_a_float32_time_means_its_step_of_the_chain() -> None:
    path = VPCosine()
    t = torch.arange(1, 1001) / 1000
    exact = path.alpha(t.double().mul(1000).round() / 1000)
    torch.testing.assert_close(path.alpha(t).double(), exact, rtol=3e-5, atol=1e-7)


@EACH
def test_derivatives_are_those_of_alpha_and_sigma(path: GaussianPath) -> None:
    t, h = torch.tensor([0.0503, 0.2507, 0.6004, 0.9601], dtype=torch.float64), 1e-6
    for value, slope in ((path.alpha, path.d_alpha), (path.sigma, path.d_sigma)):
        torch.testing.assert_close(slope(t), (value(t + h) - value(t - h)) / (2 * h), rtol=1e-5, atol=1e-7)


@EACH
@pytest.mark.parametrize(("kind", "other"), [*product(PARAMETERISATIONS, repeat=2)])
def test_every_parameterisation_tells_both_ends_and_every_other(
    path: GaussianPath, kind: str, other: str
) -> None:
    x0, eps = parts()
    t = torch.linspace(0.3, 0.99, len(x0), dtype=torch.float64)
    x_t = path.mix(x0, eps, t)
    p = prediction(kind, path, target(kind, path, x0, eps, t), x_t, t)
    torch.testing.assert_close(p.x0, x0)
    torch.testing.assert_close(p.epsilon, eps)
    torch.testing.assert_close(target(other, path, p.x0, p.epsilon, t), target(other, path, x0, eps, t))


@EACH
@pytest.mark.parametrize("kind", PARAMETERISATIONS)
def test_one_time_for_all_is_that_time_for_each(path: GaussianPath, kind: str) -> None:
    output, x_t = parts()
    t = torch.tensor(0.37, dtype=torch.float64)
    one, each = (prediction(kind, path, output, x_t, u) for u in (t, t.expand(len(x_t))))
    torch.testing.assert_close(one.x0, each.x0)
    torch.testing.assert_close(one.epsilon, each.epsilon)


@EACH
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_v_is_well_conditioned_at_both_ends(path: GaussianPath, end: float) -> None:
    x0, eps = (one.float() for one in parts())
    t = torch.tensor(end)
    x_t = path.mix(x0, eps, t)
    for kind in ("v", "velocity") if path is PATHS["cond-ot"] else ("v",):
        p = prediction(kind, path, target(kind, path, x0, eps, t), x_t, t)
        far = {"rtol": 1e-4, "atol": 1e-4} if path is PATHS["edm"] else {}
        torch.testing.assert_close(p.x0, x0, **far)
        torch.testing.assert_close(p.epsilon, eps, **far)
    for kind in PARAMETERISATIONS:  # and the others stay finite
        p = prediction(kind, path, torch.zeros_like(x_t), x_t, t)
        assert p.x0.isfinite().all() and p.epsilon.isfinite().all()


@EACH
def test_v_has_variance_one_and_is_orthogonal_to_the_sample(path: GaussianPath) -> None:
    sd = path.sigma_data
    for t in (0.1, 0.5, 0.9):
        p = path.at(t)
        n = (p.alpha**2 * sd**2 + p.sigma**2) ** 0.5
        v, x = (-p.sigma / n, p.alpha * sd / n), (p.alpha * sd, p.sigma)  # over x0 / sd and eps
        assert v[0] ** 2 + v[1] ** 2 == pytest.approx(1)
        assert v[0] * x[0] + v[1] * x[1] == pytest.approx(0)
        unit = torch.ones(1, 1, dtype=torch.float64)
        time = torch.tensor(t, dtype=torch.float64)
        assert float(target("v", path, unit * sd, unit * 0, time)) == pytest.approx(v[0])
        assert float(target("v", path, unit * 0, unit, time)) == pytest.approx(v[1])


def test_v_on_edm_is_the_preconditioning_of_karras() -> None:
    path, (x_t, output) = EDM(sigma_data=0.5), parts()
    for t in (0.3, 0.7, 1.0):
        time = torch.tensor(t, dtype=torch.float64)
        s, sd = path.at(t).sigma, 0.5
        skip, out = sd**2 / (s**2 + sd**2), s * sd / (s**2 + sd**2) ** 0.5
        d = prediction("v", path, -output, x_t, time).x0
        torch.testing.assert_close(d, skip * x_t + out * output)
        assert float(path.scale(time)) == pytest.approx((s**2 + sd**2) ** -0.5)


def test_velocity_is_the_derivative_of_the_sample() -> None:
    x0, eps = parts()
    h = 1e-6
    for path in PATHS.values():
        t = torch.full((len(x0),), 0.4005, dtype=torch.float64)
        slope = (path.mix(x0, eps, t + h) - path.mix(x0, eps, t - h)) / (2 * h)
        torch.testing.assert_close(target("velocity", path, x0, eps, t), slope, rtol=1e-5, atol=1e-6)


def test_times_go_down_to_no_noise_in_each_path_s_spacing() -> None:
    for path in PATHS.values():
        times = path.times(10)
        assert len(times) == 11 and (times.diff() < 0).all()
        assert float(times[0]) == 1 and path.at(float(times[-1])).sigma == 0
        for start in (0.5, 0.1, 0.01):  # below EDM's least time too
            times = path.times(5, start=start)
            assert float(times[0]) == start and (times.diff() < 0).all()
    chain = PATHS["vp-linear"].times(30) * 1000
    torch.testing.assert_close(chain, chain.round())
    edm = EDM()
    ramp = torch.linspace(0, 1, 8, dtype=torch.float64)
    karras = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    torch.testing.assert_close(edm.sigma(edm.times(8)[:-1]), karras)
    assert 80 * edm.least**7 == pytest.approx(0.002)


@EACH
def test_training_times_are_of_the_path(path: GaussianPath) -> None:
    torch.manual_seed(0)
    t = path.draw(4000)
    assert t.shape == (4000,) and t.min() >= 0 and t.max() <= 1
    if isinstance(path, EDM):
        log = path.sigma(t.double()).log()
        assert float(log.mean()) == pytest.approx(-1.2, abs=0.08)
        assert float(log.std()) == pytest.approx(1.2, abs=0.08)
    else:
        assert float(t.mean()) == pytest.approx(0.5, abs=0.02)


def test_what_cannot_be_meant_is_refused() -> None:
    one = torch.zeros(1, 1)
    with pytest.raises(HarmoniaError, match="1001 steps are more than"):
        VPLinear().times(1001)
    with pytest.raises(HarmoniaError, match="steps must be at least 1"):
        EDM().times(0)
    with pytest.raises(HarmoniaError, match="no parameterisation 'score'"):
        prediction("score", EDM(), one, one, torch.tensor(0.5))


@pytest.mark.parametrize("name", ["vp-cosine", "cond-ot", "edm"])
@pytest.mark.parametrize("weighting", ["min-snr", "edm"])
def test_a_weighting_means_the_same_for_every_parameterisation(name: str, weighting: str) -> None:
    path, (x0, eps) = PATHS[name], parts()
    t = torch.linspace(0.3, 0.95, len(x0), dtype=torch.float64)
    x_t, snr = path.mix(x0, eps, t), path.snr(t)
    wrong = x0 + 0.1 * torch.randn(x0.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    implied = prediction("x0", path, wrong, x_t, t).epsilon
    losses = []
    for kind in PARAMETERISATIONS if name == "cond-ot" else ("epsilon", "x0", "v"):
        goal, output = target(kind, path, x0, eps, t), target(kind, path, wrong, implied, t)
        losses.append(
            prediction_loss(output, goal, snr, kind=kind, weighting=weighting, sigma_data=path.sigma_data)
        )
    torch.testing.assert_close(torch.stack(losses), losses[0].expand(len(losses)))
    row = (wrong - x0).square().flatten(1).mean(1)
    weight = snr.clamp_max(5) if weighting == "min-snr" else snr + path.sigma_data**-2
    torch.testing.assert_close(losses[0], (weight * row).mean())


def test_the_loss_is_a_plain_mean_unless_weighted_and_edm_is_uniform_v() -> None:
    output, goal = parts()
    snr = torch.rand(len(goal), dtype=torch.float64) * 10
    plain = prediction_loss(output, goal)
    torch.testing.assert_close(plain, (output - goal).square().mean())
    torch.testing.assert_close(prediction_loss(output, goal, snr, kind="v", weighting="edm"), plain)
    with pytest.raises(HarmoniaError, match="needs snr"):
        prediction_loss(output, goal, weighting="edm")
    with pytest.raises(HarmoniaError, match="unknown weighting 'p2'"):
        prediction_loss(output, goal, snr, weighting="p2")
