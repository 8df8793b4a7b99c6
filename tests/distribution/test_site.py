"""The documents: every page has its place, links lead somewhere, llms.txt is current, tutorials run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT
from tools.llms_txt import TARGET, llms_txt, pages, project

DOCS = ROOT / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
ZENSICAL = shutil.which("zensical", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
TUTORIALS = ("first-memory", "several-cues")


def test_every_document_has_its_place() -> None:
    assert sorted(path for _, _, path in pages(project()["nav"])) == PAGES
    assert sorted(project()["extra"]["about"]) == PAGES


def test_llms_txt_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == llms_txt(), "run: python -m tools.llms_txt"


@pytest.mark.parametrize("page", PAGES)
def test_links_of_documents_stay_in_the_site(page: str) -> None:
    """Zensical checks links to pages and anchors; this, pictures and all else, which must lie in docs/."""
    text = re.sub(r"```.*?```|`[^`]*`", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
        if re.match(r"https?://", target):
            continue
        path = ((DOCS / page).parent / target).resolve()
        assert path.is_file() and path.is_relative_to(DOCS), f"docs/{page} links to {target}"


@pytest.mark.skipif(ZENSICAL is None, reason="zensical is not installed")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """`make docs` on a copy, with one package for the reference; and a broken link is refused."""
    shutil.copytree(DOCS, tmp_path / "docs")
    shutil.copytree(ROOT / "src" / "harmonia" / "memory", tmp_path / "src" / "harmonia" / "memory")
    (tmp_path / "src" / "harmonia" / "__init__.py").write_text('"""One package."""\n', encoding="utf-8")
    shutil.copy(ROOT / "zensical.toml", tmp_path)

    def build() -> subprocess.CompletedProcess[str]:
        command = [str(ZENSICAL), "build", "--clean", "--strict"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)

    built = build()
    assert built.returncode == 0, built.stdout + built.stderr
    site = tmp_path / "build" / "site"
    for page in ("tutorials/first-memory", "cli", "reference/harmonia/memory/energy"):
        assert (site / page / "index.html").is_file(), page
    assert (site / "llms.txt").is_file()
    loaded = re.compile(r'<(script|img|iframe)[^>]*src="?https?://|<link[^>]*stylesheet[^>]*="?https?://')
    assert [page.name for page in site.rglob("*.html") if loaded.search(page.read_text("utf-8"))] == []
    with (tmp_path / "docs" / "design.md").open("a", encoding="utf-8") as opened:
        opened.write("\n[nowhere](no-such-page.md)\n")
    assert build().returncode != 0


def commands(tutorial: str) -> list[tuple[str, str | None]]:
    """Commands of a tutorial in order, each with the record that the lines after it put first, if any."""
    found: list[tuple[str, str | None]] = []
    text = (DOCS / "tutorials" / f"{tutorial}.md").read_text(encoding="utf-8")
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], None))
            elif first := re.match(r" 1\s+[\d.]+%\s+([\w-]+):", line):
                found[-1] = (found[-1][0], first[1])
    return found


def test_tutorials_run(tmp_path: Path) -> None:
    """As they are written, one after the other in one folder."""
    scripts = tmp_path / "bin"
    scripts.mkdir()
    for name, module in (("harmonia", '-m harmonia "$@"'), ("python", '"$@"')):
        (scripts / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module}\n', encoding="utf-8")
        (scripts / name).chmod(0o755)
    environment = {
        **os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "100",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
    }  # fmt: skip
    environment.pop("HARMONIA_MEMORY", None)
    checked = 0
    for tutorial in TUTORIALS:
        for command, record in commands(tutorial):
            run = subprocess.run(
                command, shell=True, cwd=tmp_path, env=environment, timeout=120,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert run.returncode == 0, f"{command}\n{run.stderr}"
            if record is not None:
                first = re.search(r"^ *1 +[\d.]+% +([\w-]+):", run.stdout, re.MULTILINE)
                assert first and first[1] == record, f"{command}\n{run.stdout}"
                checked += 1
    assert checked == 3
    text = (DOCS / "tutorials" / "several-cues.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    python = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert python.stdout.startswith("horse "), python.stderr
