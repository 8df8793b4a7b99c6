"""StyleGAN2-ADA: modulation, demodulation, regularisers, truncation, and what it learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from harmonia.generators import Batch, Condition, ConditionConfig, load_generator, save_generator
from harmonia.generators.adversarial.ada import AugmentConfig
from harmonia.generators.adversarial.critics import GameConfig
from harmonia.generators.adversarial.equalized import EqualConv, EqualLinear, pixel_norm
from harmonia.generators.adversarial.stylegan import ModulatedConv, StyleGAN, StyleGANConfig, double
from harmonia.training import TrainConfig, fit, optim
from harmonia.types import HarmoniaError

SCALER = torch.amp.GradScaler("cpu", enabled=False)
PLAIN = GameConfig(loss="non_saturating", r1=0.5, r2=0.0, every=4)


def config(**changes: object) -> StyleGANConfig:
    base = StyleGANConfig(
        shape=(1, 8, 8), latent=4, mapping=2, condition=ConditionConfig(classes=2, drop=0.0), game=PLAIN
    )
    return replace(base, **changes)


def labelled(n: int) -> Condition:
    return Condition(n, label=torch.arange(n) % 2)


@pytest.mark.parametrize("demodulate", [True, False])
def test_modulated_convolution_is_one_with_every_samples_own_weights(demodulate: bool) -> None:
    torch.manual_seed(0)
    conv = ModulatedConv(3, 5, 3, 6, demodulate=demodulate).double()
    x, w = torch.randn(4, 3, 7, 7).double(), torch.randn(4, 6).double()
    style, weight = conv.style(w), conv.weight / 27**0.5
    for one, s, out in zip(x, style, conv(x, w), strict=True):
        own = weight * s[None, :, None, None]
        if demodulate:
            own = own / (own.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        torch.testing.assert_close(out, F.conv2d(one[None], own, padding=1)[0])


def test_demodulation_gives_unit_variance_whatever_the_style() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(4, 32, 40, 40), torch.randn(4, 16) * torch.tensor([0.1, 1.0, 10.0, 100.0])[:, None]
    inside = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    plain = ModulatedConv(32, 8, 3, 16, demodulate=False)
    demodulated = ModulatedConv(32, 8, 3, 16)
    spread = demodulated(x, w)[inside].std((2, 3))
    torch.testing.assert_close(spread, torch.ones_like(spread), atol=0.15, rtol=0)
    wild = plain(x, w)[inside].std((2, 3)).mean(1)
    assert wild[3] > 10 * wild[1]


def test_equalised_layers_keep_unit_variance_and_their_rate() -> None:
    torch.manual_seed(0)
    x = torch.randn(4000, 64)
    for rate in (1.0, 0.01):
        layer = EqualLinear(64, 16, rate=rate)
        assert layer(x).std().item() == pytest.approx(1, abs=0.1)
        assert layer.weight.std().item() == pytest.approx(1 / rate, rel=0.1)
    assert EqualConv(32, 16, 3)(torch.randn(4, 32, 20, 20))[:, :, 1:-1, 1:-1].std().item() == pytest.approx(
        1, abs=0.1
    )
    assert EqualLinear(4, 3, rate=0.5, bias=1.0)(torch.zeros(1, 4)).tolist() == [[1.0, 1.0, 1.0]]
    torch.testing.assert_close(pixel_norm(x).norm(dim=1), torch.full((4000,), 8.0))


def test_doubling_is_the_papers_filter() -> None:
    x = torch.randn(2, 3, 6, 5, dtype=torch.float64)
    spread = torch.zeros(2, 3, 12, 10, dtype=torch.float64)
    spread[:, :, ::2, ::2] = x
    taps = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 4
    kernel = torch.outer(taps, taps)[None, None].expand(3, -1, -1, -1)
    filtered = F.conv2d(F.pad(spread, (2, 1, 2, 1)), kernel, groups=3)
    torch.testing.assert_close(double(x)[..., 1:-1, 1:-1], filtered[..., 1:-1, 1:-1])


def test_each_loss_reaches_its_own_players_parameters() -> None:
    torch.manual_seed(0)
    model = StyleGAN(config(game=replace(PLAIN, augment=AugmentConfig(start=0.5))))
    groups = optim.trained(model)
    batch = Batch(torch.rand(4, 1, 8, 8), labelled(4))
    for group in groups:
        model.zero_grad()
        model.game.step.zero_()
        optim.backward({group: model.losses(batch)[group]}, groups, 1.0, SCALER)
        for name, own in groups.items():
            touched = sum(p.grad is not None and bool(p.grad.any()) for p in own)
            assert (touched > 0) == (name == group), (group, name)


def test_path_length_is_taken_lazily_and_its_mean_is_kept() -> None:
    batch = Batch(torch.rand(4, 1, 8, 8), labelled(4))
    torch.manual_seed(0)
    with_path, without = StyleGAN(config(path=3.0, path_every=3)), StyleGAN(config(path=0.0))
    without.load_state_dict(with_path.state_dict())
    for step in range(5):
        before, losses = float(with_path.length), []
        for model in (with_path, without):
            torch.manual_seed(step)
            losses.append(model.losses(batch)["generator"].item())
        lazy = step % 3 == 0
        assert (losses[0] > losses[1]) == lazy
        assert (float(with_path.length) != before) == lazy


def test_truncation_pulls_to_the_mean_of_the_condition() -> None:
    torch.manual_seed(0)
    model = StyleGAN(config())

    def drawn(guidance: float, label: int, seed: int = 0) -> torch.Tensor:
        asked = Condition(16, label=torch.full((16,), label))
        return model.sample(asked, guidance=guidance, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(2.0, 0), drawn(2.0, 0))
    assert not torch.equal(drawn(1.0, 0), drawn(1.0, 0, seed=1))
    tight = drawn(1e6, 0)
    assert tight.std(0).max() < 1e-4
    assert drawn(2.0, 0).std(0).mean() == pytest.approx(0.5 * drawn(1.0, 0).std(0).mean().item(), rel=0.4)
    assert (tight[0] - drawn(1e6, 1)[0]).abs().max() > 1e-2
    assert drawn(1.0, 0).abs().max() <= 1


def test_noise_inputs_vary_the_picture_once_they_have_strength() -> None:
    torch.manual_seed(0)
    model = StyleGAN(config())
    w = torch.randn(1, model.config.scale.width).expand(8, -1)
    assert model.synthesis(w, model._noise).std(0).max() < 1e-5
    for layer in (model.synthesis.first, *model.synthesis.same):
        torch.nn.init.constant_(layer.strength, 0.5)
    assert model.synthesis(w, model._noise).std(0).max() > 1e-2


def test_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = StyleGAN(config(game=replace(PLAIN, augment=AugmentConfig(kinds=("flip", "cutout"), start=0.1))))
    model.losses(Batch(torch.rand(4, 1, 8, 8), labelled(4)))
    save_generator(tmp_path / "model", model)
    again = load_generator(tmp_path / "model").generator
    assert again.config == model.config
    one, other = (m.sample(labelled(3), generator=torch.Generator().manual_seed(0)) for m in (model, again))
    assert torch.equal(one, other)
    assert isinstance(again, StyleGAN)
    assert float(again.length) == float(model.length) > 0


class Blobs:
    """A bright spot on black, at one of two places."""

    def __len__(self) -> int:
        return 256

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Batch:
        label, x = indices % 2, torch.full((len(indices), 1, 8, 8), -0.9)
        x[label == 0, :, 1:4, 1:4] = 0.8
        x[label == 1, :, 4:7, 4:7] = 0.8
        return Batch(
            x + 0.05 * torch.randn(x.shape, generator=generator), Condition(len(indices), label=label)
        )


def test_a_short_training_draws_what_was_asked_for(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = StyleGAN(config(path=0.5)), Blobs()
    truth = data.batch(torch.arange(64), torch.Generator().manual_seed(0)).x

    def distance() -> float:
        x = model.sample(labelled(64), generator=torch.Generator().manual_seed(0))
        return sum(float((x[k::2].mean(0) - truth[k::2].mean(0)).square().mean()) for k in (0, 1))

    before = distance()
    train = TrainConfig(
        steps=100, batch=8, lr=3e-3, betas=(0.0, 0.99), weight_decay=0, ema=0.95, clip=None, device="cpu"
    )
    fit(model, data, train, tmp_path)
    assert distance() < 0.1 * before


def test_settings_that_cannot_be_meant_are_refused() -> None:
    with pytest.raises(HarmoniaError, match="latent, mapping and path_every"):
        config(mapping=0)
    with pytest.raises(HarmoniaError, match="even sides"):
        config(shape=(1, 9, 8))
