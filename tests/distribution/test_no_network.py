"""No telemetry: commands connect to nothing and look up no name."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.media import make_photo
from tests.offline import CODE, CONNECT
from tests.places import ROOT

KERNEL = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in CONNECT, reason="the kernel's filter is Linux's"
)
BY_PYTHON = "import socket; socket.create_connection(('127.0.0.1', 9))"
BY_NAME = "import socket; socket.getaddrinfo('localhost', 80)"
BY_NATIVE_CODE = """
import ctypes, struct
libc = ctypes.CDLL(None)
libc.connect(libc.socket(2, 1, 0), struct.pack("=HH4s8x", 2, 9, bytes([127, 0, 0, 1])), 16)
print("went on")
"""
LOCAL = "import socket; socket.socketpair(socket.AF_UNIX)"


def offline(folder: Path, *arguments: str, by: str = "both") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "OFFLINE_BY": by}
    environment.pop("HARMONIA_MEMORY", None)
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):  # what a user has not set must not be needed
        environment.pop(name, None)
    return subprocess.run(
        [sys.executable, "-m", "tests.offline", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_commands_do_not_use_the_network(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    for seed in range(3):
        make_photo(media / f"photo-{seed}.png", seed=seed)
        (media / f"photo-{seed}.txt").write_text(f"photo number {seed}", encoding="utf-8")
    for arguments in (
        ("remember", "media"),
        ("recall", "photo", "--image", "media/photo-1.png", "--explain"),
        ("retrieve", "photo"),
        ("status",),
        ("imagine", "a red apple", "-n", "1", "--steps", "2"),
        ("forget", "--help"),
        ("--version",),
    ):
        run = offline(tmp_path, *arguments)
        assert run.returncode == 0, f"{arguments}: {run.returncode}\n{run.stdout}{run.stderr}"


@pytest.mark.parametrize(
    ("by", "code", "ended"),
    [
        ("audit", BY_PYTHON, CODE),
        ("audit", BY_NAME, CODE),
        pytest.param("kernel", BY_PYTHON, -signal.SIGSYS, marks=KERNEL),
        pytest.param("kernel", BY_NATIVE_CODE, -signal.SIGSYS, marks=KERNEL),
        ("both", LOCAL, 0),
    ],
)
def test_the_watch_sees(tmp_path: Path, by: str, code: str, ended: int) -> None:
    """The test above could not fail if this did not hold."""
    run = offline(tmp_path, "-c", code, by=by)
    assert run.returncode == ended, run.stderr
    assert "went on" not in run.stdout
