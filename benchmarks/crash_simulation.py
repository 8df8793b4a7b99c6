"""Kills a training run at random moments and starts it again, to test that it resumes exactly."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from harmonia.training.log import METRICS
from harmonia.types import HarmoniaError


def kill_and_resume(
    command: Sequence[str], folder: Path, *, kills: int = 10, within: float = 1.0, seed: int = 0
) -> int:
    """Start ``command``, a training run in ``folder``, kill it (SIGKILL) and start it again; then let it end.

    A kill comes at a random moment, 0 to ``within`` seconds after the process wrote its first line of the
    log. Returns how many kills struck; fewer than ``kills`` if the run was over before.
    HarmoniaError if the run fails by itself.
    """
    draws = random.Random(seed)
    for struck in range(kills):
        if not _killed(command, folder / METRICS, draws.uniform(0, within)):
            return struck
    _check(subprocess.Popen(command))
    return kills


def _killed(command: Sequence[str], log: Path, delay: float) -> bool:
    """Whether the process was killed ``delay`` seconds after its first line, and not over before."""
    before = _size(log)
    process = subprocess.Popen(command)
    try:
        # A start drops the lines after the checkpoint, so any change but a shorter file is a new line.
        while process.poll() is None and _size(log) <= before:
            before = min(before, _size(log))
            time.sleep(0.002)
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    _check(process)
    return False


def _check(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        raise HarmoniaError(f"the run ended by itself with status {process.returncode}")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
