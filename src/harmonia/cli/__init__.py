"""The command line. One file per command; a command's imports happen when it runs."""

from __future__ import annotations

import importlib
import os
import sys

import click

from harmonia import __version__

COMMANDS = {
    "remember": "Remember files, folders and manifests.",
    "recall": "Recall whole records from any part of them.",
    "ask": "Answer in sentences made from the records that are recalled.",
    "imagine": "Generate pictures of what cues bring back.",
    "retrieve": "Plain nearest-neighbour search, to compare recall with.",
    "show": "Show one record with all its parts.",
    "status": "Say what the memory holds and which encoders made it.",
    "serve": "Serve the memory to programs and people.",
    "learn": "Learn from the memory's own records how far to trust what.",
    "train": "Train encoders by a recipe.",
    "evaluate": "Score a model on a public dataset.",
    "reconstruct": "Show what an autoencoder keeps of pictures.",
    "denoise": "Draw pictures again without their noise or damage.",
    "anomaly": "Say how unlike the memory pictures are.",
    "memory": "Look into the memory: room, hubs, false memories.",
    "forget": "Forget records.",
    "export": "Write the records out as a manifest, with or without their media.",
}


class _Lazy(click.Group):
    """Loads a command's module when the command runs or its own help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"harmonia.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="harmonia")
def cli() -> None:
    """Harmonia, a memory that sees, hears and reads.

    Give it photos, sounds, videos and notes; later give it any part of one and get the whole back.
    The memory lives in the folder .harmonia here or above, unless --memory says otherwise.
    """


def main() -> None:
    """Run the command line; every failure the user can act on is one line and exit code 1."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("harmonia: stopped", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        from harmonia.types import HarmoniaError

        if not isinstance(error, HarmoniaError):
            raise
        print(f"harmonia: {error}", file=sys.stderr)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
