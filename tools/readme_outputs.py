"""Run the commands that the README shows and put what they print into it.

    python -m tools.readme_outputs            # write README.md
    python -m tools.readme_outputs --print    # only print the block

The commands are the lines that begin with ``$`` in the README's block ``console``. They run in a temporary
folder, whose path is shown as ``…``.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent
README = REPOSITORY / "README.md"
BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)
WIDTH = 100
PYTHON = {"harmonia": [sys.executable, "-m", "harmonia"], "python": [sys.executable]}
"""What the first word of a command is run as: this interpreter, with this checkout's code."""


def commands(block: str) -> list[str]:
    """The commands that a block shows, in their order, without what stands behind ``#``."""
    return [line[2:] for line in block.splitlines() if line.startswith("$ ")]


def run(command: str, folder: Path) -> str:
    """What a command prints: standard output, then standard error without progress bars."""
    first, *rest = command.split("#")[0].split()
    path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HARMONIA_")}
    done = subprocess.run(
        [*PYTHON[first], *rest],
        cwd=folder,
        env={**environment, "PYTHONPATH": path, "COLUMNS": str(WIDTH)},
        capture_output=True,
        text=True,
        check=False,
    )
    errors = [line for line in done.stderr.splitlines() if "\r" not in line and "it/s" not in line]
    if done.returncode:
        sys.exit(f"{command}: exit status {done.returncode}: " + "\n".join(errors))
    lines = [line.rstrip().replace(str(folder), "…") for line in [*done.stdout.splitlines(), *errors]]
    shown = [line for line in lines if line and "rec/s]" not in line]
    return "\n".join(row for line in shown for row in wrapped(line))


def wrapped(line: str) -> list[str]:
    """A line as a terminal of the width shows it, broken between words."""
    return [line] if len(line) <= WIDTH else textwrap.wrap(line, WIDTH)


def outputs(block: str) -> str:
    """The block with each command's output below it, as it is today."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        shown = [f"$ {command}\n{run(command, folder)}".rstrip() for command in commands(block)]
    return "\n".join(shown) + "\n"


def main() -> None:
    """Renew the README's block, or print it."""
    readme = README.read_text(encoding="utf-8")
    found = BLOCK.search(readme)
    if found is None:
        sys.exit("README.md has no block ```console")
    block = outputs(found[0])
    print(block, end="")
    if "--print" not in sys.argv:
        README.write_text(readme.replace(found[0], block), encoding="utf-8")


if __name__ == "__main__":
    main()
