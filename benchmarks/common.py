"""What the benchmarks share: rows, medians, the table, the results file, the data folder."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).parent.parent
Row = dict[str, Any]


def data_folder() -> Path:
    """The development data (HARMONIA_DATA, by default ``../shared/data``); exits where it is absent."""
    folder = Path(os.environ.get("HARMONIA_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        sys.exit("benchmarks: no data folder: set HARMONIA_DATA to the folder that holds flickr8k/")
    return folder


def row(
    what: str,
    value: float,
    unit: str,
    peer: str | None = None,
    peer_value: float | None = None,
    goal: tuple[str, float] | None = None,
    absolute: bool = False,
) -> Row:
    """One result. ``goal`` is ("<=" or ">=", bound) on the ratio; on the value if ``absolute`` or alone."""
    ratio = value / peer_value if peer_value else None
    holds = None
    if goal is not None:
        measured = value if ratio is None or absolute else ratio
        holds = measured <= goal[1] if goal[0] == "<=" else measured >= goal[1]
    return {
        "what": what,
        "value": round(value, 5),
        "unit": unit,
        "peer": peer,
        "peer_value": None if peer_value is None else round(peer_value, 5),
        "ratio": None if ratio is None else round(ratio, 3),
        "goal": None if goal is None else f"{'value ' * absolute}{goal[0]} {goal[1]:.3g}",
        "holds": holds,
    }


def medians(runs: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of each, taken in turns so that a noisy machine treats them alike."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(repeats):
        for run, taken in zip(runs, times, strict=True):
            begun = time.perf_counter()
            run()
            taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) for taken in times]


def report(name: str, rows: Sequence[Row], quick: bool, arguments: Sequence[str] = ()) -> None:
    """Print the table; write the results, for a quick run beside those of the full one (see ``write``)."""
    table = Table(box=box.SIMPLE_HEAD)
    columns = ("what", "value", "unit", "peer", "peer_value", "ratio", "goal", "holds")
    for column in columns:
        table.add_column(column)
    for one in rows:
        table.add_row(*("" if one[c] is None else str(one[c]) for c in columns))
    Console(width=150).print(table)
    write(name, rows, quick, arguments)


def write(
    name: str, rows: Sequence[Row], quick: bool, arguments: Sequence[str] = (), suffix: str = ""
) -> None:
    """Write the results of the benchmark ``name``, in a file that has its name and ``suffix``.

    ``arguments`` are those of the command besides ``--quick``.
    """
    content = {
        "command": " ".join([f"python -m benchmarks.{name}", *arguments, *["--quick"] * quick]),
        "commit": _commit(),
        "machine": _machine(),
        "rows": list(rows),
    }
    folder = REPOSITORY / ("build" if quick else "benchmarks/results")
    folder.mkdir(exist_ok=True)
    (folder / f"{name}{suffix}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _commit() -> str:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.stdout.strip() or "unknown"


def _machine() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    policy = os.environ["OMP_WAIT_POLICY"].lower()
    return f"{os.cpu_count()} cores, {pages / 2**30:.0f} GiB, {model}, no GPU used, OpenMP waits {policy}"
