"""The wheel holds what the package needs, and runs in a clean environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest

import harmonia
from harmonia.cli import COMMANDS
from tests.places import ROOT
from tools.dependencies import core

BIN = Path(sys.executable).parent
UV = shutil.which("uv", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
OFFLINE = ("dns error", "Could not connect", "error sending request", "Failed to fetch", "Connection refused")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    built = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout + built.stderr
    (made,) = folder.glob("*.whl")
    return made


def uv(*arguments: str, folder: Path) -> str:
    """What uv prints, asked away from the project's settings; skips where the registry cannot be reached."""
    assert UV
    # a cache on the disk of the test, so that files are linked and nothing of the user's is touched
    environment = {**os.environ, "UV_CACHE_DIR": str(folder / "cache"), "UV_PYTHON_DOWNLOADS": "never"}
    run = subprocess.run(
        [UV, *arguments], cwd=folder, env=environment, timeout=300,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if run.returncode and any(words in run.stderr for words in OFFLINE):
        pytest.skip(f"no registry: {run.stderr.strip().splitlines()[-1]}")
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_the_wheel_is_named_by_the_version(wheel: Path) -> None:
    assert wheel.name == f"harmonia-{harmonia.__version__}-py3-none-any.whl"


def test_the_wheel_holds_the_package_as_it_is(wheel: Path) -> None:
    """Every file of the source, so that none is left out by a rule: modules, the page, the weights."""
    source = ROOT / "src"
    ignored = {"__pycache__", ".DS_Store"}
    there = {
        path.relative_to(source).as_posix()
        for path in (source / "harmonia").rglob("*")
        if path.is_file() and not ignored & set(path.parts)
    }
    with zipfile.ZipFile(wheel) as opened:
        held = {name for name in opened.namelist() if ".dist-info/" not in name}
    assert held == there
    kinds = {Path(name).suffix for name in held if name.startswith("harmonia/server/page/")}
    assert {".html", ".js", ".css", ".svg"} <= kinds
    for model in ("encoders/mini", "generators/mini", "generators/autoencoders/mini"):
        files = ("model.safetensors", "config.json", "README.md")
        assert {f"harmonia/{model}/{name}" for name in files} <= held
    assert "harmonia/py.typed" in held
    with zipfile.ZipFile(wheel) as opened:
        weights = [one.file_size for one in opened.infolist() if one.filename.endswith(".safetensors")]
    assert sum(weights) < 30_000_000


def test_the_wheel_states_its_licence(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        folder = f"harmonia-{harmonia.__version__}.dist-info"
        metadata = opened.read(f"{folder}/METADATA").decode()
        assert {f"{folder}/licenses/{name}" for name in ("LICENSE", "NOTICE")} <= set(opened.namelist())
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata and "Classifier: Typing :: Typed" in metadata


@pytest.mark.skipif(UV is None, reason="uv is not installed")
def test_a_clean_environment_has_the_command(wheel: Path, tmp_path: Path) -> None:
    """With click alone: the version and the help need neither NumPy nor torch."""
    uv("venv", "--quiet", "--python", sys.executable, "clean", folder=tmp_path)
    python = str(tmp_path / "clean" / "bin" / "python")
    uv("pip", "install", "--quiet", "--python", python, "--no-deps", str(wheel), "click", folder=tmp_path)
    command = str(tmp_path / "clean" / "bin" / "harmonia")

    def shown(*arguments: str) -> str:
        return subprocess.check_output([command, *arguments], text=True, cwd=tmp_path, timeout=60)

    assert shown("--version") == f"harmonia, version {harmonia.__version__}\n"
    assert all(re.search(rf"^  {name} ", shown("--help"), re.MULTILINE) for name in COMMANDS)
    absent = "import importlib.util as u; print([n for n in ('torch', 'numpy', 'lancedb') if u.find_spec(n)])"
    assert subprocess.check_output([python, "-c", absent], text=True, cwd=tmp_path).strip() == "[]"


@pytest.mark.skipif(UV is None, reason="uv is not installed")
def test_uvx_runs_the_wheel(wheel: Path, tmp_path: Path) -> None:
    """`uvx --from WHEEL harmonia --version`; large dependencies are overridden to none, to take seconds."""
    names = [re.split(r"[\s\[<>=!~;]", text)[0] for text in core()]
    never = [f"{name} ; python_version < '3'" for name in names if name != "click"]
    (tmp_path / "overrides.txt").write_text("\n".join(never) + "\n", encoding="utf-8")
    uvx = ("tool", "run", "--quiet", "--python", sys.executable, "--overrides", "overrides.txt")
    shown = uv(*uvx, "--from", str(wheel), "harmonia", "--version", folder=tmp_path)
    assert shown == f"harmonia, version {harmonia.__version__}\n"


def test_extras_name_no_address() -> None:
    """Requirements come from the user's own registry, so none of them is a direct address."""
    assert [text for text in requires("harmonia") or () if "@" in text.split(";")[0]] == []
