"""Emoji: pictures (Noto Emoji, Apache 2.0) and their names and keywords in many languages (Unicode CLDR
annotations)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

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
    table_rows,
    text_parts,
)
from harmonia.types import HarmoniaError, Part, Record

HOW_TO_GET = (
    "take the folder png/128 (about 4,000 pictures) of googlefonts/noto-emoji and the folders "
    "common/annotations and common/annotationsDerived of unicode-org/cldr, both on GitHub, and put them there"
)

Words = dict[str, tuple[str, list[str]]]
"""Name and keywords by language."""


def emoji(
    folder: str | Path | None = None,
    split: str = "train",
    *,
    languages: Sequence[str] = (),
    keywords: bool = False,
) -> Records:
    """Records of a picture and the emoji's name in each language, one text part for each.

    Files: ``png/128/emoji_u*.png`` with CLDR's ``annotations/*.xml`` (and ``annotationsDerived/``); or the
    table ``noto.parquet`` (28 languages). ``languages`` are codes such as ``en`` or ``zh-hant``, all there
    are when empty. With ``keywords`` a second text for each language holds its keywords, joined by commas.
    There is no published split: ``train`` and ``all`` are everything.

    Metadata: dataset, split, name (English), path, hexcode, emoji, ``languages`` (one for each text part),
    ``tags`` (the English keywords), and from the table group and subgroup.
    """
    home = dataset_folder(folder, "emoji", "the emoji pictures", HOW_TO_GET)
    require_split(split, ("train",), "emoji")
    chosen = [language.lower().replace("_", "-") for language in languages]
    if (home / "noto.parquet").exists():
        return rows_to_records(
            home / "noto.parquet",
            table_rows(home / "noto.parquet"),
            lambda row: _from_table(row, chosen, keywords),
        )
    pictures = require_one(home, ("png/128", "128"), "the emoji pictures", HOW_TO_GET)
    names = require_one(home, ("annotations", "common/annotations"), "the emoji names", HOW_TO_GET)
    return _published(pictures, names, chosen, keywords)


def _from_table(row: Row, languages: Sequence[str], keywords: bool) -> Record | None:
    names, tags = (json.loads(need(row, column, str)) for column in ("names", "tags"))
    if not isinstance(names, dict) or not isinstance(tags, dict):
        raise ValueError("its names or tags are not a JSON object {language: ...}")
    words = {language: (str(name), _strings(tags.get(language))) for language, name in names.items()}
    facts = {key: row.get(key) for key in ("hexcode", "emoji", "group", "subgroup")}
    picture = embedded_part("image", row.get("png"))
    return _record(need(row, "name", str), picture, words, languages, keywords, facts)


def _published(pictures: Path, names: Path, languages: Sequence[str], keywords: bool) -> Records:
    words = _annotations([names, names.with_name("annotationsDerived")], languages)
    if absent := [one for one in languages if not any(one in known for known in words.values())]:
        raise HarmoniaError(f"{names} has no file for the language {absent[0]}; the names are those of CLDR")

    def rows() -> Rows:
        for number, path in enumerate(sorted(pictures.glob("emoji_u*.png")), start=1):
            yield number, {"path": path}

    def make(row: Row) -> Record | None:
        codes = row["path"].stem.removeprefix("emoji_u").split("_")
        character = "".join(chr(int(code, 16)) for code in codes)
        # CLDR leaves out the variation selector, some pictures' names have it
        known = words.get(character.replace("\ufe0f", ""))
        if not known:
            raise ValueError(f"no annotation names {row['path'].name}")
        name = known["en"][0] if "en" in known else next(iter(known.values()))[0]
        facts = {"hexcode": "-".join(code.upper() for code in codes), "emoji": character}
        return _record(name, media_part("image", row["path"]), known, languages, keywords, facts)

    yield from rows_to_records(pictures, rows(), make)


def _annotations(folders: Sequence[Path], languages: Sequence[str]) -> dict[str, Words]:
    """Names and keywords of every emoji: ``<annotation cp="X">a | b</annotation>`` are keywords, with
    ``type="tts"`` the name. Held in memory, about half a megabyte for each language."""
    words: dict[str, Words] = {}
    for path in (path for folder in folders for path in sorted(folder.glob("*.xml"))):
        language = path.stem.lower().replace("_", "-")
        if languages and language not in languages:
            continue
        try:
            found = [
                (one.get("cp"), one.get("type"), one.text)
                for one in ElementTree.parse(path).iter("annotation")
            ]
        except (OSError, ElementTree.ParseError) as error:
            raise HarmoniaError(f"{path} cannot be read: {error}; load it again") from error
        tags = {
            cp: [tag.strip() for tag in (text or "").split("|")] for cp, kind, text in found if kind is None
        }
        for cp, kind, text in found:
            if cp and kind == "tts" and text and text.strip():
                words.setdefault(cp.replace("\ufe0f", ""), {})[language] = (text.strip(), tags.get(cp, []))
    return words


def _record(
    name: str, picture: Part, words: Words, languages: Sequence[str], keywords: bool, facts: Row
) -> Record | None:
    """None when there is no name in any of the languages."""
    said = []
    for language in languages or words:
        if language in words:
            called, tags = words[language]
            said.append((language, called))
            if keywords and tags:
                said.append((language, ", ".join(tags)))
    if not said:
        return None
    tags = words.get("en", ("", []))[1]
    spoken = [language for language, _ in said]
    parts = (picture, *text_parts(text for _, text in said))
    return dataset_record("emoji", "train", name, parts, languages=spoken, tags=tags, **facts)


def _strings(values: object) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list) else []
