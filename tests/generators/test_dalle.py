"""DALL-E: one stream of a text and codes, its losses, sampling, re-ranking, saving."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from harmonia.generators import Batch, Condition, ConditionConfig, load_generator, save_generator, spell
from harmonia.generators.autoencoders.autoencoder import VQVAEConfig
from harmonia.generators.tokens.dalle import DallE, DallEConfig, best_of
from harmonia.layers import Cache
from harmonia.objectives import token_cross_entropy
from harmonia.types import HarmoniaError

SHAPE = (1, 8, 8)


def made(text_weight: float = 0.125) -> DallE:
    torch.manual_seed(0)
    return DallE(
        DallEConfig(
            shape=SHAPE,
            codec=VQVAEConfig(shape=SHAPE, bottleneck="gumbel", codes=8, dim=4),
            condition=ConditionConfig(text=6, drop=0.0),
            dropout=0.0,
            text_weight=text_weight,
        )
    )


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts(*values: str) -> Condition:
    return Condition(len(values), text=spell(values, 6))


CODES = torch.stack([torch.arange(4).view(2, 2), torch.tensor([[7, 1], [0, 5]])])


def test_the_stream_is_causal() -> None:
    stream = made().double().eval().prior
    text, codes = spell(["abcdef", "xy"], 6), CODES.flatten(1)
    said, seen = stream(text, codes)
    assert said.shape == (2, 6, 257) and seen.shape == (2, 4, 8)
    other = text.clone()
    other[0, 3] += 1
    a, b = stream(other, codes)
    assert torch.equal(a[0, :4], said[0, :4]) and (a[0, 4] - said[0, 4]).abs().max() > 1e-9
    assert (b[0] - seen[0]).abs().max() > 1e-9 and torch.equal(b[1], seen[1])
    later = codes.clone()
    later[:, 2] = 3
    a, b = stream(text, later)
    assert torch.equal(a, said) and torch.equal(b[:, :3], seen[:, :3])
    assert (b[:, 3] - seen[:, 3]).abs().max() > 1e-9


def test_sampling_predicts_what_training_does() -> None:
    stream = made().double().eval().prior
    text, codes, cache = spell(["abc", ""], 6), CODES.flatten(1), Cache()
    whole = stream(text, codes)[1]
    one = [stream.begin(text, cache)]
    one += [stream.next(codes[:, i - 1], i, cache) for i in range(1, 4)]
    torch.testing.assert_close(torch.stack(one, 1), whole, rtol=0, atol=1e-12)


def test_the_loss_is_an_eighth_text() -> None:
    model = made().double().eval()
    condition = texts("ab", "")
    said, seen = model.prior(condition.text, CODES.flatten(1))
    # a, b and the end; the end alone
    where = (torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 2, 0]))
    words = token_cross_entropy(said[where], torch.tensor([98, 99, 0, 0]))
    codes = token_cross_entropy(seen, CODES.flatten(1))
    loss = model.losses(Batch(CODES, condition))["model"]
    torch.testing.assert_close(loss, words / 8 + 7 / 8 * codes)


def trained() -> DallE:
    model = made()
    optimizer = torch.optim.AdamW(model.groups()["model"], 3e-3, weight_decay=0.0)
    for step in range(60):
        torch.manual_seed(step)
        loss = model.losses(Batch(CODES, texts("one", "zwei")))["model"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def test_two_pictures_learned_by_heart_come_back_by_their_texts(tmp_path: Path) -> None:
    model = trained()
    condition = texts("zwei", "one", "zwei")
    expected = model.codec.decode_codes(CODES[[1, 0, 1]])
    drawn = model.sample(condition, generator=seeded())
    assert torch.equal(drawn, expected)
    save_generator(tmp_path / "model", model)
    loaded = load_generator(tmp_path / "model").generator
    assert loaded.config == model.config
    assert torch.equal(loaded.sample(condition, generator=seeded()), drawn)


def test_guidance_towards_one_is_the_condition_alone() -> None:
    model = made().double().eval()
    condition = texts("a", "bc", "def")
    one = model.sample(condition, generator=seeded())
    assert torch.equal(one, model.sample(condition, guidance=1 + 1e-9, generator=seeded()))
    null = model.sample(Condition(3), generator=seeded())
    assert torch.equal(null, model.sample(condition, guidance=1e-9, generator=seeded()))


def test_the_best_of_many_is_what_the_encoder_prefers() -> None:
    model = made().eval()

    def bright(x: Tensor, rows: Condition) -> Tensor:
        assert rows.n == len(x) == 12
        return x.mean((1, 2, 3))

    condition = texts("a", "b", "c")
    chosen = best_of(model, condition, bright, 4, generator=seeded())
    rows = condition.rows(torch.arange(3).repeat_interleave(4))
    all_ = model.sample(rows, generator=seeded()).view(3, 4, *SHAPE)
    torch.testing.assert_close(chosen.mean((1, 2, 3)), all_.mean((2, 3, 4)).amax(1))
    with pytest.raises(HarmoniaError, match="candidates"):
        best_of(model, condition, bright, 0)


def test_bad_use_is_told() -> None:
    with pytest.raises(HarmoniaError, match="needs texts"):
        DallEConfig(condition=ConditionConfig(classes=10))
    with pytest.raises(HarmoniaError, match="cut them"):
        made().sample(Condition(1, text=spell(["too long"], 9)))
