"""The command line: help without heavy imports, exit codes, one-line errors, JSON for machines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import harmonia
from harmonia.cli import COMMANDS, main
from media import make_photo, make_tone, make_video, scene


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four records, remembered in its .harmonia."""
    folder = tmp_path_factory.mktemp("cli")
    for seed, name in enumerate(("harbour", "forest", "desert")):
        make_photo(folder / f"{name}.jpg", seed=seed)
        (folder / f"{name}.txt").write_text(f"the {name} in the morning light")
    make_video(folder / "film.mp4", seconds=2)
    assert harmonia.open(folder / ".harmonia").remember(folder).remembered == 4
    return folder


class Ran:
    """What one call of the command line gave."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["harmonia", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self.capsys.readouterr()
        return int(ended.value.code or 0), out, err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Ran:
    monkeypatch.delenv("HARMONIA_MEMORY", raising=False)
    return Ran(capsys, monkeypatch)


def fails(ran: tuple[int, str, str], words: str, code: int = 1) -> None:
    """One line on standard error that says ``words``; nothing on standard output."""
    assert ran[0] == code, ran
    assert ran[1] == "" and words in ran[2] and "Traceback" not in ran[2]
    if code == 1:
        assert len(ran[2].splitlines()) == 1 and ran[2].startswith("harmonia: ")


def python(*arguments: str) -> Sequence[str]:
    return [sys.executable, *arguments]


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        done = subprocess.run(python("-m", "harmonia", "--help"), capture_output=True, text=True, check=True)
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.3
    assert all(name in done.stdout and words in done.stdout for name, words in COMMANDS.items())
    script = (
        "import sys, harmonia.cli as c\n"
        "try: c.cli(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'numpy', 'lancedb', 'PIL', 'av', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(python("-c", script), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Ran, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0 and out.startswith("Usage: harmonia")


def test_recall_json_has_the_documented_shape(run: Ran, media: Path, tmp_path: Path) -> None:
    pixels = np.array(scene(1))
    pixels[:, 160:] = 0
    Image.fromarray(pixels).save(tmp_path / "half.png")
    code, out, _ = run(
        "recall", "-m", media / ".harmonia", "forest", "--image", tmp_path / "half.png", "-k", "2", "--json"
    )
    found = json.loads(out)
    assert code == 0 and set(found) >= {"records", "abstained", "certificate"}
    assert found["abstained"] is False
    assert set(found["certificate"]) >= {"energies", "tail_mass", "steps"}
    assert len(found["certificate"]["energies"]) == found["certificate"]["steps"] + 1
    assert [r["rank"] for r in found["records"]] == [1, 2]
    best = found["records"][0]
    assert set(best) >= {"rank", "id", "probability", "parts", "shares", "metadata"}
    assert best["metadata"]["name"] == "forest" and set(best["shares"]) == {"text", "image"}
    assert {p["modality"] for p in best["parts"]} == {"text", "image"}
    for part in best["parts"]:
        assert {"modality", "path", "start", "end"} <= set(part) and Path(part["path"]).is_file()


def test_recall_for_people_and_a_sheet(run: Ran, media: Path, tmp_path: Path) -> None:
    code, out, err = run(
        "recall", "-m", media / ".harmonia", "harbour", "morning", "--sheet", tmp_path / "sheet.png"
    )
    assert code == 0 and "harbour" in out and "settled in" in out and "sheet.png" in err
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.format == "PNG" and min(sheet.size) > 200


def test_names_with_markup_and_line_breaks_are_printed_as_they_are(run: Ran, tmp_path: Path) -> None:
    make_photo(tmp_path / "[red]odd[/] ünï.png")
    assert run("remember", tmp_path, "--into", tmp_path / "m")[0] == 0
    code, out, _ = run("recall", "-m", tmp_path / "m", "--image", tmp_path / "[red]odd[/] ünï.png")
    assert code == 0 and "[red]odd[/]" in out


def test_retrieve_json(run: Ran, media: Path) -> None:
    code, out, _ = run(
        "retrieve", "-m", media / ".harmonia", "--image", media / "desert.jpg", "-k", "2", "--json"
    )
    rows = json.loads(out)["records"]
    assert code == 0 and [r["rank"] for r in rows] == [1, 2]
    assert rows[0]["metadata"]["name"] == "desert" and rows[0]["similarity"] > 0.999


def test_remember_counts_and_exit_codes(run: Ran, tmp_path: Path) -> None:
    make_photo(tmp_path / "a.png")
    memory = tmp_path / "m"
    code, out, _ = run("remember", tmp_path / "a.png", "--into", memory)
    assert code == 0 and "remembered 1 records" in out
    (tmp_path / "b.png").write_bytes(b"")
    code, out, err = run("remember", tmp_path / "a.png", tmp_path / "b.png", "--into", memory)
    assert code == 1 and "1 were known, 1 failed" in out and "b.png" in err
    (tmp_path / "b.png").unlink()
    (tmp_path / "a.png").unlink()
    make_photo(tmp_path / "c.png", seed=3)
    code, out, _ = run("remember", tmp_path, "--into", memory)
    assert code == 0 and "gone" in out and "a.png" in out
    code, out, _ = run("forget", "-m", memory, "--gone")
    assert code == 0 and out.count("forgot") == 1
    assert json.loads(run("status", "-m", memory, "--json")[1])["records"] == 1


def test_stopping_is_130(run: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harmonia.tasks import remember

    for seed in range(5):
        make_photo(tmp_path / f"{seed}.png", seed=seed)
    real, calls = remember._Run.take, []

    def interrupted(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        real(*arguments)

    monkeypatch.setattr(remember._Run, "take", interrupted)
    code, out, _ = run("remember", tmp_path, "--into", tmp_path / "m", "--json")
    report = json.loads(out)
    assert code == 130 and report["stopped"] and report["remembered"] < 5
    monkeypatch.setattr(remember._Run, "take", real)
    code, out, _ = run("remember", tmp_path, "--into", tmp_path / "m", "--json")
    again = json.loads(out)
    assert code == 0 and again["already"] == report["remembered"]
    assert again["already"] + again["remembered"] == 5


def test_wrong_use_is_2(run: Ran, media: Path) -> None:
    memory = media / ".harmonia"
    fails(run("remember"), "Missing argument", code=2)
    fails(run("dream"), "No such command", code=2)
    fails(run("recall", "-m", memory, "dog", "-k", "0"), "-k", code=2)
    fails(run("recall", "-m", memory, "dog", "--weight", "text"), "CUE=NUMBER", code=2)
    fails(run("recall", "-m", memory, "dog", "--frobnicate"), "No such option", code=2)


def test_what_can_be_acted_on_is_one_line(run: Ran, media: Path, tmp_path: Path) -> None:
    memory = media / ".harmonia"
    (tmp_path / "words.png").write_text("no picture")
    fails(run("recall", "-m", memory), "nothing to recall by")
    fails(run("recall", "-m", memory, "--image", tmp_path / "words.png"), "words.png")
    fails(run("recall", "-m", memory, "--image", tmp_path / "none.png"), "none.png")
    fails(run("recall", "-m", memory, "dog", "--weight", "audio=2"), "no cue is called 'audio'")
    fails(run("recall", "-m", memory, "dog", "--where", "colour = 'red'"), "columns are")
    fails(run("recall", "-m", tmp_path / "none", "dog"), "no memory")
    fails(run("show", "-m", memory, "zzzz"), "no record has")
    fails(run("forget", "-m", memory), "nothing to forget")
    fails(run("status", "-m", tmp_path / "none"), "no memory")
    fails(run("export", "-m", memory, tmp_path), "exists already")


def test_a_folder_never_remembered_says_how(
    run: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    fails(run("recall", "dog"), "no media in")
    make_photo(tmp_path / "a.png")
    fails(run("recall", "dog"), "harmonia remember .")
    assert not (tmp_path / ".harmonia").exists()


@pytest.mark.parametrize("answer", ["y", "n"])
def test_a_folder_never_remembered_offers(
    run: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    import io

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    make_photo(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", Terminal(f"{answer}\n"))
    code, out, _ = run("recall", "--image", "a.png", "--json")
    assert "1 records of media" in out
    assert (code, (tmp_path / ".harmonia").exists()) == ((0, True) if answer == "y" else (130, False))


def test_the_memory_is_found_from_below(run: Ran, media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    below = media / "empty"
    below.mkdir()
    monkeypatch.chdir(below)
    assert json.loads(run("status", "--json")[1])["records"] == 4
    monkeypatch.chdir("/")
    monkeypatch.setenv("HARMONIA_MEMORY", str(media / ".harmonia"))
    assert json.loads(run("status", "--json")[1])["records"] == 4


def test_show_takes_a_shortened_id(run: Ran, media: Path) -> None:
    records = harmonia.open(media / ".harmonia").store.records()
    for record in records:
        length = next(
            n for n in range(1, 33) if sum(r.id.startswith(record.id[:n]) for r in records) == 1
        )
        code, out, _ = run("show", "-m", media / ".harmonia", record.id[:length], "--json")
        shown = json.loads(out)
        assert code == 0 and shown["id"] == record.id and len(shown["parts"]) == len(record.parts)
    code, out, _ = run("show", "-m", media / ".harmonia", records[0].id)
    assert code == 0 and records[0].id in out
    fails(run("show", "-m", media / ".harmonia", ""), "no record has")


@pytest.mark.parametrize("target", ["out.jsonl", "out"])
def test_what_is_exported_is_remembered_as_the_same(
    run: Ran, media: Path, tmp_path: Path, target: str
) -> None:
    code, out, _ = run("export", "-m", media / ".harmonia", tmp_path / target)
    assert code == 0 and "exported 4 records" in out
    assert os.listdir(tmp_path) == [target]
    assert run("remember", tmp_path / target, "--into", tmp_path / "m")[0] == 0
    ids = [{r.id for r in harmonia.open(m).store.records()} for m in (media / ".harmonia", tmp_path / "m")]
    assert ids[0] == ids[1] and len(ids[0]) == 4


def test_forget_by_condition_and_id(run: Ran, tmp_path: Path) -> None:
    for seed in range(4):
        make_photo(tmp_path / f"{seed}.png", seed=seed)
    make_tone(tmp_path / "tone.wav")
    memory = tmp_path / "m"
    run("remember", tmp_path, "--into", memory)
    code, out, _ = run("forget", "-m", memory, "--where", "name in ('1', '2')")
    assert code == 0 and out.count("forgot") == 2
    assert "nothing was forgotten" in run("forget", "-m", memory, "--where", "name = '1'")[1]
    record = harmonia.open(memory).store.records(where="name = 'tone'")[0]
    assert run("forget", "-m", memory, record.id[:12])[0] == 0
    left = {r.metadata["name"] for r in harmonia.open(memory).store.records()}
    assert left == {"0", "3"} and (tmp_path / "1.png").exists()
