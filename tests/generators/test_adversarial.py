"""Adversarial losses, gradient penalties, critics and augmentation, as identities."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harmonia.generators import Condition, ConditionConfig
from harmonia.generators.adversarial.ada import KINDS, MOST, Augment, AugmentConfig
from harmonia.generators.adversarial.critics import (
    ConvCritic,
    CriticHead,
    Game,
    GameConfig,
    ResidualCritic,
    minibatch_std,
)
from harmonia.objectives import (
    ADVERSARIAL,
    gradient_penalty,
    hinge,
    least_squares,
    minimax,
    non_saturating,
    path_length,
    relativistic,
)
from harmonia.types import HarmoniaError


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Two distributions of five kinds of picture, in counts of 20: samples with exactly these shares.
P, Q = (8, 6, 3, 2, 1), (1, 2, 4, 5, 8)
REAL = torch.arange(5).repeat_interleave(torch.tensor(P))
FAKE = torch.arange(5).repeat_interleave(torch.tensor(Q))
p, q = (torch.tensor(counts, dtype=torch.float64) / 20 for counts in (P, Q))


def best_critic(name: str) -> tuple[Tensor, Tensor]:
    """The scores of the five kinds that a free critic learns against a fixed generator, and its loss."""
    scores = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    for _ in range(400):
        (slope,) = torch.autograd.grad(ADVERSARIAL[name](scores[REAL], scores[FAKE]).critic, scores)
        scores = (scores - 4 * slope).detach().requires_grad_()
    return scores.detach(), ADVERSARIAL[name](scores[REAL], scores[FAKE]).critic.detach()


@pytest.mark.parametrize("name", ["minimax", "non_saturating"])
def test_the_best_critic_is_the_density_ratio(name: str) -> None:
    scores, loss = best_critic(name)
    torch.testing.assert_close(scores.sigmoid(), p / (p + q), atol=1e-6, rtol=0)
    middle = (p + q) / 2
    js = ((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2
    assert -loss.item() == pytest.approx(2 * js.item() - math.log(4), abs=1e-10)


def test_least_squares_has_the_same_best_critic_without_a_sigmoid() -> None:
    torch.testing.assert_close(best_critic("least_squares")[0], p / (p + q), atol=1e-6, rtol=0)


def test_the_best_hinge_critic_takes_sides() -> None:
    loss = hinge(torch.sign(p - q)[REAL], torch.sign(p - q)[FAKE]).critic
    assert loss.item() == pytest.approx(2 * torch.minimum(p, q).sum().item())


def test_equal_densities_leave_chance() -> None:
    chance = torch.zeros(7, dtype=torch.float64)
    assert minimax(chance, chance).critic.item() == pytest.approx(math.log(4))
    assert relativistic(chance, chance).critic.item() == pytest.approx(math.log(2))


def test_non_saturating_gradient_is_minimax_times_odds() -> None:
    real, fake = draw(9), draw(9, seed=1).mul(3).requires_grad_()
    (saturating,) = torch.autograd.grad(minimax(real, fake).generator, fake)
    (not_saturating,) = torch.autograd.grad(non_saturating(real, fake).generator, fake)
    d = fake.detach().sigmoid()
    torch.testing.assert_close(not_saturating, saturating * (1 - d) / d)
    assert non_saturating(real, fake).critic.item() == minimax(real, fake).critic.item()


def test_the_hinge_critic_learns_inside_the_margin_only() -> None:
    real = torch.tensor([-2.0, 0.9, 1.1, 5.0]).requires_grad_()
    fake = torch.tensor([-5.0, -1.1, -0.9, 2.0]).requires_grad_()
    losses = hinge(real, fake)
    at_real, at_fake = torch.autograd.grad(losses.critic, (real, fake), retain_graph=True)
    assert at_real.tolist() == [-0.25, -0.25, 0.0, 0.0]
    assert at_fake.tolist() == [0.0, 0.0, 0.25, 0.25]
    (push,) = torch.autograd.grad(losses.generator, fake)
    assert push.tolist() == [-0.25] * 4


def test_relativistic_losses_know_differences_only_and_change_places() -> None:
    real, fake = draw(6), draw(6, seed=1)
    one, other, moved = relativistic(real, fake), relativistic(fake, real), relativistic(real + 7, fake + 7)
    assert one.critic.item() == pytest.approx(other.generator.item())
    assert one.generator.item() == pytest.approx(other.critic.item())
    assert one.critic.item() == pytest.approx(moved.critic.item())
    # softplus(a) - softplus(-a) = a
    assert (one.generator - one.critic).item() == pytest.approx((real - fake).mean().item())
    with pytest.raises(HarmoniaError, match="must have the same shape"):
        relativistic(real, fake[:3])


def test_half_precision_scores_are_widened_and_nonsense_is_refused() -> None:
    low = torch.full((3,), 12.0, dtype=torch.bfloat16)
    assert all(term.dtype == torch.float32 for term in least_squares(low, low))
    with pytest.raises(HarmoniaError, match="real must be one or more scores"):
        hinge(torch.empty(0), torch.zeros(3))


def test_penalty_of_a_linear_critic_is_half_its_squared_norm() -> None:
    weight = draw(3 * 4 * 4).requires_grad_()
    x = draw(5, 3, 4, 4, seed=1).requires_grad_()
    penalty = gradient_penalty(x.flatten(1) @ weight + 2, x)
    assert penalty.item() == pytest.approx(0.5 * weight.square().sum().item())
    (slope,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(slope, weight.detach())
    with pytest.raises(HarmoniaError, match="requires_grad_"):
        gradient_penalty(x.detach().sum((1, 2, 3)), x.detach())


def test_r1_makes_the_dirac_gan_converge() -> None:
    """Data at 0, generator at theta, critic psi x: without a penalty the players circle."""

    def end(gamma: float) -> float:
        psi, theta = (torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True) for _ in range(2))
        for _ in range(300):
            real = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
            said = (real @ psi)[:, 0]
            critic, generator = non_saturating(said, (theta @ psi)[:, 0])
            critic = critic + gamma * gradient_penalty(said, real)
            (at_psi,) = torch.autograd.grad(critic, psi, retain_graph=True)
            (at_theta,) = torch.autograd.grad(generator, theta)
            psi, theta = (
                (v - 0.1 * g).detach().requires_grad_() for v, g in ((psi, at_psi), (theta, at_theta))
            )
        return math.hypot(psi.item(), theta.item())

    assert end(0.0) > 0.5
    assert end(1.0) < 0.01


def test_path_length_is_zero_for_a_scaled_isometry() -> None:
    """Lengths |J^T y| of a linear map with orthonormal columns, times 3, are near 3; and their average."""
    torch.manual_seed(0)
    rows, pixels = 4096, 64
    a = torch.linalg.qr(draw(pixels, pixels)).Q * 3
    w = draw(rows, pixels, seed=2).requires_grad_()
    x = (w @ a.T).view(rows, 1, 8, 8)
    zero = torch.zeros((), dtype=torch.float64)
    penalty, mean = path_length(x, w, zero, decay=0.0)
    # |y| of 64 normal numbers / 8 is 1 within a few per cent, times 3.
    assert mean.item() == pytest.approx(3, rel=0.02)
    assert penalty.item() == pytest.approx(9 / (2 * pixels), rel=0.1)
    _, slow = path_length(x, w, torch.tensor(1.0, dtype=torch.float64), decay=0.9)
    assert slow.item() == pytest.approx(0.9 + 0.3, rel=0.02)
    crooked = w @ torch.diag(torch.cat([torch.full((1,), 24.0), torch.zeros(63)])).double()
    assert path_length(crooked.view(rows, 1, 8, 8), w, zero, decay=0.0)[0].item() > 10 * penalty.item()


# Critics


def test_minibatch_std_separates_collapsed_batches() -> None:
    varied, collapsed = draw(8, 3, 4, 4), draw(1, 3, 4, 4).expand(8, -1, -1, -1)
    assert minibatch_std(varied).shape == (8, 4, 4, 4)
    assert minibatch_std(collapsed)[:, 3].max() < 1e-3
    assert minibatch_std(varied)[:, 3].min() > 0.3
    torch.testing.assert_close(minibatch_std(varied)[:, :3], varied)


def test_minibatch_std_by_hand() -> None:
    """Groups are every (n / group)-th; of 6 pictures in fours only three go in a group."""
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(-1, 2, 2, 2)
    expected = torch.tensor([0.0, 2.0, 4.0]).std(correction=0).item()
    assert minibatch_std(x)[:, 2].flatten().tolist() == pytest.approx([expected] * 24)
    two = torch.tensor([0.0, 1.0, 4.0, 9.0]).view(4, 1, 1, 1)
    assert minibatch_std(two, 2)[:, 1].flatten().tolist() == pytest.approx([2.0, 4.0, 2.0, 4.0])


def test_projection_is_linear_in_the_condition() -> None:
    torch.manual_seed(0)
    head = CriticHead(4, (2, 2), 16, ConditionConfig(classes=3), group=1)
    x = torch.randn(1, 4, 2, 2)
    said = [head(x, Condition(1, label=torch.tensor([label]))) for label in (0, 1, -1)]
    phi = F.leaky_relu(head.phi(F.pad(x, (0, 0, 0, 0, 0, 1)).flatten(1)), 0.2)
    weight = head.told.label.weight
    expected = (weight[0] - weight[1]) @ phi[0] / 4
    assert (said[0] - said[1]).item() == pytest.approx(expected.item(), abs=1e-3)
    assert said[2].item() == pytest.approx(head.psi(phi).item(), abs=1e-3)


@pytest.mark.parametrize("side", [28, 32])
def test_critics_score_each_picture(side: int) -> None:
    condition = ConditionConfig(classes=4)
    for critic in (
        ConvCritic((3, side, side), (4, 8), 8, condition, spectral=True),
        ResidualCritic((3, side, side), (4, 8, 8), 8, condition),
    ):
        scores = critic(torch.randn(6, 3, side, side), Condition(6, label=torch.arange(6) % 4))
        assert scores.shape == (6,)


def test_spectral_norm_bounds_every_layer() -> None:
    torch.manual_seed(0)
    critic = ConvCritic((1, 16, 16), (4, 8), 8, ConditionConfig(), spectral=True)
    for _ in range(30):
        critic(torch.randn(2, 1, 16, 16), Condition(2))
    critic.eval()
    layers = [m for m in [*critic.body, critic.head.phi, critic.head.psi] if hasattr(m, "weight")]
    assert len(layers) == 4
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() == pytest.approx(1, abs=0.02)


def test_a_game_shares_a_pass_and_penalises_lazily() -> None:
    """The critic's loss is as from a detached fake; every fourth step has the penalties, four times."""
    torch.manual_seed(0)
    config = GameConfig(loss="relativistic", r1=0.5, r2=0.25, every=4)
    game = Game(config, ConvCritic((1, 8, 8), (4, 8), 8, ConditionConfig())).double()
    condition, source = Condition(6), draw(6, 1, 8, 8, seed=3).requires_grad_()
    real, fake = draw(6, 1, 8, 8), (source * 2).tanh()
    x, y = real.clone().requires_grad_(), fake.detach().requires_grad_()
    said, told = game.critic(x, condition), game.critic(y, condition)
    plain = relativistic(said, told)
    extra = 4 * (0.5 * gradient_penalty(said, x) + 0.25 * gradient_penalty(told, y))
    parameters = list(game.critic.parameters())
    expected = torch.autograd.grad(plain.critic + extra, [v for v in parameters if v.ndim], allow_unused=True)
    for step in range(5):
        losses = game(real, fake, condition)
        lazy = step % 4 == 0
        assert losses.critic.item() == pytest.approx((plain.critic + (extra if lazy else 0)).item())
        assert losses.generator.item() == pytest.approx(plain.generator.item())
        if lazy:
            given = torch.autograd.grad(losses.critic, parameters, retain_graph=True, allow_unused=True)
            for one, other in zip(given, expected, strict=True):
                assert (one is None) == (other is None)
                if one is not None:
                    torch.testing.assert_close(one, other)
    assert torch.autograd.grad(losses.generator, source)[0].abs().sum() > 0


# Augmentation


def augment(p: float, *kinds: str, images: int = 1000) -> Augment:
    return Augment(AugmentConfig(kinds=kinds or KINDS, start=p, images=images))


def test_without_probability_nothing_changes() -> None:
    x = torch.randn(4, 3, 8, 8)
    assert augment(0.0)(x) is x


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_changes_its_share_and_leaves_gradients(kind: str) -> None:
    torch.manual_seed(0)
    x = torch.rand(300, 3, 16, 12).requires_grad_()
    y = augment(0.5, kind)(x)
    assert y.shape == x.shape
    changed = ((y - x).abs().flatten(1).amax(1) > 1e-3).float().mean().item()
    # of flips half, and of quarter turns a quarter, are none
    share = {"flip": 0.25, "turn": 0.375}.get(kind, 0.5)
    assert changed == pytest.approx(share, abs=0.1)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.isfinite().all()
    assert (gradient.flatten(1).abs().sum(1) > 0).all()


def test_flips_and_shifts_move_whole_pixels() -> None:
    torch.manual_seed(0)
    x = torch.rand(60, 1, 8, 16)
    y = augment(MOST, "flip")(x)
    same, turned = (y - x).abs().flatten(1).amax(1) < 1e-5, (y - x.flip(3)).abs().flatten(1).amax(1) < 1e-5
    assert (same | turned).all()
    assert same.any()
    assert turned.any()
    values = x[0].flatten()
    moved = augment(MOST, "shift")(x[:1].expand(20, -1, -1, -1)).flatten()
    assert (moved[:, None] - values).abs().amin(1).max() < 1e-4


def test_probability_follows_overfitting() -> None:
    sure, unsure = torch.ones(50), torch.tensor([1.0, -1.0]).repeat(25)
    change = augment(0.2, "noise")
    for _ in range(3):
        change.observe(sure)
    assert change.p.item() == pytest.approx(0.2)
    change.observe(sure)
    assert change.p.item() == pytest.approx(0.4)
    for _ in range(4):
        change.observe(unsure)
    assert change.p.item() == pytest.approx(0.2)
    for _ in range(40):
        change.observe(sure)
    assert change.p.item() == pytest.approx(MOST)
    for _ in range(40):
        change.observe(-sure)
    assert change.p.item() == 0


def test_a_critic_that_knows_its_few_pictures_raises_the_probability() -> None:
    """Eight pictures by heart, against noise: p rises; the same pictures on both sides: it does not."""

    def after(fake: Tensor) -> float:
        torch.manual_seed(0)
        config = AugmentConfig(kinds=("shift", "noise"), images=800)
        game = Game(
            GameConfig(loss="non_saturating", r1=0.0, r2=0.0, augment=config),
            ConvCritic((1, 8, 8), (8, 8), 16, ConditionConfig()),
        )
        optimizer = torch.optim.Adam(game.parameters(), 0.01, fused=True)
        for _ in range(24):
            optimizer.zero_grad()
            game(real, fake.requires_grad_(), Condition(8)).critic.backward()
            optimizer.step()
        assert game.augment is not None
        return game.augment.p.item()

    real = draw(8, 1, 8, 8).float()
    assert after(draw(8, 1, 8, 8, seed=1).float()) > 0.05
    assert after(real.clone()) == 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: GameConfig(loss="wasserstein"), "there is no adversarial loss 'wasserstein'"),
        (lambda: GameConfig(r1=-1), "r1 and r2"),
        (lambda: AugmentConfig(kinds=("blur",)), "there is no augmentation 'blur'"),
        (lambda: AugmentConfig(start=0.9), "start must be from 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(make: object, match: str) -> None:
    assert callable(make)
    with pytest.raises(HarmoniaError, match=match):
        make()
