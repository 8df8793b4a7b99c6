"""Text in every encoding that people's notes are in; a stray byte costs itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harmonia.modalities import text
from harmonia.modalities.text_encoding import decode
from harmonia.types import HarmoniaError

NOTES = {
    "fr": "Hier soir, nous avons marché jusqu'à la forêt près du château. Les élèves étaient très fatigués.",
    "de": "Gestern waren wir mit den Kindern am Bodensee. Das Wasser war kühl, aber schön; später aßen wir.",
    "es": "El niño pequeño corrió por la montaña mañana y tarde. ¿Dónde está el corazón del árbol?",
    "pt": "Amanhã não há sessão na praia, mas o avô vai à feira comprar maçãs e pão em São João.",
    "ru": "Вчера мы ходили на море с детьми. Вода была холодная, но солнце светило весь день.",
    "uk": "Учора ми ходили до лісу по гриби. Їх було багато, і бабуся приготувала смачний борщ.",
    "el": "Χθες πήγαμε στη θάλασσα με τα παιδιά. Το νερό ήταν κρύο αλλά ο ήλιος έλαμπε όλη μέρα.",
    "he": "אתמול הלכנו לים עם הילדים. המים היו קרים אבל השמש זרחה כל היום.",
    "ar": "ذهبنا أمس إلى البحر مع الأطفال. كان الماء باردا لكن الشمس أشرقت طوال اليوم.",
    "ja": "昨日は家族と海に行きました。水は冷たかったけれど、天気がとても良くて、夕方は歌を歌いました。",
    "zh": "昨天我们和孩子们一起去了海边。水很冷，但是整天都有太阳，晚上我们在岸边吃鱼唱歌。",
    "ko": "어제 우리는 아이들과 함께 바다에 갔습니다. 물은 차가웠지만 하루 종일 해가 비쳤습니다.",
    "hi": "कल हम बच्चों के साथ समुद्र गए थे। पानी ठंडा था, लेकिन सूरज सारा दिन चमका।",
}
LEGACY = [
    ("fr", "cp1252"), ("de", "cp1252"), ("es", "cp1252"), ("pt", "cp1252"), ("de", "latin-1"),
    ("ru", "cp1251"), ("ru", "koi8_r"), ("ru", "cp866"), ("ru", "iso8859_5"), ("uk", "cp1251"),
    ("el", "cp1253"), ("he", "cp1255"), ("ar", "cp1256"), ("ja", "shift_jis"), ("ja", "euc_jp"),
    ("zh", "gb18030"), ("ko", "cp949"),
]  # fmt: skip
STRAYS = b"\xff\xfe\xc0\xc1\xf5\x80\x9f"
UNICODE = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]


@pytest.mark.parametrize(("language", "encoding"), LEGACY)
@pytest.mark.parametrize("length", [24, 48, 1000])
def test_notes_in_the_encodings_of_older_systems(language: str, encoding: str, length: int) -> None:
    note = NOTES[language][:length]
    assert decode(note.encode(encoding)) == note


@pytest.mark.parametrize("encoding", UNICODE)
@pytest.mark.parametrize("language", NOTES)
def test_unicode_with_and_without_a_mark(language: str, encoding: str) -> None:
    for note in (NOTES[language], NOTES[language][:12], NOTES[language] + "\r\n1, 2, 3 and English too\n"):
        assert decode(note.encode(encoding)) == note


WIDE = [
    *NOTES.values(),
    "日记", "中文", "你好世界", "我今天很高兴。",
    "人之初性本善性相近习相远苟不教性乃迁教之道贵以专",
    "こんにちは", "あいうえおかきくけこさしすせそ", "カタカナダケノメモ",
    "안녕하세요", "대한민국만세", "Привет", "Здравствуйте", "Γειασουκόσμε",
    "שלום", "السلام", "مرحباصديقي", "नमस्ते", "హలోహలోహలోహలో", "สวัสดีครับผม", "ഹലോ", "ქართული", "Հայերեն",
    "😀", "🎉🎊🥳🎈🎁🎂🍰🥂", "Hello 😀, how are you? 👍🏽", "ab", "a",
    "smile 🙂 日本 é",
    "1, 2, 3", "ÄÖÜ", "ŁódźŻółćĘą", "— “quoted” —", "€ 5 — ½", "Tiếng Việt có nhiều dấu",
]  # fmt: skip


@pytest.mark.parametrize("note", WIDE)
@pytest.mark.parametrize(("mark", "encoding"), [(b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")])
def test_a_marked_text_of_any_script_is_utf_16(note: str, mark: bytes, encoding: str) -> None:
    for told in (note, note * 3, f"{note}\n{note}"):
        assert decode(mark + told.encode(encoding)) == told


@given(
    st.sampled_from(
        [(0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0x3041, 0x3093), (0x1F600, 0x1F64F), (0x621, 0x64A)]
    ),
    st.data(),
)
@settings(max_examples=300, deadline=None)
def test_marked_characters_of_one_script_are_utf_16(script: tuple[int, int], data: st.DataObject) -> None:
    letters = st.integers(*script).map(chr)
    note = data.draw(st.text(letters, min_size=12, max_size=60))
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        assert decode(mark + note.encode(encoding)) == note


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
@pytest.mark.parametrize(
    "note",
    [
        *NOTES.values(), "a plain note", "shopping: milk, bread, 2 eggs", "2024-05-01 12:30 to 14:00, 5 x 3",
        "Привет", "Γειασουκόσμε", "naïve café, über Köln", "-------------\n| a | b |\n-------------",
        "x = 1\ny = 2\nz = 3",
    ],
)  # fmt: skip
def test_a_stray_mark_costs_itself(note: str, mark: bytes) -> None:
    assert decode(mark + note.encode()) == 2 * "\ufffd" + note


@pytest.mark.parametrize("language", ["fr", "de", "es", "pt"])
@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_a_stray_mark_before_latin_text_costs_itself(language: str, mark: bytes) -> None:
    found = decode(mark + NOTES[language].encode("cp1252"))
    assert found is not None and found[2:] == NOTES[language]


def test_marks_of_the_big_endian() -> None:
    assert decode(b"\xfe\xff" + "Привет".encode("utf-16-be")) == "Привет"
    assert decode(b"\x00\x00\xfe\xff" + "Привет".encode("utf-32-be")) == "Привет"


@given(
    st.sampled_from(sorted(NOTES)),
    st.integers(2, 5),
    st.lists(st.tuples(st.integers(0, 10**6), st.sampled_from(STRAYS)), max_size=4),
)
@settings(max_examples=300, deadline=None)
def test_stray_bytes_cost_themselves(language: str, times: int, strays: list[tuple[int, int]]) -> None:
    note = " ".join([NOTES[language]] * times)
    if sum(character > "\x7f" for character in note) < 4 * len(strays):
        return
    pieces = [character.encode() for character in note]
    shown = list(note)
    for place, byte in strays:
        pieces.insert(place % len(pieces), bytes([byte]))
        shown.insert(place % len(shown), "\ufffd")
    assert decode(b"".join(pieces)) == "".join(shown)


@given(st.sampled_from(sorted(NOTES)), st.integers(0, 10**6), st.integers(128, 255))
@settings(max_examples=300, deadline=None)
def test_a_byte_within_a_character_costs_that(language: str, place: int, byte: int) -> None:
    note = NOTES[language] + " " + NOTES[language]
    raw = note.encode()
    place %= len(raw)
    found = decode(raw[:place] + bytes([byte]) + raw[place:]) or ""
    before, after = raw[:place].decode("utf-8", "ignore"), raw[place:].decode("utf-8", "ignore")
    assert found.startswith(before[:-1]) and found.endswith(after[1:])


@given(st.sampled_from(sorted(NOTES)), st.integers(20, 80))
@settings(max_examples=100, deadline=None)
def test_a_cut_costs_the_last_character(language: str, size: int) -> None:
    raw = NOTES[language].encode()[:size]
    whole = raw.decode("utf-8", "ignore")
    if any(character > "\x7f" for character in whole):
        found = decode(raw)
        assert found is not None and found.rstrip("\ufffd") == whole
    every = NOTES[language].encode("utf-16-le")
    wide = every[: min(size | 1, len(every) - 1)]
    assert (decode(wide) or "").rstrip("\ufffd") == wide[:-1].decode("utf-16-le")


@pytest.mark.parametrize("raw", [b"a note \xe2\x82", b"one caf\xe9", b"caf\xe9 \x80 5", b"na\xefve"])
def test_few_bytes_beyond_ascii(raw: bytes) -> None:
    right = raw.decode("utf-8", "replace") if raw.endswith(b"\x82") else raw.decode("cp1252")
    assert decode(raw) == right


def test_nuls_cost_themselves() -> None:
    assert decode(b"a log that a crash has cut\n" + bytes(4096)) == "a log that a crash has cut\n"
    assert decode(b"a note with one\0 stray byte in it") == "a note with one\ufffd stray byte in it"


@pytest.mark.parametrize("seed", range(20))
def test_binary_data_are_refused(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    for size in (64, 500, 5000):
        path = tmp_path / "x.txt"
        path.write_bytes(chance.randbytes(size))
        with pytest.raises(HarmoniaError, match="is not text"):
            text.read(path)
        path.write_bytes(b"\xff\xfe" + chance.randbytes(max(size, 200)))
        with pytest.raises(HarmoniaError, match=r"x\.txt is"):
            text.read(path)


@pytest.mark.parametrize(
    ("raw", "right"),
    [
        (b"a note\0 of the\0 sea", "a note\ufffd of the\ufffd sea"),
        ("a\u2028b\u0085c".encode(), "a\u2028b\u0085c"),
        ("grüße\x1b[0m".encode(), "grüße\x1b[0m"),
        (b"\1a short note", "\1a short note"),
        (b"\1\2ab\3", None),
        (b"\0\1\0\2\0\3\0\4", None),
    ],
)
def test_a_short_note_may_hold_a_stray_control_character(raw: bytes, right: str | None) -> None:
    assert decode(raw) == right
