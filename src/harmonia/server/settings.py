"""What a server is started with."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path

from harmonia.modalities import Limits
from harmonia.types import HarmoniaError


@dataclass(frozen=True)
class Settings:
    """The settings of one server.

    ``memory``      folder of the memory that is served; made when something is first remembered
    ``host``        address to bind; any other than loopback needs ``keys``
    ``port``        0 for any that is free
    ``keys``        file of API keys (``harmonia serve --new-key``); None for no keys, on loopback only
    ``roots``       folders from which files may be remembered by path; none by default
    ``names``       host names by which clients may call, besides loopback and ``host``
    ``generator``   folder of the generator that draws pictures; "" for the one that ships
    ``fetch``       whether ``image_url`` may name an address on the net (never a private one)
    ``upload``      most bytes of one request's body
    ``limits``      how much one file may make us decode
    ``rate``        requests a second that one key (or address) may make in the long run; 0 for any
    ``burst``       requests at once before ``rate`` counts
    ``patience``    seconds that a request may take to arrive
    ``delay``       seconds that a recall waits for others to share its batch
    ``batch``       most recalls in one batch
    ``queue``       most requests that wait; more are told to come again
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
    burst: int = 100
    patience: float = 30.0
    delay: float = 0.002
    batch: int = 64
    queue: int = 1024

    def __post_init__(self) -> None:
        """HarmoniaError for settings that are not safe or cannot be meant."""
        if not self.local and self.keys is None:
            raise HarmoniaError(
                f"{self.host} can be reached by others: give --keys FILE (make one with --new-key), "
                "or bind to 127.0.0.1"
            )
        for root in self.roots:
            if not root.is_dir():
                raise HarmoniaError(f"{root} is no folder: give one that is there as --root")
        for name in ("upload", "burst", "batch", "queue"):
            if getattr(self, name) < 1:
                raise HarmoniaError(f"{name} is {getattr(self, name)}: it has to be at least 1")

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False
