"""The counts that a store keeps: those of the tables as they are, told without opening them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import harmonia
from harmonia import store as stores
from harmonia.store import summary
from tests.media import make_photo


@pytest.fixture
def memory(tmp_path: Path) -> harmonia.Memory:
    for seed in range(3):
        make_photo(tmp_path / f"{seed}.png", seed=seed)
    memory = harmonia.open(tmp_path / "m", models=["descriptors"])
    memory.remember([tmp_path / "0.png", tmp_path / "1.png"])
    return memory


def test_kept_counts_are_those_that_are_counted(memory: harmonia.Memory) -> None:
    counted = memory.store.status()
    assert summary.read_summary(memory.root) is not None
    assert stores.status(memory.root) == counted


def test_a_change_makes_them_count_anew(memory: harmonia.Memory, tmp_path: Path) -> None:
    assert memory.status()["records"] == 2
    memory.remember(tmp_path / "2.png")
    assert summary.read_summary(memory.root) is None
    assert memory.status()["records"] == 3
    memory.forget(where="name = '2'")
    assert memory.status()["records"] == 2


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"stamp": {}, "counts": {"records": 99}}'])
def test_damaged_counts_are_not_believed(memory: harmonia.Memory, damage: str) -> None:
    memory.status()
    (memory.root / summary.FILE_NAME).write_text(damage)
    assert memory.status()["records"] == 2


def test_counts_taken_before_a_commit_are_not_kept(memory: harmonia.Memory, tmp_path: Path) -> None:
    stamp = summary.stamp_of(memory.root)
    memory.remember(tmp_path / "2.png")
    summary.write_summary(memory.root, stamp, {"records": 2})
    assert summary.read_summary(memory.root) is None


def test_status_opens_no_store_and_loads_no_encoder(tmp_path: Path) -> None:
    make_photo(tmp_path / "0.png")
    add = ["remember", str(tmp_path / "0.png"), "--into", str(tmp_path / "m")]
    command = [sys.executable, "-m", "harmonia", *add]
    subprocess.run(command, check=True, capture_output=True)
    code = (
        "import sys; from click.testing import CliRunner; from harmonia.cli import cli;"
        f"print(CliRunner().invoke(cli, ['status', '-m', {str(tmp_path / 'm')!r}, '--json']).output);"
        "print(sorted({'torch', 'lancedb', 'av', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, loaded = done.stdout.strip().splitlines()
    assert json.loads("\n".join(shown))["records"] == 1 and loaded == "[]"
