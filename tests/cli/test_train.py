"""`harmonia train` and `harmonia evaluate` on a dataset of the tests' own, in Flickr8k's published format."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from harmonia.cli import cli
from harmonia.types import HarmoniaError
from tests.media import make_photo

PHOTOS = 12


@pytest.fixture(scope="module")
def flickr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flickr8k")
    (folder / "Flicker8k_Dataset").mkdir()
    names = [f"{n}.jpg" for n in range(PHOTOS)]
    for n, name in enumerate(names):
        make_photo(folder / "Flicker8k_Dataset" / name, seed=n, size=(40, 30))
    lines = [f"{name}#{k}\tphoto {n} in words {k} ." for n, name in enumerate(names) for k in range(5)]
    (folder / "Flickr8k.token.txt").write_text("\n".join(lines))
    for split, own in (("train", names[:8]), ("dev", names[8:]), ("test", [])):
        (folder / f"Flickr_8k.{split}Images.txt").write_text("\n".join(own))
    return folder


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(a) for a in args])


def train(data: Path, out: Path, *more: str) -> Result:
    small = ("--steps", "3", "--batch", "4", "--size", "tiny", "--set", "vocabulary=300", "--set", "dim=32")
    return run("train", "cmhn", "--data", data, "--out", out, "--device", "cpu", *small, *more)


@pytest.fixture(scope="module")
def model(flickr: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "cmhn"
    done = train(flickr, out)
    assert done.exit_code == 0, done.output
    assert "recall@10" in done.output and "3 steps" in done.output
    return out / "model"


def test_a_trained_model_is_complete_and_states_its_figures(model):
    card = (model / "README.md").read_text()
    assert "non-commercial research" in card and "| recall@1 |" in card
    assert {path.name for path in model.iterdir()} == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "README.md",
    }


def test_a_finished_run_is_not_trained_again(flickr, model):
    before = (model / "model.safetensors").read_bytes()
    again = train(flickr, model.parent)
    assert again.exit_code == 0 and "3 steps" in again.output
    assert (model / "model.safetensors").read_bytes() == before
    other = train(flickr, model.parent, "--seed", "5")
    assert isinstance(other.exception, HarmoniaError)


def test_evaluate_scores_both_ways_and_under_noise(flickr, model):
    asked = ("evaluate", model, "--data", flickr, "--noise", "1", "--device", "cpu", "--json")
    rows = json.loads(run(*asked).stdout)
    assert [(r["query"], r["finds"], r["noise"]) for r in rows] == [
        ("text", "image", 0.0),
        ("text", "image", 1.0),
        ("image", "text", 0.0),
        ("image", "text", 1.0),
    ]
    assert all(0 <= row["recall@1"] <= row["recall@5"] <= 1 for row in rows)
    assert rows[0]["recall@5"] == 1.0  # of four photos


def test_evaluate_can_be_remembered_with(flickr, model, tmp_path):
    done = run("remember", flickr / "Flicker8k_Dataset", "--into", tmp_path / "m", "--model", model)
    assert done.exit_code == 0, done.output
    found = run("recall", "--memory", tmp_path / "m", "photo", "3", "--json")
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.stdout)["records"]) == 5


def test_train_lists_its_recipes():
    shown = run("train").output
    assert "clip " in shown and "InfoNCE between photos and captions" in shown


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("train", "clop"), "no recipe 'clop'"),
        (("train", "clip", "--set", "sise=tiny"), "no setting 'sise'"),
        (("train", "clip", "--set", "steps=many"), "steps must be of type int"),
        (("evaluate", "descriptors"), "no two modalities of flickr8k"),
        (("evaluate", "descriptors", "--dataset", "flick"), "no dataset 'flick'"),
    ],
)
def test_mistakes_are_told_in_one_line(args, message, flickr):
    data = ("--data", str(flickr)) if "flick" not in args else ()
    failed = run(*args, *data)
    assert isinstance(failed.exception, HarmoniaError)
    assert message in str(failed.exception) and "\n" not in str(failed.exception)


def test_a_missing_dataset_says_how_to_get_it(tmp_path):
    failed = run("train", "clip", "--data", tmp_path)
    assert isinstance(failed.exception, HarmoniaError) and "Flickr8k" in str(failed.exception)


def test_a_setting_without_a_value_is_a_usage_error():
    assert run("train", "clip", "--set", "steps").exit_code == 2
