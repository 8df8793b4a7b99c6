"""Autoencoders: what they are in closed form where they are linear, and what all of them have to do."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from harmonia.generators import Batch, Condition, ConditionConfig, load_generator, save_generator
from harmonia.generators.autoencoders.autoencoder import (
    VAE,
    VQVAE,
    Autoencoder,
    AutoencoderConfig,
    VAEConfig,
    VQVAEConfig,
    corrupt,
)
from harmonia.generators.autoencoders.base import AutoencoderBase
from harmonia.generators.perceptual_classifier import Perception
from harmonia.layers.codec import STRIDES
from harmonia.recipes import prepare
from harmonia.training import TrainConfig, fit
from harmonia.types import HarmoniaError
from tests.places import DATA

SHAPE = (1, 2, 3)
PIXELS = 6
SPECTRUM = (0.04, 0.02, 0.01, 0.003, 0.002, 0.001)
SMALL = {"shape": (1, 8, 8), "stride": 4, "dim": 4}

CODERS = {
    "autoencoder": lambda: Autoencoder(AutoencoderConfig(**SMALL)),
    "autoencoder, patches": lambda: Autoencoder(AutoencoderConfig(**SMALL, network="patch")),
    "vae": lambda: VAE(VAEConfig(**SMALL)),
    "vae, told": lambda: VAE(VAEConfig(**SMALL, condition=ConditionConfig(classes=3, text=8, code=5))),
    "vae, grid": lambda: VAE(VAEConfig(**SMALL, spatial=True, condition=ConditionConfig(classes=3))),
    "vae, bernoulli": lambda: VAE(VAEConfig(**SMALL, likelihood="bernoulli")),
    "vq": lambda: VQVAE(VQVAEConfig(**SMALL, codes=16)),
    "vq, gradient": lambda: VQVAE(VQVAEConfig(**SMALL, codes=16, bottleneck="vq-gradient", loss="bce")),
    "gumbel": lambda: VQVAE(VQVAEConfig(**SMALL, codes=16, bottleneck="gumbel")),
    "fsq, patches": lambda: VQVAE(VQVAEConfig(**SMALL, bottleneck="fsq", network="patch", loss="l1")),
}


def digits() -> Path:
    folder = DATA / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: set HARMONIA_DATA")
    return folder


def batch(n: int = 6, shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> Batch:
    draws = torch.Generator().manual_seed(seed)
    x = torch.linspace(-0.9, 0.9, n)[:, None, None, None] + 0.1 * torch.rand(n, *shape, generator=draws)
    label = torch.randint(0, 3, (n,), generator=draws)
    text = torch.randint(0, 257, (n, 8), generator=draws)
    return Batch(x, Condition(n, label=label, text=text, code=torch.randn(n, 5, generator=draws)))


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def gaussian_data(n: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Data (n, 1, 2, 3), the eigenvalues of its covariance, falling, and its eigenvectors."""
    torch.manual_seed(0)
    x = torch.randn(n, PIXELS)
    white = torch.linalg.qr(x - x.mean(0)).Q * n**0.5
    values, vectors = torch.tensor(SPECTRUM), torch.linalg.qr(torch.randn(PIXELS, PIXELS)).Q
    return (white * values.sqrt() @ vectors.T + 0.1).view(n, *SHAPE), values, vectors


def descend(model: AutoencoderBase, x: Tensor, steps: int = 400) -> float:
    """The least loss, by L-BFGS on all data at once."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-15, history_size=50,
        line_search_fn="strong_wolfe",
    )  # fmt: skip
    data = Batch(x, Condition(len(x)))

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model.losses(data)["model"]
        loss.backward()
        return loss

    optimizer.step(closure)
    return closure().item()


def test_a_linear_autoencoder_is_pca(float64: None) -> None:
    x, values, vectors = gaussian_data()
    model = Autoencoder(AutoencoderConfig(shape=SHAPE, network="linear", dim=3)).eval()
    loss = descend(model, x)
    assert loss * PIXELS == pytest.approx(float(values[3:].sum()), rel=1e-6)  # what PCA leaves
    basis = torch.linalg.qr(model.decoder[0].weight.detach()).Q
    angles = torch.linalg.svdvals(basis.T @ vectors[:, :3])  # cosines between the two subspaces
    assert torch.allclose(angles, torch.ones(3), atol=1e-6)
    flat = x.flatten(1)
    projected = (flat - flat.mean(0)) @ vectors[:, :3] @ vectors[:, :3].T + flat.mean(0)
    assert torch.allclose(model.reconstruct(x).flatten(1), projected, atol=1e-4)
    assert torch.allclose(model.score(x), (flat - projected).square().sum(1), atol=1e-4)


def test_a_linear_vae_is_probabilistic_pca(float64: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lucas et al. 2019; Tipping and Bishop 1999."""
    q = 2
    x, values, vectors = gaussian_data()
    # the noise +- sqrt(q) e_i has the mean and the covariance of the normal one: the ELBO, a quadratic in it,
    # is exact
    points = torch.cat([torch.eye(q), -torch.eye(q)]) * q**0.5
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: points.repeat(len(x), 1))
    model = VAE(VAEConfig(shape=SHAPE, network="linear", dim=q))
    rows = x.repeat_interleave(2 * q, 0)
    loss = descend(model, rows)
    noise = float(values[q:].mean())
    marginal = -0.5 * (
        PIXELS * math.log(2 * math.pi)
        + float(values[:q].log().sum())
        + (PIXELS - q) * math.log(noise)
        + PIXELS
    )
    assert float(model.log_variance.exp()) == pytest.approx(noise, rel=1e-4)
    assert -loss * PIXELS == pytest.approx(marginal, abs=1e-5)
    assert float(model.elbo(rows).mean()) == pytest.approx(marginal, abs=1e-5)
    w = model.decoder[0].weight.detach()
    leading = vectors[:, :q] @ torch.diag(values[:q] - noise) @ vectors[:, :q].T
    assert torch.allclose(w @ w.T, leading, atol=1e-4)
    assert (model.score(rows) < -model.elbo(rows) + 1e3).all()  # finite, one for each


def test_the_elbo_never_exceeds_the_marginal_likelihood(float64: None) -> None:
    """Of a decoder whose marginal is known: x = W z + noise, whatever the encoder."""
    torch.manual_seed(1)
    model = VAE(VAEConfig(shape=SHAPE, network="linear", dim=2, sigma=0.5))
    x = torch.randn(2000, *SHAPE) * 0.5
    w, b = model.decoder[0].weight, model.decoder[0].bias
    marginal = torch.distributions.MultivariateNormal(b, w @ w.T + 0.25 * torch.eye(PIXELS))
    gap = marginal.log_prob(x.flatten(1)) - model.elbo(x)
    assert gap.mean() > 0
    likelihood, kl, _ = model._terms(x, Condition(len(x)), at_mean=True)
    assert torch.allclose(model.score(x), kl - likelihood) and (kl > 0).all()


@pytest.mark.parametrize("name", CODERS)
def test_every_coder_trains_saves_and_comes_back(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, data = CODERS[name](), batch(16)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    before = model.eval().score(data.x).mean()
    model.train()
    for _ in range(20):
        optimizer.zero_grad()
        (loss,) = model.losses(data).values()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    assert model.eval().score(data.x).mean() < before
    z = model.encode(data.x)
    assert z.shape == (16, *model.config.latent) and torch.equal(z, model.encode(data.x))
    again = model.reconstruct(data.x)
    assert torch.equal(again, model.decode(z)) and again.shape == data.x.shape and again.abs().max() <= 1
    assert model.score(data.x).shape == (16,) and model.score(data.x).isfinite().all()
    save_generator(tmp_path / "model", model)
    saved = load_generator(tmp_path / "model").generator
    assert saved.config == model.config and torch.equal(saved.reconstruct(data.x), again)
    if isinstance(model, VQVAE):
        codes = model.codes(data.x)
        assert codes.dtype == torch.int64 and codes.shape == (16, 2, 2)
        assert codes.min() >= 0 and codes.max() < model.config.codes
        assert torch.equal(model.decode_codes(codes), again)
        with pytest.raises(HarmoniaError, match="prior"):
            model.sample(data.condition)
        return
    seen: list[Tensor] = []
    draws = [
        model.sample(
            data.condition, generator=torch.Generator().manual_seed(3), watch=lambda i, n, x: seen.append(x)
        )
        for _ in range(2)
    ]
    assert torch.equal(*draws) and torch.equal(seen[0], draws[0]) and draws[0].shape == data.x.shape
    assert draws[0].abs().max() <= 1


def test_a_prior_that_knows_the_class_generates_it() -> None:
    """Two classes of pictures, dark and bright: a draw for each is of its own."""
    torch.manual_seed(0)
    model = VAE(VAEConfig(**SMALL, sigma=0.5, condition=ConditionConfig(classes=2)))
    label = torch.arange(64) % 2
    x = (label * 1.2 - 0.6)[:, None, None, None] + 0.1 * torch.randn(64, 1, 8, 8)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model.losses(Batch(x, Condition(64, label=label)))["model"].backward()
        optimizer.step()
    model.eval()
    bright = model.sample(Condition(64, label=label)).mean((1, 2, 3))
    assert bright[label == 1].min() > bright[label == 0].max()
    right, wrong = (model.elbo(x, Condition(64, label=y)) for y in (label, 1 - label))
    assert right.mean() > wrong.mean()
    # an anomaly: a picture unlike all of them
    assert model.score(torch.rand(8, 1, 8, 8) * 2 - 1).min() > model.score(x).max()


def test_autoencoder_samples_have_the_moments_of_its_latents() -> None:
    torch.manual_seed(0)
    model = Autoencoder(AutoencoderConfig(shape=SHAPE, network="linear", dim=2))
    x = 0.1 * torch.randn(4000, *SHAPE)
    for part in x.split(400):
        model.losses(Batch(part, Condition(400)))
    model.eval()
    drawn = model.sample(Condition(20000), generator=torch.Generator().manual_seed(0)).flatten(1)
    whole = model.reconstruct(x).flatten(1)
    assert torch.allclose(drawn.T.cov(), whole.T.cov(), atol=2e-4)
    assert torch.allclose(drawn.mean(0), whole.mean(0), atol=5e-3)


def test_corruptions_do_what_they_say() -> None:
    torch.manual_seed(0)
    x = torch.rand(20, 3, 32, 32) * 1.8 - 0.9
    assert corrupt(x, "none", 0.5) is x
    assert (corrupt(x, "gaussian", 0.3) - x).std() == pytest.approx(0.3, rel=0.02)
    masked, peppered = corrupt(x, "masking", 0.25), corrupt(x, "salt-and-pepper", 0.25)
    for damaged in (masked, peppered):
        hit = (damaged != x).all(1)
        assert torch.equal(hit, (damaged != x).any(1))  # all channels of a pixel at once
        assert hit.float().mean() == pytest.approx(0.25, abs=0.01)
    assert (masked[masked != x] == 0).all()
    assert (peppered[peppered != x].abs() == 1).all() and peppered[peppered != x].mean().abs() < 0.05


@pytest.mark.parametrize("corruption", ["gaussian", "masking", "salt-and-pepper"])
def test_denoising_brings_digits_nearer_to_what_they_were(corruption: str, tmp_path: Path) -> None:
    amount = "1.0" if corruption == "gaussian" else "0.5"
    changes = {"corruption": corruption, "amount": amount, "network": "linear"}
    changes |= {"steps": "150", "batch": "32", "device": "cpu"}
    run = prepare("denoising", digits(), changes)
    figures = run.train(tmp_path).figures
    assert figures["PSNR of denoised images, dB"] > figures["PSNR of corrupted images, dB"] + 2


@pytest.mark.parametrize("name", ["vae, told", "vq", "gumbel"])
def test_training_goes_on_identically_after_it_broke_off(name: str, tmp_path: Path) -> None:
    class Data:
        def __len__(self) -> int:
            return 64

        def batch(self, indices: Tensor, generator: torch.Generator) -> Batch:
            whole = batch(64)
            return Batch(whole.x[indices], whole.condition.rows(indices))

    config = TrainConfig(steps=12, batch=16, save_every=5, log_every=7, device="cpu")

    def made() -> AutoencoderBase:
        torch.manual_seed(0)
        return CODERS[name]()

    def strike(model: torch.nn.Module, line: dict[str, float]) -> None:
        raise KeyboardInterrupt

    calm, struck = made(), made()
    fit(calm, Data(), config, tmp_path / "calm")
    with pytest.raises(KeyboardInterrupt):
        fit(struck, Data(), replace(config), tmp_path / "struck", callbacks=[strike])
    struck = made()
    fit(struck, Data(), config, tmp_path / "struck")
    state = struck.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in calm.state_dict().items())


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("network", ["conv", "patch"])
def test_grids_of_common_pictures(size: int, network: str) -> None:
    for stride in (s for s in STRIDES if size % s == 0 and s < 32):
        config = VAEConfig(shape=(3, size, size), stride=stride, spatial=True, dim=2, network=network)
        model = VAE(config).eval()
        with torch.no_grad():
            z = model.encode(torch.zeros(1, 3, size, size))
            assert z.shape == (1, 2, size // stride, size // stride)
            assert model.decode(z).shape == (1, 3, size, size)


def test_what_cannot_be_meant_is_refused() -> None:
    for make, words in (
        (lambda: VAEConfig(shape=(1, 30, 30)), "another stride"),
        (lambda: VAEConfig(stride=3), "stride is one of"),
        (lambda: VAEConfig(network="mlp"), "network must be one of"),
        (lambda: VAEConfig(network="linear", spatial=True), "no grid"),
        (lambda: VAEConfig(likelihood="poisson"), "likelihood must be"),
        (lambda: AutoencoderConfig(corruption="blur"), "corruption must be one of"),
        (lambda: AutoencoderConfig(loss="l3"), "loss must be l1 or l2"),
        (lambda: AutoencoderConfig(dim=4096), "2048"),
        (lambda: VQVAEConfig(bottleneck="lfq"), "bottleneck must be"),
        (lambda: VQVAEConfig(spatial=False), "grids"),
    ):
        with pytest.raises(HarmoniaError, match=words):
            make()


class Layers(nn.Module):
    """Features of a picture by a layer with parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.asked = nn.Conv2d(SMALL["shape"][0], 2, 3), 0

    def forward(self, x: Tensor) -> list[Tensor]:
        self.asked += 1
        return [self.layer(x)]


def test_a_vae_with_a_look_weighs_what_the_look_sees(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = VAE(VAEConfig(**SMALL))
    sharp = VAE(replace(plain.config, perceptual=0.5))
    sharp.load_state_dict(plain.state_dict())
    said = batch(4)

    def loss(model: VAE) -> Tensor:
        torch.manual_seed(1)
        return model.losses(said)["model"]

    assert torch.equal(loss(sharp), loss(plain))
    # pixels as the only layer: the mean squared error on top
    sharp.look = lambda x: [x]
    torch.manual_seed(1)
    with torch.no_grad():
        y = sharp.decoder(sharp.bottleneck(sharp.encoder(said.x)).z)
    torch.testing.assert_close(loss(sharp), loss(plain) + 0.5 * (y - said.x).square().mean())
    sharp.look = Perception(SMALL["shape"], 3, channels=4).features
    # a module is no part of the model either
    look = Layers()
    sharp.look = look
    loss(sharp)
    assert look.asked == 2 and set(sharp.state_dict()) == set(plain.state_dict())
    for model in (plain, sharp):
        loss(model).backward()
    moved = zip(plain.decoder.parameters(), sharp.decoder.parameters(), strict=True)
    assert any(not torch.equal(a.grad, b.grad) for a, b in moved)
    save_generator(tmp_path / "m", sharp)
    again = load_generator(tmp_path / "m").generator
    assert again.config == sharp.config and set(again.state_dict()) == set(plain.state_dict())
    with pytest.raises(HarmoniaError, match="perceptual"):
        VAEConfig(**SMALL, perceptual=-1.0)


def test_perception_learns_what_tells_pictures_apart() -> None:
    torch.manual_seed(0)
    model, label = Perception((1, 8, 8), 3), torch.arange(60) % 3
    stripes = torch.stack([torch.arange(8) % k == 0 for k in (2, 3, 4)]).float()[label]
    x = stripes[:, None, None] + 0.3 * torch.randn(60, 1, 8, 8)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model.losses(Batch(x, Condition(60, label=label)))["model"].backward()
        optimizer.step()
    assert (model(x).argmax(1) == label).all()
    assert [tuple(m.shape[1:]) for m in model.features(x)] == [(16, 4, 4), (32, 4, 4), (64, 2, 2)]
    with pytest.raises(HarmoniaError, match="labels"):
        model.losses(Batch(x, Condition(60)))
