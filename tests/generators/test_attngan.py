"""AttnGAN and the pair of towers that it draws by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from harmonia.generators import Batch, Condition, ConditionConfig, load_generator, save_generator, spell
from harmonia.generators.adversarial.attngan import AttnGAN, AttnGANConfig, WordAttention
from harmonia.generators.text_image_matching import MatchingConfig, MatchingPair, by_word
from harmonia.training import TrainConfig, fit
from harmonia.types import HarmoniaError

TEXTS = ("top half", "bottom half", "left half", "rechts")


class Halves:
    """Pictures with one half white, and the words for which."""

    def __init__(self, n: int = 256, side: int = 16) -> None:
        generator = torch.Generator().manual_seed(0)
        self.which = torch.arange(n) % 4
        masks = torch.zeros(4, 1, side, side)
        half = side // 2
        masks[0, :, :half], masks[1, :, half:], masks[2, ..., :half], masks[3, ..., half:] = 1, 1, 1, 1
        noise = 0.1 * torch.randn(n, 1, side, side, generator=generator)
        self.x = (masks[self.which] * 1.8 - 0.9 + noise).clamp(-1, 1)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Batch:
        text = spell([TEXTS[i] for i in self.which[indices].tolist()], 16)
        return Batch(self.x[indices], Condition(len(indices), text=text))


def config(side: int = 16) -> AttnGANConfig:
    shape = (1, side, side)
    pair = MatchingConfig(shape=shape, text=16, width=32)
    return AttnGANConfig(shape=shape, condition=ConditionConfig(text=16, drop=0.0), pair=pair, noise=16)


def model(side: int = 16) -> AttnGAN:
    torch.manual_seed(0)
    return AttnGAN(config(side))


def condition(n: int = 4) -> Condition:
    return Condition(n, text=spell([TEXTS[i % 4] for i in range(n)], 16))


def test_bytes_are_gathered_into_words_at_the_spaces():
    text = spell(["ab c", "", "x y z"], 8)
    letters = torch.arange(24, dtype=torch.float64).view(3, 8, 1)
    words, mask = by_word(letters, text, 2)
    assert mask.tolist() == [[True, True], [True, False], [True, True]]
    # z is past the second word, so it counts to it
    assert words[..., 0].tolist() == [[0.5, 3.0], [0.0, 0.0], [16.0, 19.0]]


def test_word_attention_sums_to_one_over_the_words_that_are_there():
    torch.manual_seed(0)
    attend = WordAttention(8, 6).double()
    h, words = torch.randn(2, 8, 3, 5, dtype=torch.float64), torch.randn(2, 4, 6, dtype=torch.float64)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    seen, weights = attend(h, words, mask)
    assert seen.shape == h.shape and weights.shape == (2, 3, 5, 4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3, 5, dtype=torch.float64))
    assert (weights[0, ..., 2:] == 0).all()
    # one word is all that a pixel can see
    one, _ = attend(h, words[:, :1], mask[:, :1])
    expected = attend.project(words[:, 0])[..., None, None].expand_as(h)
    torch.testing.assert_close(one, expected)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> MatchingPair:
    torch.manual_seed(0)
    trained = MatchingPair(config().pair)
    settings = TrainConfig(steps=40, batch=32, lr=3e-3, device="cpu", clip=None)
    fit(trained, Halves(), settings, tmp_path_factory.mktemp("pair"))
    return trained.requires_grad_(False)


@torch.no_grad()
def test_the_pair_prefers_what_belongs_together(pair):
    data = Halves(8)
    batch = data.batch(torch.arange(8), torch.Generator())
    scores = pair.see(batch.x).picture @ pair.read(batch.condition.text).sentence.T
    best = scores[:, :4].argmax(1)
    assert (best == data.which).all()
    right = pair.match(batch.x[:4], batch.condition.text[:4])
    wrong = pair.match(batch.x[:4], batch.condition.text[:4].roll(1, 0))
    assert right < 0.5 * wrong


def test_each_loss_trains_its_own_group_and_the_pair_stays(pair, tmp_path: Path):
    gan = model()
    gan.pair.load_state_dict(pair.state_dict())
    gan.pair.requires_grad_(False)
    groups = gan.groups()
    owned = [id(p) for group in groups.values() for p in group]
    trained = {id(p) for p in gan.parameters() if p.requires_grad}
    assert len(owned) == len(set(owned)) and set(owned) == trained
    before = {k: v.clone() for k, v in gan.pair.state_dict().items()}
    settings = TrainConfig(
        steps=24, batch=16, lr=2e-3, device="cpu", betas=(0.5, 0.99), clip=None, weight_decay=0.0
    )
    fit(gan, Halves(), settings, tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in gan.pair.state_dict().items())
    text = condition(32).text
    drawn = gan.sample(condition(32), generator=torch.Generator().manual_seed(1))
    assert drawn.shape == (32, 1, 16, 16) and drawn.abs().max() <= 1
    fresh = model().sample(condition(32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert pair.match(drawn, text) < pair.match(fresh, text) - 0.5


def test_same_seed_same_picture_and_stages_are_watched():
    gan = model().eval()
    seen: list[tuple[int, int, tuple[int, ...]]] = []
    a, b, c = (
        gan.sample(condition(), generator=torch.Generator().manual_seed(seed), watch=watch)
        for seed, watch in ((0, None), (0, lambda k, of, x: seen.append((k, of, tuple(x.shape)))), (1, None))
    )
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert seen == [(1, 2, (4, 1, 16, 16)), (2, 2, (4, 1, 16, 16))]
    # the text says what, the seed says how: with all noise taken away only the text is left
    seeds = (torch.Generator().manual_seed(seed) for seed in (0, 1))
    still = [gan.sample(condition(), guidance=1e9, generator=seed) for seed in seeds]
    torch.testing.assert_close(*still)
    assert (still[0][0] - still[0][1]).abs().max() > 1e-4


def test_stages_double_up_to_the_shape():
    assert config(28).sides == ((7, 7), (14, 14), (28, 28))
    assert config(64).sides == ((8, 8), (16, 16), (32, 32), (64, 64))
    assert model(28).sample(condition(2)).shape == (2, 1, 28, 28)


def test_saved_and_loaded_draws_the_same(tmp_path: Path):
    gan = model().eval()
    save_generator(tmp_path / "m", gan)
    again = load_generator(tmp_path / "m").generator
    assert again.config == gan.config
    x, y = (g.sample(condition(), generator=torch.Generator().manual_seed(3)) for g in (gan, again))
    assert torch.equal(x, y)


def test_it_draws_from_words_alone():
    with pytest.raises(HarmoniaError, match="needs a text"):
        model().sample(Condition(1))
    with pytest.raises(HarmoniaError, match="matching pair"):
        AttnGANConfig(shape=(1, 28, 28), condition=ConditionConfig(text=16))
    with pytest.raises(HarmoniaError, match="condition=text"):
        MatchingConfig(text=0)
