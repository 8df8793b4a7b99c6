"""A training-free text code: hashed words, word pairs and character n-grams.

It matches spelling, not meaning: "bike" finds "bikes" and mistyped words, never "bicycle". Case,
accents and punctuation do not count. Any script works; Chinese and Japanese go by character.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from harmonia.encoders.base import unit
from harmonia.types import Signal

Array = NDArray[np.float32]

DIM = 512
SPREAD = 8  # coordinates per feature: a sparse random projection, so no two features fully collide
GRAMS = (2, 3, 4, 5)
WEIGHT_WORD, WEIGHT_PAIR, WEIGHT_IDEOGRAM_PAIR, WEIGHT_COMMON = 0.5, 0.25, 0.7, 0.15

IDEOGRAMS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
SYMBOLS = "\u2190-\u2bff\U0001f000-\U0001faff"  # arrows to emoji
TOKEN = re.compile(f"[{IDEOGRAMS}{SYMBOLS}]|[^\\W_{IDEOGRAMS}{SYMBOLS}]+")
SINGLE = re.compile(f"[{IDEOGRAMS}{SYMBOLS}]")
# Frequent words of English, German, French and Czech, accents folded: they say little.
COMMON_WORDS = (
    "a an the and or of in on at to is are be am was were with for by from as it its this that these "
    "those there his her he she they their them while into up down out over near next has have i you "
    "we who which der die das ein eine einen einem einer und auf im mit von vor den dem zu ist sind "
    "un une le la les de des du et en dans sur avec est son sa ses qui au aux par pour v na se s z ve "
    "je si za k o do po"
)
COMMON = frozenset(COMMON_WORDS.split())


class TextDescriptor:
    """Hashed n-gram codes, ``dim`` 512. The same text gives the same code on any machine (to rounding)."""

    name = "descriptor-text-1"
    modality = "text"
    space = "descriptor-text-1"
    dim = DIM

    def encode(self, signals: Sequence[Signal]) -> Array:
        """Codes of texts of any length, float32 ``(n, 512)``, rows of unit norm."""
        rows = [describe(str(signal.data)) for signal in signals]
        return unit(np.asarray(rows, dtype=np.float32).reshape(len(rows), self.dim))


def describe(text: str) -> Array:
    """The descriptor of one text, not yet of unit norm; zeros when it holds no word."""
    words = tokens(text)
    out = np.zeros(DIM, dtype=np.float32)
    for word, count in Counter(words).items():
        out += np.float32(1 + np.log(count)) * _word(word)
    for first, second in dict.fromkeys(pairwise(words)):
        index, value = _pair(first, second)
        np.add.at(out, index, value)
    return out


def tokens(text: str) -> list[str]:
    """Words, ideograms and emoji in reading order, case and accents folded."""
    split = unicodedata.normalize("NFKD", text.casefold())
    return TOKEN.findall("".join(c for c in split if not unicodedata.combining(c)))


def _weight(word: str) -> float:
    if word in COMMON:
        return WEIGHT_COMMON
    return 1.0 if SINGLE.match(word) else min(1.0, len(word) / 4)


@lru_cache(maxsize=1 << 14)
def _word(word: str) -> Array:
    """A word and its character n-grams, norm ``_weight(word)``."""
    marked = f"<{word}>"
    grams = [marked[i : i + n] for n in GRAMS for i in range(len(marked) - n + 1)]
    out = np.zeros(DIM, dtype=np.float32)
    index, sign = _hashed(f"word {word}")
    np.add.at(out, index, np.float32(WEIGHT_WORD) * sign)
    share = np.float32(((1 - WEIGHT_WORD**2) / len(grams)) ** 0.5)
    for gram in grams:
        index, sign = _hashed(f"gram {gram}")
        np.add.at(out, index, share * sign)
    scaled: Array = np.float32(_weight(word)) * unit(out[None])[0]
    return scaled


@lru_cache(maxsize=1 << 15)
def _pair(first: str, second: str) -> tuple[NDArray[np.intp], Array]:
    """Where and how much two neighbouring words add."""
    index, sign = _hashed(f"pair {first} {second}")
    both = SINGLE.match(first) and SINGLE.match(second)
    weight = WEIGHT_IDEOGRAM_PAIR if both else WEIGHT_PAIR
    return index, np.float32(weight * (_weight(first) * _weight(second)) ** 0.5) * sign


def _hashed(feature: str) -> tuple[NDArray[np.intp], Array]:
    """SPREAD signed coordinates of a feature, unit norm (Kane and Nelson 2014, sparse JL)."""
    key = feature.encode("utf-8", "surrogatepass")
    bits = np.frombuffer(hashlib.blake2b(key, digest_size=4 * SPREAD).digest(), dtype="<u4")
    sign: Array = np.where(bits & 1, 1, -1).astype(np.float32) / np.float32(SPREAD**0.5)
    index: NDArray[np.intp] = (bits >> 1).astype(np.intp) % DIM
    return index, sign
