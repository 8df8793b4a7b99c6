"""Write the `--help` blocks of docs/cli.md anew from the commands, 100 columns wide.

    python -m tools.cli_docs

A block begins with the line ``<!-- help NAME -->``. A block without a command, and a command without a block,
are errors: the page's order is its author's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import click
from click.testing import CliRunner

from harmonia.cli import COMMANDS, cli

PAGE = Path(__file__).parent.parent / "docs" / "cli.md"
BLOCK = re.compile(r"(<!-- help (?P<name>[a-z ]+) -->\n```\n).*?(\n```\n)", re.DOTALL)
COLUMNS = 100


def names() -> list[str]:
    """The program and every command and subcommand, such as ``memory report``."""
    found = ["harmonia"]
    with click.Context(cli) as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            found.append(name)
            if isinstance(command, click.Group):
                found += [f"{name} {sub}" for sub in command.list_commands(context)]
    return found


def help_of(name: str) -> str:
    """What ``harmonia NAME --help`` prints."""
    words = [] if name == "harmonia" else name.split()
    result = CliRunner().invoke(cli, [*words, "--help"], prog_name="harmonia", terminal_width=COLUMNS)
    return result.output.rstrip()


def page(text: str) -> str:
    """The page with every block as the commands print it now; ValueError for a block too few or too many."""
    documented = [match["name"] for match in BLOCK.finditer(text)]
    if sorted(documented) != sorted(names()):
        differing = ", ".join(sorted(set(documented) ^ set(names())) or documented)
        raise ValueError(f"docs/cli.md needs one block for each command; it differs in: {differing}")
    return BLOCK.sub(lambda match: match[1] + help_of(match["name"]) + match[3], text)


def main() -> None:
    """Rewrite docs/cli.md."""
    try:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    except ValueError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
