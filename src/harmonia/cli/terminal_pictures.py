"""Pictures in the terminal: the graphics protocol of kitty, the inline images of iTerm2, and sixel.

Sources: sw.kovidgoyal.net/kitty/graphics-protocol, iterm2.com/documentation-images.html, and the VT330/VT340
Programmer Reference, chapter 14.
"""

from __future__ import annotations

import base64
import io
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 320
CHUNK = 4096
"""Most characters of base64 in one command of kitty's protocol."""


def protocol(environ: Mapping[str, str]) -> str | None:
    """How the terminal that these environment variables describe shows pictures, or None."""
    term, program = environ.get("TERM", ""), environ.get("TERM_PROGRAM", "")
    if environ.get("KITTY_WINDOW_ID") or "kitty" in term or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm"):
        return "iterm2"
    if "sixel" in term or term.startswith(("foot", "mlterm", "yaft")):
        return "sixel"
    return None


def show_pictures(files: Sequence[str]) -> None:
    """Show the image files among these in the terminal; say so if it cannot."""
    way = protocol(os.environ) if sys.stdout.isatty() else None
    if way is None:
        click.echo(
            "harmonia: --preview needs a terminal with pictures (kitty, iTerm2, WezTerm, foot, mlterm); "
            "--open starts a viewer",
            err=True,
        )
        return
    from harmonia.modalities import image, modality_of
    from harmonia.types import HarmoniaError

    for file in files:
        if modality_of(file) != "image":
            continue
        try:
            small = image.preview(image.read(file, max_side=SIDE), SIDE)
        except HarmoniaError as error:
            click.echo(f"harmonia: {error}", err=True)
            continue
        sys.stdout.write({"kitty": kitty, "iterm2": iterm2, "sixel": sixel}[way](small) + "\n")
        sys.stdout.flush()


def _png(picture: Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def kitty(picture: Image) -> str:
    """The picture in kitty's graphics protocol, as PNG in chunks."""
    data = _png(picture)
    chunks = [data[i : i + CHUNK] for i in range(0, len(data), CHUNK)]
    first = "a=T,f=100,"
    return "".join(
        f"\033_G{first if i == 0 else ''}m={int(i < len(chunks) - 1)};{chunk}\033\\"
        for i, chunk in enumerate(chunks)
    )


def iterm2(picture: Image) -> str:
    """The picture as an inline image of iTerm2."""
    return f"\033]1337;File=inline=1;preserveAspectRatio=1:{_png(picture)}\a"


def sixel(picture: Image) -> str:
    """The picture in sixels, of at most 255 colours: bands of six rows, each colour of a band in turn."""
    reduced = picture.convert("RGB").quantize(255)
    width, height = reduced.size
    palette, pixels = reduced.getpalette() or [], reduced.tobytes()
    out = [f'\033Pq"1;1;{width};{height}']
    for n in sorted(set(pixels)):
        red, green, blue = (round(tone * 100 / 255) for tone in palette[3 * n : 3 * n + 3])
        out.append(f"#{n};2;{red};{green};{blue}")
    for top in range(0, height, 6):
        rows = [pixels[y * width : (y + 1) * width] for y in range(top, min(top + 6, height))]
        lines = []
        for n in sorted(set().union(*rows)):
            bits = [sum((row[x] == n) << y for y, row in enumerate(rows)) for x in range(width)]
            runs = ((chr(63 + bit), len(list(same))) for bit, same in groupby(bits))
            lines.append(f"#{n}" + "".join(c * k if k < 4 else f"!{k}{c}" for c, k in runs))
        out.append("$".join(lines) + "-")
    return "".join(out) + "\033\\"
