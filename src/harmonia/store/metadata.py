"""The description in a store's root, ``metadata.json``: format, schema version, encoders."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harmonia.store.atomic import write_atomically
from harmonia.store.protocol import EncoderInfo
from harmonia.types import HarmoniaError

FORMAT = "harmonia-store"
SCHEMA_VERSION = 2
"""1: a metadata key had one column, which lacks the values that are not of its type."""
FILE_NAME = "metadata.json"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # a Path makes one / of two


@dataclass(frozen=True, slots=True)
class Layout:
    """What a store was made with. ``width``: numbers per stored code, of the widest encoder.

    ``schema`` is the version of the format that it is in.
    """

    encoders: tuple[EncoderInfo, ...]
    width: int
    schema: int = SCHEMA_VERSION

    @classmethod
    def of(cls, encoders: Sequence[EncoderInfo]) -> Layout:
        """The layout for a choice of encoders; HarmoniaError if two of them clash."""
        if not encoders:
            raise HarmoniaError("a store needs at least one encoder")
        if len({e.name for e in encoders}) < len(encoders):
            raise HarmoniaError("two encoders of a store have one name: give each its own")
        if len({(e.modality, e.space) for e in encoders}) < len(encoders):
            raise HarmoniaError("two encoders of a store share modality and space: keep one")
        if any(e.dim < 1 for e in encoders):
            raise HarmoniaError("an encoder's codes need at least one number")
        return cls(tuple(encoders), max(e.dim for e in encoders))

    def describe(self) -> str:
        """The encoders in words, for messages."""
        return ", ".join(f"{e.name} ({e.modality}, {e.dim} numbers)" for e in self.encoders)


def local_folder(url: str | Path) -> Path:
    """The folder that a store's address names; HarmoniaError for an address that no engine here serves."""
    if scheme := _SCHEME.match(str(url)):
        raise HarmoniaError(f"no store engine for {scheme[1]}://: give a folder")
    return Path(url).absolute()


def write_layout(root: Path, layout: Layout) -> None:
    """Write the description; it is there completely or not at all."""
    content = {
        "format": FORMAT,
        "schema": layout.schema,
        "width": layout.width,
        "encoders": [asdict(encoder) for encoder in layout.encoders],
    }
    write_atomically(root / FILE_NAME, json.dumps(content, indent=2))


def read_layout(root: Path) -> Layout:
    """Read the description; HarmoniaError if there is no store or one of a newer version."""
    path = root / FILE_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r}")
        version = int(content["schema"])
        if version <= SCHEMA_VERSION:
            encoders = tuple(EncoderInfo(**encoder) for encoder in content["encoders"])
            return Layout(encoders, int(content["width"]), version)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HarmoniaError(f"no Harmonia store in {root}: create one first") from error
    except OSError as error:
        raise HarmoniaError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise HarmoniaError(
            f"{path} does not describe a Harmonia store ({error}): choose another folder"
        ) from error
    raise HarmoniaError(
        f"the store in {root} has schema version {version}, this Harmonia knows up to "
        f"{SCHEMA_VERSION}: upgrade Harmonia to open it"
    )
