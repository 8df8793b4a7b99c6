"""Write docs/llms.txt, a list of the documents for language models, from the navigation of the site.

    python -m tools.llms_txt

The form is that of https://llmstxt.org: a title, a summary, and a section of links for each kind of
document.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from tools.dependencies import REPOSITORY

DOCS = REPOSITORY / "docs"
TARGET = DOCS / "llms.txt"


def project() -> dict[str, Any]:
    """What zensical.toml says of the site."""
    found: dict[str, Any] = tomllib.loads((REPOSITORY / "zensical.toml").read_text("utf-8"))["project"]
    return found


def pages(nav: list[dict[str, Any]], section: str = "") -> Iterator[tuple[str, str, str]]:
    """Section, title and path in docs/ of each page of a navigation."""
    for entry in nav:
        for title, target in entry.items():
            if isinstance(target, str):
                yield section, title, target
            else:
                yield from pages(target, title)


def llms_txt() -> str:
    """The text of docs/llms.txt; KeyError for a page without a line in [project.extra.about]."""
    facts = project()
    about = facts["extra"]["about"]
    lines = [f"# {facts['site_name']}", "", f"> {facts['site_description']}", ""]
    current = ""
    for section, title, path in pages(facts["nav"]):
        if section != current:
            current = section
            lines += ["", f"## {section}", ""]
        lines.append(f"- [{title}]({path}): {about[path]}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TARGET.write_text(llms_txt(), encoding="utf-8")
