"""The command line with the core dependencies alone: no package of an extra is there to be imported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pytest
from media import make_photo, make_tone, make_video
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]

COMMAND = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Absent())
from harmonia.cli import main
main()
"""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(names: Sequence[str]) -> set[str]:
    """Distributions that installing these brings along."""
    found: set[str] = set()
    waiting = [canonical(name) for name in names]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        wanted = [Requirement(line) for line in lines]
        waiting += [canonical(r.name) for r in wanted if not r.marker or r.marker.evaluate({"extra": ""})]
    return found


@pytest.fixture(scope="module")
def absent() -> set[str]:
    """Top-level packages that are installed here, but not by ``pip install harmonia``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = closure([Requirement(line).name for line in project["dependencies"]]) | {"harmonia"}
    packages = metadata.packages_distributions()
    others = {name for name, owners in packages.items() if not core & set(map(canonical, owners))}
    return others - sys.stdlib_module_names  # a backport of dataclasses hides none


def run(absent: set[str], home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, ",".join(sorted(absent)), *arguments],
        capture_output=True,
        text=True,
        cwd=home,
        env={**os.environ, "HARMONIA_MEMORY": str(home / "memory")},
        check=False,
    )


def test_the_core_is_without_what_one_file_needs(absent: set[str]) -> None:
    assert {"skimage", "scipy", "matplotlib", "transformers", "fastapi", "pytest"} <= absent
    assert not {"numpy", "torch", "av", "lancedb"} & absent
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    names = {Requirement(line).name for group in groups for line in group} - {"harmonia"}
    assert "mutagen" not in closure(sorted(names))  # its licence is the GPL


def test_pictures_sounds_and_videos_are_remembered_and_recalled(absent: set[str], tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    make_photo(media / "photo.jpg", seed=1)
    make_tone(
        media / "tone.mp3", rate=44100, tags={"title": "Rain on a roof"}
    )  # resampled, and with a caption
    make_tone(media / "bell.wav", hz=880, rate=22050, tags={"title": "A church bell"})
    (media / "note.txt").write_text("Milk, bread and apples")
    make_video(media / "film.mp4", seed=2)

    def harmonia(*arguments: str) -> str:
        done = run(absent, tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    harmonia("remember", str(media))
    cues = {"photo.jpg": "image", "tone.mp3": "audio", "film.mp4": "video"}
    for cue, kind in cues.items():
        sheet = tmp_path / f"{cue}.png"
        out = harmonia("recall", f"--{kind}", str(media / cue), "--json", "--sheet", str(sheet))
        assert cue in json.dumps(json.loads(out)["records"][0]), out
        assert sheet.stat().st_size > 1000
    assert json.loads(harmonia("recall", "rain", "--json"))["records"][0]["metadata"]["name"] == "tone"

    landscape = run(absent, tmp_path, "recall", "rain", "--landscape", str(tmp_path / "energy.png"))
    assert landscape.returncode == 1
    assert landscape.stderr.splitlines()[-1] == (
        "harmonia: a landscape needs the package matplotlib: pip install 'harmonia[plots]'"
    )
    assert "Traceback" not in landscape.stderr
