"""The judges, and what they say of generators, on tiny data that these tests write."""

from __future__ import annotations

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from benchmarks.generation import goals, rows_of, systems
from benchmarks.generation_runs import overview, sheet, timed
from harmonia.cli import cli
from harmonia.encoders import MINI
from harmonia.encoders.towers.saved import load_towers, save_towers
from harmonia.generators import (
    Batch,
    Condition,
    ConditionConfig,
    Facts,
    Generator,
    GeneratorConfig,
    Watch,
    load_generator,
    save_generator,
    spell,
)
from harmonia.generators.saved import FORMAT
from harmonia.metrics import Codes, text_match
from harmonia.pretrained.loading import load_encoders
from harmonia.recipes import prepare
from harmonia.recipes.encoders.text_judge import TextJudgeSettings, text_judge
from harmonia.recipes.generators.judge import emoji_records, load_judge
from harmonia.recipes.generators.pictures import DIGIT_WORDS, load_pictures
from harmonia.recipes.generators.run import GeneratorRun, Stage
from harmonia.tasks.evaluate_generator import (
    Real,
    codes_of_model,
    draw_pictures,
    evaluate_generator,
    figures,
)
from harmonia.tasks.imagine import SHIPPED
from harmonia.types import HarmoniaError, Signal

SIDE, COUNT = 28, 400


@dataclass(frozen=True, kw_only=True)
class SpotsConfig(GeneratorConfig):
    """``noise``: the deviation of what is added to the spots."""

    noise: float = 0.0


class Spots(Generator):
    """Draws what ``write_digits`` writes: a bright spot at the place of the digit."""

    config: SpotsConfig

    def __init__(self, config: SpotsConfig) -> None:
        super().__init__()
        self.config = config
        self.level = nn.Parameter(torch.ones(()))

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """How far the level of the spots is from the brightest pixel."""
        return {"model": (self.level - batch.x.amax()).square()}

    def sample(
        self,
        condition: Condition,
        *,
        steps: int | None = None,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
        watch: Watch | None = None,
    ) -> Tensor:
        """Spots, in two steps."""
        assert condition.label is not None
        x = spots(condition.label).float() / 127.5 - 1
        x = x + self.config.noise * torch.randn(x.shape, generator=generator)
        for step in (1, 2):
            if watch:
                watch(step, 2, x)
        return x


def spots(labels: Tensor) -> Tensor:
    """uint8 (n, 1, 28, 28), a bright spot of 6 x 6 at the place of the class."""
    y, x = 2 + 9 * (labels // 4), 1 + 7 * (labels % 4)
    place = torch.arange(SIDE)[None]
    down, across = ((place >= z[:, None]) & (place < z[:, None] + 6) for z in (y, x))
    return ((down[:, :, None] & across[:, None, :]) * 255).to(torch.uint8)[:, None]


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of spots of shaky brightness, ten classes."""
    folder = tmp_path_factory.mktemp("mnist")
    labels = torch.randint(10, (COUNT,), generator=torch.Generator().manual_seed(1))
    shaky = torch.rand(COUNT, 1, 1, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.5
    pictures = (spots(labels)[:, 0] * shaky).to(torch.uint8)
    np.savez(folder / "digits.npz", x=pictures.numpy(), y=labels.numpy())
    return folder


@pytest.fixture(scope="module")
def judged(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a judge of these spots."""
    changes = {"steps": "60", "batch": "32", "device": "cpu"}
    outcome = prepare("judge", digits, changes).train(tmp_path_factory.mktemp("judge"))
    assert outcome.figures["accuracy"] > 0.7
    return outcome.model


def test_a_judge_is_what_was_saved(judged: Path, digits: Path) -> None:
    judge = load_judge(judged)
    pictures = load_pictures("mnist", "val", data=digits)
    assert judge.name.startswith("judge of mnist ") and judge.config.classes[3] == "three"
    features, p = judge.features(pictures.x), judge.probabilities(pictures.x)
    assert features.shape == (40, 64) and float(features.min()) == 0
    torch.testing.assert_close(p.sum(1), torch.ones(40))
    torch.testing.assert_close(judge.features(pictures.x.float() / 127.5 - 1), features)
    torch.testing.assert_close(judge.features(pictures.x[:1]), features[:1], atol=1e-4, rtol=1e-4)
    with pytest.raises(HarmoniaError, match="takes images"):
        judge.features(pictures.x[:, :, 2:])


def test_a_damaged_judge_is_refused(judged: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((judged / name).read_bytes())
    settings = json.loads((tmp_path / "config.json").read_text())
    settings["config"]["features"] = 32
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(HarmoniaError, match="damaged"):
        load_judge(tmp_path)
    with pytest.raises(HarmoniaError):
        load_judge(tmp_path / "absent")


def test_a_good_generator_is_told_from_a_bad_one(judged: Path, digits: Path) -> None:
    pictures = load_pictures("mnist", data=digits)
    assert pictures.label is not None
    real = Real(pictures.x, load_judge(judged))
    asked = real.again(200)
    config = {"shape": (1, SIDE, SIDE), "condition": ConditionConfig(classes=10)}

    def table(noise: float) -> dict[str, dict[str, float]]:
        rows = evaluate_generator(
            Spots(SpotsConfig(noise=noise, **config)), pictures.condition(asked), real,
            labels=pictures.label[asked], real_labels=pictures.label,
        )  # fmt: skip
        return {one["measure"]: one for one in rows}

    good, bad = table(0.0), table(1.5)
    distance = next(name for name in good if name.startswith("FD (judge of mnist"))
    assert good["sampler steps"]["value"] == 2
    assert good["class accuracy"]["value"] > good["class accuracy"]["real"] - 0.2
    assert bad["class accuracy"]["value"] < good["class accuracy"]["value"] - 0.1
    for name in (distance, "KD", "FD at infinity"):
        assert good[name]["value"] < bad[name]["value"]
        assert good[name]["real"] < bad[name]["value"]
    for name in set(good) - {"sampler steps", "images/s of CPU", distance, "FD at infinity"}:
        assert good[name]["low"] <= good[name]["value"] <= good[name]["high"], name
    assert good["FD at infinity"]["low"] < good["FD at infinity"]["high"]


def test_pictures_do_not_depend_on_chance(judged: Path) -> None:
    generator = Spots(SpotsConfig(shape=(1, SIDE, SIDE), noise=0.3))
    asked = Condition(30, label=torch.arange(30) % 10)
    first, again, other = (draw_pictures(generator, asked, batch=12, seed=s).x for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.dtype == torch.uint8 and first.shape == (30, 1, SIDE, SIDE)


def test_drawing_is_timed_without_previews() -> None:
    """A preview of each step costs what decoding costs, so steps are counted on one row beforehand."""
    calls: list[tuple[int, bool]] = []

    class Slow(Spots):
        def sample(self, condition: Condition, *, watch: Watch | None = None, **given: Any) -> Tensor:
            calls.append((len(condition), watch is not None))
            sum(range(4_000_000 if watch else 0))
            return super().sample(condition, watch=watch, **given)

    generator = Slow(SpotsConfig(shape=(1, SIDE, SIDE), noise=0.3))
    asked = Condition(30, label=torch.arange(30) % 10)
    begun = time.process_time()
    drawn = draw_pictures(generator, asked, batch=12)
    whole = time.process_time() - begun
    assert calls == [(1, True), (12, False), (12, False), (6, False)]
    assert drawn.steps == 2 and drawn.seconds < whole / 2


def test_evaluate_command_of_a_generator(
    judged: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMAT.networks, "spots", f"{__name__}:Spots")
    config = SpotsConfig(shape=(1, SIDE, SIDE), condition=ConditionConfig(classes=10))
    save_generator(tmp_path / "model", Spots(config))
    args = ["evaluate", str(tmp_path / "model"), "--dataset", "mnist", "--data", str(digits), "--json"]
    shown = CliRunner().invoke(cli, [*args, "--device", "cpu", "-n", "100", "--judge", str(judged)])
    assert shown.exit_code == 0, shown.output
    rows = {one["measure"]: one for one in json.loads(shown.output)}
    assert rows["class accuracy"]["value"] > 0.5 and rows["coverage"]["real"] > 0.5
    refused = CliRunner().invoke(cli, args)
    assert refused.exit_code == 2 and "--judge" in refused.output


class Written(Spots):
    """Told the digit's name, in any of the languages of MNIST here."""

    def sample(self, condition: Condition, **given: Any) -> Tensor:
        """Spots of the class that is named."""
        assert condition.text is not None
        known = torch.stack([spell(words.split(), 32) for words in DIGIT_WORDS.values()])
        named = (known[None] == condition.text[:, None, None]).all(-1).any(1)
        assert bool(named.any(1).all())
        return super().sample(Condition(len(condition), label=named.int().argmax(1)), **given)


def evaluated(*args: object) -> dict[str, dict[str, Any]]:
    """The table of the command, by measure."""
    shown = CliRunner().invoke(cli, ["evaluate", *map(str, args), "--device", "cpu", "--json"])
    assert shown.exit_code == 0, shown.output
    return {one["measure"]: one for one in json.loads(shown.output)}


def test_an_encoder_measures_and_matches_words(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMAT.networks, "written", f"{__name__}:Written")
    config = SpotsConfig(shape=(1, SIDE, SIDE), condition=ConditionConfig(text=32))
    save_generator(tmp_path / "model", Written(config))
    asked = (tmp_path / "model", "--dataset", "mnist", "--data", digits, "-n", 100, "--encoder", "mini")
    rows = evaluated(*asked)
    image, text = (one for one in load_encoders(("mini",), "cpu") if one.modality in ("image", "text"))
    assert f"FD ({image.name})" in rows and "class accuracy" not in rows
    by = {name: one["by"] for name, one in rows.items()}
    assert by.pop("sampler steps") is by.pop("images/s of CPU") is None
    assert set(by.values()) == {image.name}
    match = rows["text match"]
    assert 0 < match["low"] < match["value"] < match["high"] < 100 and 0 < match["real"] < 100
    english = evaluated(*asked, "--languages", "en")["text match"]
    # what is drawn for a digit is always the same, so its match is that of ten pictures with their names
    names = text.encode([Signal("text", name) for name in DIGIT_WORDS["en"].split()])
    own = text_match(Codes(image).features(spots(torch.arange(10))), torch.from_numpy(names))
    pictures = load_pictures("mnist", data=digits)
    assert pictures.label is not None
    told = pictures.label[torch.randint(len(pictures), (100,), generator=torch.Generator().manual_seed(1))]
    assert english["value"] == pytest.approx(float(own[told].mean()), rel=1e-4)


def test_words_are_matched_only_where_they_are_told_and_read(judged: Path, digits: Path) -> None:
    pictures = load_pictures("mnist", data=digits)
    image, text = (one for one in load_encoders(("mini",), "cpu") if one.modality in ("image", "text"))
    told = ["one"] * 40
    for network, words, there in (
        (Codes(image, text), told, True),
        (Codes(image, text), None, False),
        (Codes(image), told, False),
        (load_judge(judged), told, False),
    ):
        found = figures(pictures.x[:40], Real(pictures.x[40:100], network), words=words, draws=2)
        assert ("text match" in found) is there
    with pytest.raises(HarmoniaError, match="stands alone"):
        Codes(image).words(told)


def test_models_that_see_no_pictures_measure_none(tmp_path: Path) -> None:
    assert codes_of_model("descriptors").reader is None
    towers = load_towers(MINI)
    save_towers(tmp_path / "text", {"text": towers.towers["text"]})
    with pytest.raises(HarmoniaError, match="encodes no images"):
        codes_of_model(str(tmp_path / "text"), "cpu")


def test_the_shipped_generator_is_evaluated(tmp_path: Path) -> None:
    write_emoji(tmp_path, 40)
    shipped = load_generator(SHIPPED).generator.config
    changes = {"dataset": "emoji", "resolution": str(shipped.shape[1]), "steps": "3", "batch": "16"}
    folder = prepare("judge", tmp_path, changes | {"device": "cpu"}).train(tmp_path / "judge").model
    asked = [SHIPPED, "--dataset", "emoji", "--data", tmp_path, "-n", 10]
    rows = evaluated(*asked, "--judge", folder)
    assert rows["sampler steps"]["value"] == shipped.steps and rows["KD"]["low"] < rows["KD"]["high"]
    refused = CliRunner().invoke(cli, ["evaluate", *map(str, asked), "--encoder", "mini"])
    assert refused.exit_code == 1 and "cannot evaluate it: give --judge" in str(refused.exception)
    both = CliRunner().invoke(cli, ["evaluate", str(SHIPPED), "--judge", str(folder), "--encoder", "mini"])
    assert both.exit_code == 2 and "--encoder" in both.output


def test_codes_of_another_space_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_emoji(tmp_path, 40)
    monkeypatch.setitem(FORMAT.networks, "spots", f"{__name__}:Spots")
    config = SpotsConfig(shape=(3, 32, 32), condition=ConditionConfig(code=128))
    save_generator(tmp_path / "model", Spots(config), facts=Facts("spots", "another"))
    asked = ["evaluate", tmp_path / "model", "--dataset", "emoji", "--data", tmp_path, "--encoder", "mini"]
    refused = CliRunner().invoke(cli, list(map(str, asked)))
    assert refused.exit_code == 1 and "needs codes of another encoder than mini" in str(refused.exception)


def write_emoji(folder: Path, count: int) -> None:
    rows = []
    for number in range(count):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), (number * 37 % 256, number * 91 % 256, 90)).save(file, "PNG")
        names, tags = {"en": f"thing {number}"}, {"en": [f"tag {number}"]}
        rows.append(
            {"hexcode": f"E{number:03X}", "emoji": chr(0xE000 + number), "name": names["en"],
             "group": ("food", "flags")[number % 2], "subgroup": "some",
             "names": json.dumps(names), "tags": json.dumps(tags), "png": file.getvalue()}
        )  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), folder / "noto.parquet")


def test_judges_of_emoji(tmp_path: Path) -> None:
    write_emoji(tmp_path, 40)
    changes = {"dataset": "emoji", "steps": "3", "batch": "16", "device": "cpu"}
    run = prepare("judge", tmp_path, changes)
    held = emoji_records("val", tmp_path)
    assert run.judge.config.classes == ("flags", "food") and len(held) == len(run.held) == 4
    want = [("flags", "food").index(record.metadata["group"]) for record in held]
    assert run.held.label.tolist() == want
    match = prepare("text-judge", tmp_path, changes | {"vocabulary": "300"})
    outcome = match.train(tmp_path / "run")
    assert outcome.figures["margin"] == pytest.approx(
        outcome.figures["text match"] - outcome.figures["of another"]
    )
    assert set(load_towers(outcome.model).towers) == {"image", "text"}
    with pytest.raises(HarmoniaError, match="no texts"):
        text_judge(tmp_path, TextJudgeSettings(dataset="mnist"))


# --- the benchmark


def test_systems_are_the_recipes_of_generators() -> None:
    found = systems("mnist")
    assert "gan" in found and not {"judge", "text-judge", "clip", "mini"} & set(found)


def test_goals_are_judged_on_the_best_system() -> None:
    table = {
        "real, drawn again": {"FD": 0.8, "accuracy %": 99.0},
        "latent-flow": {"FD": 1.5, "accuracy %": 99.4, "steps": 20.0},
        "latent-student": {"FD": 1.8, "accuracy %": 99.2, "steps": 4.0},
        "flow": {"FD": 2.0, "accuracy %": 99.4, "steps": 10.0},
        # near its own teacher, far from the best
        "flow-student": {"FD": 2.1, "accuracy %": 99.2, "steps": 4.0},
        "vae": {"FD": 1.2, "accuracy %": 60.0, "steps": 1.0},
        "gan": {"FD": 20.0, "accuracy %": 90.0, "steps": 1.0},
        "autoencoder": {"PSNR": 20.0},
    }
    found = {one["what"]: one["holds"] for one in goals(table)}
    assert found == {
        "best system (latent-flow): accuracy": True,
        "best system (latent-flow): FD": True,
        "latent-student, 4 steps: FD": True,
        "flow-student, 4 steps: FD": False,
        "gan: FD": False,
    }
    rows = {one["what"]: one for one in rows_of(table)}
    assert rows["vae: FD"]["ratio"] == 1.5 and rows["autoencoder: PSNR"]["peer"] is None


def test_stages_are_timed_and_sheets_are_drawn(digits: Path, tmp_path: Path) -> None:
    pictures = load_pictures("mnist", data=digits)
    model = Spots(SpotsConfig(shape=(1, SIDE, SIDE)))
    base = prepare("judge", digits, {"steps": "40", "device": "cpu"}).config
    stages = (
        Stage("level", model, pictures, base),
        Stage("late", Spots(model.config), lambda: pictures, base),
    )
    costs, fixed = timed(GeneratorRun("spots", model, stages, facts=None, card=""))  # type: ignore[arg-type]
    assert set(costs) == {"level", "late"} and all(0 < cost < 1 for cost in costs.values()) and fixed >= 0
    sheet(spots(torch.arange(80) // 8), tmp_path / "sheet.png")
    overview(tmp_path, ["vae", "sheet"])
    line = np.asarray(Image.open(tmp_path / "all.png"))
    assert line.shape == (2 * SIDE, 120 + 10 * 2 * SIDE, 3)
    image = np.asarray(Image.open(tmp_path / "sheet.png"))
    for column in (0, 9):  # the first picture of each class
        cell = line[:, 120 + column * 2 * SIDE :][:, : 2 * SIDE, 0]
        assert np.array_equal(cell, image[column * 2 * SIDE :][: 2 * SIDE, : 2 * SIDE])
    assert line[:, :120].min() < 100
    assert image.shape == (10 * SIDE * 2, 8 * SIDE * 2)
    line = image[2 * SIDE : 4 * SIDE, : 2 * SIDE]
    assert (line[::2, ::2] == spots(torch.tensor([1]))[0, 0].numpy()).all()
