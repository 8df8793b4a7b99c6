"""The conditional GAN: its two players, seeds, files, what it learns, and its recipe."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harmonia.generators import Batch, Condition, ConditionConfig, load_generator, save_generator, spell
from harmonia.generators.adversarial.ada import AugmentConfig
from harmonia.generators.adversarial.critics import GameConfig
from harmonia.generators.adversarial.gan import GAN, GANConfig, doublings
from harmonia.recipes import prepare
from harmonia.recipes.generators.run import GeneratorRun
from harmonia.training import TrainConfig, fit, optim
from harmonia.types import HarmoniaError

SCALER = torch.amp.GradScaler("cpu", enabled=False)


def config(**changes: object) -> GANConfig:
    base = GANConfig(
        shape=(1, 8, 8), latent=4, condition=ConditionConfig(classes=2, text=6, code=5, drop=0.2)
    )
    return replace(base, **changes)


def labelled(n: int) -> Condition:
    return Condition(n, label=torch.arange(n) % 2)


class Halves:
    """Pictures of two kinds: the left or the right half is bright, by how much varies."""

    def __len__(self) -> int:
        return 512

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Batch:
        label = indices % 2
        bright = torch.rand(len(indices), 1, 1, 1, generator=generator) * 0.5 + 0.4
        left = (torch.arange(8) < 4).float() * 2 - 1
        x = bright * torch.where(label[:, None, None, None] == 0, left, -left).expand(-1, 1, 8, 8)
        return Batch(x, Condition(len(indices), label=label))


def test_each_loss_reaches_its_own_players_parameters() -> None:
    torch.manual_seed(0)
    model = GAN(config())
    groups = optim.trained(model)
    assert set(groups) == {"critic", "generator"}
    batch = Batch(torch.rand(4, 1, 8, 8), labelled(4))
    for group in groups:
        model.zero_grad()
        optim.backward({group: model.losses(batch)[group]}, groups, 1.0, SCALER)
        for name, own in groups.items():
            touched = sum(p.grad is not None and bool(p.grad.any()) for p in own)
            assert (touched > 0) == (name == group), (group, name)


@pytest.mark.parametrize("kind", ["label", "text", "code"])
def test_every_kind_of_condition_is_heard(kind: str) -> None:
    torch.manual_seed(0)
    model = GAN(config())
    values = {
        "label": torch.tensor([0, 1, -1]),
        "text": torch.tensor([[5, 6, 0, 0, 0, 0], [7, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]),
        "code": torch.tensor([[1.0, 0, 0, 0, 0], [0, 1.0, 0, 0, 0], [0, 0, 0, 0, 0]]),
    }
    condition = Condition(3, **{kind: values[kind]})
    z = torch.zeros(3, 4)
    x = model(z, condition)
    torch.testing.assert_close(x[2:], model(z[:1], Condition(1)))
    assert (x[0] - x[1]).abs().max() > 1e-3
    said = model.game.critic(x[:1].expand(3, -1, -1, -1), condition)
    assert said.unique().numel() == 3


def test_same_seed_same_picture_and_guidance_narrows() -> None:
    torch.manual_seed(0)
    model, condition = GAN(config()), Condition(64)

    def drawn(seed: int, guidance: float = 1.0) -> torch.Tensor:
        return model.sample(condition, guidance=guidance, generator=torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert drawn(1).abs().max() <= 1
    assert drawn(1, 4.0).std(dim=0).mean() < 0.5 * drawn(1).std(dim=0).mean()
    seen = []
    model.sample(Condition(2), watch=lambda step, of, x: seen.append((step, of, tuple(x.shape))))
    assert seen == [(1, 1, (2, 1, 8, 8))]
    with pytest.raises(HarmoniaError, match="guidance must be above 0"):
        drawn(1, 0.0)


def test_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    game = GameConfig(loss="hinge", r1=0.0, r2=0.0, augment=AugmentConfig(kinds=("shift",), start=0.3))
    model = GAN(config(game=game, spectral=True))
    model.losses(Batch(torch.rand(4, 1, 8, 8), labelled(4)))
    save_generator(tmp_path / "model", model)
    again = load_generator(tmp_path / "model").generator
    assert again.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    one, other = (
        m.eval().sample(labelled(3), generator=torch.Generator().manual_seed(0)) for m in (model, again)
    )
    assert torch.equal(one, other)


def test_training_goes_on_exactly_after_a_stop(tmp_path: Path) -> None:
    """The step, p and what was seen of the critic's signs are part of the state."""
    game = GameConfig(every=3, augment=AugmentConfig(kinds=("shift", "noise"), start=0.2, images=500))
    train = TrainConfig(steps=9, batch=8, betas=(0.0, 0.99), ema=0.9, device="cpu", save_every=4)

    def model() -> GAN:
        torch.manual_seed(0)
        return GAN(config(game=game))

    def stop(model: torch.nn.Module, line: dict[str, float]) -> None:
        if line["step"] == 6:
            raise KeyboardInterrupt

    train = replace(train, log_every=2)
    whole, halves = model(), model()
    fit(whole, Halves(), train, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(halves, Halves(), train, tmp_path / "halves", callbacks=[stop])
    halves = model()
    fit(halves, Halves(), train, tmp_path / "halves")
    assert int(whole.game.step) == 9
    for name, value in whole.state_dict().items():
        assert torch.equal(value, halves.state_dict()[name]), name


def test_a_short_training_draws_what_was_asked_for(tmp_path: Path) -> None:
    """Measured without the critic: the distance of each kind's mean picture, and the variety."""
    torch.manual_seed(0)
    model, data = GAN(config(condition=ConditionConfig(classes=2, drop=0.0))), Halves()
    truth = data.batch(torch.arange(512), torch.Generator().manual_seed(0)).x

    def distance() -> float:
        x = model.sample(labelled(512), generator=torch.Generator().manual_seed(0))
        return sum(float((x[k::2].mean(0) - truth[k::2].mean(0)).square().mean()) for k in (0, 1))

    before = distance()
    train = TrainConfig(
        steps=100, batch=16, lr=2e-3, betas=(0.0, 0.99), weight_decay=0, ema=0.95, clip=None, device="cpu"
    )
    fit(model, data, train, tmp_path)
    assert distance() < 0.1 * before


def test_sizes_and_settings_that_cannot_be_meant() -> None:
    assert [doublings((1, side, side)) for side in (28, 32, 64, 25)] == [2, 3, 4, 0]
    with pytest.raises(HarmoniaError, match="even sides above 4"):
        GANConfig(shape=(1, 25, 25))
    with pytest.raises(HarmoniaError, match="cannot be conditioned on an image"):
        GANConfig(condition=ConditionConfig(channels=1))
    with pytest.raises(HarmoniaError, match="latent is 0"):
        GANConfig(latent=0)


@pytest.mark.parametrize(("name", "condition"), [("gan", "label"), ("stylegan", "text")])
def test_the_recipes_train_and_save(name: str, condition: str, tmp_path: Path) -> None:
    digits = np.random.default_rng(0)
    (tmp_path / "mnist").mkdir()
    np.savez(
        tmp_path / "mnist" / "digits.npz",
        x=digits.integers(0, 256, (30, 28, 28), dtype=np.uint8),
        y=np.arange(30, dtype=np.int8) % 10,
    )
    changes = {"steps": "2", "batch": "4", "condition": condition, "device": "cpu"}
    run = prepare(name, tmp_path / "mnist", changes)
    assert isinstance(run, GeneratorRun)
    saved = load_generator(run.train(tmp_path / "run").model)
    assert saved.facts.labels[7][0] == "seven"
    asked = {"label": torch.tensor([0, 1, 2]), "text": spell(["one", "deux", "drei"], 32)}
    x = saved.generator.sample(Condition(3, **{condition: asked[condition]}), guidance=1.5)
    assert x.shape == (3, 1, 28, 28)
