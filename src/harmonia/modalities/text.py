"""Text files: decode, cut into pieces of whole paragraphs, write, and draw as a card."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from harmonia.modalities import front_matter, subtitles
from harmonia.modalities.limits import (
    LIMITS,
    Limits,
    Source,
    fail,
    opened,
    replacing,
    wrong_kind,
)
from harmonia.modalities.text_encoding import REPLACED, decode
from harmonia.types import Signal

SUFFIXES: tuple[str, ...] = (".txt", ".md", ".markdown", ".mdx", ".rst", ".text", *subtitles.SUFFIXES)

# where to cut, best first: between paragraphs, sentences, lines, words
_BREAKS = (r"\n\s*\n", r"[.!?…]['\"”’)]*\s+|[。！？]", r"\n", r"\s+")


def read(source: Source, *, limits: Limits = LIMITS) -> Signal:
    """Decode a whole text, in the encoding that :mod:`harmonia.modalities.text_encoding` tells.

    Line ends become ``\\n``, stray bytes and NULs U+FFFD; of subtitles, the words stay. Raises
    HarmoniaError for a file that is empty, too long or not text, and for subtitles without a cue.
    """
    text = _decoded(source, limits)
    if subtitles.is_subtitles(source):
        text = subtitles.words(subtitles.cues(source, text))
    return Signal("text", text)


def _decoded(source: Source, limits: Limits) -> str:
    with opened(source, limits) as file:
        raw = file.read(limits.text_bytes + 1)
    _check_size(source, len(raw), limits)
    decoded = decode(raw)
    if decoded is None:
        raise wrong_kind(source, raw[:64], "text", "save it as plain text in UTF-8")
    return _with_words(source, decoded)


def _check_size(source: Source, size: int, limits: Limits) -> None:
    if size > limits.text_bytes:
        raise fail(
            source,
            f"is a text of more than {limits.text_bytes / 2**20:,.0f} MiB",
            "split it, or raise Limits.text_bytes",
        )


def _with_words(source: Source, decoded: str) -> str:
    text = decoded.replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise fail(source, "is empty (only white space)", "choose another file")
    return text


def windows(source: Source, *, characters: int = 1200, limits: Limits = LIMITS) -> Iterator[Signal]:
    """Pieces of at most ``characters``: whole paragraphs packed together, else whole sentences.

    ``start`` and ``end`` count characters of what ``read`` returns, so that
    ``read(source).text[start:end]`` is the piece. White space between pieces, and the front matter of
    Markdown, are in none. Subtitles are packed by cues, and ``start`` and ``end`` are their seconds.
    """
    if characters < 1:
        raise ValueError("characters must be at least 1")
    text = _decoded(source, limits)
    if subtitles.is_subtitles(source):
        yield from subtitles.windows(subtitles.cues(source, text), characters)
        return
    yield from _pieces(text, front_matter.length(source, text), characters)


def pieces(text: str, *, characters: int = 1200, limits: Limits = LIMITS) -> Iterator[Signal]:
    """The pieces of a text that is decoded already, as :func:`windows` cuts them; NULs become U+FFFD.

    Raises HarmoniaError for a text that is empty or too long.
    """
    source = text.encode("utf-8", "replace")
    _check_size(source, len(source), limits)
    yield from _pieces(_with_words(source, text.replace("\0", REPLACED)), 0, characters)


def _pieces(text: str, start: int, characters: int) -> Iterator[Signal]:
    while start < len(text):
        end = _cut(text, start, characters)
        piece = text[start:end]
        first = start + len(piece) - len(piece.lstrip())
        if piece := piece.strip():
            yield Signal("text", piece, start=first, end=first + len(piece))
        start = end


def _cut(text: str, start: int, characters: int) -> int:
    """Where the piece that begins at ``start`` ends."""
    if len(text) - start <= characters:
        return len(text)
    stretch = text[start : start + characters]
    for pattern in _BREAKS:
        end = max((m.end() for m in re.finditer(pattern, stretch)), default=0)
        if end > characters // 4:  # a lone heading goes with what it heads
            return start + end
    return start + characters


def write(signal: Signal, path: str | Path) -> None:
    """Write the text as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(signal.text, encoding="utf-8", newline="\n")


def preview(signal: Signal, size: int = 256) -> Image.Image:
    """The beginning of the text on a square card of ``size`` pixels."""
    points = max(8, size // 21)
    margin, leading = size // 14, round(points * 1.35)
    font = ImageFont.load_default(points)
    card = Image.new("RGB", (size, size), "#fdfbf5")
    draw = ImageDraw.Draw(card)
    sample = "the quick brown fox jumps over the lazy dog"
    columns = max(4, int((size - 2 * margin) / font.getlength(sample) * len(sample)))
    rows = (size - 2 * margin) // leading
    lines = [
        line
        for paragraph in signal.text[: 4 * columns * rows].splitlines()
        for line in textwrap.wrap(paragraph, columns) or [""]
    ]
    if len(lines) > rows or len(signal.text) > 4 * columns * rows:
        lines = [*lines[: rows - 1], lines[rows - 1][: columns - 1].rstrip() + "…"]
    for row, line in enumerate(lines[:rows]):
        draw.text((margin, margin + row * leading), line, fill="#222222", font=font)
    draw.rectangle((0, 0, size - 1, size - 1), outline="#d8d2c0")
    return card
