"""Settings of a server."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from harmonia.modalities import Limits
from harmonia.server.origins import named_origins
from harmonia.types import HarmoniaError


@dataclass(frozen=True)
class Settings:
    """The settings of one server.

    ``memory``      folder of the memory; created when something is first remembered
    ``host``        address to bind; addresses other than loopback need ``keys``
    ``port``        0 for any free port
    ``keys``        file of API keys (``harmonia serve --new-key``); None for no keys, on loopback only
    ``roots``       folders whose files clients may remember by path; none by default
    ``names``       allowed host names, besides loopback and ``host``
    ``generator``   folder of the image generator; "" for the built-in one
    ``fetch``       whether to fetch URLs in ``image_url`` (never from private networks)
    ``upload``      most bytes of a request body
    ``limits``      decoding limits of one file
    ``rate``        requests per second of one key (or address) in the long run; 0 for no limit
    ``burst``       requests at once before ``rate`` applies; 0 for those of five seconds
    ``json``        most bytes of a JSON body
    ``in_flight``   most bytes of all bodies that are received or answered at one time; further ones get 503
    ``cors``        origins whose pages may use the API (``https://photos.example``)
    ``patience``    seconds in which a request must arrive
    ``delay``       seconds that a recall waits for others in its batch
    ``batch``       most recalls in one batch
    ``queue``       most waiting requests; further ones get 503
    """

    memory: Path
    host: str = "127.0.0.1"
    port: int = 8765
    keys: Path | None = None
    roots: tuple[Path, ...] = ()
    names: tuple[str, ...] = ()
    generator: str = ""
    fetch: bool = False
    upload: int = 64 * 2**20
    limits: Limits = field(
        default=Limits(pixels=50_000_000, seconds=1800.0, decoded_bytes=2**29, text_bytes=4 * 2**20)
    )
    rate: float = 0.0
    burst: int = 0
    json: int = 32 * 2**20
    in_flight: int = 512 * 2**20
    cors: tuple[str, ...] = ()
    patience: float = 30.0
    delay: float = 0.002
    batch: int = 64
    queue: int = 1024

    def __post_init__(self) -> None:
        """Validate; HarmoniaError for unsafe or invalid settings."""
        if not self.local and self.keys is None:
            raise HarmoniaError(
                f"{self.host} is not a loopback address: give --keys FILE (create it with --new-key), "
                "or bind to 127.0.0.1"
            )
        for root in self.roots:
            if not root.is_dir():
                raise HarmoniaError(f"--root {root} is not a directory")
        if self.rate < 0 or self.burst < 0:
            raise HarmoniaError("rate and burst must not be negative")
        named_origins(self.cors)
        for name in ("upload", "json", "in_flight", "batch", "queue"):
            if getattr(self, name) < 1:
                raise HarmoniaError(f"{name} must be at least 1, not {getattr(self, name)}")

    @property
    def local(self) -> bool:
        """Whether the address is loopback."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
