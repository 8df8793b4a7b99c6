"""The starter collection: complete, repeatable, honest about what it leaves out."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from examples import starter, words
from examples.speech import SpeechMissing, speak
from harmonia.data import gather
from harmonia.modalities import audio, image, video
from harmonia.types import HarmoniaError, Record


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, starter.Summary]:
    pytest.importorskip("sklearn")
    pytest.importorskip("espeakng_loader")
    folder = tmp_path_factory.mktemp("starter") / "collection"
    return folder, starter.build(folder)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_gathers_without_problems(collection: tuple[Path, starter.Summary]) -> None:
    folder, summary = collection
    found = list(gather([folder]))
    assert all(isinstance(one, Record) for one in found)
    records = [one for one in found if isinstance(one, Record)]
    assert 30 <= len(records) <= 40
    shapes = Counter("+".join(sorted({part.modality for part in one.parts})) for one in records)
    assert set(shapes) == {"image+text", "audio+image+text", "audio+text", "text+video", "text"}
    assert sum(len(one.metadata.get("tags", ())) > 0 for one in records) == len(words.DETAILS)
    assert summary.left_out == ()
    assert summary.written == len(digests(folder)) == sum(summary.files.values())


def test_every_file_decodes_and_none_is_blank(collection: tuple[Path, starter.Summary]) -> None:
    folder, _ = collection
    for path in [*folder.glob("pictures/*.[jp][pn]g"), *folder.glob("album/*.jpg")]:
        assert image.read(path).array.std() > 5, path
    sounds = [*folder.glob("sounds/*.flac"), *folder.rglob("*.wav")]
    for path in sounds:
        sound = audio.read(path)
        assert 2 < sound.array.shape[1] / (sound.rate or 1) < 8, path
        assert np.sqrt((sound.array**2).mean()) > 0.02, path
        assert np.abs(sound.array).max() < 1, path
    for path in folder.glob("videos/*.mp4"):
        film = video.read(path)
        first, last = film.array[0].astype(float), film.array[-1].astype(float)
        assert np.abs(first - last).mean() > 5, path  # it moves
        assert film.sound is not None and np.abs(film.sound.array).max() > 0.1, path
    assert len(set(digests(folder).values())) == len(digests(folder))  # no two files are equal


def test_a_second_call_writes_nothing(collection: tuple[Path, starter.Summary]) -> None:
    folder, first = collection
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = starter.build(folder)
    assert again.written == 0 and again.files == first.files
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_what_is_missing_comes_back_the_same(collection: tuple[Path, starter.Summary]) -> None:
    folder, _ = collection
    before = digests(folder)
    gone = ("pictures/coffee.wav", "pictures/cat.txt", "album/spiral.jpg", "sounds/surf.flac")
    for name in (*gone, "videos/countdown.mp4"):
        (folder / name).unlink()
    (folder / "notes" / "shopping-list.txt").write_text("eggs")
    assert starter.build(folder).written == len(gone) + 1
    after = digests(folder)
    assert after.pop("notes/shopping-list.txt") != before.pop("notes/shopping-list.txt")
    assert after == before


def test_without_speech_the_rest_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def mute(*_: object, **__: object) -> None:
        raise SpeechMissing("no speech here")

    monkeypatch.setattr(starter, "speak", mute)
    monkeypatch.setattr(starter, "VIDEOS", {"countdown": starter.VIDEOS["countdown"]})
    summary = starter.build(tmp_path)
    spoken = [name for name, picture in words.PICTURES.items() if picture.voice]
    names = [line.split(":")[0] for line in summary.left_out]
    assert names == [
        *(f"pictures/{name}.wav" for name in spoken),
        "sounds/voicemail.wav",
        "videos/countdown.mp4",
    ]
    assert not list(tmp_path.rglob("*.wav")) and not list(tmp_path.rglob("voicemail.*"))
    assert (tmp_path / "pictures" / "coffee.txt").exists()
    assert all(isinstance(one, Record) for one in gather([tmp_path]))


def test_without_scikit_learn_its_pictures_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(starter._FOLDERS, "sklearn", ("scikit-learn", "no/such/folder"))
    monkeypatch.setattr(starter, "VIDEOS", {})
    monkeypatch.setattr(starter.words, "MESSAGES", {})
    silent = {name: one._replace(voice="") for name, one in words.PICTURES.items()}
    monkeypatch.setattr(starter.words, "PICTURES", silent)
    summary = starter.build(tmp_path)
    assert [line.split(":")[0] for line in summary.left_out] == [
        "pictures/dahlia.jpg",
        "pictures/pagoda.jpg",
        "album/boats.jpg",
    ]
    assert not (tmp_path / "pictures" / "pagoda.txt").exists()
    assert all(isinstance(one, Record) for one in gather([tmp_path]))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(HarmoniaError, match="cannot write the collection"):
        starter.build(tmp_path / "file")


def test_speech_has_voice_and_pauses() -> None:
    pytest.importorskip("espeakng_loader")
    sound = speak("One. Two.", "en-us")
    assert sound.rate == 22050 and sound.array.dtype == np.float32
    blocks = np.abs(sound.array[0][: sound.array.shape[1] // 441 * 441]).reshape(-1, 441).max(1)
    assert (blocks > 0.1).sum() > 15  # at least 0.3 s of voice
    assert (blocks < 0.01).sum() > 5  # and a pause
    assert not np.array_equal(sound.array, speak("One. Two.", "en-us+f3").array)
    with pytest.raises(SpeechMissing, match="voice no-such-voice"):
        speak("Hello", "no-such-voice")


def test_captions_have_words_of_their_own() -> None:
    captions = [picture.caption for picture in words.PICTURES.values()]
    captions += [detail.caption for detail in words.DETAILS.values()]
    vocabularies = [{word.strip(".,:;").lower() for word in one.split()} for one in captions]
    counts = Counter(word for vocabulary in vocabularies for word in vocabulary)
    for caption, vocabulary in zip(captions, vocabularies, strict=True):
        assert sum(counts[word] == 1 for word in vocabulary) >= 3, caption
