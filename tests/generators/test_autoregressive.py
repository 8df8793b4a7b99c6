"""Transformers over codes: sampling, guidance, likelihood, saving, and that they learn."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harmonia.generators import Batch, Condition, ConditionConfig, load_generator, save_generator
from harmonia.generators.autoencoders.autoencoder import VQVAEConfig
from harmonia.generators.tokens.autoregressive import (
    Autoregressive,
    AutoregressiveConfig,
    both,
    guided,
    one_by_one,
    pick,
)
from harmonia.layers import Cache
from harmonia.objectives import masked_prediction, token_cross_entropy
from harmonia.recipes import prepare
from harmonia.recipes.generators.autoregressive import CodeSettings, moved, vqvae_prior
from harmonia.types import HarmoniaError
from tests.places import DATA

SHAPE = (1, 8, 8)


def made(codes: int = 6, classes: int = 3, text: int = 0, dropout: float = 0.0) -> Autoregressive:
    torch.manual_seed(0)
    return Autoregressive(
        AutoregressiveConfig(
            shape=SHAPE,
            codec=VQVAEConfig(shape=SHAPE, codes=codes, dim=4),
            condition=ConditionConfig(classes=classes, text=text, drop=0.2),
            dropout=dropout,
        )
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def livened(model: Autoregressive) -> Autoregressive:
    """With a head that says something; it begins at zero."""
    torch.nn.init.normal_(model.prior.head.weight, std=0.3, generator=seeded())
    return model.double().eval()


def labels(*values: int) -> Condition:
    return Condition(len(values), label=torch.tensor(values))


def test_sampling_predicts_what_training_does() -> None:
    """The logits of cached sampling are those of the whole sequence at once."""
    model = livened(made(text=5))
    condition = Condition(
        2, label=torch.tensor([1, -1]), text=torch.tensor([[9, 8, 7, 0, 0], [0, 0, 0, 0, 0]])
    )
    codes = torch.randint(6, (2, 4), generator=seeded())
    whole = model.logits(codes, condition)
    told, cache = model.prior.conditioner(condition), Cache()
    before = model.prior.shifted(codes)
    one = [model.prior(before[:, i : i + 1], told, cache=cache, first=i) for i in range(4)]
    torch.testing.assert_close(torch.cat(one, 1), whole, rtol=0, atol=1e-12)


def test_a_later_code_leaves_earlier_logits() -> None:
    model = livened(made())
    codes = torch.randint(6, (2, 4), generator=seeded())
    other = codes.clone()
    other[:, 2] = (other[:, 2] + 1) % 6
    a, b = model.logits(codes, labels(0, 1)), model.logits(other, labels(0, 1))
    assert torch.equal(a[:, :3], b[:, :3])
    assert (a[:, 3] - b[:, 3]).abs().max() > 1e-6


def test_the_condition_is_seen() -> None:
    model = livened(made())
    codes = torch.zeros(3, 4, dtype=torch.int64)
    a, b, none = model.logits(codes, labels(0, 1, -1))[:, 0]
    assert (a - b).abs().max() > 1e-6
    assert torch.equal(none, model.logits(codes, labels(0, 1, 2).without())[0, 0])


def test_guidance() -> None:
    """1 is the conditional, 0 the unconditional distribution; 2 their ratio squared, times the latter."""
    said, null = torch.randn(2, 4, 5, dtype=torch.float64, generator=seeded())
    rows = torch.cat([said, null])
    assert torch.equal(guided(said, 4, 1.0), said)
    torch.testing.assert_close(guided(rows, 4, 0.0), null)
    p, q = said.softmax(1), null.softmax(1)
    expected = p**2 / q
    torch.testing.assert_close(guided(rows, 4, 2.0).softmax(1), expected / expected.sum(1, keepdim=True))
    assert both(labels(1, 2), 1.0).n == 2
    assert both(labels(1, 2), 2.0).label.tolist() == [1, 2, -1, -1]  # type: ignore[union-attr]


def test_pick_draws_from_the_distribution() -> None:
    logits = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(40000, 4)
    share = torch.bincount(pick(logits, generator=seeded()), minlength=4) / 40000
    assert (share - torch.tensor([0.1, 0.2, 0.3, 0.4])).abs().max() < 0.01
    hot = torch.bincount(pick(logits, temperature=0.5, generator=seeded()), minlength=4) / 40000
    assert (hot - torch.tensor([1, 4, 9, 16]) / 30).abs().max() < 0.01
    two = torch.bincount(pick(logits, top_k=2, generator=seeded()), minlength=4) / 40000
    assert (two - torch.tensor([0, 0, 3 / 7, 4 / 7])).abs().max() < 0.01
    # 0.4 and 0.3 do not reach 0.75: the class that crosses it stays
    three = torch.bincount(pick(logits, top_p=0.75, generator=seeded()), minlength=4) / 40000
    assert (three - torch.tensor([0, 2 / 9, 3 / 9, 4 / 9])).abs().max() < 0.01
    assert set(pick(logits, top_p=0.1, generator=seeded()).tolist()) == {3}
    assert set(pick(logits[:9], temperature=0.0).tolist()) == {3}


def test_cross_entropy_and_masked_prediction() -> None:
    logits = torch.randn(2, 3, 5, dtype=torch.float64, generator=seeded())
    targets = torch.tensor([[0, 1, 2], [3, 4, 0]])
    log_p = logits.log_softmax(2)
    at = log_p.gather(2, targets[..., None])[..., 0]
    torch.testing.assert_close(token_cross_entropy(logits, targets), -at.mean())
    smooth = -(0.9 * at + 0.1 * log_p.mean(2))
    torch.testing.assert_close(token_cross_entropy(logits, targets, smoothing=0.1), smooth.mean())
    hidden = torch.tensor([[True, False, False], [False, True, True]])
    torch.testing.assert_close(masked_prediction(logits, targets, hidden), smooth[hidden].mean())
    with pytest.raises(HarmoniaError, match="no token"):
        masked_prediction(logits, targets, torch.zeros_like(hidden))
    with pytest.raises(HarmoniaError, match="targets"):
        token_cross_entropy(logits, targets[:1])
    with pytest.raises(HarmoniaError, match="smoothing"):
        token_cross_entropy(logits, targets, smoothing=1.0)


def trained(model: Autoregressive, batches: list[Batch], steps: int, lr: float = 3e-3) -> float:
    """The mean loss of the last tenth."""
    optimizer = torch.optim.AdamW(model.groups()["model"], lr, weight_decay=0.0)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for step in range(steps):
        torch.manual_seed(step)
        loss = model.losses(batches[step % len(batches)])["model"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        losses.append(loss.item())
    return sum(losses[-steps // 10 :]) / (steps // 10)


def test_the_likelihood_of_a_markov_source_reaches_its_entropy() -> None:
    """Two states that stay with probability 0.9: 0.325 nats a code after the first, ln 2 for the first."""
    torch.manual_seed(1)
    stays = torch.rand(80, 64, 4) < 0.9
    stays[:, :, 0] = torch.rand(80, 64) < 0.5
    codes = (~stays).long().cumsum(2) % 2
    h = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    entropy = (math.log(2) + 3 * h) / 4
    batches = [Batch(c.view(-1, 2, 2), Condition(64)) for c in codes]
    model = made(codes=2, classes=0)
    last = trained(model, batches, 80)
    assert entropy - 0.03 < last < entropy + 0.03
    drawn = model.eval().sample_codes(Condition(2000), generator=seeded()).flatten(1)
    stayed = (drawn[:, 1:] == drawn[:, :-1]).float().mean()
    assert abs(stayed - 0.9) < 0.04


def test_two_pictures_learned_by_heart_come_back() -> None:
    model = made(codes=8).eval()
    codes = torch.stack([torch.arange(4).view(2, 2), torch.tensor([[7, 1], [0, 5]])])
    condition = labels(0, 2)
    trained(model, [Batch(codes, condition)], 60)
    for guidance in (1.0, 2.0):
        assert torch.equal(model.sample_codes(condition, guidance=guidance, generator=seeded(3)), codes)
    assert torch.equal(model.sample(condition, generator=seeded()), model.codec.decode_codes(codes))


def test_the_same_seed_draws_the_same_and_each_step_is_shown() -> None:
    model = livened(made()).float()
    seen: list[tuple[int, int]] = []
    watch = lambda step, steps, x: seen.append((step, steps)) or None  # noqa: E731
    first = model.sample(labels(0, 1), guidance=1.5, generator=seeded(), watch=watch)
    assert seen == [(i, 4) for i in range(1, 5)]
    assert first.shape == (2, *SHAPE) and first.abs().max() <= 1
    assert torch.equal(first, model.sample(labels(0, 1), guidance=1.5, generator=seeded()))
    codes = [model.sample_codes(labels(*range(3)), generator=seeded(s)) for s in (0, 1, 2)]
    assert any(not torch.equal(codes[0], c) for c in codes[1:])


def test_guidance_is_the_settings_unless_told() -> None:
    model = livened(made()).float()
    model.config = replace(model.config, guidance=3.0)
    drawn = model.sample_codes(labels(*range(3)), generator=seeded())
    assert torch.equal(drawn, model.sample_codes(labels(*range(3)), guidance=3.0, generator=seeded()))
    one = model.sample_codes(labels(*range(3)), guidance=1.0, generator=seeded())
    assert torch.equal(one, model.sample_codes(labels(*range(3)), guidance=1 + 1e-6, generator=seeded()))
    assert not torch.equal(drawn, one)


def test_one_by_one_gives_each_place_the_code_before() -> None:
    model = made()
    asked: list[tuple[list[int], int]] = []

    def predict(before: Tensor, place: int) -> Tensor:
        asked.append((before.tolist(), place))
        return torch.nn.functional.one_hot(torch.tensor([place, 5 - place]), 6) * 100.0

    codes = one_by_one(predict, 2, 1.0, model.config, model.codec, seeded(), None)
    assert codes.flatten(1).tolist() == [[0, 1, 2, 3], [5, 4, 3, 2]]
    assert asked == [([6, 6], 0), ([0, 5], 1), ([1, 4], 2), ([2, 3], 3)]


def test_codes_train_like_their_pictures_and_the_codec_stays() -> None:
    model = made().eval()
    x = torch.rand(3, *SHAPE, generator=seeded()) * 2 - 1
    torch.manual_seed(0)
    a = model.losses(Batch(x, labels(0, 1, 2)))["model"]
    torch.manual_seed(0)
    b = model.losses(Batch(model.codec.codes(x), labels(0, 1, 2)))["model"]
    assert torch.equal(a, b)
    a.backward()
    assert all(p.grad is None for p in model.codec.parameters())
    assert all(p.grad is not None for p in model.groups()["model"])


def test_saved_and_loaded_draws_the_same(tmp_path: Path) -> None:
    model = livened(made()).float()
    save_generator(tmp_path / "model", model)
    loaded = load_generator(tmp_path / "model").generator
    assert loaded.config == model.config
    assert torch.equal(
        loaded.sample(labels(0, 1), generator=seeded()), model.sample(labels(0, 1), generator=seeded())
    )


def test_codes_begin_as_far_apart_as_their_entries() -> None:
    model = made(codes=8)
    embed = model.prior.embed
    before = embed.weight[8].clone()
    model.start()
    entries = model.codec.bottleneck.entries(torch.arange(8))
    far = torch.cdist(entries, entries) / entries.std()
    found = torch.cdist(embed.weight[:8], embed.weight[:8])
    # 128 random directions keep the distances of 4, up to a factor
    ratio = (found / far)[~torch.eye(8, dtype=torch.bool)]
    assert ratio.max() / ratio.min() < 1.7
    assert torch.equal(embed.weight[8], before)


def test_settings_that_cannot_be_meant() -> None:
    with pytest.raises(HarmoniaError, match="codec"):
        AutoregressiveConfig(shape=(1, 8, 8), codec=VQVAEConfig(shape=(1, 16, 16)))
    with pytest.raises(HarmoniaError, match="top_p"):
        AutoregressiveConfig(top_p=0.0)


def test_moving_repeats_the_border() -> None:
    x = torch.arange(9.0).view(1, 1, 3, 3).repeat(2, 1, 1, 1)
    right, up = moved(x, torch.tensor([1, 0]), torch.tensor([0, -1]))
    assert right[0].tolist() == [[0, 0, 1], [3, 3, 4], [6, 6, 7]]
    assert up[0].tolist() == [[3, 4, 5], [6, 7, 8], [6, 7, 8]]


def test_the_recipe_trains_the_codec_and_then_the_prior_on_its_codes(tmp_path: Path) -> None:
    (tmp_path / "mnist").mkdir()
    labels_ = np.arange(80) % 10
    digits = np.zeros((80, 28, 28), dtype=np.uint8)
    for digit, label in zip(digits, labels_, strict=True):
        digit[2 * label : 2 * label + 8, 4:24] = 255
    np.savez(tmp_path / "mnist" / "digits.npz", x=digits, y=labels_)
    settings = CodeSettings(steps=6, batch=8, codes=16, shift=1, device="cpu")
    run = vqvae_prior(tmp_path / "mnist", settings)
    codec = run.generator.codec  # type: ignore[attr-defined]
    before = [p.clone() for p in codec.parameters()]
    outcome = run.train(tmp_path / "run")
    assert [stage.config.steps for stage in run.stages] == [3, 3]
    assert any(not torch.equal(a, b) for a, b in zip(before, codec.parameters(), strict=True))
    coded = run.stages[1].dataset()  # type: ignore[operator]
    batch = coded.batch(torch.arange(5), seeded())
    assert batch.x.dtype == torch.int64 and batch.x.shape == (5, 7, 7)
    assert batch.condition.label.tolist() == [0, 1, 2, 3, 4]
    # of the nine moves, the middle one is none
    x = run.stages[0].dataset.pictures.x[:5] / 127.5 - 1  # type: ignore[union-attr]
    assert torch.equal(coded.codes[:5, 4], codec.codes(x))
    loaded = load_generator(outcome.model)
    assert loaded.facts.labels[3][:2] == ("three", "drei")
    assert loaded.generator.sample(labels(3), generator=seeded()).shape == (1, 1, 28, 28)


@pytest.mark.parametrize("name", ["vqvae-prior", "maskgit", "dalle", "recaptioned"])
def test_a_recipe_begins_with_the_same_weights(name: str) -> None:
    changes = {"dataset": "emoji", "condition": "text"} if name == "recaptioned" else {}
    if not DATA.is_dir():
        pytest.skip(f"no {DATA}: set HARMONIA_DATA")
    first, again = (prepare(name, DATA / (changes or {"dataset": "mnist"})["dataset"], changes) for _ in "ab")
    states = [run.generator.state_dict() for run in (first, again)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
