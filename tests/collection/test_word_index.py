"""The BM25 index of a memory's words, and what it does to recall."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import harmonia
from harmonia.collection.question_words import without_question_words
from harmonia.collection.word_index import WordIndex, stemmed
from harmonia.encoders.descriptors.text import tokens
from tests.media import make_photo

NOTES = {
    "rocket": "A white rocket stands on its launch pad at dusk, between steel masts and shining lamps.",
    "train": "Voicemail from Tom about his delayed train; he asks us to eat without him, you know.",
    "soup": "Lentil soup for four, with lentils, garlic and a bay leaf.",
    "moon": "The moon over a lake in the mountains",
    "cat": "A cat sleeps on the sofa in the sun",
    "school": "Minutes of the meeting on the new school, and what we do about the roof",
    "city": "東京の夜景",
    "party": "🎉 for Ada, at the lake",
}


def index(notes: dict[str, str] = NOTES) -> WordIndex:
    return WordIndex.build(sorted(notes), list(notes), list(notes.values()))


def best(words: str) -> str:
    return sorted(NOTES)[int(np.argmax(index().scores(words)))]


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("rocket", "rocket"), ("ROCKETS", "rocket"), ("lentil recipe", "soup"), ("sleeping cats", "cat"),
        ("What do you know about the rocket?", "rocket"), ("is there anything about a school", "school"),
        ("東京", "city"), ("🎉", "party"), ("the lake in the mountains", "moon"),
    ],
)  # fmt: skip
def test_the_rare_word_wins(words: str, name: str) -> None:
    assert best(words) == name


def test_a_word_of_every_record_counts_less_than_a_rare_one() -> None:
    notes = {str(n): f"the sea and w{n}" for n in range(30)}
    found = index(notes)
    assert found.scores("sea").max() < found.scores("w7").max() / 3
    assert found.scores("sea").std() < 1e-6


def test_words_that_only_ask_say_nothing_but_are_searched_when_there_are_no_others() -> None:
    found = index()
    assert found.informs("what is this?") == found.informs("") == 0
    assert 0.4 < found.informs("dinosaur") < 0.6 < found.informs("rocket")
    assert found.informs("rocket launch pad") == 1
    assert best("do you know") == "train"
    assert found.in_units_of_chance("dinosaur") is None


def test_records_without_words_have_no_score() -> None:
    found = WordIndex.build(["a", "b", "c"], ["a", "b", "gone"], ["sea", "hill", "sea"])
    scored = found.in_units_of_chance("sea")
    assert scored is not None
    assert np.isnan(scored).tolist() == [False, False, True]
    assert found.scores("sea").tolist()[1:] == [0, 0]
    assert not WordIndex.build([], [], []).scores("sea").size
    assert WordIndex.build(["a"], [], []).in_units_of_chance("sea") is None


@given(st.lists(st.text(max_size=40), min_size=1, max_size=6))
def test_the_index_reads_words_as_the_descriptor_does(texts: list[str]) -> None:
    """What a query is split into is what the texts were split into: each text is found by its own words."""
    ids = [str(n) for n in range(len(texts))]
    found = WordIndex.build(ids, ids, texts)
    of, _ = stemmed(texts)
    for n, text in enumerate(texts):
        if text.isascii():
            assert (of == n).sum() == len(tokens(text))
            assert not tokens(text) or found.scores(text)[n] > 0


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ("What do you know about the rocket?", "rocket"),
        ("Wo ist mein Schlüssel?", "schlussel"),
        ("Voicemail from Tom about his train", "Voicemail from Tom about his train"),
        ("what is this?", "what is this?"),
        ("", ""),
    ],
)
def test_a_question_is_compared_by_what_it_asks_for(asked: str, kept: str) -> None:
    assert without_question_words(asked) == kept


def test_recall_weighs_words_by_their_rarity(tmp_path: Path) -> None:
    for name, note in NOTES.items():
        (tmp_path / f"{name}.txt").write_text(note, encoding="utf-8")
    memory = harmonia.open(tmp_path / "m")
    memory.remember(tmp_path)
    for question, name in (
        ("What do you know about the rocket?", "rocket"),
        ("Tell me about the school, please", "school"),
        ("lentil recipe", "soup"),
    ):
        found = memory.recall(text=question)
        assert found.records[0].record.metadata["name"] == name
        assert not found.abstained
        assert found.records[0].shares["text"] == pytest.approx(1)
    # what counts against a record does so by its words as well
    found = memory.recall(text="lake", against=["moon"])
    assert found.records[0].record.metadata["name"] == "party"
    # and new notes are known at once
    (tmp_path / "late.txt").write_text("a submarine under the ice", encoding="utf-8")
    memory.remember(tmp_path)
    assert memory.recall(text="what about the submarine?").records[0].record.metadata["name"] == "late"


def test_words_that_say_nothing_do_not_veto_a_picture(tmp_path: Path) -> None:
    for seed in range(12):
        make_photo(tmp_path / f"{seed}.png", seed)
        (tmp_path / f"{seed}.txt").write_text(f"caption w{seed} of this: what it is", encoding="utf-8")
    memory = harmonia.open(tmp_path / "m")
    memory.remember(tmp_path)
    alone = memory.recall(image=tmp_path / "7.png")
    asked = memory.recall(image=tmp_path / "7.png", text="what is this?")
    for found in (alone, asked):
        assert not found.abstained
        assert found.records[0].record.metadata["name"] == "7"
    assert asked.records[0].probability == pytest.approx(alone.records[0].probability, abs=0.02)
