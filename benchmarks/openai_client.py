"""The openai client's own tests against a live server: `python -m benchmarks.openai_client [SOURCE]`.

SOURCE is the client's unpacked source distribution, of the version that is installed; without it pip
downloads it. Its tests of models, embeddings, files, vector stores, chat and responses are run as they were
published, with the names that they invent replaced (see `benchmarks/openai_names.py`) and without those that
`benchmarks/openai_client.txt` leaves out, each for a reason. They need `harmonia[test-openai]` too.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.common import REPOSITORY, report, row
from benchmarks.served import served
from harmonia.collection.collection import Memory
from harmonia.types import Part, Record

SUITES = (
    "test_models.py", "test_embeddings.py", "test_files.py", "test_vector_stores.py", "vector_stores",
    "chat", "test_responses.py", "responses/test_input_items.py",
)  # fmt: skip


def source(given: Path | None, folder: Path) -> Path:
    """The client's source of the installed version; exits where it is another."""
    wanted = version("openai")
    if given is None:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:",
                   "--dest", str(folder), f"openai=={wanted}"]  # fmt: skip
        subprocess.run(command, check=True)
        with tarfile.open(folder / f"openai-{wanted}.tar.gz") as archive:
            archive.extractall(folder, filter="data")
        given = folder / f"openai-{wanted}"
    if f'__version__ = "{wanted}"' not in (given / "src/openai/_version.py").read_text(encoding="utf-8"):
        sys.exit(f"benchmarks: {given} is not the source of openai {wanted}, which is installed")
    return given


def run(tests: Path, folder: Path, more: list[str]) -> dict[str, Any]:
    """What the plugin counted in one run against a new memory."""
    notes = ["buy milk and bread", "call the dentist", "waves at dusk by the sea"]
    Memory(folder / "memory").remember([Record("", (Part("text", text=note),)) for note in notes])
    counted = folder / "counted.json"
    with served(folder / "memory") as server:
        path = [str(REPOSITORY / "src"), str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        env = os.environ | {
            "TEST_API_BASE_URL": f"{server.url}/v1", "OPENAI_TESTS_REPORT": str(counted),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        }  # fmt: skip
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.openai_names", "-o", "addopts=",
            "--tb=short", "-p", "no:cacheprovider", *more,
            *(f"tests/api_resources/{suite}" for suite in SUITES),
        ]  # fmt: skip
        subprocess.run(command, cwd=tests, env=env, check=False)
    found: dict[str, Any] = json.loads(counted.read_text())
    return found


def main() -> None:
    """Run the tests, print the table and write the results; exit 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path)
    given, more = parser.parse_known_args()
    if missing := [name for name in ("aiohttp", "pytest_asyncio") if find_spec(name) is None]:
        sys.exit(f"benchmarks: {' and '.join(missing)} missing: pip install 'harmonia[test-openai]'")
    with tempfile.TemporaryDirectory() as name:
        counted = run(source(given.source, Path(name)), Path(name), more)
    failed, unused = counted["failed"], counted["unused"]
    rows = [row(f"tests of openai {version('openai')} that pass", counted["passed"], "tests")]
    rows.append(row("tests that fail", len(failed), "tests", goal=("<=", 0)))
    rows += [row(f"left out: {reason}", n, "tests") for reason, n in counted["left out"].items()]
    report("openai_client", rows, quick=bool(more))
    for pattern in unused:
        print(f"benchmarks/openai_client.txt: {pattern} leaves nothing out: remove it", file=sys.stderr)
    sys.exit(1 if failed or unused else 0)


if __name__ == "__main__":
    main()
