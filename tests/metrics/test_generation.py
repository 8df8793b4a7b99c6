"""Measures of generated pictures: closed forms, torchmetrics, extremes, and what they are called."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harmonia.metrics import (
    Codes,
    Function,
    Inception,
    Interval,
    Manifold,
    Moments,
    bootstrap,
    bytes_of,
    class_accuracy,
    density_coverage,
    distance_name,
    frechet,
    frechet_at_infinity,
    frechet_distance,
    frechet_interval,
    inception_interval,
    inception_score,
    jackknife,
    kernel_distance,
    kernel_interval,
    moments,
    precision_recall,
    psnr,
    text_match,
)
from harmonia.types import HarmoniaError, Signal
from tests.places import ROOT


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def covariance(seed: int, d: int, rank: int | None = None) -> Tensor:
    a = normal(seed, rank or d, d)
    return a.T @ a / d


# --- Frechet distance


def test_frechet_of_one_dimension_is_the_wasserstein_distance() -> None:
    def one(mean: float, std: float) -> Moments:
        return Moments(torch.tensor([mean]).double(), torch.tensor([[std**2]]).double(), 0)

    assert frechet(one(1.0, 2.0), one(4.0, 0.5)) == pytest.approx(3.0**2 + 1.5**2)


def test_frechet_of_commuting_covariances() -> None:
    turn = torch.linalg.qr(normal(0, 6, 6)).Q
    a, b = torch.rand(2, 6, generator=seeded(1), dtype=torch.float64)
    x, y = (Moments(torch.zeros(6).double(), turn @ s.diag() @ turn.T, 0) for s in (a, b))
    assert frechet(x, y) == pytest.approx(float((a.sqrt() - b.sqrt()).square().sum()))


def test_frechet_under_a_linear_map_of_low_rank() -> None:
    """For Gaussians N(0, S) and N(0, A S A) with A >= 0 the best transport is A itself."""
    a, s = covariance(3, 8), covariance(2, 8, rank=3)
    x, y = (Moments(torch.zeros(8).double(), c, 0) for c in (s, a @ s @ a))
    moved = torch.eye(8).double() - a
    assert frechet(x, y) == pytest.approx(float((moved @ s @ moved).trace()), rel=1e-9)


@pytest.mark.parametrize("rows", [5, 500])
def test_frechet_of_a_set_with_itself_is_nothing(rows: int) -> None:
    x = 100 * normal(0, rows, 32)
    x[:, 3] = 0
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(x, x + 2.0) == pytest.approx(4.0 * 32, rel=1e-9)


def test_frechet_agrees_with_torchmetrics() -> None:
    fid = pytest.importorskip("torchmetrics.image.fid")
    x, y = normal(0, 300, 8), 1.3 * normal(1, 400, 8) + 0.2
    metric = fid.FrechetInceptionDistance(feature=Flat(8)).set_dtype(torch.float64)
    metric.update(x, real=False)
    metric.update(y, real=True)
    assert frechet_distance(x, y) == pytest.approx(float(metric.compute()), rel=1e-6)


class Flat(nn.Module):
    """Features as they come: our own network in torchmetrics' place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, x: Tensor) -> Tensor:
        return x


def test_weights_count_rows() -> None:
    x = normal(0, 6, 3)
    counts = torch.tensor([2, 0, 1, 3, 1, 1])
    a, b = moments(x, counts), moments(x.repeat_interleave(counts, 0))
    torch.testing.assert_close(a.mean, b.mean)
    torch.testing.assert_close(a.covariance, b.covariance)
    assert a.n == b.n == 8


def test_infinity_takes_the_bias_away() -> None:
    truth = Moments(torch.zeros(24).double(), torch.eye(24).double(), 0)
    biased, unbiased = [], []
    for seed in range(6):
        x = 1.2 * normal(seed, 400, 24)
        biased.append(frechet(moments(x), truth))
        unbiased.append(frechet_at_infinity(x, truth, seed=seed))
    right = 24 * 0.2**2
    assert np.mean(biased) > right + 0.3
    assert np.mean(unbiased) == pytest.approx(right, abs=0.15)


def test_intervals_hold_the_true_distance() -> None:
    truth = Moments(torch.zeros(8).double(), torch.eye(8).double(), 0)
    right, held = 8 * 0.3**2, 0
    for seed in range(20):
        found = frechet_interval(normal(seed, 300, 8) + 0.3, truth, draws=100, seed=seed)
        assert found.low < found.mean < found.high
        held += found.low <= right <= found.high
    assert held >= 16


# --- kernel distance


def test_kernel_distance_is_the_estimator_by_hand() -> None:
    x, y = normal(0, 5, 3), normal(1, 5, 3)

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
    within = sum(k(x[i], x[j]) + k(y[i], y[j]) for i, j in pairs) / 20
    between = sum(k(a, b) for a in x for b in y) / 25
    assert kernel_distance(x, y).value == pytest.approx(within - 2 * between)


def test_kernel_distance_agrees_with_torchmetrics() -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    x, y = normal(0, 100, 6), normal(1, 100, 6) + 0.5
    metric = kid.KernelInceptionDistance(feature=Flat(6), subsets=1, subset_size=100)
    metric.update(x, real=False)
    metric.update(y, real=True)
    assert kernel_distance(x, y).value == pytest.approx(float(metric.compute()[0]), rel=1e-6)


def test_kernel_distance_is_unbiased() -> None:
    values = [kernel_distance(normal(s, 30, 4), normal(1000 + s, 30, 4)).value for s in range(300)]
    assert abs(np.mean(values)) < 3 * np.std(values) / math.sqrt(300)
    assert min(values) < 0
    blocks = kernel_distance(normal(0, 300, 4) + 1, normal(1, 400, 4), block=50, blocks=40)
    assert blocks.value == pytest.approx(
        kernel_distance(normal(0, 300, 4) + 1, normal(1, 300, 4)).value, rel=0.2
    )
    assert blocks.deviation > 0


# --- Inception Score


def test_inception_score_at_its_extremes() -> None:
    sure = torch.eye(10).repeat(20, 1)
    assert inception_score(sure, splits=1).value == pytest.approx(10)
    assert inception_score(sure[:1].expand(50, -1)).value == pytest.approx(1)
    assert inception_score(torch.full((50, 10), 0.1)).value == pytest.approx(1)


def test_inception_score_in_between_is_that_by_hand() -> None:
    """exp of the mean divergence, which is less than the mean of the exps where rows differ."""
    p = [(0.9, 0.1), (0.5, 0.5), (0.4, 0.6)]
    mean = (0.6, 0.4)
    apart = [sum(a * math.log(a / b) for a, b in zip(row, mean, strict=True)) for row in p]
    right = math.exp(sum(apart) / 3)
    assert right == pytest.approx(1.11546, abs=1e-5)
    found = inception_score(torch.tensor(p, dtype=torch.float64), splits=1)
    assert found.value == pytest.approx(right, rel=1e-12) and found.deviation == 0
    assert sum(map(math.exp, apart)) / 3 > right + 0.004
    # of parts the mean: one of equal rows scores 1
    rows = torch.tensor(p + p, dtype=torch.float64)
    order = torch.randperm(6, generator=seeded(0))
    parts = [inception_score(rows[some], splits=1).value for some in order.tensor_split(2)]
    assert inception_score(rows, splits=2).value == pytest.approx(sum(parts) / 2)


def test_inception_score_of_saturated_logits_is_a_number() -> None:
    p = (1e4 * normal(0, 100, 5)).softmax(1).float()
    assert float(p.min()) == 0
    assert 1 < inception_score(p).value <= 5
    with pytest.raises(HarmoniaError, match="sum to 1"):
        inception_score(torch.randn(20, 5))


# --- precision, recall, density, coverage


def test_manifolds_of_one_set_and_of_sets_apart() -> None:
    x = normal(0, 200, 3)
    same, apart = precision_recall(x, x), precision_recall(x + 100, x)
    assert (same.fidelity, same.diversity, apart.fidelity, apart.diversity) == (1, 1, 0, 0)
    far = density_coverage(x + 100, x)
    assert (far.fidelity, far.diversity) == (0, 0)


def test_manifolds_tell_quality_from_variety() -> None:
    real = torch.cat([normal(0, 200, 2), normal(1, 200, 2) + 50])
    half = normal(2, 400, 2)
    dull = precision_recall(half, real)
    assert dull.fidelity > 0.9 and dull.diversity == pytest.approx(0.5, abs=0.05)
    wild = precision_recall(torch.cat([real[::2] + 0.01, normal(3, 200, 2) + 500]), real)
    assert wild.fidelity == pytest.approx(0.5, abs=0.01) and wild.diversity > 0.9


def test_density_and_coverage_have_their_expected_values() -> None:
    n, m, k = 300, 200, 5
    found = [density_coverage(normal(s, n, 4), normal(500 + s, m, 4), k=k) for s in range(12)]
    missed = math.prod((m - i) / (n + m - i) for i in range(1, k + 1))
    assert np.mean([f.fidelity for f in found]) == pytest.approx(1, abs=0.03)
    assert np.mean([f.diversity for f in found]) == pytest.approx(1 - missed, abs=0.01)


def test_an_outlier_fools_precision_and_not_density() -> None:
    """Naeem et al. 2020: one far real row makes a ball that holds whatever lies near it."""
    real = torch.cat([normal(0, 200, 2), torch.tensor([[300.0, 0.0]]).double()])
    fake = normal(1, 200, 2) + torch.tensor([100.0, 0.0])
    assert precision_recall(fake, real).fidelity == 1
    assert density_coverage(fake, real).fidelity < 0.25


def gap(a: Tensor, b: Tensor) -> float:
    return math.sqrt(sum((float(u) - float(v)) ** 2 for u, v in zip(a, b, strict=True)))


def reach(points: Tensor, i: int, k: int) -> float:
    """How far it is from a point to its k-th nearest other."""
    return sorted(gap(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]


def by_loops(x: Tensor, real: Tensor, k: int, kd: int) -> tuple[float, float, float, float]:
    """Precision and recall (k), density and coverage (kd), as the papers write them."""
    n, m = len(x), len(real)
    precise = [any(gap(x[i], real[j]) <= reach(real, j, k) for j in range(m)) for i in range(n)]
    recalled = [any(gap(x[i], real[j]) <= reach(x, i, k) for i in range(n)) for j in range(m)]
    inside = [[gap(x[i], real[j]) < reach(real, j, kd) for j in range(m)] for i in range(n)]
    covered = [any(inside[i][j] for i in range(n)) for j in range(m)]
    return sum(precise) / n, sum(recalled) / m, sum(map(sum, inside)) / (kd * n), sum(covered) / m


@pytest.mark.parametrize(("spread", "rows"), [(1.0, 20), (0.8, 15)])
def test_manifolds_are_those_by_loops(spread: float, rows: int) -> None:
    x, real = spread * normal(0, 20, 2) + 1, normal(1, rows, 2)
    near, cover = precision_recall(x, real, k=2), density_coverage(x, real, k=3)
    found = near.fidelity, near.diversity, cover.fidelity, cover.diversity
    right = by_loops(x, real, 2, 3)
    assert found == pytest.approx(right)
    assert all(0 < one < 1.5 and one not in (0, 1) for one in right)
    assert float(near.terms.mean()) == near.fidelity and float(cover.terms.mean()) == cover.fidelity


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_diversity_without_each_sample_is_exact(spread: float) -> None:
    x, real = spread * normal(0, 25, 2), normal(1, 30, 2)
    x[3], x[4] = x[5], x[5]  # equal rows are neighbours at no distance
    rest = [torch.cat([x[:i], x[i + 1 :]]) for i in range(len(x))]
    for measure in (precision_recall, density_coverage):
        right = [measure(some, real, k=3).diversity for some in rest]
        assert measure(x, real, k=3).without.tolist() == pytest.approx(right)
        assert len(set(right)) > 1


# --- intervals


def test_a_jackknife_of_a_mean_is_its_standard_error() -> None:
    x = normal(0, 40)
    without = (x.sum() - x) / 39
    found = jackknife(float(x.mean()), without)
    assert found.high - found.mean == pytest.approx(2.0227 * float(x.std()) / math.sqrt(40), rel=1e-4)
    wider = jackknife(0.0, without, beside=1.0)
    assert wider.high**2 == pytest.approx((found.high - found.mean) ** 2 + 2.0227**2, rel=1e-4)
    with pytest.raises(HarmoniaError, match="two rows"):
        jackknife(0.0, [1.0])


def test_the_kernel_distance_without_each_row_is_exact() -> None:
    x, y = normal(0, 12, 3), normal(1, 12, 3) + 0.5

    def whole(some: Tensor) -> float:
        n, k = len(some), (some @ some.T / 3 + 1) ** 3
        within = float(k.sum() - k.trace()) / (n * (n - 1))
        return within - 2 * float(((some @ y.T / 3 + 1) ** 3).mean())

    right = jackknife(kernel_distance(x, y).value, [whole(torch.cat([x[:i], x[i + 1 :]])) for i in range(12)])
    found = kernel_interval(x, y)
    assert (found.mean, found.low, found.high) == pytest.approx((right.mean, right.low, right.high))
    with pytest.raises(HarmoniaError, match="three rows"):
        kernel_interval(x[:2], y)


def test_a_kernel_interval_has_the_noise_of_its_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(0, 1100, 2) + 1, normal(1, 1100, 2)
    found, blocks = kernel_interval(x, y), kernel_distance(x, y)
    assert found.mean == blocks.value and blocks.deviation > 0

    def alone(value: float, without: Tensor, *, level: float, beside: float) -> Interval:
        return jackknife(value, without, level=level)

    monkeypatch.setattr("harmonia.metrics.generation.jackknife", alone)
    rows = kernel_interval(x, y)
    more = (found.high - found.mean) ** 2 - (rows.high - rows.mean) ** 2
    assert more == pytest.approx(1.96**2 * blocks.deviation**2 / 19, rel=0.02)


MEASURES = {
    "KD": lambda x, real: kernel_interval(x, real),
    "Inception Score": lambda x, real: inception_interval((2 * x[:, :4]).softmax(1), draws=100),
    "precision": lambda x, real: bootstrap(precision_recall(x, real).terms, draws=500),
    "recall": lambda x, real: of_diversity(precision_recall(x, real)),
    "density": lambda x, real: bootstrap(density_coverage(x, real).terms, draws=500),
    "coverage": lambda x, real: of_diversity(density_coverage(x, real)),
}


def of_diversity(found: Manifold) -> Interval:
    return jackknife(found.diversity, found.without)


@pytest.mark.parametrize("measure", MEASURES)
def test_intervals_hold_what_other_samples_give(measure: str) -> None:
    real, of = normal(0, 150, 4), MEASURES[measure]
    average = np.mean([of(1.2 * normal(100 + s, 150, 4), real).mean for s in range(60)])
    found = [of(1.2 * normal(s + 1, 150, 4), real) for s in range(20)]
    assert sum(one.low <= average <= one.high for one in found) >= 17
    assert all(one.low < one.mean < one.high for one in found)
    widths, values = [one.high - one.low for one in found], [one.mean for one in found]
    # four standard deviations if exact; the jackknife's may be wider
    assert 3 < np.mean(widths) / np.std(values) < 11


def test_an_inception_interval_is_within_what_is_possible() -> None:
    p = torch.eye(4).repeat(30, 1)
    p[:3] = 0.25
    found = inception_interval(p)
    assert found.mean == pytest.approx(inception_score(p).value) and 1 <= found.low < found.high <= 4
    same = inception_interval(torch.full((50, 10), 0.1))
    assert (same.low, same.high) == pytest.approx((1, 1))
    assert inception_interval(p[:10]).mean == pytest.approx(1)


# --- accuracy, text match, reconstruction


def test_accuracy_match_and_signal_to_noise_by_hand() -> None:
    p = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3]])
    assert class_accuracy(p, torch.tensor([0, 1, 1])).tolist() == [1, 1, 0]
    x, y = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [-1.0, 0.0]])
    assert text_match(x, y).tolist() == pytest.approx([96, 0])
    grey = torch.zeros(2, 1, 4, 4)
    assert psnr(grey, torch.stack([grey[0], grey[0] + 0.2])).tolist() == pytest.approx([math.inf, 20])
    with pytest.raises(HarmoniaError, match="its text"):
        text_match(x, y[:1])


def test_bytes_of_pictures_are_those_of_a_file() -> None:
    x = torch.tensor([-2.0, -1.0, 0.0, 1.0]).view(1, 1, 2, 2)
    assert bytes_of(x).flatten().tolist() == [0, 0, 128, 255]
    with pytest.raises(HarmoniaError, match="images are"):
        bytes_of(torch.zeros(2, 3))


# --- features and their names


class Standin(nn.Module):
    """The form of the TorchScript Inception-v3, with pixels for features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, return_features: bool = False, no_output_bias: bool = False) -> Tensor:
        pooled = x.float().mean(dim=(1, 2, 3)).unsqueeze(1)
        if return_features:
            return pooled.expand(-1, self.width)
        return torch.ones(x.shape[0], 1008)


def test_only_inception_is_called_fid(tmp_path: Path) -> None:
    torch.jit.script(Standin(2048)).save(str(tmp_path / "inception.pt"))
    inception = Inception(tmp_path / "inception.pt")
    assert distance_name(inception) == "FID"
    pictures = torch.full((3, 1, 8, 8), 0.0)
    assert (
        inception.features(pictures).shape == (3, 2048) and float(inception.features(pictures).max()) == 128
    )
    assert inception_score(inception.probabilities(pictures), splits=1).value == pytest.approx(1)
    assert distance_name(Function("pixels", lambda x: x.float())) == "FD (pixels)"


def test_another_file_is_no_inception(tmp_path: Path) -> None:
    torch.jit.script(Standin(64)).save(str(tmp_path / "other.pt"))
    (tmp_path / "noise.pt").write_bytes(b"noise")
    for name in ("other.pt", "noise.pt", "absent.pt"):
        with pytest.raises(HarmoniaError, match="no TorchScript Inception") as error:
            Inception(tmp_path / name)
        assert "\n" not in str(error.value)


def test_codes_of_an_encoder_are_features() -> None:
    class Mean:
        name = "mean colour"

        def encode(self, signals: list[Signal]) -> np.ndarray:
            return np.stack([signal.array.mean(axis=(0, 1)) for signal in signals]).astype(np.float32)

    pictures = torch.arange(300, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4)
    features = Codes(Mean())
    assert distance_name(features) == "FD (mean colour)"
    torch.testing.assert_close(features.features(pictures)[:, 2], pictures[:, 0, 0, 0].float())


def test_the_document_is_true() -> None:
    text = (ROOT / "docs" / "generation-metrics.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(example, {})
