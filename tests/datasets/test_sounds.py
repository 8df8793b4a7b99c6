"""Readers of sound and video datasets: small files in the published formats, and the shared data."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from harmonia.data.records import Problem
from harmonia.datasets.audiocaps import audiocaps
from harmonia.datasets.audioset import audioset
from harmonia.datasets.clotho import clotho
from harmonia.datasets.esc50 import esc10, esc50
from harmonia.datasets.fsdd import fsdd
from harmonia.datasets.grid_corpus import grid
from harmonia.modalities import MODALITIES
from harmonia.types import HarmoniaError, Record
from tests.media import make_tone, make_video, scene
from tests.places import DATA

SHARED = DATA


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARMONIA_CACHE", str(tmp_path / "cache"))


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"no {name} in {SHARED} (set HARMONIA_DATA)")
    return SHARED / name


def sorted_out(found: Iterable[Record | Problem]) -> tuple[list[Record], list[Problem]]:
    everything = list(found)
    records = [one for one in everything if isinstance(one, Record)]
    return records, [one for one in everything if isinstance(one, Problem)]


def texts(record: Record) -> list[str]:
    return [part.text for part in record.parts if part.modality == "text" and part.text]


def tone(path: Path, seconds: float = 0.2) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_tone(path, seconds=seconds)


# --- AudioSet

SEGMENTS = """\
# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=5, num_segs=5, num_unique_labels=3, num_positive_labels=6
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/0bt9lr"
_gone_gone_, 30.000, 40.000, "/m/0bt9lr"
Y1234567890, 30.000, 40.000, "/m/0bt9lr"
abc_EFG-hij, 2.500, 12.500, "/m/09x0r"
odd_label_1, 0.000, 10.000, "/m/unknown"
this line is no segment
"""
CLASSES = 'index,mid,display_name\n0,/m/09x0r,Speech\n1,/m/068hy,"Domestic animals, pets"\n2,/m/0bt9lr,Dog\n'


@pytest.fixture
def audioset_folder(tmp_path):
    home = tmp_path / "audioset"
    tone(home / "audio" / "--4gqARaEJE.wav")
    tone(home / "audio" / "YY1234567890_30.000_40.000.flac")
    tone(home / "audio" / "abc_EFG-hij_2500.wav")
    tone(home / "audio" / "odd_label_1.wav")
    (home / "balanced_train_segments.csv").write_text(SEGMENTS, encoding="utf-8")
    (home / "class_labels_indices.csv").write_text(CLASSES, encoding="utf-8")
    return home


def test_audioset_reads_published_files_with_several_labels(audioset_folder):
    records, problems = sorted_out(audioset(audioset_folder, "train"))
    assert [record.metadata["youtube_id"] for record in records] == [
        "--4gqARaEJE",
        "Y1234567890",
        "abc_EFG-hij",
    ]
    assert texts(records[0]) == ["Domestic animals, pets", "Dog"]
    assert records[0].metadata["label_ids"] == ["/m/068hy", "/m/0bt9lr"]
    assert records[2].metadata["start_seconds"] == 2.5 and records[2].metadata["split"] == "train"
    assert records[1].parts[0].modality == "audio"
    assert MODALITIES["audio"].read(records[1].parts[0].path).rate == 16000
    reasons = [problem.reason for problem in problems]
    assert "row 5: there is no sound file of the clip _gone_gone_ at 30 s" in reasons
    assert any("/m/unknown is in no row of class_labels_indices.csv" in reason for reason in reasons)
    assert any("row 9: this is not YTID" in reason for reason in reasons)
    assert len(reasons) == 3


def test_audioset_prefers_the_folder_of_its_split(audioset_folder):
    mine = tone(audioset_folder / "audio" / "balanced_train" / "--4gqARaEJE.flac")
    records, _ = sorted_out(audioset(audioset_folder))
    assert records[0].parts[0].path == str(mine)


def test_audioset_says_what_is_missing(audioset_folder, tmp_path):
    with pytest.raises(HarmoniaError, match=r"no eval_segments.csv; .*research.google.com/audioset"):
        audioset(audioset_folder, "test")
    with pytest.raises(HarmoniaError, match="no split 'dev'"):
        audioset(audioset_folder, "dev")
    with pytest.raises(HarmoniaError, match=r"AudioSet is not here \(no folder"):
        audioset(tmp_path / "nowhere")
    for path in (audioset_folder / "audio").iterdir():
        path.unlink()
    (audioset_folder / "audio").rmdir()
    with pytest.raises(HarmoniaError, match="no audio; "):
        audioset(audioset_folder)
    (audioset_folder / "class_labels_indices.csv").write_text("a,b\n1,2\n")
    with pytest.raises(HarmoniaError, match=r"class_labels_indices.csv cannot be read"):
        audioset(audioset_folder)


# --- AudioCaps and Clotho


def test_audiocaps_gathers_the_captions_of_a_clip(tmp_path):
    rows = [
        (1, "abc_EFG-hij", 30, "A dog barks, twice"),
        (2, "gone_gone_g", 0, "Rain falls"),
        (3, "abc_EFG-hij", 30, "Barking"),
        (4, "abc_EFG-hij", 30, " "),
    ]
    with (tmp_path / "val.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["audiocap_id", "youtube_id", "start_time", "caption"])
        writer.writerows(rows)
        file.write("5,abc\n")
    tone(tmp_path / "val" / "abc_EFG-hij_30.wav")
    records, problems = sorted_out(audiocaps(tmp_path, "dev"))
    assert [texts(record) for record in records] == [["A dog barks, twice", "Barking"]]
    assert records[0].metadata["caption_ids"] == ["1", "3"] and records[0].metadata["split"] == "val"
    assert [problem.reason for problem in problems] == [
        "row 4: its caption is missing",
        "row 5: this is not a row of audiocap_id, youtube_id, start_time, caption",
        "row 2: there is no sound file of the clip gone_gone_g at 0 s",
    ]
    with pytest.raises(HarmoniaError, match=r"no train.csv; .*github.com/cdjkim/audiocaps"):
        audiocaps(tmp_path)


def test_clotho_reads_five_captions(tmp_path):
    names = ",".join(f"caption_{number}" for number in range(1, 6))
    lines = [
        f"file_name,{names}",
        '"a, b (1).wav",one,two,"three, four",five,six',
        "gone.wav,a,b,c,d,e",
        "none.wav,,,,,",
    ]
    (tmp_path / "clotho_captions_evaluation.csv").write_text("\n".join(lines))
    tone(tmp_path / "evaluation" / "a, b (1).wav")
    records, problems = sorted_out(clotho(tmp_path, "test"))
    assert [texts(record) for record in records] == [["one", "two", "three, four", "five", "six"]]
    assert records[0].metadata["name"] == "a, b (1)"
    assert "there is no file" in problems[0].reason and "it has no captions" in problems[1].reason
    with pytest.raises(HarmoniaError, match=r"no clotho_captions_development.csv; .*zenodo.org"):
        clotho(tmp_path)


# --- ESC-50


@pytest.fixture
def esc_folder(tmp_path):
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, category, small in ((0, "dog", True), (14, "chirping_birds", False)):
            name = f"{fold}-10{target}-A-{target}.wav"
            tone(tmp_path / "audio" / name)
            rows.append(f"{name},{fold},{target},{category},{small},10{target},A")
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "esc50.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_esc50_folds_and_filter(esc_folder):
    train, problems = sorted_out(esc50(esc_folder))
    test, _ = sorted_out(esc50(esc_folder, "test"))
    assert (len(train), len(test), problems) == (8, 2, [])
    assert {record.metadata["fold"] for record in test} == {5}
    assert texts(test[1]) == ["chirping birds"]
    assert test[1].metadata["label_id"] == 14 and test[1].metadata["recording"] == "1014"
    other, _ = sorted_out(esc50(esc_folder, "test", test_folds=(1, 2)))
    assert Counter(record.metadata["fold"] for record in other) == {1: 2, 2: 2}
    small, _ = sorted_out(esc10(esc_folder, "all"))
    assert len(small) == 5 and {record.metadata["label"] for record in small} == {"dog"}


def test_esc50_problems(esc_folder):
    (esc_folder / "audio" / "1-100-A-0.wav").unlink()
    with (esc_folder / "meta" / "esc50.csv").open("a") as file:
        file.write("x.wav,one,0,dog,True,1,A\n")
    records, problems = sorted_out(esc50(esc_folder))
    assert len(records) == 7
    assert "there is no file" in problems[0].reason and "its fold is no number: one" in problems[1].reason
    (esc_folder / "meta" / "esc50.csv").unlink()
    with pytest.raises(HarmoniaError, match=r"no meta/esc50.csv; load it from github.com/karolpiczak/ESC-50"):
        esc50(esc_folder)


def test_esc10_of_the_shared_table():
    folder = shared("esc10")
    train, problems = sorted_out(esc10(folder))
    test, _ = sorted_out(esc10(folder, "test"))
    assert (len(train), len(test), problems) == (240, 80, [])
    assert {record.metadata["fold"] for record in test} == {4}
    assert len({record.metadata["label"] for record in train}) == 10
    assert not {r.metadata["recording"] for r in train} & {r.metadata["recording"] for r in test}
    sound = MODALITIES["audio"].read(test[0].parts[0].path)
    assert sound.rate == 16000 and sound.array.shape[0] == 1
    assert train[0].metadata["license"] in ("CC0", "CC-BY")


def test_damaged_esc10_table(tmp_path):
    (tmp_path / "clips.parquet").write_bytes(b"PAR1 this is none")
    with pytest.raises(HarmoniaError, match=r"clips.parquet cannot be read: .*load it again"):
        esc10(tmp_path)


# --- FSDD


def test_fsdd_recordings_with_the_official_split(tmp_path):
    for name in ("0_jackson_0", "7_jackson_4", "7_theo_5", "9_yweweler_49"):
        tone(tmp_path / "recordings" / f"{name}.wav")
    tone(tmp_path / "recordings" / "noise.wav")
    train, problems = sorted_out(fsdd(tmp_path))
    assert [texts(record) for record in train] == [["seven"], ["nine"]]
    assert train[0].metadata["speaker"] == "theo" and train[0].metadata["index"] == 5
    assert [problem.reason for problem in problems] == [
        "row 5: noise.wav is not named digit_speaker_index.wav"
    ]
    test, _ = sorted_out(fsdd(tmp_path, "test"))
    assert [record.metadata["digit"] for record in test] == [0, 7]
    with pytest.raises(HarmoniaError, match=r"FSDD is not complete .*: no recordings; load it from"):
        fsdd(tmp_path / "recordings")


def test_fsdd_of_the_shared_table():
    folder = shared("fsdd")
    train, problems = sorted_out(fsdd(folder))
    test, _ = sorted_out(fsdd(folder, "test"))
    assert (len(train), len(test), problems) == (1800, 200, [])
    assert Counter(record.metadata["digit"] for record in test) == dict.fromkeys(range(10), 20)
    with np.load(folder / "digits.npz") as table:
        samples, rate = soundfile.read(test[0].parts[0].path, dtype="int16")
        assert rate == 8000
        row = int(np.flatnonzero(table["index"] < 5)[0])
        begin, end = table["offset"][row : row + 2]
        assert np.array_equal(samples, table["audio"][begin:end])


def test_damaged_fsdd_table(tmp_path):
    (tmp_path / "digits.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(HarmoniaError, match=r"digits.npz cannot be read: .*load it again"):
        fsdd(tmp_path)


# --- GRID

ALIGNMENT = """\
0 23750 sil
23750 29500 bin
29500 34000 blue
34000 35500 at
35500 41000 f
41000 47250 two
47250 48000 sp
48000 53000 now
53000 74500 sil
"""


def make_mpg(path: Path) -> Path:
    """Half a second of MPEG-1 with MP2 sound, as GRID has it."""
    with av.open(str(path), "w", format="mpeg") as container:
        video = container.add_stream("mpeg1video", rate=25)
        video.width, video.height, video.pix_fmt = 96, 80, "yuv420p"
        sound = container.add_stream("mp2", rate=44100)
        sound.layout = "mono"
        for index in range(13):
            frame = av.VideoFrame.from_image(scene(1, (96, 80), shift=index / 25))
            frame.pts = index
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for index in range(19):
            wave = (np.sin(np.arange(1152) / 16) * 9000).astype(np.int16)[None]
            piece = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
            piece.rate, piece.pts = 44100, index * 1152
            container.mux(sound.encode(piece))
        container.mux(sound.encode())
    return path


@pytest.fixture
def grid_folder(tmp_path):
    for speaker in ("s1", "s3", "s10"):
        (tmp_path / speaker / "video").mkdir(parents=True)
        (tmp_path / "alignments" / speaker).mkdir(parents=True)
        (tmp_path / "alignments" / speaker / "bbaf2n.align").write_text(ALIGNMENT)
    make_mpg(tmp_path / "s3" / "video" / "bbaf2n.mpg")
    make_video(tmp_path / "s1" / "bbaf2n.mp4", seconds=0.5)
    make_video(tmp_path / "s10" / "bbaf2n.mp4", seconds=0.5)
    return tmp_path


def test_grid_sentence_and_word_times(grid_folder):
    train, problems = sorted_out(grid(grid_folder))
    assert [record.metadata["speaker"] for record in train] == ["s3", "s10"] and problems == []
    record = train[0]
    assert [part.modality for part in record.parts] == ["video", "text"]
    assert texts(record) == ["bin blue at f two now"]
    assert record.metadata["words"] == ["bin", "blue", "at", "f", "two", "now"]
    assert record.metadata["word_starts"][0] == 0.95 and record.metadata["word_ends"][-1] == 2.12
    assert record.metadata["name"] == "s3_bbaf2n"
    test, _ = sorted_out(grid(grid_folder, "test"))
    assert [record.metadata["speaker"] for record in test] == ["s1"]


def test_grid_videos_as_published_can_be_watched(grid_folder):
    record = next(iter(grid(grid_folder)))
    video = MODALITIES["video"].read(record.parts[0].path)
    assert video.array.shape[1:] == (80, 96, 3) and video.sound is not None


def test_grid_problems(grid_folder, tmp_path_factory):
    (grid_folder / "alignments" / "s3" / "bbaf2n.align").write_text("0 23750 sil\n23750 bin\n")
    (grid_folder / "alignments" / "s10" / "bbaf2n.align").unlink()
    records, problems = sorted_out(grid(grid_folder))
    assert records == []
    assert "line 2 is not begin, end, word" in problems[0].reason
    assert "has no alignment bbaf2n.align" in problems[1].reason
    with pytest.raises(HarmoniaError, match=r"no s1; load the speakers' videos .*zenodo.org"):
        grid(tmp_path_factory.mktemp("empty"))


def test_grid_of_the_shared_table():
    folder = shared("grid")
    train, problems = sorted_out(grid(folder))
    test, _ = sorted_out(grid(folder, "test"))
    assert (len(train), len(test), problems) == (450, 50, [])
    record = train[0]
    assert texts(record) == ["set white with p three soon"]
    assert record.metadata["word_starts"][:2] == [0.5, 0.91]
    video = MODALITIES["video"].read(record.parts[0].path)
    assert video.sound is not None and video.array.shape[1:] == (144, 176, 3)
