"""Augmentation: what it does to pictures, sounds, spectrograms and texts, drawn from one generator."""

from __future__ import annotations

import random
import time

import numpy as np
import pytest
import torch
from torch import Tensor

from harmonia.training.augment import (
    augment_images,
    augment_waves,
    choose_captions,
    drop_words,
    mask_spectrograms,
)
from harmonia.types import HarmoniaError

STRENGTHS = ("light", "strong")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int = 8, channels: int = 3, size: tuple[int, int] = (48, 64)) -> Tensor:
    """Smooth colour ramps, another for every picture."""
    rows = torch.linspace(0, 1, size[0])[:, None]
    columns = torch.linspace(0, 1, size[1])[None, :]
    mix = torch.rand(n, channels, 3, 1, 1, generator=seeded(9))
    return ((mix[:, :, 0] * rows + mix[:, :, 1] * columns + mix[:, :, 2]) * 85).to(torch.uint8)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_keep_shape_and_type_and_change(strength, channels):
    images = pictures(channels=channels)
    view = augment_images(images, seeded(), strength, flip=True)
    assert view.shape == images.shape and view.dtype == torch.uint8
    assert ((view.float() - images.float()).abs().mean((1, 2, 3)) > 1).sum() >= 6
    real = augment_images(images / 255, seeded(), strength, flip=True)
    assert real.dtype == torch.float32 and real.min() >= 0 and real.max() <= 1
    assert (real * 255 - view.float()).abs().max() < 1.01


@pytest.mark.parametrize("strength", STRENGTHS)
def test_pictures_depend_on_the_generator_alone(strength):
    images = pictures()
    first = augment_images(images, seeded(3), strength)
    torch.manual_seed(77)
    before = torch.get_rng_state()
    again = augment_images(images, seeded(3), strength)
    assert torch.equal(first, again)
    assert torch.equal(before, torch.get_rng_state())
    generator = seeded(3)
    assert torch.equal(first, augment_images(images, generator, strength))
    assert not torch.equal(first, augment_images(images, generator, strength))


def test_light_views_stay_close_and_flip_mirrors_half():
    images = torch.zeros(200, 3, 32, 32, dtype=torch.uint8)
    images[..., 22:] = 200  # bright on the right
    still = augment_images(images, seeded(), "light").float()
    assert (still[..., 27:].mean((1, 2, 3)) > still[..., :5].mean((1, 2, 3))).all()
    mirrored = augment_images(images, seeded(), "light", flip=True).float()
    left = (mirrored[..., :5].mean((1, 2, 3)) > mirrored[..., 27:].mean((1, 2, 3))).float().mean()
    assert 0.35 < left < 0.65


def test_light_rotation_keeps_a_circle_round_in_a_wide_picture():
    """Moments of a disc in a picture twice as wide as high: the axes differ by the aspect drawn at most."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(128.0), indexing="ij")
    disc = (((x - 64) ** 2 + (y - 32) ** 2) < 15**2).to(torch.uint8) * 255
    views = augment_images(disc.expand(64, 3, 64, 128), seeded(), "light")[:, 0].float()
    views = (views > views.amax((1, 2), keepdim=True) / 2).float()
    mass = views.sum((1, 2))
    centre_x = (views * x).sum((1, 2)) / mass
    centre_y = (views * y).sum((1, 2)) / mass
    across = ((views * (x - centre_x[:, None, None]) ** 2).sum((1, 2)) / mass).sqrt()
    along = ((views * (y - centre_y[:, None, None]) ** 2).sum((1, 2)) / mass).sqrt()
    assert ((across / along).log().abs() < np.log(1.3)).float().mean() > 0.95


def test_light_is_fast_enough_for_every_step():
    images = torch.randint(0, 256, (128, 3, 64, 64), dtype=torch.uint8)
    seconds = []
    for _ in range(5):
        start = time.process_time()
        augment_images(images, seeded(), "light", flip=True)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.12  # about 0.015 measured alone


def test_pictures_say_what_they_need():
    with pytest.raises(HarmoniaError, match=r"needs \(n, 3, height, width\).*\(3, 8, 8\)"):
        augment_images(torch.zeros(3, 8, 8), seeded())
    with pytest.raises(HarmoniaError, match="choose light or strong"):
        augment_images(pictures(), seeded(), "wild")  # type: ignore[arg-type]
    assert augment_images(torch.zeros(0, 3, 8, 8), seeded()).shape == (0, 3, 8, 8)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_waves_are_other_recordings_of_the_same_sound(strength):
    seconds = torch.arange(8000) / 8000
    waves = (0.5 * torch.sin(2 * torch.pi * torch.tensor([[220.0], [440.0]] * 8) * seconds)).half()
    random.seed(5)
    np.random.seed(5)
    states = random.getstate(), np.random.get_state()[1].copy()  # type: ignore[index]
    view = augment_waves(waves, seeded(1), 8000, strength)
    assert view.shape == waves.shape and view.dtype == torch.float16
    assert view.abs().max() <= 1 and view.isfinite().all()
    assert sum(not torch.equal(one, other) for one, other in zip(view, waves, strict=True)) >= 12
    assert torch.equal(view, augment_waves(waves, seeded(1), 8000, strength))
    assert not torch.equal(view, augment_waves(waves, seeded(2), 8000, strength))
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # type: ignore[index]
    if strength == "light":
        peak = torch.fft.rfft(view.float()).abs().argmax(1)
        assert peak.tolist() == [220, 440] * 8


def test_waves_of_silence_and_of_two_channels():
    assert augment_waves(torch.zeros(4, 2, 4000), seeded(), 8000).abs().max() == 0
    assert augment_waves(torch.zeros(0, 4000), seeded(), 8000).shape == (0, 4000)


def test_masks_are_bands_of_the_clips_mean():
    mels = torch.randn(300, 40, 100, generator=seeded(1))
    masked = mask_spectrograms(mels, seeded(), frequency=(1, 0.2), time=(1, 0.1))
    changed = masked != mels
    assert torch.equal(masked[~changed], mels[~changed])
    bands, frames = changed.all(2), changed.all(1)
    assert torch.equal(changed, bands[:, :, None] | frames[:, None, :])
    assert bands.sum(1).max() == 8 and frames.sum(1).max() == 10  # the longest that were allowed
    assert bands.sum(1).min() == 0
    assert bands.float().mean(0).min() > 0.01  # every band is masked at some time
    for line in (bands, frames):  # one interval each
        starts = (line[:, 1:] & ~line[:, :-1]).sum(1) + line[:, 0]
        assert starts.max() == 1
    mean = mels.mean((1, 2))[:, None, None].expand_as(mels)
    assert torch.allclose(masked[changed], mean[changed], atol=1e-6)
    assert torch.equal(masked, mask_spectrograms(mels, seeded(), frequency=(1, 0.2), time=(1, 0.1)))


def test_words_are_dropped_at_the_rate_and_never_all():
    texts = ["a dog runs over the wet green grass"] * 500 + ["dog", "", "一只狗在跑"]
    kept = drop_words(texts, seeded(), 0.25)
    words = sum(len(text.split()) for text in kept[:500])
    assert 0.72 < words / 4000 < 0.78
    assert kept[500:] == ["dog", "", "一只狗在跑"]
    assert kept == drop_words(texts, seeded(), 0.25) != drop_words(texts, seeded(1), 0.25)
    assert all(len(text.split()) == 1 for text in drop_words(texts[:5], seeded(), 1.0))
    assert drop_words(["two  blanks"], seeded(), 0.0) == ["two  blanks"]


def test_captions_are_chosen_evenly():
    counts = torch.tensor([1, 2, 5] * 1000)
    chosen = choose_captions(counts, seeded()).view(1000, 3)
    assert chosen.dtype == torch.long and (chosen[:, 0] == 0).all()
    assert 450 < (chosen[:, 1] == 0).sum() < 550
    assert torch.bincount(chosen[:, 2], minlength=5).min() > 150
    assert chosen[:, 2].max() == 4
    with pytest.raises(HarmoniaError, match="at least one caption"):
        choose_captions(torch.tensor([1, 0]), seeded())


def test_missing_library_says_what_to_install(monkeypatch):
    from harmonia.training import augment

    augment._kornia.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "kornia.augmentation", None)
    with pytest.raises(HarmoniaError, match=r"needs the package kornia: pip install 'harmonia\[train\]'"):
        augment_images(pictures(), seeded(), "strong")
