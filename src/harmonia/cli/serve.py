"""harmonia serve."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import find_memory, memory_option

FOLDER = click.Path(file_okay=False, path_type=Path)
EXTRA = ("fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client", "h11", "python_multipart")
"""What comes with the extra ``server``."""


@click.command("serve")
@memory_option
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address; any other than loopback needs --keys.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True,
              help="Port; 0 for any that is free.")  # fmt: skip
@click.option("--root", "roots", type=FOLDER, multiple=True, metavar="DIR",
              help="A folder from which clients may have files remembered by path.")  # fmt: skip
@click.option("--keys", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="API keys that clients need; the file holds their hashes.")  # fmt: skip
@click.option("--new-key", metavar="NAME", help="Add a key to --keys, print it, and end.")
@click.option("--scope", type=click.Choice(["read", "write", "admin"]), default="read", show_default=True,
              help="What the new key may do.")  # fmt: skip
@click.option("--generator", type=FOLDER, metavar="DIR",
              help="A folder with a generator of pictures (default: the one that ships).")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0), default=0.0, metavar="N",
              help="Requests a second that each key or address may make (default: any number).")  # fmt: skip
@click.option("--upload", type=click.IntRange(1, 4096), default=64, show_default=True, metavar="MIB",
              help="Largest body of a request.")  # fmt: skip
@click.option("--fetch", is_flag=True, help="Let image_url name addresses on the net (never private ones).")
@click.option("--name", "names", multiple=True, metavar="HOST", help="A host name by which clients call.")
def command(
    memory: Path | None, host: str, port: int, roots: tuple[Path, ...], keys: Path | None,
    new_key: str | None, scope: str, generator: Path | None, rate: float, upload: int, fetch: bool,
    names: tuple[str, ...],
) -> None:  # fmt: skip
    """Serve a memory to programs (OpenAI's API and more) and to people (a page).

    \b
    harmonia serve
    harmonia serve --keys keys.json --new-key phone --scope write
    harmonia serve --host 0.0.0.0 --keys keys.json --name memory.local
    """
    if new_key is not None:
        _add_key(keys, new_key, scope)
        return
    from harmonia.types import HarmoniaError

    try:
        from harmonia.server.app import create_app
        from harmonia.server.launcher import Server, bind
        from harmonia.server.settings import Settings
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise HarmoniaError("serving needs more packages: pip install 'harmonia[server]'") from None
    settings = Settings(
        find_memory(memory), host, port, keys, roots, names, str(generator or ""), fetch,
        upload=upload * 2**20, rate=rate,
    )  # fmt: skip
    listener = bind(settings)
    with listener:
        app = create_app(settings)
        held = app.state.service.collection
        if held.exists:
            held.encoders.load_all()
        Server(app, settings, listener, _say).run()


def _say(url: str) -> None:
    click.echo(url)
    click.echo("Ctrl-C stops the server.", err=True)


def _add_key(keys: Path | None, name: str, scope: str) -> None:
    if keys is None:
        raise click.UsageError("--new-key needs --keys FILE, where its hash is kept")
    from harmonia.server.keys import new_key

    secret = new_key(keys, name, scope)
    click.echo(secret)
    click.echo(f"This key is shown once; {keys} keeps its hash.", err=True)
