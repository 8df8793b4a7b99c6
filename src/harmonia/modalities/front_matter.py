"""The front matter of Markdown: YAML between lines of ``---``, or TOML between ``+++``, before a note."""

from __future__ import annotations

import json
import math
import re
import tomllib
from datetime import date, datetime, time
from functools import cache
from pathlib import Path
from typing import Any

from harmonia.modalities.limits import Limits, Source, opened
from harmonia.modalities.metadata_values import Facts
from harmonia.modalities.text_encoding import decode

SUFFIXES = (".md", ".markdown", ".mdx")
MOST, KEYS_MOST, DEPTH = 1 << 16, 64, 32
"""Characters, keys, and levels of front matter; what is more stays text."""
OWN = ("path", "name", "folder", "modified", "generated", "vector_stores", "namespace")
"""Keys that Harmonia sets itself; a note may not say of itself where it is and to whom it belongs."""
_BLOCK = re.compile(
    r"(?P<rule>---|\+\+\+)[ \t]*\n(?P<inside>(?:.*\n)??)(?:(?P=rule)|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL
)


def facts_of(path: Path, limits: Limits) -> Facts:
    """The front matter of a Markdown file; {} for a text without, and for other kinds of text.

    HarmoniaError if the file cannot be read.
    """
    if path.suffix.lower() not in SUFFIXES:
        return {}
    with opened(path, limits) as file:
        text = decode(file.read(limits.text_bytes))
    facts, _ = split((text or "").replace("\r\n", "\n").replace("\r", "\n"))
    return {key: value for key, value in facts.items() if key.lower() not in OWN}


def length(source: Source, text: str) -> int:
    """Characters of front matter at the beginning of a file's text; 0 where nothing would be left."""
    if not isinstance(source, str | Path) or Path(source).suffix.lower() not in SUFFIXES:
        return 0
    body = split(text)[1]
    return len(text) - len(body) if body.strip() else 0


def split(text: str) -> tuple[Facts, str]:
    """Metadata and body of a note with line ends ``\\n``; ({}, text) for one without, or with a broken one.

    Values are text, numbers, true or false, and lists; dates become ISO text, other values JSON. YAML is that
    of version 1.2, where ``no`` is a word. Aliases are refused, since a few of them expand without end.
    """
    found = _BLOCK.match(text, 0, MOST)
    if found is None or (found["rule"] == "---" and not found["inside"].strip()):
        return {}, text
    try:
        held = _yaml(found["inside"]) if found["rule"] == "---" else tomllib.loads(found["inside"])
        if not isinstance(held, dict) or len(held) > KEYS_MOST:
            return {}, text
        plain = {_clean(str(key)): _plain(value) for key, value in held.items()}
    except (ValueError, RecursionError):
        return {}, text
    facts = {key: value for key, value in plain.items() if key and value is not None and value != ""}
    for key in ("tags", "keywords"):
        if isinstance(facts.get(key), str):
            facts[key] = [tag.strip() for tag in facts[key].split(",") if tag.strip()]
        elif isinstance(facts.get(key), list):  # filters see lists of texts
            facts[key] = [str(tag) for tag in facts[key]]
    return facts, text[found.end() :]


def _yaml(block: str) -> Any:
    """YAML of plain values; a ValueError for what is none."""
    import yaml

    try:
        depth = 0
        for event in yaml.parse(block, _loader()):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("aliases")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEPTH:
                raise ValueError("too deep")
        return yaml.load(block, _loader())
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


@cache
def _loader() -> Any:
    """A safe loader with the scalars of YAML 1.2's core schema, and dates; what is no value is its text."""
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc]
        yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (as the library has it)

    scalars = {
        "null": (r"~|null|Null|NULL|", lambda text: None),
        "bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
        "int": (r"[-+]?[0-9]{1,18}", int),
        "float": (r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", float),
        "timestamp": (
            r"\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[-+]\d\d:\d\d)?)?",
            lambda text: (datetime if len(text) > 10 else date).fromisoformat(text),
        ),
    }
    for name, (pattern, value_of) in scalars.items():
        tag = f"tag:yaml.org,2002:{name}"
        Loader.add_implicit_resolver(tag, re.compile(rf"(?:{pattern})\Z"), None)

        def construct(loader: Any, node: Any, value_of: Any = value_of) -> Any:
            text = loader.construct_scalar(node)
            try:
                return value_of(text)
            except ValueError:
                return text

        Loader.add_constructor(tag, construct)
    return Loader


def _plain(value: Any) -> Any:
    match value:
        case str():
            return _clean(value)
        case bool():
            return value
        case int():
            return value if abs(value) < 1 << 63 else str(value)
        case float():
            return value if math.isfinite(value) else None
        case date() | time():
            return value.isoformat()
        case dict():
            return _clean(json.dumps(value, ensure_ascii=False, default=str))
        case list() | tuple():
            items = [item for given in value if (item := _plain(given)) is not None]
            return [json.dumps(item) if isinstance(item, list) else item for item in items]
    return None


def _clean(text: str) -> str:
    """Without NULs and halves of surrogate pairs, which YAML can write as escapes."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode().strip()
