"""A trained model as a folder, written whole or not at all, and read with checks.

FOLDER/config.json          "model_type", format version, and what the networks are built from
       model.safetensors    weights, float32 or float16
       tokenizer.json       of a text tower, if there is one
       README.md            the model card

Towers, generators and judges each have a :class:`ModelFormat`; all of them are written and read here.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harmonia.imports import lazy
from harmonia.types import HarmoniaError

CONFIG, WEIGHTS, TOKENIZER, CARD = "config.json", "model.safetensors", "tokenizer.json", "README.md"

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class ModelFormat:
    """One kind of model folder.

    ``model_type``  in config.json: tells the kinds apart
    ``version``     of the format
    ``noun``        what a network of it is called in messages
    ``networks``    the name of each class of network and its address (see ``harmonia.imports``)
    """

    model_type: str
    version: int
    noun: str
    networks: Mapping[str, str] = field(default_factory=dict)

    def write(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        *,
        card: str,
        dtype: torch.dtype = torch.float32,
        texts: Mapping[str, str] | None = None,
    ) -> None:
        """Write ``settings`` as config.json, weights (floats as ``dtype``), card and further text files.

        A model of this kind that stands in ``folder`` is replaced. HarmoniaError if a weight is not finite,
        or the folder has something else in it or cannot be written.
        """
        head = {"model_type": self.model_type, "version": self.version}
        config = json.dumps(head | dict(settings), indent=1, ensure_ascii=False) + "\n"
        files = {CONFIG: config, CARD: card, **(texts or {})}
        _write_model(folder.absolute(), tensors, files, self.model_type, dtype)

    def read(self, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """config.json and the weights; HarmoniaError if one is missing, damaged or of another kind."""
        return _read_settings(folder, self.model_type, self.version), _read_tensors(folder)

    def is_model(self, folder: Path) -> bool:
        """Whether a folder holds a model of this kind and nothing else."""
        return _is_model(folder, self.model_type)

    def describe(self, network: nn.Module) -> dict[str, Any]:
        """The kind and configuration of a network, for config.json; HarmoniaError if it has no kind."""
        address = f"{type(network).__module__}:{type(network).__name__}"
        for kind, known in self.networks.items():
            if known == address:
                return {"kind": kind, "config": asdict(typing.cast(Any, network.config))}
        raise HarmoniaError(f"a {type(network).__name__} cannot be saved: it is no known kind of {self.noun}")

    def build(
        self, entry: Any, tensors: Mapping[str, Tensor], *arguments: Any, where: str, what: str
    ) -> nn.Module:
        """The network that an entry of config.json describes, built from its configuration and ``arguments``.

        HarmoniaError if the entry, found in ``where``, is of an unknown kind, or if ``what`` is damaged.
        """
        if not isinstance(entry, Mapping) or entry.get("kind") not in self.networks or "config" not in entry:
            raise HarmoniaError(f"{what} is of no known kind (in {where}): update Harmonia")
        network: Callable[..., nn.Module] = lazy(self.networks[entry["kind"]])
        config = typing.get_type_hints(network)["config"]
        return restored(lambda: network(built(config, entry["config"]), *arguments), tensors, what)


def restored(build: Callable[[], Network], tensors: Mapping[str, Tensor], what: str) -> Network:
    """A network with saved weights; the global random state stays as it was.

    A HarmoniaError says that ``what`` is damaged if the network cannot be built, or the weights do not fit it
    or are not finite.
    """
    damaged = HarmoniaError(f"{what} is damaged: get the model's files again")
    try:
        # Not on the meta device: there a random start imports torch._dynamo, which takes a second.
        with torch.random.fork_rng(devices=[]):
            network = build()
        network.load_state_dict(dict(tensors), assign=True)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged from error
    if not all(t.isfinite().all() for t in tensors.values()):
        raise damaged
    return network


def built(kind: Any, values: Any) -> Any:
    """A dataclass, with those inside it, from what ``dataclasses.asdict`` and JSON made of it.

    TypeError or ValueError if the values are not of its form.
    """
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(values, Mapping):
            raise TypeError(f"{kind.__name__} is made from an object, not from {values!r}")
        hints = typing.get_type_hints(kind)
        known = {one.name for one in fields(kind)}
        if unknown := set(values) - known:
            raise TypeError(f"{kind.__name__} has no {', '.join(sorted(unknown))}")
        return kind(**{name: built(hints[name], value) for name, value in values.items()})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        each = inner[:1] * len(values) if inner[1:] == (...,) else inner
        return tuple(built(one, value) for one, value in zip(each, values, strict=True))
    if origin in (typing.Union, types.UnionType):
        rest = [one for one in inner if one is not type(None)]
        return None if values is None else built(rest[0], values)
    return values


def _write_model(
    folder: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str], model_type: str, dtype: torch.dtype
) -> None:
    if folder.exists() and not (
        folder.is_dir() and (not any(folder.iterdir()) or _is_model(folder, model_type))
    ):
        raise HarmoniaError(f"{folder} exists and is no Harmonia model: give another folder")
    packed = {name: _packed(name, value, dtype) for name, value in tensors.items()}
    try:
        with _replacing(folder) as temporary:
            save_file(packed, temporary / WEIGHTS, metadata={"format": "pt"})
            # as readable as the other files: the library writes for its owner only
            (temporary / WEIGHTS).chmod(0o644)
            for name, text in texts.items():
                (temporary / name).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise HarmoniaError(f"cannot write the model {folder}: {' '.join(str(error).split())}") from error


def _read_settings(folder: Path, model_type: str, version: int) -> dict[str, Any]:
    """config.json of a model; HarmoniaError if it is missing, damaged, of another type or version."""
    file = folder / CONFIG
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HarmoniaError(f"cannot read {file} ({error}): get the model's files again") from error
    if not isinstance(settings, dict) or settings.get("model_type") != model_type:
        raise HarmoniaError(f"{file} is not of a Harmonia model of this kind: give the folder of one")
    if settings.get("version") != version:
        raise HarmoniaError(
            f"the model {folder} has format {settings.get('version')} and this Harmonia reads {version}: "
            "update Harmonia, or train the model again"
        )
    return settings


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    """The weights, floats as float32, on the CPU; HarmoniaError if they are missing or damaged."""
    file = folder / WEIGHTS
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise HarmoniaError(f"cannot read {file} ({reason}): get the model's files again") from error
    # copied, since what is read lies in the mapped file: unaligned, and gone if the file is replaced
    return {
        name: t.to(torch.float32 if t.is_floating_point() else t.dtype, copy=True)
        for name, t in tensors.items()
    }


def _is_model(folder: Path, model_type: str) -> bool:
    """Whether a folder holds the files of a model of this type, and nothing else."""
    try:
        found = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("model_type") == model_type
    except (OSError, ValueError, AttributeError):
        return False
    return found and {path.name for path in folder.iterdir()} <= {CONFIG, WEIGHTS, TOKENIZER, CARD}


def identity(folder: Path, names: Iterable[str] = (CONFIG, WEIGHTS, TOKENIZER)) -> str:
    """16 hex digits of a hash over all files that the outputs of a model depend on."""
    total = hashlib.sha256()
    for name in names:
        if (folder / name).exists():
            total.update(f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def _packed(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
    value = value.detach().cpu()
    out = value.to(dtype if value.is_floating_point() else value.dtype).clone(
        memory_format=torch.contiguous_format
    )
    if not out.isfinite().all():
        raise HarmoniaError(f"the weight {name} is not finite as {dtype}: train again, or save it as float32")
    return out


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder beside ``folder`` that takes its place once the block ends well."""
    work = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".tmp-"))
    try:
        new = work / "new"
        new.mkdir()
        yield new
        for file in new.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if folder.exists():
            folder.rename(work / "old")
        try:
            new.rename(folder)
        except OSError:
            if (work / "old").exists():
                (work / "old").rename(folder)
            raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
