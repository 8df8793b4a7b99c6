"""The documents say what is: help texts, the tree of files, and the Python example."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from harmonia.cli import COMMANDS, cli
from tests.media import make_photo
from tests.places import ROOT
from tools.tree import PACKAGE, TREE, tree

README = (ROOT / "README.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["harmonia", *COMMANDS])
def test_help_is_as_documented(command: str) -> None:
    documented = re.search(rf"<!-- help {command} -->\n```\n(.*?)\n```\n", CLI, re.DOTALL)
    assert documented, f"docs/cli.md has no help of {command}"
    args = ["--help"] if command == "harmonia" else [command, "--help"]
    shown = CliRunner().invoke(cli, args, prog_name="harmonia", terminal_width=100).output
    assert documented[1] == shown.rstrip()


def test_the_tree_is_the_tree() -> None:
    assert TREE.read_text(encoding="utf-8") == tree(), "run: python -m tools.tree"


def test_the_tree_says_what_every_file_is() -> None:
    """In one or more whole sentences: none is empty or cut."""
    page = TREE.read_text(encoding="utf-8")
    listed = re.findall(r"^\* `([^`]+)`: (.+)$", page, re.MULTILINE)
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"]
    assert sorted(name for name, _ in listed) == sorted(path.name for path in modules)
    assert [name for name, about in listed if about[-1] not in ".:)"] == []


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(examples) == 2
    (tmp_path / "photos").mkdir()
    for seed in range(4):
        make_photo(tmp_path / "photos" / f"photo-{seed}.png", seed=seed)
    make_photo(tmp_path / "sketch.png", seed=2)
    monkeypatch.chdir(tmp_path)
    exec(examples[0], {})
    assert "1 " in (shown := capsys.readouterr().out)
    assert shown.splitlines()[0].split()[2] == "photo-2"


def test_the_heart_alone_runs(capsys: pytest.CaptureFixture[str]) -> None:
    exec(re.findall(r"```python\n(.*?)```", README, re.DOTALL)[1], {})
    assert capsys.readouterr().out.startswith("tensor([0, 1])")
