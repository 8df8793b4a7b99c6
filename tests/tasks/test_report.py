"""harmonia memory report, and the picture of the energy around a recall."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import harmonia
from harmonia.cli import cli
from harmonia.collection.collection import Memory
from harmonia.collection.cues import make_query
from harmonia.tasks.energy_plot import draw_landscape
from harmonia.tasks.report import report
from harmonia.types import HarmoniaError
from tests.media import make_photo
from tests.places import ROOT

CLI = ROOT / "docs" / "cli.md"


@pytest.fixture(scope="module")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Memory:
    """Twelve photos, four of them with words."""
    root = tmp_path_factory.mktemp("report")
    for seed in range(12):
        make_photo(root / f"photo-{seed}.png", seed=seed)
    for seed, words in enumerate(("red barn in snow", "waves at dusk", "a busy market", "two old friends")):
        (root / f"photo-{seed}.txt").write_text(words)
    collection = harmonia.open(root / ".harmonia")
    assert collection.remember(root).remembered == 12
    return collection


def test_the_report_counts_what_is_there(memory: Memory) -> None:
    found = report(memory, starts=16)
    assert found.records == found.read == 12
    by_modality = {m.modality: m for m in found.modalities}
    assert by_modality["image"].diagnosis.records == 12 and by_modality["text"].diagnosis.records == 4
    image = by_modality["image"]
    assert image.diagnosis.room[0].recalled == 1.0
    assert [hub.count for hub in image.hubs] == sorted((hub.count for hub in image.hubs), reverse=True)
    assert all(hub.name.startswith("photo-") for hub in image.hubs) and len(image.hubs) == 5
    assert image.diagnosis.attractors.starts == 16


def test_the_command_prints_tables_and_json(memory: Memory) -> None:
    there = ["memory", "report", "-m", str(memory.root), "--starts", "8"]
    call = CliRunner()
    shown = call.invoke(cli, there)
    assert shown.exit_code == 0
    for words in ("image", "effective", "hubs", "random states", "recalled now"):
        assert words in shown.output
    answer = json.loads(call.invoke(cli, [*there, "--json"]).output)
    image = next(e for e in answer["encoders"] if e["modality"] == "image")
    assert image["records"] == 12 and [r["noise"] for r in image["room"]] == [0.1, 0.3, 0.5, 1.0]
    at = image["attractors"]
    assert at["memory"] + at["mixture"] + at["spurious"] + at["moving"] == at["starts"] == 8
    assert 0 <= image["basins"]["certified"] <= 1 and len(image["hubs"]["top"]) == 5


def test_the_json_is_as_documented(memory: Memory) -> None:
    output = CliRunner().invoke(cli, ["memory", "report", "-m", str(memory.root), "--json"]).output
    encoder = json.loads(output)["encoders"][0]
    documented = (
        CLI.read_text(encoding="utf-8").split("`harmonia memory report --json`:")[1].split("Of a memory")[0]
    )
    nested = [encoder[name] for name in ("basins", "hubs", "attractors")] + [encoder["room"][0]]
    for name in {*encoder, *(key for part in nested for key in part)}:
        assert f'"{name}"' in documented, name


def test_help_is_as_documented() -> None:
    documented = re.search(
        r"<!-- help memory report -->\n```\n(.*?)\n```\n", CLI.read_text(encoding="utf-8"), re.DOTALL
    )
    shown = CliRunner().invoke(cli, ["memory", "report", "-h"], prog_name="harmonia", terminal_width=100)
    assert documented and documented[1] == shown.output.rstrip()


def test_a_large_memory_is_sampled(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harmonia.tasks.report.RECORDS", 5)
    found = report(memory, starts=4)
    assert found.records == 12 and found.read == 4
    image = next(m for m in found.modalities if m.modality == "image")
    assert image.diagnosis.parts == 4 and image.diagnosis.records == 12


def test_no_memory_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(HarmoniaError, match="remember something first"):
        report(harmonia.open(tmp_path / "nowhere"))
    make_photo(tmp_path / "one.png")
    collection = harmonia.open(tmp_path / ".harmonia")
    collection.remember(tmp_path)
    assert report(collection, starts=4).modalities[0].hubs == ()
    collection.forget([record.id for record in collection.store.records()])
    with pytest.raises(HarmoniaError, match="is empty"):
        report(collection)


def test_recall_draws_its_landscape(memory: Memory, tmp_path: Path) -> None:
    picture = tmp_path / "out.png"
    recall = ["recall", "-m", str(memory.root), "--image", str(memory.root.parent / "photo-3.png")]
    done = CliRunner().invoke(cli, [*recall, "--json", "--landscape", str(picture)])
    assert done.exit_code == 0
    with Image.open(picture) as image:
        pixels = np.asarray(image)
    assert pixels.shape[0] > 500 and pixels.shape[1] > 700
    # a map of many colours, not an empty frame
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize(
    ("name", "says"), [("out.txt", "name it .png"), ("none/out.png", "there is no folder")]
)
def test_a_landscape_that_cannot_be_written(memory: Memory, tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "out.txt").write_text("mine")
    cues = memory.cues(make_query({"text": "waves"}))
    with pytest.raises(HarmoniaError, match=says) as error:
        draw_landscape(memory, cues, tmp_path / name)
    assert "\n" not in str(error.value)
    assert (tmp_path / "out.txt").read_text() == "mine"


def test_no_landscape_without_a_cue_for_it(memory: Memory, tmp_path: Path) -> None:
    cues = memory.cues(make_query({}, ["waves"]))
    with pytest.raises(HarmoniaError, match="no landscape to draw"):
        draw_landscape(memory, cues, tmp_path / "out.png")


def test_without_matplotlib_one_line_says_how_to_get_it(
    memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    cues = memory.cues(make_query({"text": "waves"}))
    with pytest.raises(HarmoniaError, match=r"needs the package matplotlib: pip install 'harmonia\[plots\]'"):
        draw_landscape(memory, cues, tmp_path / "out.png")
