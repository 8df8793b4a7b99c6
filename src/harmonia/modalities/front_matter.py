"""The front matter of Markdown: YAML between two lines of dashes at the beginning of a note."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Any

from harmonia.modalities.limits import Limits, Source, opened

SUFFIXES = (".md", ".markdown", ".mdx", ".qmd", ".rmd")
# Characters; more is a text that begins with a rule.
MOST = 1 << 16
_BLOCK = re.compile(r"\ufeff?---[ \t]*\r?\n(.*?)\r?\n(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL)


def body(source: Source, text: str) -> str:
    """The text of a file without its front matter; all of it where nothing else is there."""
    rest = split(text)[1] if _is_markdown(source) else text
    return rest if rest.strip() else text


def facts_of(path: Path, limits: Limits) -> dict[str, Any]:
    """The front matter of a Markdown file; {} for any other."""
    if not _is_markdown(path):
        return {}
    with opened(path, limits) as file:
        head = file.read(MOST)
    return split(head.decode("utf-8", "replace").replace("\r\n", "\n"))[0]


def _is_markdown(source: Source) -> bool:
    return isinstance(source, str | Path) and Path(source).suffix.lower() in SUFFIXES


def split(text: str) -> tuple[dict[str, Any], str]:
    """The metadata and the body of a note; ({}, text) for one without front matter, or with a broken one.

    Values are text, numbers, true or false, and lists of these; dates become text. Anchors are refused, since
    a few of them expand without end.
    """
    found = _BLOCK.match(text)
    if found is None or len(found[1]) > MOST:
        return {}, text
    import yaml

    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(found[1], yaml.SafeLoader)):
            return {}, text
        held = yaml.safe_load(found[1])
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}, text
    if not isinstance(held, dict):
        return {}, text
    plain = {str(key): value for key, given in held.items() if (value := _plain(given)) is not None}
    return plain, text[found.end() :]


def _plain(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, list):
        return [item for given in value if (item := _plain(given)) is not None and not isinstance(item, list)]
    return value if isinstance(value, str | bool | int | float) else None
