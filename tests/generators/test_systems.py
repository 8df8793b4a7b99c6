"""Latent diffusion, GLIDE, Imagen and DALL-E 2 as compositions: what parts are given, what comes out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from harmonia.generators import (
    Batch,
    Condition,
    ConditionConfig,
    Facts,
    Saved,
    load_generator,
    save_generator,
    spell,
)
from harmonia.generators.autoencoders.autoencoder import VAEConfig
from harmonia.generators.base import Generator
from harmonia.generators.diffusion.cascade import Cascade, CascadeConfig, Imagen, ImagenConfig
from harmonia.generators.diffusion.glide import Glide, GlideConfig, Inpainting, erased
from harmonia.generators.diffusion.latent import Latent, LatentConfig
from harmonia.generators.diffusion.model import DiffusionConfig
from harmonia.generators.diffusion.unclip import Unclip, UnclipConfig
from harmonia.generators.text_image_matching import MatchingConfig
from harmonia.recipes import prepare
from harmonia.tasks.image_io import Known
from harmonia.tasks.sampling import Sampling, Start, draw
from harmonia.training import TrainConfig, fit
from harmonia.types import HarmoniaError
from tests.places import DATA

SHAPE = (1, 12, 12)
TEXTS = ("links", "rechts")
CONDITION = ConditionConfig(text=8, drop=0.1)
PAIR = MatchingConfig(shape=SHAPE, text=8, width=16)
SMALL = DiffusionConfig(channels=(1, 2), times="logit-normal", steps=4)


class Sides:
    """Pictures whose left or right half is white, in a brightness of its own, and the word for which."""

    def __init__(self, n: int = 128) -> None:
        generator = torch.Generator().manual_seed(0)
        self.which = torch.arange(n) % 2
        self.x = -torch.ones(n, *SHAPE)
        bright = torch.rand(n, 1, 1, generator=generator) * 0.8 + 0.2
        for i, side in enumerate((slice(0, 6), slice(6, 12))):
            self.x[self.which == i, :, :, side] = bright[self.which == i, :, :, None].expand(-1, 1, 12, 6)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: torch.Tensor, generator: torch.Generator) -> Batch:
        return Batch(self.x[indices], condition(self.which[indices].tolist()))


def condition(which: list[int]) -> Condition:
    return Condition(len(which), text=spell([TEXTS[i] for i in which], 8))


def build(kind: str) -> Generator:
    torch.manual_seed(0)
    common = {"shape": SHAPE, "condition": CONDITION}
    stages = {"base": replace(SMALL, patch=1), "upsampler": replace(SMALL, augment=0.5, steps=2)}
    if kind == "latent":
        vae = VAEConfig(dim=2, spatial=True, stride=2)
        return Latent(LatentConfig(**common, autoencoder=vae, flow=replace(SMALL, patch=1)))
    if kind == "cascade":
        return Cascade(CascadeConfig(**common, **stages))
    if kind == "glide":
        return Glide(GlideConfig(**common, **stages))
    if kind == "imagen":
        return Imagen(ImagenConfig(**common, **stages, pair=PAIR))
    return Unclip(UnclipConfig(**common, pair=PAIR, prior=SMALL, decoder=SMALL))


def train(model: torch.nn.Module, folder: Path, steps: int) -> None:
    settings = TrainConfig(
        steps=steps, batch=32, lr=3e-3, device="cpu", warmup=min(5, steps), weight_decay=0.0
    )
    fit(model, Sides(), settings, folder)


KINDS = ("latent", "cascade", "glide", "imagen", "unclip")


@pytest.mark.parametrize("kind", KINDS)
def test_each_system_trains_its_own_groups_and_draws_its_shape(kind, tmp_path: Path):
    model = build(kind)
    if kind in ("imagen", "unclip"):
        model.pair.requires_grad_(False)
    owned = [id(p) for group in model.groups().values() for p in group]
    assert len(owned) == len(set(owned)) == sum(p.requires_grad for p in model.parameters())
    losses = model.losses(Sides().batch(torch.arange(8), torch.Generator()))
    assert set(losses) == set(model.groups())
    # each loss reaches its own group and no other
    for name, parameters in model.groups().items():
        gradients = {
            other: torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            for other, loss in losses.items()
        }
        for other, found in gradients.items():
            assert any(g is not None for g in found) == (other == name)
    train(model, tmp_path, 2)
    seen: list[tuple[int, int, tuple[int, ...]]] = []
    x = model.sample(
        condition([0, 1, 0]),
        generator=torch.Generator().manual_seed(1),
        watch=lambda step, of, x: seen.append((step, of, tuple(x.shape))),
    )
    total = 6 if kind in ("cascade", "glide", "imagen") else 4
    assert x.shape == (3, *SHAPE) and x.abs().max() <= 1
    assert seen == [(k, total, (3, *SHAPE)) for k in range(1, total + 1)]
    again = model.sample(condition([0, 1, 0]), generator=torch.Generator().manual_seed(1))
    assert torch.equal(x, again)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded_draws_the_same(kind, tmp_path: Path):
    model = build(kind).eval()
    for parameter in model.parameters():  # what begins at zero would hide a mistake
        torch.nn.init.normal_(parameter, std=0.05)
    save_generator(tmp_path / "m", model)
    again = load_generator(tmp_path / "m").generator
    assert type(again) is type(model) and again.config == model.config
    x, y = (m.sample(condition([0, 1]), generator=torch.Generator().manual_seed(3)) for m in (model, again))
    assert torch.equal(x, y)


def test_the_upsampler_is_given_a_noised_small_picture_and_told_how_much():
    model = build("cascade").eval()
    drawn: list[torch.Tensor] = []
    given: list[Condition] = []
    base, upsampler = model.base.sample, model.upsampler.sample

    def first(*args, **kwargs):
        drawn.append(base(*args, **kwargs))
        return drawn[-1]

    def second(told, **kwargs):
        given.append(told)
        return upsampler(told, **kwargs)

    model.base.sample, model.upsampler.sample = first, second
    model.sample(condition([0] * 64), generator=torch.Generator().manual_seed(0))
    assert drawn[0].shape == (64, 1, 6, 6)
    level = model.config.level
    assert (given[0].level == level).all()
    noise = (given[0].image - (1 - level**2) ** 0.5 * model.enlarge(drawn[0])) / level
    assert noise.mean().abs() < 0.05 and abs(noise.std() - 1) < 0.05


def test_in_training_the_upsampler_sees_every_level():
    model = build("cascade")
    levels: list[torch.Tensor] = []
    handle = model.upsampler.conditioner.register_forward_pre_hook(
        lambda m, args: levels.append(args[0].level)
    )
    model.losses(Sides().batch(torch.arange(128), torch.Generator()))
    handle.remove()
    assert levels[0].min() < 0.05 and 0.45 < levels[0].max() <= 0.5


@pytest.fixture(scope="module")
def glide(tmp_path_factory: pytest.TempPathFactory) -> Glide:
    model = build("glide")
    model.requires_grad_(False)
    finetuning = Inpainting(model)
    finetuning.begin()
    train(finetuning, tmp_path_factory.mktemp("inpaint"), 70)
    return model.requires_grad_(False)


def test_inpainting_keeps_what_is_known_and_completes_the_rest(glide):
    data = Sides(32)
    mask = torch.ones(32, 1, 12, 12)
    mask[:, :, :6] = 0  # the upper half is to be drawn
    plain = Condition(32, text=spell([""] * 32, 8))
    told = replace(plain, image=torch.cat([data.x * mask, mask], 1))
    x = glide.sample(told, generator=torch.Generator().manual_seed(0))
    assert torch.equal(x[:, :, 6:], data.x[:, :, 6:])
    assert not torch.equal(x[:, :, :6], data.x[:, :, :6])
    # what is known below tells the base what is above, without a word
    upper = glide.reduce(data.x)[:, :, :3]
    drawn = (
        glide.base.sample(glide.base_condition(c), generator=torch.Generator().manual_seed(0), steps=6)
        for c in (told, plain)
    )
    error, chance = ((y[:, :, :3] - upper).square().mean() for y in drawn)
    assert error < 0.6 * chance


def test_glide_completes_what_imagine_gives_it(glide):
    x = torch.rand(SHAPE) * 2 - 1
    mask = torch.zeros(SHAPE[1:], dtype=torch.bool)
    mask[: SHAPE[1] // 2] = True
    saved = Saved(glide.eval(), Facts("glide"), "")
    start = Start(known=Known(x, mask))
    drawn = next(draw(saved, condition([1]), Sampling(2, steps=2), start))
    assert drawn.shape == (2, *SHAPE) and torch.allclose(drawn[:, :, mask], x[:, mask].expand(2, -1, -1))
    with pytest.raises(HarmoniaError, match="cannot inpaint or start from an image"):
        next(draw(saved, condition([1]), Sampling(1, steps=2), Start(sketch=x)))


def test_a_small_pixel_is_known_where_all_of_its_square_is():
    model = build("glide")
    image = torch.cat([torch.full((1, 1, 12, 12), 0.5), torch.ones(1, 1, 12, 12)], 1)
    image[0, 1, 0, 0] = 0
    told = model.base_condition(Condition(1, image=image))
    assert told.image[0, 1].sum() == 35 and told.image[0, 1, 0, 0] == 0
    assert told.image[0, 0, 0, 0] == 0 and (told.image[0, 0].flatten()[1:] == 0.5).all()
    assert (told.level == 0).all()
    torch.manual_seed(0)
    missing = (erased(200, 12, 12) == 0).float().mean((1, 2, 3))
    assert missing.min() > 0.02 and missing.max() > 0.8


def test_imagen_reads_texts_by_its_frozen_tower():
    model = build("imagen")
    told = model.model_condition(condition([0, 1]))
    assert told.text is None and torch.equal(told.features, model.pair.letters(condition([0, 1]).text))
    assert told.features.shape == (2, 8, model.config.base.condition.features)
    # a text that says nothing is the null
    assert (model.model_condition(Condition(1, text=spell([""], 8))).features == 0).all()
    assert model.config.base.bounds != "none" and not model.config.base.condition.text


@pytest.fixture(scope="module")
def unclip(tmp_path_factory: pytest.TempPathFactory) -> Unclip:
    model = build("unclip")
    train(model.pair, tmp_path_factory.mktemp("pair"), 30)
    model.pair.requires_grad_(False)
    train(model, tmp_path_factory.mktemp("draw"), 45)
    return model.requires_grad_(False)


def test_variations_resemble_their_pictures(unclip):
    data = Sides(32)
    x = unclip.variations(data.x, generator=torch.Generator().manual_seed(0), guidance=1.0)
    y = unclip.variations(data.x, generator=torch.Generator().manual_seed(1), guidance=1.0)
    assert not torch.equal(x, y)
    own = (unclip.encode(x) * unclip.encode(data.x)).sum(1).mean()
    other = (unclip.encode(x) * unclip.encode(data.x.roll(1, 0))).sum(1).mean()
    assert own > other + 0.2


def test_the_prior_draws_codes_of_what_the_text_says(unclip):
    which = [0, 1] * 16
    codes = unclip.imagine(condition(which), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(32))
    texts = unclip.pair.read(condition(which).text).sentence
    own, other = ((codes * t).sum(1).mean() for t in (texts, texts.roll(1, 0)))
    assert own > other + 0.2
    # a code that is given is decoded as it is
    told = Condition(32, code=codes)
    a, b = (
        m.sample(told, generator=torch.Generator().manual_seed(0), guidance=1.0)
        for m in (unclip, unclip.decoder)
    )
    assert torch.equal(a, b)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(HarmoniaError, match="factor"):
        CascadeConfig(shape=(1, 9, 9))
    with pytest.raises(HarmoniaError, match="matching pair"):
        UnclipConfig(shape=SHAPE, condition=CONDITION)
    with pytest.raises(HarmoniaError, match="matching pair"):
        ImagenConfig(shape=SHAPE, condition=CONDITION)
    with pytest.raises(HarmoniaError, match="needs a text"):
        build("unclip").sample(Condition(1))


@pytest.mark.parametrize("name", ["latent-diffusion", "glide", "imagen", "dalle2", "attngan"])
def test_recipes_train_on_digits_and_their_words(name, tmp_path: Path):
    if not (DATA / "mnist").is_dir():
        pytest.skip(f"MNIST is not in {DATA}")
    run = prepare(name, None, {"steps": "5", "batch": "8", "device": "cpu"})
    assert run.train(tmp_path).model == tmp_path / "model"
    saved = load_generator(tmp_path / "model")
    x = saved.generator.sample(
        Condition(2, text=spell(["three", "八"], 32)), steps=2, generator=torch.Generator().manual_seed(0)
    )
    assert x.shape == (2, 1, 28, 28) and x.isfinite().all()
