"""The documents say what is: help texts, the tree of files, and the Python example."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from harmonia.cli import COMMANDS, cli
from tests.media import make_photo
from tests.places import ROOT
from tools.readme_outputs import BLOCK, commands, outputs
from tools.results_page import PAGE
from tools.results_page import page as results
from tools.tree import PACKAGE, TREE, tree

README = (ROOT / "README.md").read_text(encoding="utf-8")
CLI = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


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


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        there = page.parent / target if target else page
        if re.match(r"https?:", link):
            continue
        if not there.exists() or (anchor and anchor not in headings(there)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_files_that_are_named_exist(page: Path) -> None:
    """By their path in the repository or in the package, or by their end: `maskgit.py` after its folder."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    named = set(re.findall(r"(?<![\w/.])((?:[\w-]+/)*[a-z_]\w*\.py)\b", text))
    there = [f"/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob("[!.]*/**/*.py")]
    absent = {name for name in named if not any(path.endswith(f"/{name}") for path in there)}
    absent -= {name for name in absent if name.endswith("/test_x.py")}  # any test
    assert absent == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_modules_that_are_named_exist(page: Path) -> None:
    """`harmonia.a.b` is a module, or a name that the module writes."""
    wrong = []
    for name in set(re.findall(r"(?<![\w./-])harmonia(?:\.\w+)+", page.read_text(encoding="utf-8"))):
        path = PACKAGE
        for part in name.split(".")[1:]:
            source = path.with_suffix(".py") if path.with_suffix(".py").exists() else path / "__init__.py"
            if (path / part).is_dir() or (path / f"{part}.py").exists():
                path = path / part
            elif not source.exists() or not re.search(rf"\b{part}\b", source.read_text(encoding="utf-8")):
                wrong.append(name)
                break
            else:
                break
    assert wrong == []


def test_the_layers_are_those_that_are_checked() -> None:
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    assert "```\n" + "\n".join(layers) + "\n```" in design


def test_the_page_of_results_is_that_of_the_results() -> None:
    assert PAGE.read_text(encoding="utf-8") == results(), "run: python -m tools.results_page"


def test_the_readme_shows_real_commands() -> None:
    """Every command of the README's block is one of Harmonia, with output below it."""
    block = BLOCK.search(README)
    assert block is not None and len(commands(block[0])) >= 4
    for command in commands(block[0]):
        first, second = command.split()[:2]
        assert first == "python" or second in COMMANDS
    assert not re.search(r"^\$ .*\n(?:\$|$)", block[0], re.MULTILINE)


def test_the_readme_shows_what_the_commands_print() -> None:
    """But for the seconds that remembering took."""
    block = BLOCK.search(README)
    assert block is not None
    shown, now = (re.sub(r"in [\d.]+ s", "in ? s", text) for text in (block[0], outputs(block[0])))
    assert shown == now, "run: python -m tools.readme_outputs"


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
