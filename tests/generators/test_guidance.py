"""Guidance: exact where the distributions are known."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.generators.diffusion import guidance
from harmonia.generators.diffusion.paths import PATHS, CondOT, GaussianPath, Prediction, VPCosine
from harmonia.generators.diffusion.samplers import DDIM, Ancestral, Heun, Predict
from harmonia.types import HarmoniaError

MEANS, SD = torch.tensor([-1.0, 0.4, 1.2], dtype=torch.float64), 0.3
SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
EACH = pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())


def joint(path: GaussianPath, x: Tensor, t: Tensor, sd: float = SD) -> Tensor:
    """log p(x_t, class) of three Gaussians, (n, 3), of x (n, 1)."""
    p = path.at(float(t))
    variance = p.alpha**2 * sd**2 + p.sigma**2
    return SHARES.log() - (x - p.alpha * MEANS) ** 2 / (2 * variance)


def of_class(path: GaussianPath, label: int, sd: float = SD) -> Predict:
    """A perfect network that is told the class."""

    def predict(x: Tensor, t: Tensor) -> Prediction:
        p = path.at(float(t))
        score = (x - p.alpha * MEANS[label]) / (p.alpha**2 * sd**2 + p.sigma**2)
        return Prediction(MEANS[label] + p.alpha * sd**2 * score, p.sigma * score)

    return predict


def of_all(path: GaussianPath) -> Predict:
    """A perfect network that is told nothing."""

    def predict(x: Tensor, t: Tensor) -> Prediction:
        each = [of_class(path, label)(x, t) for label in range(3)]
        share = joint(path, x, t).softmax(1)
        x0 = (share * torch.cat([one.x0 for one in each], 1)).sum(1, keepdim=True)
        return Prediction(x0, (share * torch.cat([one.epsilon for one in each], 1)).sum(1, keepdim=True))

    return predict


def times(*values: float) -> list[Tensor]:
    return [torch.tensor(value, dtype=torch.float64) for value in values]


@EACH
def test_a_perfect_classifier_turns_the_unconditional_into_the_conditional(path: GaussianPath) -> None:
    for t in times(0.2, 0.5, 0.7):
        p = path.at(float(t))
        x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None] * (p.alpha**2 + p.sigma**2) ** 0.5

        def log_prob(y: Tensor, t: Tensor = t) -> Tensor:
            return joint(path, y, t).log_softmax(1)[:, 2]

        found = guidance.classifier(of_all(path)(x, t), guidance.slope(log_prob, x), path, t)
        right = of_class(path, 2)(x, t)
        torch.testing.assert_close(found.epsilon, right.epsilon)
        torch.testing.assert_close(found.x0, right.x0)


@EACH
def test_guidance_leaves_the_sample_the_mix_of_both_ends(path: GaussianPath) -> None:
    cond, null = of_class(path, 0), of_all(path)
    for t in times(0.15, 0.6, 0.99):
        p = path.at(float(t))
        x = torch.linspace(-3, 3, 7, dtype=torch.float64)[:, None]
        free = guidance.classifier_free(cond(x, t), null(x, t), 4.0)
        for one in (
            free,
            guidance.classifier(null(x, t), x.cos(), path, t, 3.0),
            guidance.static(free, path, x, t),
            guidance.dynamic(free, path, x, t),
            guidance.keep(null, path, x + 1, x > 0)(x, t),
        ):
            torch.testing.assert_close(p.alpha * one.x0 + p.sigma * one.epsilon, x)


def test_scale_one_is_the_conditional_and_nought_the_unconditional() -> None:
    path, (t,) = VPCosine(), times(0.5)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)[:, None]
    cond, null = of_class(path, 1)(x, t), of_all(path)(x, t)
    for scale, right in ((1.0, cond), (0.0, null)):
        found = guidance.classifier_free(cond, null, scale)
        torch.testing.assert_close(found.x0, right.x0)
        torch.testing.assert_close(found.epsilon, right.epsilon)


@pytest.mark.parametrize("name", ["vp-cosine", "cond-ot"])
def test_more_guidance_goes_further_from_the_other_classes_with_less_spread(name: str) -> None:
    path = PATHS[name]
    even = (torch.arange(2001, dtype=torch.float64) + 0.5) / 2001
    noise = torch.special.ndtri(even)[:, None]
    found = {}
    for scale in (1.0, 2.0, 4.0):

        def predict(x: Tensor, t: Tensor, scale: float = scale) -> Prediction:
            return guidance.classifier_free(of_class(path, 2)(x, t), of_all(path)(x, t), scale)

        x = Heun().run(predict, path, noise, 100)
        found[scale] = float(x.mean()), float(x.std()) / SD
    assert found[1.0] == pytest.approx((1.2, 1.0), abs=0.02)
    assert found[4.0][0] > found[2.0][0] > found[1.0][0] + 0.05
    assert found[4.0][1] < found[2.0][1] < 0.95


def test_a_weaker_model_shows_the_way_to_less_error() -> None:
    """Both take the data to be wider than it is, the weak one more so; guided, they come out right."""
    path, (noise,) = CondOT(), [torch.ones(1, 1, dtype=torch.float64)]
    strong, weak = of_class(path, 0, sd=0.36), of_class(path, 0, sd=0.45)

    def predict(x: Tensor, t: Tensor) -> Prediction:
        return guidance.auto(strong(x, t), weak(x, t), 1.5)

    found = [float(Heun().run(p, path, noise, 200)) - float(MEANS[0]) for p in (weak, strong, predict)]
    assert found[0] == pytest.approx(0.45, abs=0.01) and found[1] == pytest.approx(0.36, abs=0.01)
    assert abs(found[2] - SD) < abs(found[1] - SD) / 2


def test_an_encoder_pulls_samples_toward_its_goal() -> None:
    path, draw = CondOT(), torch.Generator().manual_seed(0)
    weight = torch.randn(4, 6, generator=draw, dtype=torch.float64)
    goal = torch.randn(1, 4, generator=draw, dtype=torch.float64)
    noise = torch.randn(200, 6, generator=draw, dtype=torch.float64)

    def network(x: Tensor, t: Tensor) -> Prediction:  # of standard normal data
        p = path.at(float(t))
        return Prediction(x * p.alpha / (p.alpha**2 + p.sigma**2), x * p.sigma / (p.alpha**2 + p.sigma**2))

    def encode(x0: Tensor) -> Tensor:
        return x0 @ weight.T

    like = {}
    for scale in (0.0, 1.0, 20.0):
        guided = guidance.by_encoder(network, path, encode, goal, scale)
        with torch.no_grad():
            x = DDIM().run(guided, path, noise, 20)
        assert not x.requires_grad
        like[scale] = float(F.cosine_similarity(encode(x), goal).mean())
    assert like[0.0] < 0.2 and like[1.0] > like[0.0] + 0.1 and like[20.0] > 0.7
    t = torch.tensor(0.4, dtype=torch.float64)
    plain, none = network(noise, t), guidance.by_encoder(network, path, encode, goal, 0.0)(noise, t)
    torch.testing.assert_close(none.x0, plain.x0)


def test_an_encoder_that_runs_without_autograd_is_refused() -> None:
    path, x = CondOT(), torch.randn(2, 3)
    guided = guidance.by_encoder(of_class(path, 0), path, lambda x0: x0.detach(), torch.ones(1, 3), 1.0)
    with pytest.raises(HarmoniaError, match="guidance needs a gradient"):
        guided(x, torch.tensor(0.5))


def test_where_there_is_no_data_yet_an_imprecise_gradient_does_no_harm() -> None:
    path, x = CondOT(), torch.randn(2, 3)
    found = guidance.classifier(Prediction(x, x), torch.ones_like(x), path, torch.tensor(1.0), 1.0)
    assert float((found.x0 - x).abs().max()) <= 1 / guidance.FAINT + 1e-4
    assert torch.equal(found.epsilon, x)


def test_thresholds_cut_and_dynamic_ones_rescale() -> None:
    path, (t,) = VPCosine(), times(0.5)
    x0, x = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x0 = x0 * torch.tensor([0.2, 0.9, 1.5, 3.0, 10.0], dtype=torch.float64).view(-1, 1, 1, 1)
    given = Prediction(x0, x)
    assert float(guidance.static(given, path, x, t, 0.8).x0.abs().max()) == 0.8
    found = guidance.dynamic(given, path, x, t, 0.9).x0
    assert float(found.abs().max()) <= 1
    torch.testing.assert_close(found[0], x0[0])  # nothing of the first row is beyond 1


def test_dynamic_thresholding_is_that_of_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    x0, x = 2 * torch.randn(2, 5, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = guidance.dynamic(Prediction(x0, x), VPCosine(), x, times(0.5)[0], 0.9).x0
    theirs = diffusers.DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=0.9, sample_max_value=1e9)
    torch.testing.assert_close(found, theirs._threshold_sample(x0))


def test_what_is_known_is_kept_and_what_is_not_goes_with_it() -> None:
    """Two numbers of correlation 0.95: the second, given the first."""
    path, n = VPCosine(), 4000
    cov = torch.tensor([[1.0, 0.95], [0.95, 1.0]], dtype=torch.float64)

    def network(x: Tensor, t: Tensor) -> Prediction:
        p = path.at(float(t))
        score = x @ torch.linalg.inv(p.alpha**2 * cov + p.sigma**2 * torch.eye(2, dtype=torch.float64))
        return Prediction(p.alpha * score @ cov, p.sigma * score)

    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(n, 2, dtype=torch.float64, generator=draw)
    known = torch.linspace(-2, 2, n, dtype=torch.float64)[:, None].expand(n, 2)
    mask = torch.tensor([[True, False]])
    x = Ancestral().run(guidance.keep(network, path, known, mask), path, noise, 60, generator=draw)
    assert torch.equal(x[:, 0], known[:, 0])
    assert float(torch.corrcoef(x.T)[0, 1]) > 0.8
