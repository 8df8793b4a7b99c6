"""`make` finds a Python from 3.11 on that runs, and says in one line when there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT

MAKE = shutil.which("make")
pytestmark = pytest.mark.skipif(MAKE is None, reason="make is not installed")
BROKEN = "#!/bin/sh\necho 'command not found' >&2\nexit 127\n"
OLD = "#!/bin/sh\nexit 1\n"  # what the question whether it is 3.11 or newer gets from an older Python


def make(path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Make's environment in ``path`` with only the programs in ``path`` to be found."""
    environment = {**os.environ, "PATH": str(path)}
    environment.pop("PYTHON", None)
    return subprocess.run(
        [str(MAKE), f"VENV={path}/venv", f"{path}/venv/bin/python", *arguments],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def put(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(script, encoding="utf-8")
    (folder / name).chmod(0o755)


def real(folder: Path, name: str) -> None:
    # a script, since a Python behind a link would look for its library beside the link
    put(folder, name, f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')


def test_shims_that_fail_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, "python3.11", BROKEN)
    put(tmp_path, "python3.12", OLD)
    real(tmp_path, "python3.13")
    real(tmp_path, "python3")
    shown = make(tmp_path, "-n")
    assert shown.returncode == 0, shown.stderr
    assert '"python3.13" -m venv' in shown.stdout


def test_python3_is_taken_when_no_name_has_a_version(tmp_path: Path) -> None:
    real(tmp_path, "python3")
    assert '"python3" -m venv' in make(tmp_path, "-n").stdout


def test_the_environment_is_made(tmp_path: Path) -> None:
    real(tmp_path, "python3.12")
    made = make(tmp_path)
    assert made.returncode == 0, made.stderr
    version = [str(tmp_path / "venv/bin/python"), "-c", "import sys; print(sys.version_info[:2])"]
    assert subprocess.check_output(version, text=True).strip() == str(sys.version_info[:2])


@pytest.mark.parametrize("arguments", [(), ("PYTHON=python3.12",), ("PYTHON=absent",)])
def test_none_that_runs_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    put(tmp_path, "python3", OLD)
    put(tmp_path, "python3.12", BROKEN)
    run = make(tmp_path, *arguments)
    assert run.returncode != 0
    lines = [line for line in run.stderr.splitlines() if "***" not in line]
    assert len(lines) == 1 and "3.11 or newer" in lines[0] and "PYTHON=" in lines[0]


def test_a_chosen_python_is_taken(tmp_path: Path) -> None:
    real(tmp_path, "python3.11")
    assert f'"{sys.executable}" -m venv' in make(tmp_path, "-n", f"PYTHON={sys.executable}").stdout
