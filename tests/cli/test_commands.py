"""The command line: quick help, the documented JSON, exit codes, one-line errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from harmonia.cli import COMMANDS, cli
from tests.media import make_photo
from tools.cli_docs import PAGE, page


def run(*arguments: str | Path, at: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harmonia", *map(str, arguments)]
    return subprocess.run(command, cwd=at, capture_output=True, text=True, check=False)


def seconds_of_children() -> float:
    """What the processes that were waited for have computed, whoever else had the cores meanwhile."""
    spent = os.times()
    return spent.children_user + spent.children_system


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for seed, words in enumerate(("red barn in snow", "waves at dusk", "a busy market")):
        make_photo(folder / f"{seed}.jpg", seed=seed)
        (folder / f"{seed}.txt").write_text(words)
    return folder


def test_help_is_quick_and_loads_nothing_heavy(tmp_path: Path) -> None:
    times = []
    for _ in range(3):
        begun = seconds_of_children()
        assert run("--help", at=tmp_path).returncode == 0
        times.append(seconds_of_children() - begun)
    assert min(times) < 0.3
    probe = (
        "import sys; from click.testing import CliRunner; from harmonia.cli import cli;"
        "[CliRunner().invoke(cli, [c, '--help'], catch_exceptions=False) for c in ('recall', 'remember')];"
        "print(sorted({'torch', 'numpy', 'lancedb', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_begins_with_its_summary(name: str) -> None:
    shown = CliRunner().invoke(cli, [name, "--help"], prog_name="harmonia", terminal_width=100).output
    assert shown.splitlines()[2].strip() == COMMANDS[name]


def test_the_page_has_the_help_of_every_command_and_subcommand() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text
    with pytest.raises(ValueError, match="memory report"):
        page(text.replace("<!-- help memory report -->", "<!-- elsewhere -->"))


def test_from_nothing_to_an_answer(media: Path) -> None:
    before = run("recall", "waves", at=media)
    assert before.returncode == 1 and "harmonia remember ." in before.stderr
    assert "Traceback" not in before.stderr
    assert run("remember", ".", at=media).returncode == 0
    found = run("recall", "waves", "at", "dusk", "--json", at=media)
    answer = json.loads(found.stdout)
    assert set(answer) == {"records", "abstained", "certificate"}
    assert {"energies", "tail_mass", "steps"} <= set(answer["certificate"])
    first = answer["records"][0]
    assert {"rank", "id", "probability", "parts", "shares", "metadata"} <= set(first)
    assert first["rank"] == 1 and first["metadata"]["name"] == "1" and first["shares"] == {"text": 1.0}
    assert {"modality", "path", "start", "end"} <= set(first["parts"][0])


def test_other_commands(media: Path, tmp_path: Path) -> None:
    memory = tmp_path / "m"
    call = CliRunner()
    assert call.invoke(cli, ["remember", str(media), "--into", str(memory)]).exit_code == 0
    there = ["--memory", str(memory)]
    cue = ["--image", str(media / "2.jpg")]
    sheet = tmp_path / "sheet.png"
    assert call.invoke(cli, ["recall", *there, *cue, "--sheet", str(sheet)]).exit_code == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")
    left = json.loads(call.invoke(cli, ["recall", *there, *cue, "--leave-out-cues", "--json"]).output)
    assert all(r["metadata"]["name"] != "2" for r in left["records"])
    plain = json.loads(call.invoke(cli, ["retrieve", *there, *cue, "--metric", "euclidean", "--json"]).output)
    best = plain["records"][0]
    assert best["metadata"]["name"] == "2" and best["similarity"] == pytest.approx(0, abs=1e-2)
    assert best["id"] in call.invoke(cli, ["show", *there, best["id"][:10]]).output
    status = json.loads(call.invoke(cli, ["status", *there, "--json"]).output)
    assert status["records"] == 3 and status["encoders"][0]["dim"] == 512
    for target in ("out.jsonl", "out"):
        assert call.invoke(cli, ["export", *there, str(tmp_path / target)]).exit_code == 0
    again = tmp_path / "again"
    assert call.invoke(cli, ["remember", str(tmp_path / "out.jsonl"), "--into", str(again)]).exit_code == 0
    ids = [
        json.loads(call.invoke(cli, ["recall", "waves", "-m", str(m), "--json"]).output)
        for m in (memory, again)
    ]
    assert {r["id"] for r in ids[0]["records"]} == {r["id"] for r in ids[1]["records"]}
    assert call.invoke(cli, ["forget", *there, "--where", "name = '0'", "--yes"]).exit_code == 0
    assert json.loads(call.invoke(cli, ["status", *there, "--json"]).output)["records"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["recall", "x", "--memory", "nowhere"], 1, "remember something first"),
        (["recall", "x", "--weight", "text=heavy"], 2, "--weight takes"),
        (["recall", "--bogus"], 2, "No such option"),
        (["remember"], 2, "Missing argument"),
    ],
)
def test_mistakes(arguments: list[str], code: int, says: str, tmp_path: Path) -> None:
    done = run(*arguments, at=tmp_path)
    assert done.returncode == code
    assert says in done.stderr and "Traceback" not in done.stderr
