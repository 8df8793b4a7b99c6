"""The autoencoder that ships: its files, its figures by its own weights, the commands, its recipe."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from harmonia.cli import main
from harmonia.generators import Saved, load_generator
from harmonia.generators.autoencoders.autoencoder import Autoencoder, AutoencoderConfig, corrupt
from harmonia.generators.conditioning import Condition
from harmonia.metrics import psnr
from harmonia.recipes import prepare
from harmonia.recipes.generators.autoencoder_mini import auroc
from harmonia.recipes.generators.pictures import load_pictures
from harmonia.tasks.reconstruct import SHIPPED
from harmonia.types import HarmoniaError
from tests.media import make_photo, scene
from tests.places import DATA


@pytest.fixture(scope="module")
def saved() -> Saved:
    return load_generator(SHIPPED)


@pytest.fixture(scope="module")
def card() -> dict[str, float]:
    """The figures of the card."""
    rows = re.findall(
        r"^\| ([^|]+) \| ([-0-9.e]+) \|$", (SHIPPED / "README.md").read_text("utf-8"), re.MULTILINE
    )
    return {name: float(value) for name, value in rows}


def decibels(model: Autoencoder, x: Tensor, y: Tensor) -> float:
    """PSNR of what the model makes of ``y`` against ``x``."""
    with torch.inference_mode():
        return float(psnr(torch.cat([model.reconstruct(part) for part in y.split(100)]), x).mean())


def test_it_is_small_and_says_what_it_is(saved: Saved) -> None:
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 2_000_000
    assert saved.facts.name == "autoencoder-mini" and isinstance(saved.generator, Autoencoder)
    text = (SHIPPED / "README.md").read_text("utf-8")
    for said in ("CC0 1.0", "harmonia train autoencoder-mini", "weights are Apache 2.0", "held out"):
        assert said in " ".join(text.split())


def test_the_card_has_the_figures_of_these_weights(saved: Saved, card: dict[str, float]) -> None:
    if not (DATA / "flickr8k").is_dir():
        pytest.skip(f"no {DATA / 'flickr8k'}: set HARMONIA_DATA")
    model = saved.generator
    assert isinstance(model, Autoencoder)
    x = load_pictures("flickr8k", "val", resolution=64, data=DATA / "flickr8k").x.float() / 127.5 - 1
    assert decibels(model, x, x) == pytest.approx(card["Flickr8k: reconstructed"], abs=0.02)
    for level in (0.2, 0.4):
        torch.manual_seed(0)
        noisy = corrupt(x, "gaussian", level).clamp(-1, 1)
        nothing = float(psnr(noisy, x).mean())
        assert nothing == pytest.approx(card[f"Flickr8k: noise {level}, noisy"], abs=0.02)
        denoised = decibels(model, x, noisy)
        assert denoised == pytest.approx(card[f"Flickr8k: noise {level}, denoised"], abs=0.02)
        assert denoised > nothing + 1, "denoising is better than nothing at these strengths"


def test_the_commands_work_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    clean = np.asarray(scene(4, (64, 64)), dtype=np.float64)
    noise = np.random.default_rng(0)
    noisy = np.clip(clean + noise.normal(0, 0.35 * 127.5, clean.shape), 0, 255).astype(np.uint8)
    scene(4, (64, 64)).save("clean.png")
    Image.fromarray(noisy).save("noisy.png")
    Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save("strange.png")

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["harmonia", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code in (0, None)
        return capsys.readouterr().out.strip()

    def error(file: str) -> float:
        return float(((np.asarray(Image.open(file).convert("RGB"), np.float64) - clean) ** 2).mean())

    assert error(run("reconstruct", "clean.png")) < error("noisy.png") / 2
    assert error(run("denoise", "noisy.png")) < error("noisy.png") / 2
    found = json.loads(run("anomaly", "clean.png", "strange.png", "--json"))["files"]
    assert [one["path"] for one in found] == ["strange.png", "clean.png"]


def test_without_samples_it_keeps_no_distribution_and_does_not_generate() -> None:
    settings = {"shape": (3, 64, 64), "dim": 8, "stride": 4, "spatial": True}
    with pytest.raises(HarmoniaError, match="at most 2048 numbers"):
        AutoencoderConfig(**settings | {"dim": 9})
    model = Autoencoder(AutoencoderConfig(**settings, samples=False))
    assert not dict(model.named_buffers())
    with pytest.raises(HarmoniaError, match="cannot generate"):
        model.sample(Condition(1))


def test_blind_noise_has_every_strength_up_to_the_amount() -> None:
    torch.manual_seed(0)
    strengths = corrupt(torch.zeros(2000, 3, 16, 16), "blind-gaussian", 0.4).flatten(1).std(1)
    assert strengths.max() < 0.44 and strengths.mean() == pytest.approx(0.2, abs=0.01)
    shares = torch.histc(strengths, 4, 0, 0.4) / 2000
    assert torch.allclose(shares, torch.full((4,), 0.25), atol=0.05)


def test_auroc_counts_pairs_and_half_of_ties() -> None:
    low, high = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])
    assert auroc(low, high) == 0.875 and auroc(high, low) == 0.125 and auroc(low, low) == 0.5


def test_the_recipe_trains_on_a_folder_of_photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARMONIA_DATA", str(tmp_path / "nowhere"))
    (tmp_path / "photos").mkdir()
    for seed in range(5):
        make_photo(tmp_path / "photos" / f"{seed}.png", seed=seed, size=(80, 60))
    (tmp_path / "photos" / "broken.png").write_bytes(b"\x89PNG no")
    changes = {"steps": "2", "squares": "3", "resolution": "16", "batch": "4", "device": "cpu"}
    outcome = prepare("autoencoder-mini", tmp_path / "photos", changes).train(tmp_path / "run")
    assert outcome.figures["held-out: bicubic"] > 0 and "held-out: noise 0.2, denoised" in outcome.figures
    text = " ".join((outcome.model / "README.md").read_text("utf-8").split())
    assert "12 squares of 4 photos" in text and "the 1 photos that were held out" in text
    for photos, says in ((None, "--data"), (tmp_path / "run", "needs at least 5")):
        with pytest.raises(HarmoniaError, match=says):
            prepare("autoencoder-mini", photos, changes)
