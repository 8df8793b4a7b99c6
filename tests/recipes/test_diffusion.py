"""Recipes of diffusion and flow models: they train, and go on after a stop as if there had been none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harmonia.generators import Condition, load_generator
from harmonia.generators.diffusion.model import Diffusion
from harmonia.recipes import prepare
from harmonia.recipes.generators import run as generation
from harmonia.recipes.generators.run import GeneratorRun
from harmonia.training import fit

TINY = {"steps": "10", "batch": "8", "device": "cpu"}
LONG = {"flow-student": {"share": "0.8"}, "latent-student": {"lessons": "0.8"}, "glide": {"share": "0.8"}}
"""Last stages of eight steps."""


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 80 pictures, bright at the digit's place."""
    folder = tmp_path_factory.mktemp("mnist")
    labels = np.arange(80) % 10
    pictures = np.zeros((80, 28, 28), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        picture[2 * label : 2 * label + 8, 4:24] = 255
    np.savez(folder / "digits.npz", x=pictures, y=labels)
    return folder


def run_of(name: str, digits: Path) -> GeneratorRun:
    torch.manual_seed(99)  # what was drawn before does not count
    run = prepare(name, digits, TINY | LONG.get(name, {}))
    assert isinstance(run, GeneratorRun)
    return run


@pytest.mark.parametrize("name", ["flow", "ddpm", "dit", "guided"])
def test_a_recipe_trains_and_draws(name: str, digits: Path, tmp_path: Path) -> None:
    outcome = run_of(name, digits).train(tmp_path)
    assert outcome.result.step == 10
    x = load_generator(outcome.model).generator.sample(Condition(2, label=torch.tensor([3, 8])), steps=2)
    assert x.shape == (2, 1, 28, 28) and x.isfinite().all()


@pytest.mark.parametrize(
    ("name", "stage", "students"),
    [("flow-student", "student", True), ("latent-flow", "flow", False), ("latent-student", "student", True),
     ("glide", "inpaint", False)],
)  # fmt: skip
def test_a_run_that_was_stopped_in_its_last_stage_ends_the_same(
    name: str, stage: str, students: bool, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = False

    def stop(model: object, line: Any) -> None:
        if stops and line["step"] == 3:
            raise KeyboardInterrupt

    def watched(model: Any, dataset: Any, config: Any, folder: Path) -> Any:
        if folder.name != stage:
            return fit(model, dataset, config, folder)
        return fit(model, dataset, replace(config, log_every=1, save_every=2), folder, callbacks=[stop])

    monkeypatch.setattr(generation, "fit", watched)
    whole = run_of(name, digits).train(tmp_path / "whole")
    stops = True
    with pytest.raises(KeyboardInterrupt):
        run_of(name, digits).train(tmp_path / "stopped")
    stops = False
    assert not (tmp_path / "stopped" / "model").exists()
    assert [file.name for file in (tmp_path / "stopped" / stage).glob("step-*")] == ["step-00000002"]
    again = run_of(name, digits).train(tmp_path / "stopped")
    files = [(outcome.model / "model.safetensors").read_bytes() for outcome in (whole, again)]
    assert files[0] == files[1]
    if students:
        generator = load_generator(again.model).generator
        drawing = generator if isinstance(generator, Diffusion) else generator.flow
        assert drawing.config.steps == 4 and drawing.config.sampler == "ddim"
        # what it was taught has its guidance already
        told = Condition(2, label=torch.tensor([3, 8]))
        a, b = (
            generator.sample(told, guidance=w, generator=torch.Generator().manual_seed(0)) for w in (1, 4)
        )
        assert torch.equal(a, b) and a.shape == (2, 1, 28, 28)
