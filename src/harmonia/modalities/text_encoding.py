"""The encoding of text: by its mark, by the share of well-formed sequences, by what its script makes likely.

UTF-8 tells itself apart: in other encodings few bytes above 127 form its sequences, so a text most of whose
sequences are well formed is UTF-8 with stray bytes. Notes are short, and general detectors guess wrong on
them (charset-normalizer 3.5 on 40 characters of 16 languages: 40 % wrong), so few encodings are tried: a text
that none of them makes likely is refused. The alphabets of Czech and Turkish are read as Windows-1252.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise

REPLACED = "\ufffd"
SAMPLE = 2**16
"""Bytes or characters by which an encoding is told, where it is not UTF-8."""
_BREAKS = re.compile(r"(?<=[^\W\d_])(?![’'‘·\xad-])[^\w\s\x00-\x7f](?=[^\W\d_])|[¹²³](?=[^\W\d_])|\ufffd")
"""Signs inside of words, which letters of another encoding look like."""
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]")
# but for U+0085, which ends a line
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")
# the four-byte mark starts with the two-byte one, so it is tried first
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# most frequent letters, by which the single-byte encodings of one another's scripts are told apart
_CYRILLIC, _GREEK = "оеаинтсрвлкі", "αοιετσνηυρπκω"
_SCRIPTS = {
    "cp1251": _CYRILLIC, "koi8_u": _CYRILLIC, "cp866": _CYRILLIC, "iso8859_5": _CYRILLIC,
    "cp1253": _GREEK, "cp1255": "יוהלאתמרבשנ", "cp1256": "اليمونرتبةهد", "cp874": "านรอกเงมยลวดทตสะ",
}  # fmt: skip
# the first bytes of characters that are in common use, from the tables of each standard
_ROWS = {
    "euc_jp": (0xA4, 0xA5),
    "cp949": (0xB0, 0xC8),
    "gb18030": (0xB0, 0xD7),
    "big5": (0xA4, 0xC6),
}


def decode(raw: bytes) -> str | None:
    """Bytes as text, without a mark; None for what is not text, or of an encoding that cannot be told.

    Stray bytes become U+FFFD, and so do NULs among text; those at the end are dropped.
    """
    if (found := codec_of(raw)) is None:
        return None
    name, mark = found
    return _fit(raw[mark:].decode(name, "replace"))


def codec_of(raw: bytes) -> tuple[str, int] | None:
    """The encoding of text and the length of its mark in bytes; None for what is not text.

    Where the bytes are only the beginning of a text, they should end with a line.
    """
    for mark, name in _MARKS:
        if raw.startswith(mark):
            text = _fit(raw[len(mark) :].decode(name, "replace"))
            likely = text is not None and _strange(text[:SAMPLE]) <= 1 + len(text) // 20
            if likely and (name == "utf-8" or not _is_narrow(raw[len(mark) :])):
                return name, len(mark)
            rest = _strict(raw[len(mark) :], "utf-8")
            if rest and "\0" not in rest and _fit(rest) is not None:
                return "utf-8", 0  # the mark is stray bytes
    with suppress(UnicodeDecodeError):
        if "\0" not in raw.decode() and _fit(raw.decode()) is not None:
            return "utf-8", 0
    name = _wide(raw) or encoding_of(raw.rstrip(b"\0")) or ""
    return (name, 0) if name and _fit(raw.decode(name, "replace")) is not None else None


def encoding_of(raw: bytes) -> str | None:
    """The encoding of text of bytes without a mark; None if it cannot be told."""
    try:
        raw.decode()
        return "utf-8"
    except UnicodeDecodeError as error:
        ends = error.end == len(raw) and error.reason == "unexpected end of data"
        cut = len(raw) - error.start if ends else 0
    high = len(raw.translate(None, _ASCII))
    dense = high > 0.4 * (high + len(raw) - len(raw.translate(None, _ASCII_LETTERS)))
    text = raw.decode("utf-8", "replace")
    stray = text.count(REPLACED) - raw.count(REPLACED.encode())
    formed = len(_BEYOND_ASCII.findall(text)) - stray
    if cut > 1 and formed == 0 and stray == 1:
        return "utf-8"  # the end of the file cuts its only character beyond ASCII
    if formed > 3 * stray or (not dense and 2 * formed >= stray and formed):
        return "utf-8"
    found = _dense(raw[:SAMPLE]) if dense else _sparse(raw[:SAMPLE])
    return found or ("utf-8" if formed > stray else None)


_ASCII = bytes(range(128))
_ASCII_LETTERS = bytes(code for code in _ASCII if chr(code).isalpha())


def _fit(text: str) -> str | None:
    """Text with its NULs replaced; None where so much is control characters that it is binary data."""
    text = text.rstrip("\0")
    # a text may hold one or two stray control characters, binary data is full of them
    controls = len(_CONTROL.findall(text))
    if controls > 0.02 * len(text) and (controls > 2 or 8 * controls > len(text)):
        return None
    return text.replace("\0", REPLACED)


def _strange(text: str) -> int:
    """How many characters no text has: of no meaning, of private meaning, replaced."""
    return sum(c == REPLACED or unicodedata.category(c) in ("Cn", "Co", "Cs") for c in text)


def _is_narrow(raw: bytes) -> bool:
    """Whether bytes after a mark of UTF-16 are text of one-byte units all the same.

    UTF-16 has NULs, and control characters in most alphabets, where it is not all ideographs or syllables.
    Their bytes are seldom well-formed UTF-8, or letters of ASCII for long.
    """
    raw = raw[:SAMPLE].rstrip(b"\0")
    text = raw.decode("utf-8", "replace")
    if len(raw) < 8 or b"\0" in raw or _fit(text) is None:
        return False
    stray = text.count(REPLACED) - raw.count(REPLACED.encode())
    formed = len(_BEYOND_ASCII.findall(text)) - stray
    if formed >= 4 and formed > 3 * stray:
        return True
    # an alphabet or kana: the first halves of the units are the same
    halves = Counter(raw[::2]), Counter(raw[1::2])
    for one, other in (halves, halves[::-1]):
        byte, count = one.most_common(1)[0]
        if byte != 0x20 and 4 * count > len(raw) and 4 * other[byte] <= len(raw):
            return False
    words = len(raw) - len(raw.translate(None, _ASCII_LETTERS + b" ")) > 0.8 * len(raw)
    if len(raw) < 16:
        return words and stray == 0
    return words or stray == 0


def _wide(raw: bytes) -> str | None:
    """UTF-16 or UTF-32, of either byte order, for text without a mark; None if it is not that."""
    letters = len(raw) - len(raw.translate(None, _ASCII_LETTERS))
    if len(raw) < 4 or letters > 0.65 * len(raw):
        return None
    for name, width in (("utf-32-le", 4), ("utf-32-be", 4), ("utf-16-le", 2), ("utf-16-be", 2)):
        text = raw[: len(raw) // width * width].decode(name, "replace")
        if len(text) >= 2 and text.count(REPLACED) * 20 <= len(text) and _is_prose(text[:SAMPLE]):
            return name
    return None


def _is_prose(text: str) -> bool:
    """Whether characters could be a text: letters of one script, with what stands between words.

    Other bytes read as UTF-16 give characters of all scripts, and few of the usual spaces.
    """
    pages: dict[int, int] = {}
    odd = japanese = 0
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cn", "Co", "Cs") or (category == "Cc" and character not in "\t\n\r\f\v\x1b"):
            odd += 1
        code = ord(character)
        if code >= 128 and code not in _CJK_SIGNS:
            page = 0x4E if 0x4E00 <= code < 0xA000 or 0x3040 <= code < 0x3100 else code >> 8
            page = 0xAC if 0xAC00 <= code < 0xD7A4 else page
            pages[page] = pages.get(page, 0) + 1
            japanese += 0x8100 <= code < 0x8400
    letters = sum(pages.values())
    # Shift-JIS has its kana there when it is read in pairs
    if odd * 50 > len(text) or japanese > 0.3 * letters:
        return False
    if letters and max(pages) < 0x20:  # alphabets: two pages are usual (Latin letters with accents)
        return sum(sorted(pages.values())[-2:]) >= 0.95 * letters
    if not letters:
        return True
    # characters of words that ASCII letters, read in pairs, are not
    return max(pages.values()) >= 0.95 * letters and max(pages, key=pages.__getitem__) in (0x4E, 0xAC)


_CJK_SIGNS = {*range(0x3000, 0x3020), *range(0xFF00, 0xFF60), *range(0x2010, 0x2028)}


def _sparse(raw: bytes) -> str:
    """The encoding of a text mostly in ASCII letters: Windows-1252, or that of another Latin alphabet where
    the first puts signs or nothing inside of words.
    """

    def breaks(name: str) -> int:
        return len(_BREAKS.findall(raw.decode(name, "replace")))

    return min(("cp1252", "cp1250"), key=breaks)


def _dense(raw: bytes) -> str | None:
    """The encoding of a text mostly in bytes above 127; None where no encoding makes it likely."""
    scores: dict[str, float] = {}
    for name in ("cp932", *_ROWS, *_SCRIPTS):
        text = _strict(raw, name)
        others = [character for character in text or "" if character > "\x7f"]
        if text is not None and others and _fit(text) is not None:
            score: Callable[..., float] = _alphabet if name in _SCRIPTS else _ideographs
            scores[name] = score(text, others, name)
    best = max(scores, key=scores.__getitem__, default=None)
    return best if best and scores[best] >= 0.7 else None


def _strict(raw: bytes, name: str) -> str | None:
    """Bytes decoded, but for a character that the end cuts; None where they are not of the encoding."""
    decoder = codecs.getincrementaldecoder(name)()
    try:
        return decoder.decode(raw)
    except UnicodeDecodeError:
        return None


def _alphabet(text: str, others: list[str], name: str) -> float:
    """Near 1 for words whose letters are as frequent as usual, with capitals only at their beginnings."""
    bare = [unicodedata.normalize("NFD", character)[0].lower().replace("ς", "σ") for character in others]
    letters = sum(character in _SCRIPTS[name] for character in bare)
    torn = sum(a.islower() and b.isupper() for a, b in pairwise(text))
    return (letters - 2 * torn) / len(others) / 0.65


def _ideographs(text: str, others: list[str], name: str) -> float:
    """The share of characters that are in common use, for encodings of two bytes a character."""
    kana = sum("\u3041" <= character <= "\u30fe" for character in others)
    if name in ("cp932", "euc_jp"):
        if kana < 0.2 * len(others):  # Japanese has its endings in kana
            return 0.0
        usual = sum(re.match("[\u3000-\u30fe\u4e00-\u9fff\uff01-\uff5e]", one) is not None for one in others)
        return 1.1 * usual / len(others)
    low, top = _ROWS[name]
    usual = 0
    for character in others:
        code = character.encode(name)
        usual += (
            len(code) == 2
            and (low <= code[0] <= top or code[0] in (0xA1, 0xA3))
            and (code[1] >= 0xA1 or name == "big5")
        )
    # rows of Korean are the first ones of Chinese: where all are in them, it is Korean
    return (1.05 if name == "cp949" and usual == len(others) else 1.0) * usual / len(others) - kana / len(
        others
    )
