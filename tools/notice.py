"""Write NOTICE: the licences of the core dependencies, of the libraries inside them, of the shipped weights.

    python -m tools.notice            # write it
    python -m tools.notice --check    # exit 1 if it is out of date, or a core dependency is copyleft

Licences are those that the installed distributions state; a library inside a wheel is known by its file name.
"""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.dependencies import REPOSITORY, closure, core

NOTICE = REPOSITORY / "NOTICE"
WIDTH = 40
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|GNU|EUPL|SSPL|CC-BY-SA|OSL)", re.IGNORECASE)
GPU = ("nvidia-", "cuda-", "triton")
"""Beginnings of the names of what a CUDA build of PyTorch brings."""
SPDX = {
    "apache 2": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 3-clause license": "BSD-3-Clause",
    "bsd license": "BSD",
    "mit license": "MIT",
    "python software foundation license": "PSF-2.0",
}
BOTH = "LGPL-3.0-or-later OR GPL-2.0-or-later"
LIBRARIES = {
    "libasound": "LGPL-2.1-or-later",
    "libavcodec": "LGPL-3.0-or-later",
    "libavdevice": "LGPL-3.0-or-later",
    "libavfilter": "LGPL-3.0-or-later",
    "libavformat": "LGPL-3.0-or-later",
    "libavutil": "LGPL-3.0-or-later",
    "libgfortran": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libgmp": BOTH,
    "libgnutls": "LGPL-2.1-or-later",
    "libgomp": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libhogweed": BOTH,
    "libmp3lame": "LGPL-2.0-or-later",
    "libnettle": BOTH,
    "libquadmath": "LGPL-2.1-or-later",
    "libsndfile": "LGPL-2.1-or-later",
    "libswresample": "LGPL-3.0-or-later",
    "libswscale": "LGPL-3.0-or-later",
    "libunistring": BOTH,
    "libx264": "GPL-2.0-or-later",
    "libx265": "GPL-2.0-or-later",
}
"""Copyleft libraries that wheels of media and numbers may hold, by the beginning of the file's name."""

HEAD = """\
Harmonia
Copyright The Harmonia authors
Licensed under the Apache License, Version 2.0 (see LICENSE).

This file is written by `make notice` and names what an installation of the core brings. Harmonia's own
distribution holds none of these packages: an installer takes each from its authors, under its licence.
"""
INSIDE = """\
Copyleft libraries inside the Linux wheels of these packages
------------------------------------------------------------
Harmonia links to none of them; its dependencies load them. Who passes on an environment or an image
with these wheels passes on the libraries too, under the licences below. PyAV is BSD-3-Clause; the FFmpeg
in its wheel says "LGPL version 3 or later" of itself, and x264 and x265, which lie beside it, are GPL.
PyAV can be built on an FFmpeg of your own without them. A CUDA build of PyTorch also brings NVIDIA's
packages, under NVIDIA's licences.
"""


def licence(one: Distribution) -> str:
    """What a distribution says of its licence, as an SPDX expression where its words have one."""
    metadata = one.metadata
    classifiers = metadata.get_all("Classifier") or []
    said = [name.rpartition(":: ")[2] for name in classifiers if name.startswith("License ::")]
    text = (metadata.get("License") or "").strip()
    if metadata.get("License-Expression"):
        return str(metadata["License-Expression"])
    if text and "\n" not in text and len(text) < 60:
        return SPDX.get(text.lower(), text)
    return " AND ".join(SPDX.get(name.lower(), name) for name in said) or "not stated"


def dependencies() -> dict[str, Distribution]:
    """The core's dependencies, direct and indirect, without what a CUDA build of PyTorch adds."""
    names = {canonicalize_name(Requirement(text).name) for text in requires("torch") or ()}
    return closure(core(), {name for name in names if name.startswith(GPU)})


def libraries(one: Distribution) -> dict[str, str]:
    """The copyleft libraries among a distribution's files: name to licence."""
    names = {re.split(r"[-.]|_x86_64|_arm64", path.name)[0] for path in one.files or () if ".so" in path.name}
    return {name: LIBRARIES[name] for name in sorted(names) if name in LIBRARIES}


def weights() -> dict[str, str]:
    """Each shipped model: its folder in the package to the licence that its card states."""
    package = REPOSITORY / "src" / "harmonia"
    cards = {path.parent: path.parent / "README.md" for path in package.rglob("model.safetensors")}
    found = {}
    for folder, card in cards.items():
        said = re.search(r"weights are ([A-Za-z]+ [0-9.]+[0-9])", " ".join(card.read_text("utf-8").split()))
        if said is None:
            sys.exit(f"notice: {card.relative_to(REPOSITORY)} does not say 'weights are LICENCE'")
        found[folder.relative_to(REPOSITORY / "src").as_posix()] = said[1].replace(" ", "-")
    return dict(sorted(found.items()))


def notice() -> str:
    """The text of NOTICE, for what is installed here."""
    there = dependencies()
    inside = [(name, *pair) for name, one in there.items() for pair in libraries(one).items()]
    return "\n".join(
        [
            HEAD,
            "Shipped weights",
            "---------------",
            *(f"{name:<{WIDTH}}{said}" for name, said in weights().items()),
            "",
            "What they were trained on, and under which licences, stands in the README.md beside each.",
            "",
            "Core dependencies, direct and indirect",
            "--------------------------------------",
            *(f"{name:<{WIDTH}}{licence(one)}" for name, one in there.items()),
            "",
            INSIDE,
            *(f"{f'{name}: {library}':<{WIDTH}}{said}" for name, library, said in inside),
            "",
        ]
    )


def copyleft() -> dict[str, str]:
    """Core dependencies whose licence is copyleft, with it."""
    said = {name: licence(one) for name, one in dependencies().items()}
    return {name: text for name, text in said.items() if COPYLEFT.search(text)}


def main() -> None:
    """Write NOTICE, or check it."""
    if "--check" not in sys.argv[1:]:
        NOTICE.write_text(notice(), encoding="utf-8")
        return
    if bad := copyleft():
        sys.exit(f"notice: copyleft core dependencies: {', '.join(f'{k} ({v})' for k, v in bad.items())}")
    if not NOTICE.exists() or NOTICE.read_text(encoding="utf-8") != notice():
        sys.exit("notice: NOTICE is not what is installed: run make notice")


if __name__ == "__main__":
    main()
