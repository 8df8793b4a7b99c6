"""Subtitles: the words of SubRip, WebVTT and SubStation files, with the seconds at which they are shown."""

from __future__ import annotations

import html
import re
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harmonia.modalities.limits import Source, fail
from harmonia.types import Part, Signal

SUFFIXES: tuple[str, ...] = (".srt", ".vtt", ".ass", ".ssa")
SECONDS = 60.0
"""The longest window, unless one cue is longer."""
LONGEST = 5000
"""Characters of a cue; a longer one is broken, and would be slow to strip of its markup."""

_SRT, _VTT = r"\d{1,2}:\d{1,2}:\d{1,2}[.,]\d{1,3}", r"(?:\d{1,4}:)?\d{2}:\d{2}\.\d{3}"
_TIMES = {
    kind: re.compile(rf"\s*{stamp}\s*-->\s*{stamp}(?!\S)") for kind, stamp in (("srt", _SRT), ("vtt", _VTT))
}
# what the library cannot read of a line, it leaves out
warnings.filterwarnings("ignore", category=RuntimeWarning, module=r"pysubs2\.")
# what should be the times of a cue, whether they can be read or not
_TIMING = re.compile(rf"-->|\s*{_SRT}.*{_SRT}")
# WebVTT may tell the time of every word
_WORD_TIME = re.compile(r"<[\d:.]+>")
_DRAWING = re.compile(r"\{[^}]*\\p[1-9]")
_FIELDS_BEFORE_WORDS = 9


@dataclass(frozen=True, slots=True, order=True)
class Cue:
    """Words that are shown from ``start`` to ``end``, in seconds."""

    start: float
    end: float
    words: str


def is_subtitles(source: Source) -> bool:
    """Whether a source is a file of subtitles, by its suffix."""
    return isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES


def in_seconds(part: Part) -> bool:
    """Whether a part's ``start`` and ``end`` are seconds; those of other texts count characters."""
    return part.modality != "text" or (part.path is not None and is_subtitles(part.path))


def cues(source: Source, text: str) -> list[Cue]:
    """The cues of a subtitle file in order of time, without markup.

    A cue whose times or words cannot be read is left out. Raises HarmoniaError for a file without any cue.
    """
    script = isinstance(source, str | Path) and Path(source).suffix.lower() in (".ass", ".ssa")
    pieces = _dialogue(text) if script else _timed(text)
    found = [cue for kind, piece in pieces if (cue := _cue(kind, piece)) is not None]
    if not found:
        raise fail(source, "has no subtitle that can be read", "check its times, or save it as .txt")
    return sorted(found, key=lambda cue: (cue.start, cue.end))


def words(found: list[Cue]) -> str:
    """The words of cues, a line each; a line that is shown again at once is written once."""
    lines: list[str] = []
    for cue in found:
        lines += [line for line in cue.words.split("\n") if not lines or line != lines[-1]]
    return "\n".join(lines)


def windows(found: list[Cue], characters: int) -> Iterator[Signal]:
    """Consecutive cues packed into texts of at most ``characters`` and ``SECONDS``, with their seconds."""
    packed: list[Cue] = []
    length = 0
    for cue in found:
        full = length + len(cue.words) > characters
        if packed and (full or cue.end - packed[0].start > SECONDS):
            yield from _window(packed, characters)
            packed, length = [], 0
        packed.append(cue)
        length += len(cue.words) + 1
    yield from _window(packed, characters)


def _window(packed: list[Cue], characters: int) -> Iterator[Signal]:
    text, end = words(packed), max(cue.end for cue in packed)
    # only a single cue can be longer than a window
    for piece in [text] if len(text) <= characters else textwrap.wrap(text, characters):
        yield Signal("text", piece, start=packed[0].start, end=end)


def _timed(text: str) -> Iterator[tuple[str, str]]:
    """The cues of SubRip and WebVTT, each with its format; those whose times are broken are dropped."""
    web = text.lstrip().startswith("WEBVTT")
    kind, lines, blank = "", list[str](), True
    for line in text.split("\n"):
        if _TIMING.match(line) or "-->" in line:
            if lines and lines[-1].strip().isdigit():
                lines.pop()  # the number of this cue, with no blank line before it
            if kind:
                yield kind, "\n".join(lines)
            kind = next((name for name, times in _TIMES.items() if times.match(line)), "")
            lines = [line]
        elif blank and kind and (line.strip().isdigit() or (web and line.strip())):
            # the next cue begins; SubRip has blank lines within cues, too
            yield kind, "\n".join(lines)
            kind, lines = "", []
        elif kind:
            lines.append(_WORD_TIME.sub("", line))
        blank = not line.strip()
    if kind:
        yield kind, "\n".join(lines)


def _dialogue(text: str) -> Iterator[tuple[str, str]]:
    """The lines of dialogue of a SubStation script, each with its format."""
    for line in text.split("\n"):
        head, _, fields = line.strip().partition(":")
        if head == "Dialogue" and fields.count(",") >= _FIELDS_BEFORE_WORDS and not _DRAWING.search(fields):
            yield "ssa" if fields.lstrip().startswith("Marked") else "ass", line


def _cue(kind: str, piece: str) -> Cue | None:
    """One cue read alone, so that a broken one costs only itself; None for one that says nothing."""
    from pysubs2 import SSAFile

    if len(piece) > LONGEST:
        return None
    try:
        events = SSAFile.from_string(piece, kind).events
    except (ValueError, TypeError, OverflowError):
        return None
    if not events or not 0 <= events[0].start <= events[0].end:
        return None
    plain = html.unescape(events[0].plaintext)
    said = "\n".join(line for part in plain.split("\n") if (line := " ".join(part.split())))
    return Cue(events[0].start / 1000, events[0].end / 1000, said) if said else None
