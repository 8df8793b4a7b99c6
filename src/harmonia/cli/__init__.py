"""The command line, one file for each command. A command imports what it needs when it runs."""

from __future__ import annotations

import gc
import importlib
import os
import sys

import click

from harmonia import __version__

COMMANDS = {
    "remember": "Add files, folders and manifests to the memory.",
    "recall": "Recall whole records from any part of them.",
    "ask": "Answer a question from the recalled records.",
    "imagine": "Generate images from cues and what they recall.",
    "retrieve": "Search by nearest neighbours, as a baseline for recall.",
    "show": "Show a record and all its parts.",
    "status": "Show what the memory holds, and its encoders.",
    "serve": "Start the HTTP server.",
    "learn": "Calibrate modality weights on the stored records.",
    "train": "Train an encoder or a generator from a recipe.",
    "evaluate": "Evaluate an encoder or a generator on a dataset.",
    "reconstruct": "Reconstruct images with an autoencoder.",
    "denoise": "Denoise images with an autoencoder.",
    "anomaly": "Score images by novelty.",
    "memory": "Report capacity, hubs and spurious attractors.",
    "forget": "Remove records from the memory.",
    "export": "Export the records as a manifest, with or without their media.",
}
"""The commands and their summaries; each is also the first line of the command's own help."""


class _Lazy(click.Group):
    """A group that imports a command's module only to run the command or to show its help."""

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
    """A local multimodal memory.

    Add images, audio, video and text, then recall whole records from any part of them.
    The memory is the nearest .harmonia folder, here or above, unless --memory names another.
    """


def main() -> None:
    """Run the command line. A failure that the user can act on prints one line and exits with code 1."""
    # The garbage collector runs hundreds of times while packages are imported, and once more over all of
    # their objects at exit: together a quarter of the processor time of a short command.
    gc.set_threshold(100_000)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print("harmonia: interrupted", file=sys.stderr)
        code = 130
    except BrokenPipeError:
        # The reader of the output has closed it (`| head`); keep Python from reporting that at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Exception as error:
        from harmonia.types import HarmoniaError

        if not isinstance(error, HarmoniaError):
            raise
        print(f"harmonia: {error}", file=sys.stderr)
        code = 1
    gc.freeze()
    sys.exit(code if isinstance(code, int) else 0)
