"""The image's files pass their linters, and the commands in them work here. No image is built."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from tests.places import ROOT

BIN = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))["services"]["harmonia"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def program(name: str) -> str:
    found = shutil.which(name, path=BIN)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def lint(command: list[str], text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, input=text, capture_output=True, text=True, check=False, timeout=60
    )


def words(instruction: str) -> list[str]:
    """The words of an instruction that stands once, in JSON."""
    (found,) = re.findall(rf"^{instruction} (\[.*\])$", DOCKERFILE.replace("\\\n    ", ""), re.MULTILINE)
    said: list[str] = json.loads(found)
    return said


def test_hadolint_has_nothing_to_say() -> None:
    hadolint = program("hadolint")
    run = lint([hadolint, "Dockerfile"])
    assert run.returncode == 0, run.stdout + run.stderr
    assert lint([hadolint, "-"], "FROM python\nRUN cd /tmp && pip install uv\n").returncode != 0


def test_compose_is_of_its_schema() -> None:
    command = [program("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    run = lint([*command, "compose.yaml"])
    assert run.returncode == 0, run.stdout + run.stderr
    assert lint([*command, "-"], "services: {harmonia: {imagine: x}}\n").returncode != 0


def test_the_citation_is_of_its_schema() -> None:
    command = [program("check-jsonschema"), "--builtin-schema", "vendor.citation-file-format", "CITATION.cff"]
    run = lint(command)
    assert run.returncode == 0, run.stdout + run.stderr


def test_nothing_names_a_registry() -> None:
    for name in ("Dockerfile", "compose.yaml", "pyproject.toml", "Makefile", "requirements.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"index-url|https?://(?!127\.0\.0\.1)|docker\.io", text), name


def test_the_process_has_no_rights() -> None:
    last = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    users = re.findall(r"^USER (\S+)$", last, re.MULTILINE)
    assert users == [COMPOSE["user"]] and users[0].partition(":")[0] not in ("root", "0")
    assert last.index("\nUSER ") > last.index("\nRUN ")
    assert COMPOSE["read_only"] is True and COMPOSE["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in COMPOSE["ports"])


def test_the_memory_and_the_keys_lie_in_the_volume() -> None:
    (volume,) = re.findall(r"^VOLUME (\S+)$", DOCKERFILE, re.MULTILINE)
    assert [mount.partition(":")[2] for mount in COMPOSE["volumes"]] == [volume]
    (memory,) = re.findall(r"HARMONIA_MEMORY=(\S+)", DOCKERFILE)
    command = words("CMD")
    assert Path(memory).is_relative_to(volume) and Path(command[command.index("--keys") + 1]).is_relative_to(
        volume
    )


@contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "harmonia", *command], cwd=folder, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL, env={**ENVIRONMENT, "HARMONIA_MEMORY": str(folder / "memory")},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_the_command_serves_and_the_health_check_sees_it(tmp_path: Path) -> None:
    """The Dockerfile's own words, with /data in a temporary folder and a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [word.replace("/data", str(tmp_path)).replace("8765", port) for word in words("CMD")]
    health = [word.replace("8765", port) for word in words("HEALTHCHECK .* CMD")]
    assert health[0] == "python"

    def healthy() -> bool:
        run = subprocess.run([sys.executable, *health[1:]], capture_output=True, check=False, timeout=30)
        return run.returncode == 0

    assert not healthy()
    key = [
        sys.executable,
        "-m",
        "harmonia",
        "serve",
        "--keys",
        str(tmp_path / "keys.json"),
        "--new-key",
        "me",
    ]
    subprocess.run(key, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, check=True, timeout=60)
    with running(command, tmp_path) as server:
        assert server.stdout is not None and server.stdout.readline()  # its address, once it answers
        deadline = time.monotonic() + 30
        while not healthy():
            assert server.poll() is None and time.monotonic() < deadline
    assert not healthy()
