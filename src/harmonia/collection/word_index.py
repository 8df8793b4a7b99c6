"""A BM25 index of the words of a memory: rare words count, words that stand everywhere do not.

The code of a text weighs every word alike and matches spelling; how rare a word is in this memory only the
memory can say. Scores are Okapi BM25 (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework")
over all text of a record, with Snowball's English stems, and idf as in Lucene, which is never negative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harmonia.collection.question_words import meant
from harmonia.encoders.descriptors.text import IDEOGRAMS, SYMBOLS, tokens

# How soon a repeated word saturates, and how far long records are held back.
SATURATION, LENGTH = 0.4, 0.75
# A small memory says little about how rare a word is: as many records of other language are counted in, which
# lack each word that says something.
BACKGROUND = 50
# Of a record without words no score is known.
ABSENT = math.nan


@dataclass(frozen=True, eq=False)
class WordIndex:
    """Which records hold which words, as postings sorted by word.

    * ``vocabulary``: the number of each stem
    * ``start``: int64 ``(V + 1,)``, where the postings of each stem begin
    * ``record``: int64 ``(P,)``, the row of the record of each posting
    * ``weight``: float32 ``(P,)``, the saturated count of the stem in the record, 1 for one in a mean record
    * ``held``: bool ``(N,)``, which records have any words
    """

    vocabulary: dict[str, int]
    start: NDArray[np.int64]
    record: NDArray[np.int64]
    weight: NDArray[np.float32]
    held: NDArray[np.bool_]

    @classmethod
    def build(cls, record_ids: Sequence[str], owners: Sequence[str], texts: Sequence[str]) -> WordIndex:
        """The index of ``texts``, each of the record whose id is in ``owners``; others are left out."""
        row = pc.fill_null(pc.index_in(pa.array(owners, pa.string()), pa.array(record_ids, pa.string())), -1)
        of, stems = stemmed(texts)
        record = np.asarray(row, dtype=np.int64)[of]
        of_record = record >= 0
        record, known = record[of_record], stems.filter(pa.array(of_record)).dictionary_encode()
        size, count = len(known.dictionary), len(record_ids)
        pair, times = np.unique(
            np.asarray(known.indices, dtype=np.int64) * max(count, 1) + record, return_counts=True
        )
        stem, record = np.divmod(pair, max(count, 1))
        length = np.bincount(record, weights=times, minlength=count)
        held = length > 0
        mean = float(length[held].mean()) if held.any() else 1.0
        norm = SATURATION * (1 - LENGTH + LENGTH * length[record] / mean)
        return cls(
            {word: number for number, word in enumerate(known.dictionary.to_pylist())},
            np.searchsorted(stem, np.arange(size + 1)),
            record,
            ((1 + SATURATION) * times / (times + norm)).astype(np.float32),
            held,
        )

    def scores(self, words: str) -> NDArray[np.float32]:
        """BM25 scores of every record, float32 ``(records,)``; 0 where no word is held."""
        total = np.zeros(len(self.held), dtype=np.float32)
        for number in self._known(words):
            held = slice(*self.start[number : number + 2])
            total[self.record[held]] += self._rarity[number] * self.weight[held]
        return total

    def evidence(self, words: str) -> NDArray[np.float32]:
        """The square root of twice the ``scores``, float32 ``(records,)``; 0 where no word is held."""
        found: NDArray[np.float32] = np.sqrt(2 * self.scores(words))
        return found

    def in_units_of_chance(self, words: str) -> NDArray[np.float32] | None:
        """The square root of twice the ``scores``, about its mean; NaN where a record has no words at all.

        None if the words say nothing here. A record of N has words of idf s by chance with a probability of
        about e^-s, and a normal variable exceeds sqrt(2 s) with about the same: a word of one record alone
        scores what the best of all records does by chance, and evidence of several words adds up as it does
        for codes.
        """
        scores, held = self.scores(words), self.held
        if not scores.any():
            return None
        root = np.sqrt(2 * scores)
        return np.where(held, root - root[held].mean(), np.float32(ABSENT)).astype(np.float32)

    def holds_all(self, words: str) -> NDArray[np.bool_]:
        """Which records hold every one of the words that say something, bool ``(records,)``; none without
        any.
        """
        said = tokens(words)
        stems = _stems(meant(said) or said)
        held = np.full(len(self.held), bool(stems))
        for stem in stems:
            there = np.zeros(len(self.held), dtype=bool)
            if (number := self.vocabulary.get(stem)) is not None:
                there[self.record[slice(*self.start[number : number + 2])]] = True
            held &= there
        return held

    def informs(self, words: str) -> float:
        """How much the words can say about which record is meant, from 0 to 1.

        1 if together they are as rare as a word of one record alone. Words that only ask say nothing; a
        word that no record holds may yet be spelled otherwise, and says half.
        """
        asked = meant(tokens(words))
        if not asked:
            return 0.0
        most = math.log1p(self._texts)
        known = [self.vocabulary.get(stem) for stem in _stems(asked)]
        said = sum(most / 2 if number is None else self._rarity[number] for number in known)
        return min(1.0, float(said) / most)

    def _known(self, words: str) -> list[int]:
        """The numbers of the stems that count; all of them where every word only asks."""
        said = tokens(words)
        return [self.vocabulary[stem] for stem in _stems(meant(said) or said) if stem in self.vocabulary]

    @cached_property
    def _texts(self) -> int:
        """How many records the rarity of a word is counted over."""
        return int(self.held.sum()) + BACKGROUND

    @cached_property
    def _rarity(self) -> NDArray[np.float64]:
        """The idf of each stem."""
        among = np.diff(self.start)
        return np.log1p((self._texts - among + 0.5) / (among + 0.5))


def stemmed(texts: Sequence[str]) -> tuple[NDArray[np.int64], pa.Array]:
    """The stem of every word of ``texts``, in reading order, and the number of the text that it is of.

    Case and accents are folded; ideograms and emoji are words by themselves.
    """
    found = pc.utf8_lower(pc.utf8_normalize(pa.array(texts, pa.large_string()), "NFKD"))
    found = pc.replace_substring_regex(found, r"\p{M}+", "")
    found = pc.replace_substring_regex(found, _class(IDEOGRAMS + SYMBOLS, "([", "])"), r" \1 ")
    split = pc.split_pattern_regex(found, _class(SYMBOLS, r"[^\p{L}\p{N}", "]+"))
    words, of = pc.list_flatten(split), pc.list_parent_indices(split)
    there = pc.greater(pc.binary_length(words), 0)
    words, of = words.filter(there), np.asarray(of.filter(there), dtype=np.int64)
    distinct = words.dictionary_encode()
    stems = _stemmer().stemWords(distinct.dictionary.to_pylist())
    return of, pa.array(stems, pa.string()).take(distinct.indices)


def _stems(words: Sequence[str]) -> list[str]:
    """The stems of words, each once."""
    return list(dict.fromkeys(_stemmer().stemWords(list(words))))


def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("english")


def _class(ranges: str, before: str, after: str) -> str:
    """A character class of RE2, which takes code points in hexadecimal only."""
    return before + "".join(c if c == "-" else f"\\x{{{ord(c):x}}}" for c in ranges) + after
