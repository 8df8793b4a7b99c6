"""The pages docs/reference/*.md: each entry names public objects of a package and has an example of them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import torch

from tests.places import ROOT


@dataclass(frozen=True)
class Entry:
    """``names`` as the heading has them, such as "attend" or "capacity.best_beta", and their example."""

    names: tuple[str, ...]
    code: str

    def __str__(self) -> str:
        return self.names[0]

    def used(self) -> set[str]:
        """The identifiers that the example uses outside its imports."""
        nodes = list(ast.walk(ast.parse(self.code)))
        plain = {node.id for node in nodes if isinstance(node, ast.Name)}
        return plain | {node.attr for node in nodes if isinstance(node, ast.Attribute)}

    def run(self) -> None:
        """Run the example; its assertions are the test."""
        torch.manual_seed(0)
        exec(compile(self.code, str(self), "exec"), {})


def entries(package: str) -> list[Entry]:
    """The entries of the page of a package, such as "memory"."""
    text = (ROOT / "docs" / "reference" / f"{package}.md").read_text(encoding="utf-8")
    found = []
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        heading, body = section.split("\n", 1)
        code = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
        found.append(Entry(tuple(re.findall(r"`([^`]+)`", heading)), "\n".join(code)))
    return found


def public(package: str) -> dict[str, Any]:
    """The public objects of a package, or of harmonia itself; those of public modules as "module.name"."""
    module = import_module("harmonia" if package == "package" else f"harmonia.{package}")
    found: dict[str, Any] = {}
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            found |= {f"{name}.{inner}": getattr(value, inner) for inner in value.__all__}
        else:
            found[name] = value
    return found


def check_page(package: str) -> None:
    """Every public name has one entry whose example uses it, and no entry is of anything else."""
    listed = [name for entry in entries(package) for name in entry.names]
    assert sorted(listed) == sorted(public(package))
    unused = [
        name for entry in entries(package) for name in entry.names if name.split(".")[-1] not in entry.used()
    ]
    assert not unused
