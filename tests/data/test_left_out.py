"""What a walk over folders leaves out, and that it says so."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

import harmonia
from harmonia.cli import cli
from harmonia.data import Problem, gather
from harmonia.tasks.contact_sheet import save_sheet
from harmonia.tasks.export import export
from harmonia.types import HarmoniaError, Record


def make(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"a note named {name}")


def walk(*paths: Path, exclude: tuple[str, ...] = ()) -> tuple[list[str], Counter[str], list[Problem]]:
    """Names of the files taken, relative to the first path, what was left out, and the problems."""
    left_out: Counter[str] = Counter()
    everything = list(gather(paths, exclude=exclude, left_out=left_out))
    taken = [part.path or "" for one in everything if isinstance(one, Record) for part in one.parts]
    problems = [one for one in everything if isinstance(one, Problem)]
    return sorted(os.path.relpath(path, paths[0]) for path in taken), left_out, problems


SYSTEM = [
    "@eaDir/a.txt", ".thumbnails/a.txt", "Thumbs.db", ".DS_Store", "._a.txt", ".Trash/a.txt",
    ".Trash-1000/a.txt",
    "$RECYCLE.BIN/a.txt", "lost+found/a.txt", "#recycle/a.txt", ".git/a.txt", "node_modules/p/a.txt",
    "__MACOSX/a.txt", "sub/@eaDir/a.txt", "sub/._b.txt", "Thumbnails/a.txt", "sub/thumbs/a.txt",
    "sub/@__thumb/a.txt", "SYNOPHOTO_THUMB_M.jpg", "My Previews.lrdata/a.txt", "Trash/a.txt",
]  # fmt: skip


@pytest.mark.parametrize("name", SYSTEM)
def test_what_no_one_wants_is_left_out_unless_it_is_named(tmp_path: Path, name: str) -> None:
    make(tmp_path, "note.txt", name)
    taken, left_out, problems = walk(tmp_path)
    assert (taken, left_out, problems) == (["note.txt"], {"system": 1}, [])
    named = tmp_path / name
    if named.suffix == ".txt":
        assert walk(named)[0] == ["."]


def test_hidden_files_stores_and_exports(tmp_path: Path) -> None:
    make(tmp_path, "note.txt", ".hidden.txt", ".config/a.txt", "m.harmonia/a.txt")
    make(tmp_path, "export/.harmonia-export", "export/manifest.jsonl", "export/media/a.txt")
    taken, left_out, _ = walk(tmp_path)
    assert taken == ["note.txt"] and left_out == {"hidden": 2, "harmonia": 2}
    make(tmp_path, "export/b.txt")
    assert walk(tmp_path / "export")[0]


def test_an_export_in_the_folder_makes_no_doubles(tmp_path: Path) -> None:
    make(tmp_path, "notes/a.txt", "notes/b.txt")
    memory = harmonia.open(str(tmp_path / "m"), models=["descriptors"])
    memory.remember(tmp_path / "notes")
    assert export(memory.store, memory.root, tmp_path / "notes" / "out") == 2
    again = memory.remember(tmp_path / "notes")
    assert (again.remembered, again.already, again.left_out) == (0, 2, {"harmonia": 1})
    other = harmonia.open(str(tmp_path / "other"), models=["descriptors"])
    assert other.remember(tmp_path / "notes" / "out").remembered == 2


def test_a_contact_sheet_is_taken_only_if_it_is_named(tmp_path: Path) -> None:
    for name in ("sheet.png", "sheet.jpg"):
        save_sheet(Image.new("RGB", (80, 60)), tmp_path / name)
    Image.new("RGB", (80, 60)).save(tmp_path / "photo.png")
    taken, left_out, _ = walk(tmp_path)
    assert taken == ["photo.png", "sheet.jpg"] and left_out == {"harmonia": 1}
    assert walk(tmp_path / "sheet.png")[0] == ["."]


def test_excluded_patterns(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "b.md", "raw/c.txt", "raw/d.md", "deep/raw/e.txt", "Private/f.txt")
    assert walk(tmp_path, exclude=("*.md",))[:2] == (
        ["Private/f.txt", "a.txt", "deep/raw/e.txt", "raw/c.txt"], {"exclude": 2},
    )  # fmt: skip
    assert walk(tmp_path, exclude=("/raw/", "private"))[0] == [
        "Private/f.txt",
        "a.txt",
        "b.md",
        "deep/raw/e.txt",
    ]
    assert walk(tmp_path, exclude=("raw", "Private/"))[0] == ["a.txt", "b.md"]
    assert walk(tmp_path, tmp_path / "b.md", exclude=("*.md",))[0] == [
        "Private/f.txt", "a.txt", "b.md", "deep/raw/e.txt", "raw/c.txt",
    ]  # fmt: skip
    with pytest.raises(HarmoniaError, match="syntax of gitignore"):
        walk(tmp_path, exclude=("!",))


def test_ignore_files_hold_for_their_folder(tmp_path: Path) -> None:
    make(
        tmp_path, "a.txt", "b.txt", "sub/a.txt", "sub/b.txt", "sub/deep/b.txt", "sub/.config/c.txt", "z/b.txt"
    )
    (tmp_path / ".harmoniaignore").write_text("# a comment\nb.txt\n")
    (tmp_path / "sub" / ".harmoniaignore").write_text("!b.txt\n!.config/\n/a.txt\n")
    taken, left_out, _ = walk(tmp_path)
    assert taken == ["a.txt", "sub/.config/c.txt", "sub/b.txt", "sub/deep/b.txt"]
    assert left_out == {"harmoniaignore": 3}
    assert walk(tmp_path, exclude=("b.txt",))[0] == ["a.txt", "sub/.config/c.txt"]


def test_an_ignore_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    make(tmp_path, "a.txt", "sub/b.txt")
    (tmp_path / ".harmoniaignore").write_bytes(bytes(range(256)))
    (tmp_path / "sub" / ".harmoniaignore").write_text("fine\n!\n")
    taken, _, problems = walk(tmp_path)
    assert taken == ["a.txt", "sub/b.txt"]
    assert [Path(one.path).name for one in problems] == [".harmoniaignore"] * 2
    os.mkfifo(tmp_path / "sub" / "pipe")
    (tmp_path / "sub" / ".harmoniaignore").unlink()
    os.mkfifo(tmp_path / "sub" / ".harmoniaignore")
    assert walk(tmp_path)[0] == ["a.txt", "sub/b.txt"]


NAMES = st.sampled_from(
    ["a.txt", "b.txt", "a/a.txt", "a/b.md", "b/a/c.txt", "c/d/e.txt", "c/b.txt", "x y/é.txt"]
)
PATTERNS = st.sampled_from(
    ["*.txt", "a", "/a", "a/", "b.*", "c/**", "c/**/", "**/a", "**", "/**", "*", "a/**/b.md", "!a", "!*.md",
     "c/*/e.txt", "d", "!c/b.txt", "!c/**", "!a/", "x*", "# a", ""]
)  # fmt: skip


@given(st.lists(PATTERNS, max_size=5), st.sets(NAMES, min_size=1))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(patterns=["c/**", "!c/b.txt"], names={"a.txt", "c/b.txt"})
@example(patterns=["c/**/"], names={"c/b.txt", "c/d/e.txt"})
@example(patterns=["c/** "], names={"c/b.txt"})
def test_patterns_mean_what_git_takes_them_for(
    tmp_path_factory: pytest.TempPathFactory, patterns: list[str], names: set[str]
) -> None:
    top = tmp_path_factory.mktemp("walk")
    make(top, *names)
    (top / ".harmoniaignore").write_text("\n".join(patterns))
    (top / ".gitignore").write_text("\n".join(patterns))
    subprocess.run(["git", "init", "-q"], cwd=top, check=True)
    listed = subprocess.run(
        ["git", "-c", "core.quotePath=false", "ls-files", "-o", "--exclude-from=.gitignore", *names],
        cwd=top, check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert walk(top)[0] == sorted(listed.stdout.splitlines())


def test_pipes_sockets_and_devices_are_never_opened(tmp_path: Path) -> None:
    make(tmp_path, "a.txt")
    os.mkfifo(tmp_path / "b.txt")
    os.mkfifo(tmp_path / "metadata.jsonl")
    with socket.socket(socket.AF_UNIX) as endpoint:
        endpoint.bind(str(tmp_path / "c.txt"))
        (tmp_path / "d.txt").symlink_to("/dev/zero")
        taken, left_out, problems = walk(tmp_path)
    assert (taken, left_out, problems) == (["a.txt"], {"special": 4}, [])


def test_the_command_names_what_it_skips(tmp_path: Path) -> None:
    make(
        tmp_path / "in", "a.txt", "b.md", "c.xyz", "d.xyz", "e.doc", "noname", "Thumbs.db", ".h.txt", "k.txt"
    )
    (tmp_path / "in" / ".harmoniaignore").write_text("k.txt\n")
    call = ["remember", str(tmp_path / "in"), "--into", str(tmp_path / "m"), "--model", "descriptors"]
    run = CliRunner().invoke(cli, [*call, "--exclude", "*.md"])
    assert run.exit_code == 0, run.output
    kinds = "4 skipped of kinds that are not read (.xyz 2, without suffix 1, .doc 1)"
    assert f"{kinds}: save documents as .txt or .md; add the suffix of their format" in run.output
    for line in ("1 left out by .harmoniaignore", "1 left out by --exclude", "1 thumbnails and system files"):
        assert line in run.output
    found = json.loads(CliRunner().invoke(cli, [*call, "--json"]).stdout)
    assert found["ignored"] == 4 and found["kinds"] == {".xyz": 2, ".doc": 1, "": 1}
    assert found["left_out"] == {"harmoniaignore": 1, "system": 1, "hidden": 1}


@pytest.mark.parametrize("name", ["m", "in/m", "in/.harmonia", "in/sub/deep", "in"])
def test_a_memory_inside_of_what_it_remembers_is_passed_over(tmp_path: Path, name: str) -> None:
    make(tmp_path / "in", "a.txt", "sub/b.txt")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "odd.xyz").touch()
    call = ["remember", str(tmp_path / "in"), str(tmp_path / "link"), "--into", str(tmp_path / name)]
    for added in (2, 0, 0):
        run = CliRunner().invoke(cli, [*call, "--copy", "--model", "descriptors", "--json"])
        found = json.loads(run.stdout)
        assert found["remembered"] == added
        if name != "in":
            assert (found["kinds"], found["left_out"]) == ({".xyz": 1}, {})


def test_a_folder_with_nothing_to_remember_beside_its_new_memory(tmp_path: Path) -> None:
    make(tmp_path, "a.xyz")
    run = CliRunner().invoke(cli, ["remember", str(tmp_path), "--into", str(tmp_path / "m")])
    assert run.exit_code == 1 and "1 skipped of kinds that are not read (.xyz 1)" in run.output
    assert [one.name for one in tmp_path.iterdir()] == ["a.xyz"]
