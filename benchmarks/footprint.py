"""What Harmonia costs before it does anything: installed size, import, computing of the usual commands.

    python -m benchmarks.footprint
    python -m benchmarks.footprint --baseline ../harmonia-cd78e53    # beside an older checkout, in turns

The size is that of the files of every core dependency, direct and indirect, but PyTorch and what only
PyTorch brings, and of the package itself; files that an installer compiles are not counted. Commands run on
the starter collection, each in a process of its own; CPU seconds are that process's user and system time. A
baseline runs the same commands on a memory that it has made itself. Medians, the two in turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from benchmarks.common import REPOSITORY, Row, report, row
from tools.dependencies import size

IMPORT = "import time; begun = time.perf_counter(); import harmonia; print(time.perf_counter() - begun)"
COMMANDS = {
    "harmonia --version": (("--version",), None),
    "harmonia status": (("status",), 0.5),
    "harmonia recall moon": (("recall", "moon"), 3.6),
    "harmonia retrieve moon": (("retrieve", "moon"), None),
}
"""Each command, and the most CPU seconds that it should take."""
MEGABYTE = 1e6


@dataclass(frozen=True)
class Checkout:
    """A source tree, the Python that runs it, and the folder of its memory."""

    folder: Path
    python: str
    memory: Path

    @property
    def environment(self) -> dict[str, str]:
        """In which its code and its memory are found."""
        return {**os.environ, "PYTHONPATH": str(self.folder / "src"), "HARMONIA_MEMORY": str(self.memory)}

    def run(self, *arguments: str, server: bool = False) -> tuple[float, float, str]:
        """Wall seconds, CPU seconds and output of one process; exits where it fails."""
        environment = {**self.environment, "HARMONIA_SERVER": "on" if server else "off"}
        before, begun = _computed(), time.perf_counter()
        run = subprocess.run(
            [self.python, *arguments], cwd=self.memory.parent, env=environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        wall, cpu = time.perf_counter() - begun, _computed() - before
        if run.returncode:
            why = (run.stderr.strip() or "no message").splitlines()[-1]
            sys.exit(f"benchmarks: {' '.join(arguments)} failed: {why}")
        return wall, cpu, run.stdout

    def size(self) -> float | None:
        """Megabytes of the core without PyTorch; None where its dependencies are not all installed."""
        run = subprocess.run(
            [self.python, "-m", "tools.dependencies", str(self.folder)],
            cwd=REPOSITORY, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if run.returncode:
            return None
        own = (self.folder / "src" / "harmonia").rglob("*")
        files = sum(path.stat().st_size for path in own if path.is_file() and path.suffix != ".pyc")
        return (sum(json.loads(run.stdout).values()) + files) / MEGABYTE


def _computed() -> float:
    """CPU seconds of all processes of this one that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def in_turns(runs: Sequence[Callable[[], float]], repeats: int) -> list[float]:
    """Median of what each run says it took; where it is repeated, after one that is not counted."""
    taken: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats + (repeats > 1)):
        for run, times in zip(runs, taken, strict=True):
            times.append(run())
    return [statistics.median(times[-repeats:]) for times in taken]


def measured(
    what: str, unit: str, runs: Sequence[Callable[[], float]], repeats: int, most: float | None
) -> Row:
    """A row of medians; the second run, if there is one, is the baseline's."""
    values = in_turns(runs, repeats)
    peer = values[1] if len(values) > 1 else None
    goal = None if most is None else ("<=", most)
    return row(what, values[0], unit, peer and "baseline", peer, goal, absolute=True)


def installed(checkouts: Sequence[Checkout]) -> Row:
    """The size on disk."""
    sizes = [one.size() for one in checkouts]
    if sizes[0] is None:
        sys.exit("benchmarks: the core's dependencies are not all installed: run make")
    peer = sizes[1] if len(sizes) > 1 else None
    return row("core without PyTorch", sizes[0], "MB", peer and "baseline", peer, ("<=", 600), absolute=True)


def torch_installed() -> Row:
    """The size of the build of PyTorch that is here; the packages that a CUDA build adds are not counted."""
    torch = distribution("torch")
    return row(f"PyTorch {torch.version}", size(torch) / MEGABYTE, "MB")


@contextmanager
def serving(checkout: Checkout) -> Iterator[None]:
    """`harmonia serve` of the memory, on a free port of loopback."""
    process = subprocess.Popen(
        [checkout.python, "-m", "harmonia", "serve", "--port", "0"], cwd=checkout.memory.parent,
        env=checkout.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if not process.stdout.readline().startswith("http"):
            sys.exit("benchmarks: harmonia serve did not start: is the extra server installed?")
        yield
    finally:
        process.terminate()
        process.wait()


def footprint(checkouts: Sequence[Checkout], repeats: int) -> list[Row]:
    """All rows; ``checkouts`` are this one and, if given, the baseline, each with its memory."""

    def wall(one: Checkout, *arguments: str, server: bool = False) -> Callable[[], float]:
        return lambda: one.run("-m", "harmonia", *arguments, server=server)[0]

    def cpu(one: Checkout, *arguments: str, server: bool = False) -> Callable[[], float]:
        return lambda: one.run("-m", "harmonia", *arguments, server=server)[1]

    def imported(one: Checkout) -> Callable[[], float]:
        return lambda: float(one.run("-c", IMPORT)[2])

    rows = [
        installed(checkouts),
        torch_installed(),
        measured("import harmonia", "s", [imported(one) for one in checkouts], repeats, 0.1),
    ]
    for what, (arguments, most) in COMMANDS.items():
        runs = [cpu(one, *arguments) for one in checkouts]
        rows.append(measured(what, "CPU s", runs, repeats, most))
    recall = ("recall", "moon")
    runs = [wall(one, *recall) for one in checkouts]
    rows.append(measured("harmonia recall moon", "s", runs, repeats, None))
    with serving(checkouts[0]):
        warm = "recall through a running server"
        runs = [wall(checkouts[0], *recall, server=True), *(wall(one, *recall) for one in checkouts[1:])]
        rows.append(measured(warm, "s", runs, repeats, 0.2))
        rows.append(measured(warm, "CPU s", [cpu(checkouts[0], *recall, server=True)], repeats, None))
    return rows


def main() -> None:
    """Make the memories, measure, report."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--baseline", type=Path, metavar="PATH", help="checkout to measure beside this one")
    parser.add_argument("--baseline-python", default=sys.executable, metavar="PYTHON", help="its Python")
    parser.add_argument("--quick", action="store_true", help="one run of each; results into build/")
    options = parser.parse_args()
    if options.baseline and not (options.baseline / "src" / "harmonia").is_dir():
        sys.exit(f"benchmarks: {options.baseline} is not a checkout of Harmonia")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        starter = [sys.executable, "-m", "examples.starter", str(folder / "media")]
        path = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY)])
        environment = {**os.environ, "PYTHONPATH": path}
        subprocess.run(starter, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
        checkouts = [Checkout(REPOSITORY, sys.executable, folder / "memory")]
        if options.baseline:
            old = options.baseline.resolve()
            checkouts.append(Checkout(old, options.baseline_python, folder / "baseline"))
        for one in checkouts:
            one.run("-m", "harmonia", "remember", "media", "--into", str(one.memory))
        rows = footprint(checkouts, 1 if options.quick else 5)
    report("footprint", rows, options.quick, ["--baseline PATH"] * bool(options.baseline))


if __name__ == "__main__":
    main()
