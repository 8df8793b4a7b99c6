"""The public interface of the memory: chosen names, each with an example that runs, imported when used."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harmonia.memory
from tests.places import ROOT
from tests.reference import Entry, check_page, entries

SOURCE = Path(harmonia.memory.__file__)


@pytest.mark.parametrize("entry", entries("memory"), ids=str)
def test_the_example_runs(entry: Entry) -> None:
    entry.run()


def test_every_public_name_has_an_example() -> None:
    check_page("memory")


def test_type_checkers_see_the_names_that_are_imported_when_used() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names:
            assert alias.asname == alias.name
            seen[alias.name] = node.module.removeprefix("harmonia.memory").removeprefix(".")
    assert {name: module for name, module in seen.items() if module} == harmonia.memory.NAMES
    assert tuple(name for name, module in seen.items() if not module) == harmonia.memory.MODULES


def test_no_public_name_is_hidden_by_a_module_of_the_same_name() -> None:
    modules = {info.name for info in pkgutil.iter_modules([str(SOURCE.parent)])}
    assert not modules & set(harmonia.memory.NAMES) and modules >= set(harmonia.memory.MODULES)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'remember'"):
        harmonia.memory.remember  # noqa: B018
    assert set(harmonia.memory.__all__) <= set(dir(harmonia.memory))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import harmonia.memory", ["torch", "harmonia.memory.harmonic"]),
        (
            "from harmonia.memory import Given, HarmonicMemory, Settled",
            [
                "classical",
                "random_features",
                "hopfield",
                "learning",
                "consolidation",
                "diagnostics",
                "descent",
            ],
        ),
        ("from harmonia.memory.entropies import Tsallis", ["harmonic", "matrix", "scan", "hopfield"]),
    ],
)
def test_an_import_loads_only_what_it_needs(statement: str, absent: list[str]) -> None:
    names = [name if "." in name or name == "torch" else f"harmonia.memory.{name}" for name in absent]
    code = f"{statement}\nimport sys\nprint([name for name in {names} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_the_tests_that_the_documents_name_exist() -> None:
    root = ROOT / "docs"
    named = {
        name for page in root.glob("*.md") for name in re.findall(r"`(test_\w+)`", page.read_text("utf-8"))
    }
    tests = "\n".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named and not {name for name in named if f"def {name}(" not in tests}
