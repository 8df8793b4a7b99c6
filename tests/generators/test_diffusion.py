"""Diffusion models: what they are told, guidance, sampling, learning a case with a known answer."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harmonia.generators import SCALES, Batch, Condition, ConditionConfig, load_generator, save_generator
from harmonia.generators.autoencoders.autoencoder import VAEConfig
from harmonia.generators.diffusion import guidance
from harmonia.generators.diffusion.classifier_guidance import GuidedConfig, GuidedDiffusion
from harmonia.generators.diffusion.distillation import Distillation, student_config
from harmonia.generators.diffusion.latent import Latent, LatentConfig
from harmonia.generators.diffusion.model import Diffusion, DiffusionConfig, noised
from harmonia.generators.diffusion.paths import Prediction
from harmonia.generators.diffusion.samplers import DDIM
from harmonia.types import HarmoniaError

LABELS = ConditionConfig(classes=3)
SMALL = DiffusionConfig(shape=(1, 8, 8), channels=(1,), condition=LABELS, steps=3)


def awake(config: DiffusionConfig = SMALL) -> Diffusion:
    """A model with no parameter at zero, as if it had learned something."""
    torch.manual_seed(0)
    model = Diffusion(config)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model.eval()


def labelled(*labels: int) -> Condition:
    return Condition(len(labels), label=torch.tensor(labels))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("path", ["vp-linear", "vp-cosine", "cond-ot", "edm"])
@pytest.mark.parametrize("predict", ["epsilon", "x0", "v", "velocity"])
def test_every_path_trains_and_samples_with_every_output(path: str, predict: str) -> None:
    model = awake(replace(SMALL, path=path, predict=predict))
    batch = Batch(torch.rand(4, 1, 8, 8) * 2 - 1, labelled(0, 1, 2, -1))
    loss = model.losses(batch)["model"]
    loss.backward()
    assert loss.isfinite() and model.network.stem.weight.grad.abs().sum() > 0
    x = model.sample(batch.condition, generator=seeded(), guidance=2.0)
    assert x.shape == batch.x.shape and x.isfinite().all() and x.abs().max() <= 1


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "euler", "heun", "dpm++2m"])
def test_the_same_seed_gives_the_same_sample_and_watch_sees_each_step(sampler: str) -> None:
    model, seen = awake(replace(SMALL, sampler=sampler)), list[tuple[int, int]]()

    def watch(step: int, of: int, x: Tensor) -> None:
        assert x.shape == (2, 1, 8, 8)
        seen.append((step, of))

    first = model.sample(labelled(0, 1), generator=seeded(4), watch=watch)
    again = model.sample(labelled(0, 1), generator=seeded(4))
    other = model.sample(labelled(0, 1), generator=seeded(5))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_guidance_goes_from_no_condition_through_the_condition() -> None:
    model = awake().double()
    x, t = torch.randn(2, 1, 8, 8).double(), torch.tensor(0.6).double()
    c = labelled(1, 2)
    told, null = model.predictor(c)(x, t), model.predictor(c.without())(x, t)
    assert (told.x0 - null.x0).abs().max() > 1e-3
    for strength, wanted in ((0.0, null.x0), (1.0, told.x0), (3.0, 3 * told.x0 - 2 * null.x0)):
        torch.testing.assert_close(model.predictor(c, strength)(x, t).x0, wanted)


def test_a_condition_that_says_nothing_is_no_condition() -> None:
    model = awake()
    x, t = torch.randn(2, 1, 8, 8), torch.tensor(0.3)
    by_label = model.denoise(x, t, labelled(-1, -1))
    torch.testing.assert_close(by_label.x0, model.denoise(x, t, Condition(2)).x0)
    a = model.sample(labelled(-1, -1), guidance=4.0, generator=seeded())
    torch.testing.assert_close(a, model.sample(Condition(2), guidance=1.0, generator=seeded()))


def test_outside_its_interval_guidance_is_none() -> None:
    model = awake(replace(SMALL, interval=(0.2, 0.5)))
    x, c = torch.randn(2, 1, 8, 8), labelled(0, 1)
    guided, plain = model.predictor(c, 3.0), model.predictor(c)
    for t, same in ((0.1, True), (0.3, False), (0.9, True)):
        time = torch.tensor(t)
        assert torch.allclose(guided(x, time).x0, plain(x, time).x0, atol=1e-6) == same


def test_both_ends_make_the_noisy_sample_at_times_of_rows() -> None:
    model = awake()
    x, t = torch.randn(3, 1, 8, 8), torch.tensor([0.1, 0.5, 0.9])
    found = model.denoise(x, t, labelled(0, 1, 2))
    torch.testing.assert_close(model.path.mix(found.x0, found.epsilon, t), x, atol=1e-5, rtol=1e-5)


def test_samples_that_begin_from_a_picture_stay_near_it() -> None:
    model = awake()
    picture = torch.rand(2, 1, 8, 8) * 2 - 1
    near = model.sample(labelled(0, 1), begin=picture, start=0.05, generator=seeded())
    far = model.sample(labelled(0, 1), generator=seeded())
    assert (near - picture).abs().mean() < 0.1 < (far - picture).abs().mean()


def test_a_guide_changes_every_prediction() -> None:
    model = awake(replace(SMALL, sampler="ancestral"))
    known = torch.rand(2, 1, 8, 8) * 2 - 1
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[..., :4] = True
    x = model.sample(
        labelled(0, 1), generator=seeded(), guide=lambda p: guidance.keep(p, model.path, known, mask)
    )
    torch.testing.assert_close(x[mask], known[mask])
    assert (x[~mask] - known[~mask]).abs().max() > 0.1


def test_a_picture_to_go_by_is_told_with_its_noise() -> None:
    told = ConditionConfig(channels=1)
    model = awake(replace(SMALL, condition=told, augment=0.5))
    picture = torch.rand(2, 1, 8, 8)
    c = Condition(2, image=picture)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor(0.5)
    clean = model.prepared(c)
    assert torch.equal(clean.level, torch.zeros(2)) and torch.equal(clean.image, picture)
    noisy = model.prepared(c, augment=0.5)
    assert noisy.level.max() <= 0.5 and (noisy.image - picture).abs().max() > 1e-3
    assert model.prepared(noisy) is not noisy and torch.equal(model.prepared(noisy).image, noisy.image)
    low, high = (model.denoise(x, t, replace(clean, level=torch.full((2,), at))).x0 for at in (0.0, 0.5))
    assert (low - high).abs().max() > 1e-3
    assert model.losses(Batch(picture, c))["model"].isfinite()
    with pytest.raises(HarmoniaError, match=r"condition\.image must be 1x8x8"):
        model.sample(Condition(2))


def test_noise_of_a_condition_keeps_its_variance() -> None:
    image = torch.randn(4, 1, 64, 64)
    level = torch.tensor([0.0, 0.3, 0.8, 1.0])
    out = noised(Condition(4, image=image), level, seeded())
    assert torch.equal(out.image[0], image[0])
    torch.testing.assert_close(out.image.flatten(1).var(1), torch.ones(4), atol=0.1, rtol=0)


@pytest.mark.parametrize("path", ["cond-ot", "vp-cosine"])
def test_it_learns_two_constant_pictures(path: str) -> None:
    """The data are a or b, by label: what is drawn is a or b, and guidance cannot go further than that."""
    config = DiffusionConfig(
        shape=(2, 1, 1), network="mlp", condition=ConditionConfig(classes=2), path=path,
        predict="v" if path == "vp-cosine" else "velocity", steps=8,
    )  # fmt: skip
    torch.manual_seed(0)
    model, a = Diffusion(config), torch.tensor([[0.5, -0.5], [-0.25, 0.75]])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(100):
        label = torch.randint(2, (64,))
        loss = model.losses(Batch(a[label].view(-1, 2, 1, 1), Condition(64, label=label)))["model"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x = model.eval().sample(labelled(0, 1, 0, 1), generator=seeded()).flatten(1)
    assert (x - a[[0, 1, 0, 1]]).abs().mean() < 0.12


class Straight(Diffusion):
    """Of which the answer is known: data are standard normal, so x0 = alpha x / (alpha^2 + sigma^2)."""

    def _ends(self, x: Tensor, t: Tensor, told: object, image: Tensor | None) -> Prediction:
        p = self.path.at(float(t))
        norm = p.alpha**2 + p.sigma**2
        return Prediction(x * (p.alpha / norm), x * (p.sigma / norm))


def test_a_student_learns_where_its_teacher_goes() -> None:
    config = replace(
        SMALL, shape=(2, 1, 1), network="mlp", condition=ConditionConfig(), bounds="none", sampler="heun"
    )
    torch.manual_seed(0)
    teacher = Straight(config)
    student = Diffusion(student_config(config, 2))
    lessons = Distillation(teacher, student, parts=8)
    optimizer = torch.optim.Adam(lessons.groups()["model"], 3e-3)
    batch = Batch(torch.zeros(64, 2, 1, 1), Condition(64))
    for _ in range(80):
        optimizer.zero_grad()
        lessons.losses(batch)["model"].backward()
        optimizer.step()
    # the flow of a standard normal ends where it began: every sample is its own noise
    two, many = (m.eval().sample(Condition(500), generator=seeded()) for m in (student, teacher))
    coarse = teacher.sample(Condition(500), steps=2, sampler="euler", generator=seeded())
    assert (two - many).square().mean() < 0.2 * (coarse - many).square().mean()


def test_what_a_student_was_taught_cannot_be_guided_further() -> None:
    student = awake(student_config(SMALL, 2))
    c = labelled(0, 1)
    one, five = (student.sample(c, guidance=w, generator=seeded()) for w in (1.0, 5.0))
    assert torch.equal(one, five)
    with pytest.raises(HarmoniaError, match="do not divide evenly"):
        Distillation(awake(replace(SMALL, path="edm")), awake(replace(student.config, path="edm")))
    with pytest.raises(HarmoniaError, match="needs a deterministic sampler"):
        Distillation(awake(replace(SMALL, sampler="ancestral")), student)


def test_a_student_learns_within_its_teacher_s_bounds() -> None:
    teacher = awake(replace(SMALL, bounds="static"))
    student = awake(student_config(teacher.config, 2))
    torch.manual_seed(3)
    ends, _ = Distillation(teacher, student, parts=2).run(labelled(0, 1))
    torch.manual_seed(3)
    noise = torch.randn(2, 1, 8, 8)
    x = teacher.sample(labelled(0, 1), steps=4, begin=torch.zeros_like(noise), generator=seeded(3))
    torch.testing.assert_close(ends[-1], x)
    assert x.abs().max() <= 1 + 1e-6


def test_a_student_begins_as_its_teacher() -> None:
    teacher, student = awake(), Diffusion(student_config(SMALL, 2))
    Distillation(teacher, student).begin()
    c = labelled(0, 1)
    mine = student.sample(c, generator=seeded())
    torch.testing.assert_close(mine, teacher.sample(c, steps=2, generator=seeded()))


def test_a_classifier_guides_by_its_gradient() -> None:
    torch.manual_seed(0)
    config = GuidedConfig(shape=(1, 8, 8), condition=LABELS, diffusion=replace(SMALL, bounds="none"))
    model = GuidedDiffusion(config)
    batch = Batch(torch.rand(4, 1, 8, 8) * 2 - 1, labelled(0, 1, 2, -1))
    losses = model.losses(batch)
    assert set(losses) == set(model.groups()) == {"diffusion", "classifier"}
    assert all(loss.isfinite() for loss in losses.values())
    model.classifier.requires_grad_(False)
    assert set(model.losses(batch)) == {"diffusion"}
    for parameter in model.classifier.parameters():
        nn.init.normal_(parameter, std=0.3)
    c = labelled(0, 1, 2)
    plain, guided = (model.sample(c, guidance=w, generator=seeded()) for w in (1.0, 40.0))

    def said(x: Tensor) -> float:
        scores = model.classifier(x, torch.tensor(0.0)).log_softmax(1)
        return float(scores.gather(1, c.label[:, None]).mean())

    assert said(guided) > said(plain)
    with pytest.raises(HarmoniaError, match=r"condition\.classes"):
        GuidedConfig(shape=(1, 8, 8))


def test_a_classifier_guides_within_the_interval_only(monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(SMALL, interval=(0.3, 0.6))
    model = GuidedDiffusion(GuidedConfig(shape=(1, 8, 8), condition=LABELS, diffusion=own))
    seen: list[float] = []
    exact = guidance.classifier

    def watched(found: Prediction, slope: Tensor, path: object, t: Tensor, scale: float) -> Prediction:
        seen.append(float(t))
        return exact(found, slope, path, t, scale)

    monkeypatch.setattr(guidance, "classifier", watched)
    model.sample(labelled(0), guidance=2.0, steps=10, generator=seeded())
    assert seen and all(0.3 <= t <= 0.6 for t in seen)


@pytest.mark.parametrize("bounds", ["none", "end", "static", "dynamic"])
def test_what_is_known_is_kept_whatever_bounds_there_are(bounds: str) -> None:
    model = awake(replace(SMALL, bounds=bounds))
    known, mask = torch.rand(2, 1, 8, 8) * 2 - 1, torch.rand(2, 1, 8, 8) < 0.5
    x = model.sample(
        labelled(0, 1), sampler=DDIM(eta=1.0), steps=4, generator=seeded(),
        guide=lambda p: guidance.keep(p, model.path, known, mask),
    )  # fmt: skip
    torch.testing.assert_close(x[mask], known[mask])


@pytest.mark.parametrize("spatial", [False, True])
def test_a_flow_of_latents_standardises_them(spatial: bool) -> None:
    torch.manual_seed(0)
    network = "unet" if spatial else "mlp"
    flow = DiffusionConfig(network=network, channels=(1,), patch=1, steps=2)
    model = Latent(
        LatentConfig(
            shape=(1, 16, 16), condition=LABELS, autoencoder=VAEConfig(dim=4, spatial=spatial), flow=flow
        )
    )
    x = torch.rand(64, 1, 16, 16) * 2 - 1
    model.measure(x)
    z = model.encode(x)
    assert z.shape == ((64, 4, 4, 4) if spatial else (64, 4, 1, 1))
    torch.testing.assert_close(z.mean(0), torch.zeros(z.shape[1:]), atol=1e-4, rtol=0)
    torch.testing.assert_close(z.var(0).mean((1, 2)), torch.ones(4), atol=1e-2, rtol=0)
    torch.testing.assert_close(model.decode(z), model.autoencoder.reconstruct(x), atol=1e-4, rtol=0)
    assert set(model.losses(Batch(x, Condition(64)))) == {"autoencoder", "flow"}
    seen: list[Tensor] = []
    out = model.sample(labelled(0, 1), generator=seeded(), watch=lambda i, n, y: seen.append(y))
    assert out.shape == (2, 1, 16, 16) and seen[-1].shape == out.shape


def test_models_are_saved_with_all_of_their_settings(tmp_path: Path) -> None:
    for model in (
        awake(replace(SMALL, interval=(0.1, 0.9), guidance=2.0)),
        Latent(LatentConfig(shape=(1, 16, 16), condition=LABELS)),
        GuidedDiffusion(GuidedConfig(shape=(1, 8, 8), condition=LABELS, diffusion=SMALL)),
    ):
        save_generator(tmp_path / "m", model)
        again = load_generator(tmp_path / "m").generator
        assert again.config == model.config
        a, b = (m.eval().sample(labelled(0, 1), generator=seeded(), steps=2) for m in (model, again))
        torch.testing.assert_close(a, b)


def test_a_sampler_that_is_not_there_is_named() -> None:
    with pytest.raises(HarmoniaError, match=r"no sampler 'euler2': choose from ancestral"):
        awake().sample(labelled(0), sampler="euler2")


@pytest.mark.parametrize(("network", "least"), [("unet", 100), ("dit", 300), ("mlp", 200)])
def test_one_dial_makes_a_network_larger(network: str, least: float) -> None:
    counts = []
    for size in SCALES:
        with torch.device("meta"):
            model = Diffusion(DiffusionConfig(size=size, network=network, condition=LABELS))
        counts.append(sum(p.numel() for p in model.parameters()))
    assert all(b / a > 2.5 for a, b in pairwise(counts)) and counts[-1] / counts[0] > least


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"path": "curly"}, "path must be one of"),
        ({"predict": "noise"}, "predict must be one of"),
        ({"patch": 3}, "patch must divide"),
        ({"channels": ()}, "at least one resolution"),
        ({"augment": 2.0}, "augment must be in"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(HarmoniaError, match=message):
        replace(SMALL, **change)
