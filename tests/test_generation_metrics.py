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
    Moments,
    bytes_of,
    class_accuracy,
    density_coverage,
    distance_name,
    frechet,
    frechet_at_infinity,
    frechet_distance,
    frechet_interval,
    inception_score,
    kernel_distance,
    moments,
    precision_recall,
    psnr,
    text_match,
)
from harmonia.types import HarmoniaError, Signal


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
    with pytest.raises(HarmoniaError, match="pictures are"):
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
    text = (Path(__file__).parent.parent / "docs" / "generation-metrics.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(example, {})
