"""What a new user tries, and gets wrong: hits as paths, files as cues, empty answers, what forget asks."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from harmonia.cli.terminal_pictures import iterm2, kitty, protocol, sixel
from harmonia.server.settings import Settings
from tests.media import make_photo
from tests.serving import media_of, memory_of, serve


def run(*arguments: str | Path, at: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harmonia", *map(str, arguments)]
    return subprocess.run(
        command, cwd=at, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        env={**os.environ, **environ},
    )  # fmt: skip


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a memory of three photos without captions."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        make_photo(folder / f"a photo {seed}.jpg", seed=seed)
    done = run("remember", ".", at=folder)
    assert done.returncode == 0 and "3 images have no caption" in done.stderr
    assert "--model openai/clip" in done.stderr
    return folder


@pytest.mark.parametrize("command", ["recall", "retrieve"])
def test_a_file_is_a_cue_and_hits_are_paths(photos: Path, command: str) -> None:
    shutil.copy(photos / "a photo 1.jpg", photos / ".copy.dat")
    for cue in ("a photo 1.jpg", ".copy.dat"):  # the second by its content alone
        lines = run(command, cue, "-k", "2", "--paths", at=photos).stdout.splitlines()
        assert lines[0] == str(photos / "a photo 1.jpg") and len(lines) == 2
        assert all(Path(line).is_file() for line in lines)
    nul = run(command, "a photo 1.jpg", "-k", "2", "-0", at=photos).stdout
    assert nul == "".join(f"{line}\0" for line in lines)
    assert str(photos / "a photo 1.jpg") in run(command, "a photo 1.jpg", at=photos).stdout


def test_the_content_of_a_note_is_words_and_a_word_stays_a_word(tmp_path: Path) -> None:
    memory = memory_of(tmp_path)
    (tmp_path / "ask.txt").write_text("the photo number 2 of a thing")
    (tmp_path / "number").write_bytes(b"\x89PNG not a cue")
    by_file = run("recall", "-m", memory, "ask.txt", "--json", at=tmp_path)
    by_word = run(
        "recall", "-m", memory, "the", "photo", "number", "2", "of", "a", "thing", "--json", at=tmp_path
    )
    found = [json.loads(done.stdout)["records"][0]["id"] for done in (by_file, by_word)]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["recall", "photo9.jpg"], 2, "there is no file photo9.jpg"),
        (["retrieve", "no/such.WAV"], 2, "there is no file no/such.WAV"),
        (["recall", "holidays/"], 2, "is a folder or missing"),
        (["retrieve", "red", "barn"], 1, "`harmonia recall` also looks across modalities"),
        (["retrieve", "red", "barn"], 1, "--model openai/clip"),
        (["retrieve", "a photo 1.jpg", "--where", "width > 99999"], 1, "no record fulfils --where"),
        (["recall", "a photo 1.jpg", "--where", "width > 99999"], 1, "no record fulfils --where"),
        (["recall", "a photo 1.jpg", "--preview"], 0, "needs a terminal with pictures"),
        (["forget", "--where", "width > 1"], 1, "3 records would be forgotten: add --yes"),
        (["reconstruct", "a photo 1.jpg", "--generator", "no"], 2, "`harmonia train vae` makes one"),
        (["denoise", "a photo 1.jpg", "--generator", "no"], 2, "`harmonia train denoising` makes one"),
        (["anomaly", "a photo 1.jpg", "--generator", "nowhere"], 2, "no autoencoder in nowhere"),
        (["recall", "red", "-m", "typo"], 1, "no memory in typo"),
        (["forget", "--where", "width > 1", "-m", "typo"], 1, "no memory in typo"),
        (["remember", "typo", "--into", "new"], 1, "typo does not exist"),
    ],
)
def test_mistakes(photos: Path, arguments: list[str], code: int, says: str) -> None:
    done = run(*arguments, at=photos)
    assert done.returncode == code, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
    assert not (photos / "typo").exists() and not (photos / "new").exists()


def test_nothing_found_is_json_too_and_no_path(photos: Path) -> None:
    none = run("retrieve", "red", "--json", at=photos)
    assert none.returncode == 1 and json.loads(none.stdout) == {"records": []}
    none = run("recall", "red", "--where", "width > 99999", "--json", at=photos)
    assert none.returncode == 1 and json.loads(none.stdout)["records"] == []
    assert run("retrieve", "red", "--paths", at=photos).stdout == ""


def test_recall_that_is_not_sure_says_so_beside_the_paths(photos: Path) -> None:
    guess = run("recall", "xylophone", at=photos)
    assert guess.returncode == 0 and "--model openai/clip" in guess.stderr
    done = run("recall", "red", "barn", "--paths", at=photos)
    assert done.returncode == 0 and all(Path(line).is_file() for line in done.stdout.splitlines())
    assert "nothing matches for sure" in done.stderr and "--model openai/clip" in done.stderr


def test_a_mistyped_folder_leaves_no_memory(tmp_path: Path) -> None:
    assert run("remember", "fotos", at=tmp_path).returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_forget_goes_on_with_yes_and_an_empty_memory_says_so(tmp_path: Path) -> None:
    memory = memory_of(tmp_path)
    left = run("forget", "--where", "tag = 'photo'", "-m", memory, at=tmp_path)
    assert left.returncode == 1 and len(left.stdout.splitlines()) == 6
    held = json.loads(run("status", "--json", "-m", memory, at=tmp_path).stdout)
    assert held["records"] > 6, "nothing was forgotten without an answer"
    assert run("forget", "--where", "year > 0", "--yes", "-m", memory, at=tmp_path).returncode == 0
    for command in ("recall", "retrieve"):
        done = run(command, "photo", "-m", memory, at=tmp_path)
        assert done.returncode == 1 and "is empty" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="xdg-open is the opener of Linux")
def test_the_first_hit_is_opened(photos: Path, tmp_path: Path) -> None:
    opener = tmp_path / "xdg-open"
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > "{tmp_path}/opened"\n')
    opener.chmod(0o755)
    cue = ["recall", "a photo 2.jpg", "--open"]
    assert run(*cue, at=photos, PATH=f"{tmp_path}:/usr/bin:/bin").returncode == 0
    assert (tmp_path / "opened").read_text() == str(photos / "a photo 2.jpg")
    (tmp_path / "none").mkdir()
    without = run(*cue, at=photos, PATH=str(tmp_path / "none"))
    assert without.returncode == 1 and "xdg-open is not installed" in without.stderr


def test_it_is_the_same_through_a_server(tmp_path: Path) -> None:
    memory = memory_of(tmp_path)
    cues: list[list[str | Path]] = [
        [media_of() / "photo-3.png", "--paths"],
        ["photo", "--where", "year > 9000"],
    ]
    alone = [run("recall", "-m", memory, *cue, at=tmp_path) for cue in cues]
    with serve(Settings(memory)):
        served = [run("recall", "-m", memory, *cue, at=tmp_path) for cue in cues]
    for one, other in zip(alone, served, strict=True):
        assert (one.returncode, one.stdout, one.stderr) == (other.returncode, other.stdout, other.stderr)
    assert [done.returncode for done in served] == [0, 1]


@pytest.mark.parametrize(
    ("environ", "way"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"TERM": "foot"}, "sixel"),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
    ],
)
def test_the_terminal_is_recognised(environ: dict[str, str], way: str | None) -> None:
    assert protocol(environ) == way


def test_pictures_survive_the_escape_sequences() -> None:
    picture = Image.effect_noise((90, 61), 80).convert("RGB")
    chunks = re.findall(r"\033_G([^;]*);([^\033]*)\033\\", kitty(picture))
    assert len(chunks) > 1 and all(len(data) <= 4096 for _, data in chunks)
    assert [keys[-3:] for keys, _ in chunks] == ["m=1"] * (len(chunks) - 1) + ["m=0"]
    inline = iterm2(picture).partition(":")[2].rstrip("\a")
    for data in ("".join(data for _, data in chunks), inline):
        assert Image.open(io.BytesIO(base64.b64decode(data))).tobytes() == picture.tobytes()


def test_sixels_draw_every_pixel_once_in_its_colour() -> None:
    picture = Image.new("RGB", (10, 13), (255, 0, 0))
    picture.paste((0, 0, 255), (4, 5, 9, 13))
    body = sixel(picture).partition("13")[2].removesuffix("\033\\")
    colours = {n: tuple(map(int, rgb.split(";"))) for n, rgb in re.findall(r"#(\d+);2;(\d+;\d+;\d+)", body)}
    drawn: dict[tuple[int, int], tuple[int, ...]] = {}
    bands = re.sub(r"#\d+;2;\d+;\d+;\d+", "", body).split("-")[:-1]
    for band, text in enumerate(bands):
        for line in text.split("$"):
            _, n, sixels = re.split(r"#(\d+)", line, maxsplit=1)
            row = re.sub(r"!(\d+)(.)", lambda run: run[2] * int(run[1]), sixels)
            for x, char in enumerate(row):
                for y in range(6):
                    if ord(char) - 63 >> y & 1:
                        assert (x, band * 6 + y) not in drawn
                        drawn[x, band * 6 + y] = colours[n]
    assert len(drawn) == 130
    for (x, y), (red, _, blue) in drawn.items():
        pixel = picture.getpixel((x, y))
        assert isinstance(pixel, tuple) and (red > 50, blue > 50) == (pixel[0] > 127, pixel[2] > 127)


def test_an_empty_memory_is_json_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("a note", encoding="utf-8")
    assert run("remember", ".", at=tmp_path).returncode == 0
    assert run("forget", "--where", "name = 'note'", "--yes", at=tmp_path).returncode == 0
    for command in ("recall", "retrieve", "ask"):
        done = run(command, "note", "--json", at=tmp_path)
        told = json.loads(done.stdout)
        assert done.returncode == 1 and told["abstained"] is True
        assert "is empty" in told["reason"] and told["reason"] in done.stderr
        recalled = told.get("recollection", told)
        assert recalled["records"] == []
        assert command == "retrieve" or recalled["certificate"]["nothing"] == 1.0


@pytest.mark.parametrize(
    ("names", "options", "says"),
    [
        ([], [], "nothing to remember in ."),
        (["table.xyz"], [], "nothing to remember in ."),
        (["note.txt"], ["--exclude", "*.txt"], "its files are left out"),
        ([".hidden.txt"], [], "its files are left out"),
        (["broken.jpg", "broken.wav"], [], "no file of . could be read"),
        (["note.txt"], ["--exclude", "!"], "gitignore"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("into", [[], ["--into", "mine"]])
def test_nothing_to_remember_leaves_no_memory(
    tmp_path: Path, names: list[str], options: list[str], says: str, into: list[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "media").mkdir()
    for name in names:
        (tmp_path / name).write_text("no picture, no sound", encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    done = run("remember", ".", *options, *into, at=tmp_path)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


def test_a_memory_that_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("a note", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    assert run("remember", "note.txt", at=tmp_path).returncode == 0
    assert run("remember", "empty", at=tmp_path).returncode == 0
    assert json.loads(run("status", "--json", at=tmp_path).stdout)["records"] == 1
