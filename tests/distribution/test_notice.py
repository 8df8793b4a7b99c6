"""NOTICE says what is installed, and no core dependency is copyleft."""

from __future__ import annotations

from email.message import EmailMessage
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from tools.dependencies import closure, core
from tools.notice import (
    COPYLEFT,
    LIBRARIES,
    NOTICE,
    copyleft,
    dependencies,
    libraries,
    licence,
    notice,
    weights,
)


def test_notice_is_what_is_installed() -> None:
    assert NOTICE.read_text(encoding="utf-8") == notice(), "run: make notice"


def test_no_core_dependency_is_copyleft() -> None:
    assert copyleft() == {}


def test_every_core_dependency_states_a_licence() -> None:
    assert [name for name, one in dependencies().items() if licence(one) == "not stated"] == []


def test_the_closure_has_what_dependencies_bring() -> None:
    there = closure(core())
    assert {"torch", "lancedb", "numpy", "pyarrow", "sympy"} <= set(there)  # torch brings sympy
    without = closure(core(), ["torch"])
    assert "torch" not in without and "sympy" not in without and set(without) < set(there)
    assert "pytest" not in there


class Made(Distribution):
    """A distribution with the metadata that it is given."""

    def __init__(self, **fields: str) -> None:
        self.message = EmailMessage()
        for name, value in fields.items():
            self.message[name.replace("_", "-")] = value

    def read_text(self, filename: str) -> str | None:
        return self.message.as_string() if filename == "METADATA" else None

    def locate_file(self, path: object) -> Path:
        return Path(str(path))


@pytest.mark.parametrize(
    ("fields", "said", "refused"),
    [
        ({"License_Expression": "GPL-2.0-or-later"}, "GPL-2.0-or-later", True),
        ({"License": "LGPLv3+"}, "LGPLv3+", True),
        ({"Classifier": "License :: OSI Approved :: GNU Affero General Public License v3"},
         "GNU Affero General Public License v3", True),
        ({"License": "AGPL-3.0"}, "AGPL-3.0", True),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, "MIT", False),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0", False),
        ({"License_Expression": "MPL-2.0 AND MIT"}, "MPL-2.0 AND MIT", False),
        ({}, "not stated", False),
    ],
)  # fmt: skip
def test_licences_are_read_and_judged(fields: dict[str, str], said: str, refused: bool) -> None:
    assert licence(Made(**fields)) == said
    assert bool(COPYLEFT.search(said)) is refused


def test_libraries_inside_wheels_are_known_by_their_files() -> None:
    import av._core

    inside = libraries(closure(["av"])["av"])
    if not inside:
        pytest.skip("this av has no libraries of its own")
    configured = av._core.library_meta["libavcodec"]
    assert ("libx264" in inside) == ("--enable-libx264" in configured["configuration"])
    assert configured["license"] == "LGPL version 3 or later"
    assert LIBRARIES["libavcodec"] == "LGPL-3.0-or-later"


def test_the_shipped_weights_have_their_licence() -> None:
    folders = ("encoders/mini", "generators/autoencoders/mini", "generators/mini")
    assert weights() == {f"harmonia/{folder}": "Apache-2.0" for folder in folders}
