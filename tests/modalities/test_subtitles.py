"""Subtitles are texts whose windows have seconds; broken cues cost only themselves."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harmonia
from harmonia.cli.output import where_in
from harmonia.collection.json_output import part_json
from harmonia.collection.sentences import described
from harmonia.data import gather
from harmonia.modalities import subtitles, text
from harmonia.types import HarmoniaError, Part, Record
from tests.media import make_video

SRT = """1
00:00:00,000 --> 00:00:01,500
<i>The lighthouse</i> keeper {\\an8}wakes

2
00:01:10,000 --> 00:01:12,500
A pelican steals &amp; eats the herring
"""
VTT = """WEBVTT - a title

NOTE nobody says this

STYLE
::cue { color: red }

intro
00:00.000 --> 00:01.500 align:start
<v Mary>The<00:00:00.500><c> lighthouse</c><00:00:01.000> keeper wakes

00:01:10.000 --> 00:01:12.500
A pelican steals &amp; eats the herring
"""
ASS = """[Script Info]
Title: nobody says this
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
Dialogue: 0,0:01:10.00,0:01:12.50,Default,,0,0,0,,A pelican {\\b1}steals{\\b0} & eats\\Nthe herring
Comment: 0,0:00:00.00,0:00:01.00,Default,,0,0,0,,nobody says this
Dialogue: 0,0:00:00.00,0:00:01.50,Default,,0,0,0,,The lighthouse keeper wakes
Dialogue: 0,0:00:xx.00,0:00:01.50,Default,,0,0,0,,broken
Dialogue: 0,0:00:02.00,0:00:03.00,Default,,0,0,0,,{\\p1}m 0 0 l 1 1
"""


def stamp(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d},000"


def spans(path: Path) -> list[tuple[float | None, float | None, str]]:
    return [(one.start, one.end, " ".join(one.text.split())) for one in text.windows(path)]


@pytest.mark.parametrize(("suffix", "content"), [(".srt", SRT), (".vtt", VTT), (".ass", ASS), (".SRT", SRT)])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_windows_have_the_seconds_of_their_cues(
    tmp_path: Path, suffix: str, content: str, encoding: str
) -> None:
    path = tmp_path / f"film{suffix}"
    path.write_bytes(content.replace("\n", "\r\n").encode(encoding))
    assert spans(path) == [
        (0.0, 1.5, "The lighthouse keeper wakes"),
        (70.0, 72.5, "A pelican steals & eats the herring"),
    ]
    assert "nobody" not in text.read(path).text and "pelican" in text.read(path).text


def test_windows_are_short_in_characters_and_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "long.srt"
    said = [f"word{number} " + "x" * 150 for number in range(100)]
    path.write_text(
        "\n\n".join(f"{n}\n{stamp(3 * n)} --> {stamp(3 * n + 2)}\n{w}" for n, w in enumerate(said))
    )
    found = list(text.windows(path))
    assert "\n".join(one.text for one in found) == "\n".join(said)
    for one in found:
        assert one.start is not None and one.end is not None
        assert len(one.text) <= 1200 and one.end - one.start <= 60


def test_lines_that_roll_up_are_written_once(tmp_path: Path) -> None:
    path = tmp_path / "roll.vtt"
    path.write_text("WEBVTT\n\n00:00.000 --> 00:01.000\none\n\n00:01.000 --> 00:02.000\none\ntwo\n")
    assert text.read(path).text == "one\ntwo"


@pytest.mark.parametrize(
    "content", ["nothing here", "WEBVTT\n\n", "1\n00:00:05,000 --> 00:00:01,000\nback\n"]
)
def test_a_file_without_a_cue_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "none.srt"
    path.write_text(content)
    for action in (text.read, lambda source: list(text.windows(source))):
        with pytest.raises(HarmoniaError, match=r"none\.srt has no subtitle that can be read; ") as caught:
            action(path)
        assert "\n" not in str(caught.value)


BROKEN = st.one_of(
    st.sampled_from(["", "-->", "00:00:01,000", "00:00:01,000 -> x", "00:00:09,000 --> 00:00:01,000"]),
    st.sampled_from(["100:00:00,000 --> 100:00:01,000", "-00:00:01,000 --> 00:00:02,000"]),
    st.text("0123456789:,.-> abc", max_size=30).map(lambda made: f"{made} --> x"),
)


@given(st.lists(st.one_of(st.none(), BROKEN), min_size=1, max_size=8))
def test_a_broken_cue_costs_only_itself(times: list[str | None]) -> None:
    blocks, expected = [], []
    for number, broken in enumerate([None, *times]):
        span = f"{stamp(2 * number)} --> {stamp(2 * number + 1)}" if broken is None else broken
        blocks.append(f"{number + 1}\n{span}\nsaid{number}")
        if broken is None:
            expected.append(subtitles.Cue(2.0 * number, 2.0 * number + 1, f"said{number}"))
    assert subtitles.cues("a.srt", "\n\n".join(blocks)) == expected


@given(st.text(), st.sampled_from(subtitles.SUFFIXES))
def test_any_text_is_read_or_refused(content: str, suffix: str) -> None:
    try:
        found = subtitles.cues(f"a{suffix}", f"{SRT if suffix != '.ass' else ASS}\n{content}")
    except HarmoniaError:
        assert suffix == ".ssa"
    else:
        assert any("lighthouse" in cue.words for cue in found)


def test_subtitles_belong_to_the_video_beside_them(tmp_path: Path) -> None:
    names = ("film.mp4", "film.en.srt", "film.de.forced.vtt", "film.ass", "film.two.mp4", "film.two.en.srt")
    for name in (*names, "alone.en.srt", "photo.jpg", "photo.en.srt"):
        (tmp_path / name).touch()
    records = [one for one in gather([tmp_path]) if isinstance(one, Record)]
    shapes = [[Path(part.path or "").name for part in one.parts] for one in records]
    assert shapes == [
        ["alone.en.srt"],
        ["film.mp4", "film.ass", "film.de.forced.vtt", "film.en.srt"],
        ["film.two.mp4", "film.two.en.srt"],
        ["photo.jpg"],
        ["photo.en.srt"],
    ]
    assert records[1].metadata["name"] == "film"


def test_only_the_times_of_subtitles_are_seconds() -> None:
    assert subtitles.in_seconds(Part("text", path="/a/film.en.srt"))
    assert subtitles.in_seconds(Part("video", path="/a/film.mp4"))
    assert not subtitles.in_seconds(Part("text", path="/a/film.txt"))
    assert not subtitles.in_seconds(Part("text", text="words"))


def test_words_recall_the_video_and_the_time_they_are_spoken(tmp_path: Path) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    make_video(folder / "film.mp4", seconds=2.0)
    (folder / "film.en.srt").write_text(SRT)
    (folder / "other.txt").write_text("Accounts of the quarter, and a list of invoices")
    memory = harmonia.open(tmp_path / "a.harmonia")
    report = memory.remember([folder])
    assert not report.problems
    best = memory.recall(text="pelican steals herring").records[0]
    assert {part.modality for part in best.record.parts} >= {"video", "text"}
    said = [part for part in best.moment or () if part.modality == "text"]
    assert [(part.start, part.end) for part in said] == [(70.0, 72.5)]
    assert "from 70.0 s to 72.5 s" in described(best)
    assert where_in(part_json(said[0])) == "film.en.srt 70–72 s"
    seen = memory.recall(video=folder / "film.mp4").records[0]
    assert "from 0.0 s to 2.0 s" in described(seen)
