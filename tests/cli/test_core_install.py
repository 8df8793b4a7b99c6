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
from packaging.requirements import Requirement

from tests.media import make_photo, make_tone, make_video

ROOT = Path(__file__).parents[2]

COMMANDS = """
import contextlib, io, json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

absent, commands = json.load(sys.stdin)
sys.meta_path.insert(0, Absent())
from harmonia.cli import main

done = []
for sys.argv[1:] in commands:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
    done.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(done))
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


def run(absent: set[str], memory: Path, *commands: Sequence[str | Path]) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of each command, all in one process without the packages."""
    lines = [[str(word) for word in command] for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS],
        input=json.dumps([sorted(absent), lines]),
        capture_output=True,
        text=True,
        env={**os.environ, "HARMONIA_MEMORY": str(memory)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [(code, out, err) for code, out, err in json.loads(done.stdout)]


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

    cues = {"photo.jpg": "image", "tone.mp3": "audio", "film.mp4": "video"}
    remembered, *recalled, told, landscape = run(
        absent,
        tmp_path / "memory",
        ["remember", media],
        *(
            ["recall", f"--{kind}", media / cue, "--json", "--sheet", tmp_path / f"{cue}.png"]
            for cue, kind in cues.items()
        ),
        ["recall", "rain", "--json"],
        ["recall", "rain", "--landscape", tmp_path / "energy.png"],
    )
    assert remembered[0] == 0, remembered
    for cue, (code, out, err) in zip(cues, recalled, strict=True):
        assert code == 0, err
        assert json.loads(out)["records"][0]["metadata"]["path"] == str(media / cue)
        assert (tmp_path / f"{cue}.png").stat().st_size > 1000
    assert json.loads(told[1])["records"][0]["metadata"]["name"] == "tone"
    code, _, err = landscape
    assert code == 1
    assert err == "harmonia: a landscape needs the package matplotlib: pip install 'harmonia[plots]'\n"
