"""The command `harmonia serve`."""

from __future__ import annotations

from pathlib import Path

import click

from harmonia.cli.common import find_memory, memory_option

FOLDER = click.Path(file_okay=False, path_type=Path)
EXTRA = ("fastapi", "starlette", "uvicorn", "pydantic", "prometheus_client", "h11", "python_multipart")
"""The packages of the extra ``server``."""


@click.command("serve")
@memory_option
@click.option("--host", default="127.0.0.1", show_default=True,
              help="Address to listen on; any other than loopback needs --keys.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=8765, show_default=True,
              help="Port to listen on; 0 picks a free one.")  # fmt: skip
@click.option("--root", "roots", type=FOLDER, multiple=True, metavar="DIR",
              help="Folder whose files clients may add by path; repeatable.")  # fmt: skip
@click.option("--keys", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="File with the hashes of the API keys; clients must then send a key.")  # fmt: skip
@click.option("--new-key", metavar="NAME", help="Create an API key in --keys, print it, and exit.")
@click.option("--scope", type=click.Choice(["read", "write", "admin"]), default="read", show_default=True,
              help="Scope of the new key.")  # fmt: skip
@click.option("--namespace", metavar="NAME",
              help="Bind the new key to a namespace: it sees and changes its own records only.")  # fmt: skip
@click.option("--generator", type=FOLDER, metavar="DIR",
              help="Folder of an image generator (default: built in).")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0), default=0.0, metavar="N",
              help="Maximum requests per second of each key or address (default: unlimited).")  # fmt: skip
@click.option("--burst", type=click.IntRange(0), default=0, metavar="N",
              help="Requests at once before --rate applies (default: those of five seconds).")  # fmt: skip
@click.option("--upload", type=click.IntRange(1, 4096), default=64, show_default=True, metavar="MIB",
              help="Maximum size of a request body.")  # fmt: skip
@click.option("--json", "json_size", type=click.IntRange(1, 4096), default=32, show_default=True,
              metavar="MIB", help="Maximum size of a JSON body.")  # fmt: skip
@click.option("--in-flight", type=click.IntRange(1, 65536), default=512, show_default=True, metavar="MIB",
              help="Maximum size of all bodies received at one time.")  # fmt: skip
@click.option("--cors", multiple=True, metavar="ORIGIN",
              help="Origin whose pages may use the API (https://photos.example); repeatable.")  # fmt: skip
@click.option("--fetch", is_flag=True, help="Allow image_url to name public internet addresses.")
@click.option(
    "--name", "names", multiple=True, metavar="HOST", help="Host name that clients use; repeatable."
)
def command(
    memory: Path | None, host: str, port: int, roots: tuple[Path, ...], keys: Path | None,
    new_key: str | None, scope: str, namespace: str | None, generator: Path | None, rate: float,
    burst: int, upload: int, json_size: int, in_flight: int, cors: tuple[str, ...], fetch: bool,
    names: tuple[str, ...],
) -> None:  # fmt: skip
    """Start the HTTP server.

    It offers an OpenAI-compatible API, the full API of the memory, and a web page. While it runs, recall,
    retrieve, ask and remember go through it if they name the same memory.

    \b
    harmonia serve
    harmonia serve --keys keys.json --new-key phone --scope write
    harmonia serve --keys keys.json --new-key team --scope write --namespace team
    harmonia serve --host 0.0.0.0 --keys keys.json --name memory.local
    """
    if new_key is not None:
        _add_key(keys, new_key, scope, namespace)
        return
    if namespace is not None:
        raise click.UsageError("--namespace needs --new-key NAME: it binds the new key")
    from harmonia.types import HarmoniaError

    try:
        from harmonia.server.app import create_app
        from harmonia.server.launcher import Server, bind
        from harmonia.server.settings import Settings
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        raise HarmoniaError("the server needs more packages: pip install 'harmonia[server]'") from None
    settings = Settings(
        find_memory(memory), host, port, keys, roots, names, str(generator or ""), fetch,
        upload=upload * 2**20, rate=rate, burst=burst, json=json_size * 2**20, in_flight=in_flight * 2**20,
        cors=cors,
    )  # fmt: skip
    listener = bind(settings)
    with listener:
        app = create_app(settings)
        collection = app.state.service.collection
        if collection.exists:
            collection.encoders.load_all()
        Server(app, settings, listener, _print_url).run()


def _print_url(url: str) -> None:
    click.echo(url)
    click.echo("Ctrl-C stops the server.", err=True)


def _add_key(keys: Path | None, name: str, scope: str, namespace: str | None) -> None:
    if keys is None:
        raise click.UsageError("--new-key needs --keys FILE, the file that stores its hash")
    from harmonia.server.keys import new_key

    secret = new_key(keys, name, scope, namespace)
    click.echo(secret)
    click.echo(f"This key is shown only once; {keys} stores its hash.", err=True)
