"""`recall --preview` in a real pseudo terminal: what a terminal would draw is the picture."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from harmonia.cli.terminal_pictures import SIDE
from harmonia.modalities import image
from tests.media import make_photo

pty = pytest.importorskip("pty", reason="pseudo terminals are of Unix")

Pixels = NDArray[np.uint8]
TERMINALS = ("TERM", "TERM_PROGRAM", "KITTY_WINDOW_ID")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    make_photo(folder / "wide.jpg", seed=1, size=(640, 200))
    make_photo(folder / "small.png", seed=2, size=(61, 90))
    subprocess.run([sys.executable, "-m", "harmonia", "remember", "."], cwd=folder, check=True, timeout=300)
    return folder


def in_terminal(*arguments: str, at: Path, **environ: str) -> str:
    """What a command writes to a terminal, its standard input and errors included."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in TERMINALS}
    command = [sys.executable, "-m", "harmonia", *arguments]
    with subprocess.Popen(
        command, cwd=at, env=kept | environ, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    ) as running:
        os.close(theirs)
        seen = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not part:
                break
            seen += part
        os.close(ours)
        assert running.wait(300) == 0, seen
    return seen.decode()


def of_kitty(seen: str) -> list[Pixels]:
    """The pictures of kitty's graphics commands: the chunks of each, up to one with m=0."""
    found, data = [], ""
    for keys, chunk in re.findall(r"\033_G([^;\033]*);([^\033]*)\033\\", seen):
        said = dict(pair.split("=") for pair in keys.split(","))
        assert said.keys() <= {"a", "f", "m"} and len(chunk) <= 4096
        assert (said.get("a"), said.get("f")) == (("T", "100") if not data else (None, None))
        data += chunk
        if said["m"] == "0":
            found.append(_png(data))
            data = ""
    assert not data
    return found


def of_iterm2(seen: str) -> list[Pixels]:
    return [_png(data) for data in re.findall(r"\033\]1337;File=inline=1[^:]*:([^\a]*)\a", seen)]


def of_sixel(seen: str) -> list[Pixels]:
    """The pictures of sixel sequences, drawn as a terminal draws them."""
    return [_drawn(body) for body in re.findall(r"\033P[0-9;]*q([^\033]*)\033\\", seen)]


def _png(data: str) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))).convert("RGB"))


def _drawn(body: str) -> Pixels:
    size = re.match(r'"1;1;(\d+);(\d+)', body)
    assert size is not None
    width, height = int(size[1]), int(size[2])
    pixels = np.zeros((height + 6, width, 3), np.uint8)
    palette: dict[int, tuple[int, ...]] = {}
    x = y = 0
    colour: tuple[int, ...] = (0, 0, 0)
    for one in re.finditer(
        r"#(\d+)(?:;2;(\d+);(\d+);(\d+))?|!(\d+)([?-~])|([?-~])|(\$)|(-)", body[size.end() :]
    ):
        number, red, green, blue, times, repeated, single, back, down = one.groups()
        if number is not None:
            if red is not None:
                palette[int(number)] = tuple(round(int(tone) * 2.55) for tone in (red, green, blue))
            colour = palette[int(number)]
        elif back:
            x = 0
        elif down:
            x, y = 0, y + 6
        else:
            bits, run = ord(repeated or single) - 63, int(times or 1)
            for row in range(6):
                if bits >> row & 1:
                    pixels[y + row, x : x + run] = colour
            x += run
            assert x <= width
    assert y >= height
    return pixels[:height]


@pytest.mark.parametrize(
    ("environ", "decoded", "error"),
    [
        ({"TERM": "xterm-kitty"}, of_kitty, 0.0),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, of_iterm2, 0.0),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, of_iterm2, 0.0),
        ({"TERM": "foot"}, of_sixel, 6.0),  # of 255 colours
        ({"TERM": "xterm-sixel"}, of_sixel, 6.0),
    ],
)
def test_a_terminal_draws_the_pictures(
    photos: Path, environ: dict[str, str], decoded: Callable[[str], list[Pixels]], error: float
) -> None:
    seen = in_terminal("recall", "wide.jpg", "-k", "2", "--preview", at=photos, **environ)
    drawn = decoded(seen)
    assert len(drawn) == 2
    for name, found in zip(("wide.jpg", "small.png"), drawn, strict=True):
        right = np.asarray(image.preview(image.read(photos / name, max_side=SIDE), SIDE))
        assert found.shape == right.shape
        assert np.abs(found.astype(float) - right).mean() <= error


def test_a_terminal_without_pictures_says_so(photos: Path) -> None:
    seen = in_terminal("recall", "wide.jpg", "--preview", at=photos, TERM="xterm-256color")
    assert "--preview needs a terminal with pictures" in seen and "\033_G" not in seen
