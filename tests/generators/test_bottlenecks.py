"""Bottlenecks and the losses beside them, as identities in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import distributions as D

from harmonia.generators.autoencoders.bottlenecks import (
    FSQ,
    DiagonalGaussian,
    GumbelSoftmax,
    Identity,
    VectorQuantizer,
    nearest,
)
from harmonia.objectives import (
    bce,
    bernoulli_log_likelihood,
    charbonnier,
    gaussian_kl,
    gaussian_log_likelihood,
    l1,
    l2,
    uniform_kl,
    vector_quantisation,
)
from harmonia.types import HarmoniaError

N, DIM, K = 5, 4, 16


@pytest.fixture(autouse=True)
def _float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_elbo_pieces_are_those_of_torch_distributions() -> None:
    m, v, pm, pv = torch.randn(4, N, DIM, 3)
    q, p = D.Normal(m, (v / 2).exp()), D.Normal(pm, (pv / 2).exp())
    assert torch.allclose(gaussian_kl(m, v, pm, pv), D.kl_divergence(q, p).sum((1, 2)))
    standard = D.Normal(torch.zeros(()), torch.ones(()))
    assert torch.allclose(gaussian_kl(m, v), D.kl_divergence(q, standard).sum((1, 2)))
    assert gaussian_kl(m, v, m, v).abs().max() < 1e-14
    x = torch.randn(N, DIM, 3)
    assert torch.allclose(gaussian_log_likelihood(x, m, v), q.log_prob(x).sum((1, 2)))
    bits = (x > 0).double()
    assert torch.allclose(bernoulli_log_likelihood(bits, m), D.Bernoulli(logits=m).log_prob(bits).sum((1, 2)))
    uniform = D.Categorical(logits=torch.zeros(N, 3, DIM))
    categorical = D.Categorical(logits=m.transpose(1, 2))
    assert torch.allclose(uniform_kl(m), D.kl_divergence(categorical, uniform).sum(1))
    certain = torch.full((1, 7), -1e9).index_fill_(1, torch.tensor([2]), 0.0)
    assert uniform_kl(certain).item() == pytest.approx(math.log(7))


def test_best_gaussian_variance_is_the_mean_squared_error() -> None:
    x, y = torch.randn(2, N, DIM)
    log_variance = torch.tensor(0.0, requires_grad=True)
    at = l2(y, x).mean().log()
    (slope,) = torch.autograd.grad(gaussian_log_likelihood(x, y, log_variance + at).sum(), log_variance)
    assert abs(slope) < 1e-12


def test_reconstruction_errors_and_their_reductions() -> None:
    x, y = torch.rand(2, N, 2, 3)
    for loss in (l1, l2, bce, charbonnier):
        assert torch.allclose(loss(y, x, reduce="sum"), 6 * loss(y, x)) and loss(y, x).shape == (N,)
    assert torch.allclose(l2(y, x, "sum"), torch.cdist(y.flatten(1), x.flatten(1)).diagonal().square())
    assert torch.allclose(charbonnier(y, x, 0.0), l1(y, x))
    assert torch.allclose(charbonnier(x, x, 0.1), torch.full((N,), 0.1))
    half = D.Bernoulli(probs=x)
    assert torch.allclose(bce(torch.logit(x), x, "sum"), half.entropy().sum((1, 2)))
    with pytest.raises(HarmoniaError, match="must have the same shape"):
        l1(y, x[:1])
    with pytest.raises(HarmoniaError, match="mean or sum"):
        l2(y, x, "max")


def test_gaussian_is_sampled_by_reparameterisation() -> None:
    parameters = torch.randn(N, 2 * DIM).requires_grad_()
    mean, log_variance = DiagonalGaussian.split(parameters)
    torch.manual_seed(1)
    bottled = DiagonalGaussian()(parameters)
    torch.manual_seed(1)
    noise = torch.randn(N, DIM)
    assert torch.equal(bottled.z, mean + (log_variance / 2).exp() * noise)
    assert torch.allclose(bottled.loss, gaussian_kl(mean, log_variance))
    (slope,) = torch.autograd.grad(bottled.z.sum(), parameters)
    expected = torch.cat([torch.ones(N, DIM), 0.5 * (log_variance / 2).exp() * noise], 1)
    assert torch.allclose(slope, expected)
    kept = Identity()(mean)
    assert kept.z is mean and not kept.loss.any() and kept.codes is None


def test_nearest_is_the_argmin_whatever_the_chunks() -> None:
    rows, codebook = torch.randn(101, DIM), torch.randn(K, DIM)
    exact = (rows[:, None] - codebook).square().sum(2).argmin(1)
    assert torch.equal(nearest(rows, codebook), exact)
    assert torch.equal(nearest(rows, codebook, budget=1), exact)
    assert torch.equal(nearest(rows, codebook, budget=7 * K), exact)


def test_vq_gives_the_entry_and_the_gradient_straight_through() -> None:
    vq = VectorQuantizer(K, DIM, learning="gradient", revive=0.0, commitment=0.3)
    z = torch.randn(N, DIM, 2, 3, requires_grad=True)
    bottled = vq(z)
    assert torch.equal(bottled.z, vq.entries(bottled.codes))  # to the bit: the entry at the argmin
    assert torch.equal(bottled.codes, vq.codes(z)) and bottled.codes.shape == (N, 2, 3)
    up = torch.randn_like(z)
    (slope,) = torch.autograd.grad((bottled.z * up).sum(), z, retain_graph=True)
    assert torch.equal(slope, up)
    # the codebook term moves entries towards encoder outputs, the commitment term the other way
    entry = vq.entries(bottled.codes)
    to_z, to_codebook = torch.autograd.grad(bottled.loss.sum(), (z, vq.codebook))
    assert torch.allclose(to_z, 0.3 * 2 * (z - entry) / (DIM * 6))
    step = vq.codebook - 0.01 * to_codebook
    before = (z - entry).square().sum()
    moved = torch.nn.functional.embedding(bottled.codes, step).movedim(-1, 1)
    assert (z - moved).square().sum() < before
    assert torch.allclose(vector_quantisation(z, entry, 0.3), 1.3 * l2(z, entry))
    assert torch.allclose(vector_quantisation(z, entry.detach(), 0.3), 0.3 * l2(z, entry))


def test_ema_codebook_is_the_ratio_of_moving_averages() -> None:
    vq = VectorQuantizer(K, DIM, decay=0.9, revive=0.0, epsilon=0.0)
    counts, sums = vq.counts.clone(), vq.sums.clone()
    for _ in range(5):
        z = torch.randn(300, DIM)
        codes = vq.codes(z)
        hot = torch.nn.functional.one_hot(codes, K).double()
        counts = 0.9 * counts + 0.1 * hot.sum(0)
        sums = 0.9 * sums + 0.1 * hot.T @ z
        assert torch.equal(vq(z).codes, codes)
        assert torch.allclose(vq.counts, counts) and torch.allclose(vq.sums, sums)
        assert torch.allclose(vq.codebook, sums / counts[:, None])
    assert not vq.codebook.requires_grad
    vq.eval()
    before = vq.codebook.clone()
    vq(z)
    assert torch.equal(vq.codebook, before)


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_dead_entries_begin_anew_at_vectors_of_the_batch(learning: str) -> None:
    vq = VectorQuantizer(K, DIM, learning=learning, revive=0.1, decay=0.5)
    z = torch.randn(200, DIM)
    vq._revive(z)  # all are dead before the first batch
    assert (torch.cdist(vq.codebook, z).amin(1) < 1e-12).all()
    for _ in range(8):
        vq(z)
    with torch.no_grad():
        vq.codebook[3] = 1e3
        vq.sums[3], vq.counts[3] = 1e3, 0.0
    vq(z)
    assert vq.codes(z).bincount(minlength=K)[3] > 0
    kept = VectorQuantizer(K, DIM, learning=learning, revive=0.0, decay=0.5)
    with torch.no_grad():
        kept.codebook[3] = kept.sums[3] = 1e3
    for _ in range(8):
        kept(z)
    assert kept.codes(z).bincount(minlength=K)[3] == 0


def test_revival_with_fewer_vectors_than_dead_entries() -> None:
    vq = VectorQuantizer(K, DIM)
    vq(torch.randn(3, DIM))
    assert (vq.counts > 0).sum() == 3 and vq.codebook.isfinite().all()


def test_gumbel_softmax_at_a_low_temperature_draws_from_the_categorical() -> None:
    gumbel = GumbelSoftmax(3, 3, temperature=1e-3, coldest=1e-3)
    with torch.no_grad():
        gumbel.codebook.copy_(torch.eye(3))
    logits = torch.tensor([0.0, 1.0, 2.0]).expand(20000, 3)
    y = gumbel(logits).z
    assert (y.amax(1) > 1 - 1e-6).double().mean() > 0.99  # one-hot
    assert torch.allclose(y.mean(0), logits[0].softmax(0), atol=0.015)


def test_gumbel_softmax_cools_trains_and_gives_entries() -> None:
    gumbel = GumbelSoftmax(K, DIM, temperature=1.0, coldest=0.25, anneal=2)
    logits = torch.randn(N, K, 2, 3, requires_grad=True)
    temperatures = []
    for _ in range(3):
        temperatures.append(gumbel.temperature)
        bottled = gumbel(logits)
    assert temperatures == [1.0, 0.625, 0.25]
    assert bottled.z.shape == (N, DIM, 2, 3) and torch.allclose(bottled.loss, uniform_kl(logits))
    (slope,) = torch.autograd.grad(bottled.z.square().sum(), logits)
    assert slope.abs().max() > 0
    gumbel.eval()
    assert torch.equal(gumbel(logits).z, gumbel.entries(logits.argmax(1)))


@pytest.mark.parametrize("levels", [(2,), (8, 5, 5), (3, 4)])
def test_fsq_codes_and_values_are_one_to_one(levels: tuple[int, ...]) -> None:
    fsq = FSQ(levels).double()
    codes = torch.arange(fsq.size).view(1, -1)
    values = fsq.entries(codes)
    assert values.abs().max() == 1 and len(values[0].T.unique(dim=0)) == fsq.size == math.prod(levels)
    assert torch.equal(fsq.codes(torch.atanh(values * 0.999)), codes)  # the way back, through tanh
    z = torch.randn(N, len(levels), 200).requires_grad_()
    bottled = fsq(z)
    assert torch.allclose(bottled.z, fsq.entries(bottled.codes)) and torch.equal(bottled.codes, fsq.codes(z))
    assert bottled.codes.unique().numel() > 0.5 * fsq.size
    (slope,) = torch.autograd.grad(bottled.z.sum(), z)
    assert torch.allclose(slope, (1 - z.tanh().square()) * (1 + 1e-3))


def test_what_cannot_be_meant_is_refused() -> None:
    with pytest.raises(HarmoniaError, match="ema or gradient"):
        VectorQuantizer(K, DIM, learning="luck")
    with pytest.raises(HarmoniaError, match="two levels"):
        FSQ((1, 3))
