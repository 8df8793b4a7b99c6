"""One system of the generation benchmark: planned, trained, drawn from and measured."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from skimage.metrics import structural_similarity
from torch import Tensor, nn

from benchmarks.generation_judges import Measure, Plan
from harmonia.generators import Condition, Generator, is_generator, load_generator, spell
from harmonia.metrics import bytes_of, psnr
from harmonia.metrics.image_features import in_batches
from harmonia.objectives.perceptual import perceptual, taps
from harmonia.recipes import prepare, recipe, settings_of
from harmonia.recipes.generators.judge import Judge
from harmonia.recipes.generators.pictures import Pictures
from harmonia.recipes.generators.run import GeneratorRun
from harmonia.tasks.evaluate_generator import draw_pictures
from harmonia.training import Indexed, TrainConfig, fit
from harmonia.types import HarmoniaError

CLASSES, TIMES = 10, 8
"""Lines and columns of a sheet."""
NAMED = 120
"""Pixels for the names of systems."""
WARM, TIMED = 4, 8
"""Steps before the timed ones, and those."""
LAYERS = ("layers.2", "layers.5", "layers.8")
"""Of the judge, after each nonlinearity: where the LPIPS-like distance looks."""


def work(system: str, plan: Plan, measure: bool) -> None:
    """Train a system, or go on; draw from it and measure it, unless that was done."""
    folder = plan.home / system
    folder.mkdir(parents=True, exist_ok=True)
    trained = train(system, plan, folder)
    if trained and (folder / "figures.json").exists() and not measure:
        return
    judged = plan.judged()
    run = built(system, plan, steps_of(system, plan, folder))
    generator = load_generator(folder / "model").generator
    found: dict[str, float] = {
        "parameters (M)": sum(p.numel() for p in generator.parameters()) / 1e6,
        "CPU s": json.loads((folder / "cpu.json").read_text(encoding="utf-8"))["seconds"],
    }
    found |= drawn(system, run, generator, judged) | reconstructed(system, generator, judged)
    (folder / "figures.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


# --- training


def built(system: str, plan: Plan, steps: int) -> GeneratorRun:
    """The run of so many steps."""
    run: Any = prepare(system, None, plan.settings(system) | {"steps": str(steps)})
    assert isinstance(run, GeneratorRun)
    return run


def train(system: str, plan: Plan, folder: Path) -> bool:
    """Train in ``folder``, adding up CPU seconds over interruptions; whether it had been done before."""
    if is_generator(folder / "model"):
        return True
    run = built(system, plan, steps_of(system, plan, folder))
    file = folder / "cpu.json"
    before = json.loads(file.read_text(encoding="utf-8"))["seconds"] if file.exists() else 0.0
    begun = time.process_time()
    try:
        run.train(folder)
    finally:
        seconds = before + time.process_time() - begun
        file.write_text(json.dumps({"seconds": seconds}) + "\n", encoding="utf-8")
    return False


def steps_of(system: str, plan: Plan, folder: Path) -> int:
    """The recipe's ``steps`` that fill the budget: found once, then kept in plan.json."""
    file = folder / "plan.json"
    if not file.exists():
        steps = 5 if plan.quick else calibrated(system, plan)
        file.write_text(json.dumps({"steps": steps, "minutes": plan.minutes}) + "\n", encoding="utf-8")
    return int(json.loads(file.read_text(encoding="utf-8"))["steps"])


def calibrated(system: str, plan: Plan) -> int:
    """Time a few steps of every stage; then the steps with which all stages together take the budget."""
    steps = settings_of(recipe(system)).steps
    costs, fixed = timed(built(system, plan, steps))
    budget = 60 * plan.minutes - fixed
    if budget <= 0:
        raise HarmoniaError(f"{system} needs {fixed:.0f} s before its first step: give it more --minutes")
    for _ in range(4):
        stages = built(system, plan, steps).stages
        total = sum(costs[stage.name] * stage.config.steps for stage in stages)
        steps = max(1, round(steps * budget / total))
    return int(steps)


def timed(run: GeneratorRun) -> tuple[dict[str, float], float]:
    """CPU seconds of one step by stage, and of making the datasets that are made in between."""
    costs, fixed = {}, 0.0
    for stage in run.stages:
        begun = time.process_time()
        dataset = stage.dataset if isinstance(stage.dataset, Indexed) else stage.dataset()
        fixed += time.process_time() - begun
        changes = {"steps": WARM + TIMED, "warmup": 0, "log_every": WARM, "save_every": 10**6}
        config = TrainConfig(**(vars(stage.config) | changes))
        clock: list[float] = []

        def tick(_: nn.Module, line: object, clock: list[float] = clock) -> None:
            clock.append(time.process_time())

        with tempfile.TemporaryDirectory() as folder:
            fit(stage.model, dataset, config, folder, callbacks=[tick])
        stage.model.requires_grad_(False)
        costs[stage.name] = (clock[-1] - clock[0]) / TIMED
    return costs, fixed


# --- measuring


def drawn(system: str, run: GeneratorRun, generator: Generator, judged: Measure) -> dict[str, float]:
    """What the system draws for conditions in the proportions of the training set; and a sheet of it."""
    pictures = conditions(run)
    rows = judged.real.again(judged.plan.count, seed=1)
    if judged.train.label is None:
        rows = torch.arange(len(judged.train))[: judged.plan.count]
    try:
        made = draw_pictures(generator, told(pictures, rows, judged))
    except HarmoniaError as error:
        print(f"{system} draws nothing: {error}")
        return {}
    x = draw_pictures(generator, told(pictures, lines(judged), judged), seed=1).x
    sheet(x, judged.plan.home / f"{system}.png")
    labels = judged.labels("train", rows)
    speed = {"steps": made.steps, "images/s": len(rows) / max(made.seconds, 1e-9)}
    return speed | judged.of(made.x, rows, labels)


def conditions(run: GeneratorRun) -> Pictures:
    """The training pictures with all kinds of condition that the generator was trained with."""
    datasets = [getattr(stage.dataset, "pictures", stage.dataset) for stage in run.stages]
    return max((d for d in datasets if isinstance(d, Pictures)), key=lambda pictures: len(pictures.keep))


def told(pictures: Pictures, rows: Tensor, judged: Measure) -> Condition:
    """The conditions of some training pictures; of the texts, the first, by which the judge measures.

    What was trained on long captions is told the one that stands for the name, as DALL-E 3 is.
    """
    condition = pictures.condition(rows, torch.Generator().manual_seed(0))
    if condition.text is None or judged.towers is None:
        return condition
    names = [pictures.texts[row][0] for row in rows.tolist()]
    return replace(condition, text=spell(names, pictures.length))


def lines(judged: Measure) -> Tensor:
    """Training pictures whose conditions a sheet shows: eight of each class, or ten, eight times each."""
    label = judged.train.label
    if label is None:
        return torch.linspace(0, len(judged.train) - 1, CLASSES).long().repeat_interleave(TIMES)
    return torch.cat([(label == one).nonzero()[:TIMES, 0] for one in range(CLASSES)])


def reconstructed(system: str, generator: Generator, judged: Measure) -> dict[str, float]:
    """How near held-out pictures come back, of a system that has ``reconstruct``; and a sheet of pairs."""
    again = getattr(generator, "reconstruct", None)
    if again is None:
        return {}
    pictures = judged.held.x[: judged.plan.count]
    x = pictures.float() / 127.5 - 1
    y = in_batches(again, x).clamp(-1, 1)
    pairs = torch.stack([pictures, bytes_of(y)], 1).flatten(0, 1)
    sheet(pairs[: CLASSES * TIMES], judged.plan.home / f"{system}-reconstructed.png")
    ssim = [
        structural_similarity(a, b, channel_axis=0, data_range=2.0)
        for a, b in zip(x.numpy(), y.numpy(), strict=True)
    ]
    found = {"PSNR": float(psnr(x, y).mean()), "SSIM": float(np.mean(ssim))}
    if isinstance(judged.judge, Judge):
        look, (a, b) = taps(judged.judge, *LAYERS), ((z + 1) * 127.5 for z in (x, y))
        with torch.no_grad():
            found["LPIPS-like"] = float(perceptual(look, a, b, normalise="channels"))
    return found


def sheet(x: Tensor, file: Path) -> None:
    """Pictures uint8 (n, c, h, w) in lines of eight, enlarged twice."""
    lines = x.view(-1, TIMES, *x.shape[1:]).permute(0, 3, 1, 4, 2).flatten(0, 1).flatten(1, 2).numpy()
    image = Image.fromarray(lines[:, :, 0] if lines.shape[2] == 1 else lines)
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(file)


def overview(home: Path, names: Sequence[str]) -> None:
    """``all.png``: of every system's sheet the first column, as a line beside its name."""
    sheets = {name: home / f"{name}.png" for name in names}
    lines = {name: Image.open(file).convert("RGB") for name, file in sheets.items() if file.exists()}
    if not lines:
        return
    side = max(image.width for image in lines.values()) // TIMES
    whole = Image.new("RGB", (NAMED + CLASSES * side, len(lines) * side), "white")
    pen = ImageDraw.Draw(whole)
    for row, (name, image) in enumerate(lines.items()):
        pen.text((4, row * side + side // 2 - 6), name, fill="black", font_size=12)
        for column in range(CLASSES):
            cell = image.crop((0, column * side, side, (column + 1) * side))
            whole.paste(cell, (NAMED + column * side, row * side))
    whole.save(home / "all.png")
