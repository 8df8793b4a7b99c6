"""Distances in the features of a network, and how well texts match pictures, as identities."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from harmonia.layers import VGG16
from harmonia.objectives import damsm, info_nce, l2, perceptual, taps, word_similarity
from harmonia.types import HarmoniaError


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2), nn.Tanh())
    return nn.Sequential(*layers).double().requires_grad_(False)


def pictures(seed: int, n: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 12, 12, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("normalise", ["size", "channels"])
def test_equal_pictures_have_no_distance_and_others_have_one(normalise):
    features = taps(network(), "1", "3")
    x, y = pictures(0), pictures(1)
    assert perceptual(features, x, x, normalise=normalise) == 0
    assert perceptual(features, x, y, normalise=normalise) > 1e-3
    assert torch.equal(
        perceptual(features, x, y, normalise=normalise), perceptual(features, y, x, normalise=normalise)
    )


@pytest.mark.parametrize("normalise", ["size", "channels"])
def test_a_layer_with_everything_repeated_counts_as_before(normalise):
    x, y = pictures(0), pictures(1)
    features = taps(network(), "1")

    def larger(x):
        (a,) = features(x)
        return [a.repeat(1, 5, 1, 1).repeat_interleave(3, 2).repeat_interleave(2, 3)]

    torch.testing.assert_close(
        perceptual(larger, x, y, normalise=normalise), perceptual(features, x, y, normalise=normalise)
    )


def test_pixels_as_only_layer_are_the_mean_squared_error():
    x, y = pictures(0), pictures(1)
    torch.testing.assert_close(perceptual(lambda x: [x], x, y), l2(x, y).mean())


def test_unit_channels_ignore_contrast_and_stay_below_four():
    x, y = pictures(0), pictures(1)
    features = taps(network(), "3")
    assert perceptual(lambda x: [features(x)[0], -features(x)[0]], x, y, normalise="channels") <= 8
    louder = perceptual(lambda v: [7 * features(v)[0]], x, y, normalise="channels")
    torch.testing.assert_close(louder, perceptual(features, x, y, normalise="channels"))
    torch.testing.assert_close(
        perceptual(lambda v: [v], x, -x, normalise="channels"), torch.tensor(4.0, dtype=torch.float64)
    )


def test_descending_it_recovers_the_picture():
    features = taps(network(), "0")
    x, y = pictures(0, 1), pictures(1, 1).requires_grad_()
    before = perceptual(features, x, y)
    optimizer = torch.optim.Adam([y], 0.1)
    for _ in range(200):
        optimizer.zero_grad()
        perceptual(features, x, y).backward()
        optimizer.step()
    assert perceptual(features, x, y) < 0.01 * before


def test_weights_and_names_are_checked():
    net = network()
    with pytest.raises(HarmoniaError, match="no module"):
        taps(net, "stage9")
    with pytest.raises(HarmoniaError, match="weights"):
        perceptual(taps(net, "1"), pictures(0), pictures(1), weights=(1.0, 2.0))
    with pytest.raises(HarmoniaError, match="normalise"):
        perceptual(taps(net, "1"), pictures(0), pictures(1), normalise="none")
    features = taps(net, "1", "3")
    one, two = (perceptual(taps(net, k), pictures(0), pictures(1)) for k in ("1", "3"))
    both = perceptual(features, pictures(0), pictures(1), weights=(2.0, 0.5))
    torch.testing.assert_close(both, 2 * one + 0.5 * two)
    assert not net[1]._forward_hooks


def test_vgg16_takes_published_weights_by_name_and_refuses_others(tmp_path: Path):
    torch.manual_seed(0)
    given = VGG16()
    named = {k: v.contiguous() for k, v in given.state_dict().items()}
    assert named["features.28.weight"].shape == (512, 512, 3, 3)
    save_file(named | {"classifier.0.weight": torch.ones(2)}, tmp_path / "vgg16.safetensors")
    vgg = VGG16.load(tmp_path / "vgg16.safetensors")
    x = torch.rand(1, 1, 16, 16) * 2 - 1
    maps = vgg(x)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (512, 1, 1)
    ]  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(maps, given(x.repeat(1, 3, 1, 1)), strict=True))
    assert perceptual(vgg, x, x) == 0
    save_file({"features.0.weight": torch.ones(3)}, tmp_path / "other.safetensors")
    for name, wrong in (("missing.pth", "no VGG-16"), ("other.safetensors", "does not hold")):
        with pytest.raises(HarmoniaError, match=wrong):
            VGG16.load(tmp_path / name)


def codes(n: int = 4, t: int = 3, r: int = 5, d: int = 6):
    torch.manual_seed(0)
    mask = torch.arange(t) < torch.tensor([1, 3, 2, 3])[:n, None]
    shapes = ((n, t, d), (n, r, d), (n, d), (n, d))
    words, regions, sentence, picture = (torch.randn(*s, dtype=torch.float64) for s in shapes)
    return words, mask, regions, sentence, picture


def test_word_similarity_is_the_papers_sums():
    words, mask, regions, *_ = codes()
    scores = word_similarity(words, mask, regions, 4.0, 3.0)
    for i, v in enumerate(regions):
        for j in range(len(words)):
            e = words[j][mask[j]]
            s = (e @ v.T).softmax(0)  # over the words
            c = (4.0 * s).softmax(1) @ v  # over the regions
            cosines = [float(F.cosine_similarity(*pair, 0)) for pair in zip(c, e, strict=True)]
            r = math.log(sum(math.exp(3.0 * one) for one in cosines)) / 3.0
            assert abs(float(scores[i, j]) - r) < 1e-12


def test_words_that_are_not_there_change_nothing():
    words, mask, regions, sentence, picture = codes()
    other = torch.where(mask[..., None], words, 100.0)
    a, b = (damsm(w, mask, regions, sentence, picture) for w in (words, other))
    torch.testing.assert_close(a, b)
    with pytest.raises(HarmoniaError, match="without words"):
        word_similarity(words, torch.zeros_like(mask), regions)


def test_sentence_half_is_info_nce_and_equal_texts_are_no_negatives():
    words, mask, regions, sentence, picture = codes()
    s, p = F.normalize(sentence, dim=1), F.normalize(picture, dim=1)
    by_words = 10 * word_similarity(words, mask, regions)
    own = torch.arange(4)
    expected = 2 * info_nce(p, s, 10.0) + F.cross_entropy(by_words, own) + F.cross_entropy(by_words.T, own)
    torch.testing.assert_close(damsm(words, mask, regions, sentence, picture), expected)
    # with all rows the same text there is nothing left to be told from
    every = torch.ones(4, 4, dtype=torch.bool)
    assert damsm(words, mask, regions, sentence, picture, same=every).abs() < 1e-9
    with pytest.raises(HarmoniaError, match="two or more"):
        damsm(words[:1], mask[:1], regions[:1], sentence[:1], picture[:1])
