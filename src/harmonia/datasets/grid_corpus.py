"""The GRID corpus (Cooke et al., 2006): talking faces, 34 speakers with 1,000 sentences of six words each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from harmonia.data.tables import Row, Rows
from harmonia.datasets.reading import (
    Records,
    dataset_folder,
    dataset_record,
    embedded_part,
    media_part,
    need,
    require_one,
    require_split,
    rows_to_records,
    split_filter,
    table_rows,
    text_lines,
    text_parts,
)
from harmonia.types import Part, Record

HOW_TO_GET = (
    "load the speakers' videos s1.zip ... s34.zip and alignments.zip from zenodo.org/records/3625687 (16 GB) "
    "and unpack them there, as s1/*.mpg and alignments/s1/*.align"
)
UNSEEN_SPEAKERS = ("s1", "s2", "s20", "s22")
"""The speakers kept for the test by Assael et al., "LipNet" (2016); GRID has no split of its own."""

_UNITS = 25_000  # of an alignment, in a second: thousandths of a frame at 25 frames a second
_SILENCE = ("sil", "sp")
_VIDEOS = (".mpg", ".mpeg", ".mp4", ".avi", ".mov")

Word = tuple[str, float, float]
"""A word with the seconds at which it begins and ends."""


def grid(folder: str | Path | None = None, split: str = "train") -> Records:
    """Records of a video with its sound, and the sentence spoken ("set white with p three soon").

    Read: ``clips.parquet`` (clip, text, words, start, end, mp4), else folders ``s1`` ... ``s34`` with the
    videos (``.mpg``, or converted) at any depth, and an ``.align`` file of the same stem for each, in
    ``alignments/s1``, ``align/s1`` or the speaker's own folder (lines of begin, end, word; 25,000 units a
    second).
    ``split``: test is the four speakers of :data:`UNSEEN_SPEAKERS`, train the others, or all. The table has a
    single speaker: there, test is every tenth clip.

    Metadata: dataset, split, name, path, speaker (not in the table), and the spoken ``words`` with
    ``word_starts`` and ``word_ends`` in seconds. A video without alignment is a Problem.
    """
    home = dataset_folder(folder, "grid", "GRID", HOW_TO_GET)
    require_split(split, ("train", "test"), "GRID")
    table = home / "clips.parquet"
    if table.exists():
        return _table(table, split)
    speakers = [path for path in home.iterdir() if path.is_dir() and re.fullmatch(r"s[0-9]+", path.name)]
    if not speakers:
        require_one(home, ["s1"], "GRID", HOW_TO_GET)
    speakers.sort(key=lambda path: int(path.name[1:]))
    wanted = split_filter(split)

    def make(row: Row) -> Record:
        video: Path = row["video"]
        words = _read_alignment(row["alignment"])
        speaker = row["speaker"]
        return _record(
            _split_of(speaker), f"{speaker}_{video.stem}", media_part("video", video), words, speaker
        )

    chosen = [speaker for speaker in speakers if wanted(_split_of(speaker.name))]
    return rows_to_records(home, _videos(home, chosen), make)


def _split_of(speaker: str) -> str:
    return "test" if speaker in UNSEEN_SPEAKERS else "train"


def _videos(home: Path, speakers: Iterable[Path]) -> Rows:
    """A row for every video, numbered over all speakers."""
    number = 0
    for speaker in speakers:
        folders = [
            home / "alignments" / speaker.name,
            home / "align" / speaker.name,
            speaker / "align",
            speaker,
        ]
        for video in sorted(path for path in speaker.rglob("*") if path.suffix.lower() in _VIDEOS):
            number += 1
            candidates = [place / f"{video.stem}.align" for place in (*folders, video.parent)]
            found = next((path for path in candidates if path.is_file()), None)
            if found is None:
                yield number, f"{video} has no alignment {video.stem}.align"
            else:
                yield number, {"video": video, "alignment": found, "speaker": speaker.name}


def _read_alignment(path: Path) -> list[Word]:
    """The lines of an ``.align`` file: begin, end, word."""
    words = []
    for number, line in text_lines(path):
        cells = line.split()
        if len(cells) != 3 or not cells[0].isdecimal() or not cells[1].isdecimal():
            raise ValueError(f"{path} line {number} is not begin, end, word")
        words.append((cells[2], int(cells[0]) / _UNITS, int(cells[1]) / _UNITS))
    return words


def _record(split: str, name: str, video: Part, words: Iterable[Word], speaker: str | None) -> Record:
    spoken = [word for word in words if word[0].lower() not in _SILENCE]
    if not spoken:
        raise ValueError("its alignment has no word")
    sentence = " ".join(word for word, _, _ in spoken)
    return dataset_record(
        "grid", split, name, (video, *text_parts([sentence])), speaker=speaker,
        words=[word for word, _, _ in spoken],
        word_starts=[start for _, start, _ in spoken],
        word_ends=[end for _, _, end in spoken],
    )  # fmt: skip


def _table(table: Path, split: str) -> Records:
    wanted = split_filter(split)

    def make(row: Row) -> Record | None:
        own = row["split"]
        if not wanted(own):
            return None
        words = list(zip(*(need(row, name, list) for name in ("words", "start", "end")), strict=True))
        return _record(own, need(row, "clip", str), embedded_part("video", row.get("mp4")), words, None)

    return rows_to_records(table, _with_split(table_rows(table)), make)


def _with_split(rows: Rows) -> Iterator[tuple[int, Row | str]]:
    for number, row in rows:
        split = "test" if number % 10 == 0 else "train"
        yield number, row if isinstance(row, str) else {**row, "split": split}
