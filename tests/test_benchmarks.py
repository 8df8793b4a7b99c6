"""The recall benchmark runs, writes what it says it writes, and its numbers are possible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.common import REPOSITORY, row

DATA = Path(os.environ.get("HARMONIA_DATA", REPOSITORY.parent / "shared" / "data"))
COLUMNS = {"what", "value", "unit", "peer", "peer_value", "ratio", "goal", "holds"}


@pytest.mark.parametrize(
    ("value", "peer", "goal", "holds"),
    [
        (2.0, 1.0, ("<=", 1.5), False),
        (1.0, 1.0, ("<=", 1.5), True),
        (0.8, 1.0, (">=", 0.9), False),
        (0.2, None, ("<=", 0.3), True),
        (2.0, 1.0, None, None),
    ],
)
def test_goal_is_judged_on_the_ratio_or_else_the_value(
    value: float, peer: float | None, goal: tuple[str, float] | None, holds: bool | None
) -> None:
    assert row("x", value, "s", None if peer is None else "peer", peer, goal)["holds"] is holds


def run_quick(name: str, timeout: int = 600) -> dict[str, Any]:
    """Run a benchmark in its quick form; returns what it wrote."""
    subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick"],
        cwd=REPOSITORY, check=True, capture_output=True, timeout=timeout,
    )  # fmt: skip
    written: dict[str, Any] = json.loads((REPOSITORY / "build" / f"{name}.json").read_text(encoding="utf-8"))
    return written


def test_absent_data_is_one_line() -> None:
    environment = {**os.environ, "HARMONIA_DATA": str(REPOSITORY / "no-such-folder")}
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.recall", "--quick"],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert len(run.stderr.strip().splitlines()) == 1 and "HARMONIA_DATA" in run.stderr


@pytest.mark.skipif(not DATA.is_dir(), reason="no data folder: set HARMONIA_DATA")
def test_quick_recall_writes_its_rows() -> None:
    written = run_quick("recall", timeout=120)
    assert set(written) == {"command", "commit", "machine", "rows"}
    assert written["command"] == "python -m benchmarks.recall --quick"
    assert "/" not in written["machine"]
    for one in written["rows"]:
        assert set(one) == COLUMNS
        assert 0 <= one["value"] <= 1, one
        assert (one["goal"] is None) == (one["holds"] is None)


@pytest.mark.skipif(not DATA.is_dir(), reason="no data folder: set HARMONIA_DATA")
@pytest.mark.parametrize("name", ["kernel", "memory", "alignment", "generation"])
def test_quick_runs_write_their_rows(name: str) -> None:
    written = run_quick(name)
    assert written["command"] == f"python -m benchmarks.{name} --quick"
    assert len(written["rows"]) > 10
    for one in written["rows"]:
        assert set(one) == COLUMNS
        assert (one["goal"] is None) == (one["holds"] is None)
    success = [r["value"] for r in written["rows"] if r["unit"] in ("success", "fraction")]
    assert all(0 <= value <= 1 for value in success)


def test_an_absolute_goal_is_judged_on_the_value() -> None:
    assert row("x", 2.0, "s", "peer", 4.0, ("<=", 1.0), absolute=True)["holds"] is False
    assert row("x", 2.0, "s", "peer", 4.0, ("<=", 2.0), absolute=True)["holds"] is True


def test_quick_footprint_writes_its_rows() -> None:
    written = run_quick("footprint")
    rows = {(one["what"], one["unit"]): one for one in written["rows"]}
    assert all(set(one) == COLUMNS and one["value"] > 0 for one in rows.values())
    assert {"core without PyTorch", "import harmonia", "harmonia status"} <= {what for what, _ in rows}
    assert all((one["goal"] is None) == (one["holds"] is None) for one in rows.values())
    # a process that loads torch computes for longer than one that prints a version
    assert rows["harmonia --version", "CPU s"]["value"] < rows["harmonia recall moon", "CPU s"]["value"]


@pytest.mark.skipif(not DATA.is_dir(), reason="no data folder: set HARMONIA_DATA")
def test_a_mixed_folder_changes_without_loss() -> None:
    written = run_quick("mixed_folder")
    for one in written["rows"]:
        assert set(one) == COLUMNS
        assert one["holds"] is not False
