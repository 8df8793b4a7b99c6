"""Checkpoints, written atomically as folders of safetensors and JSON (no pickle).

    RUN/step-00000200/weights.safetensors     the model's parameters and persistent buffers
                      average.safetensors     the moving average of the trained weights, if there is one
                      optimizer.safetensors   AdamW's moments, by parameter
                      state.json              the step, the best value so far, the run's settings
                      SHA256SUMS              of the files above; `sha256sum -c` reads it

A run keeps its last two checkpoints and that of its best evaluation.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from harmonia.types import HarmoniaError

TEMPORARY = ".tmp-"
STATE, SUMS, WEIGHTS, AVERAGE, OPTIMIZER = "state.json", "SHA256SUMS", "weights", "average", "optimizer"
KEPT = 2

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: its folder and the content of ``state.json``."""

    path: Path
    state: dict[str, Any]

    def tensors(self, name: str) -> Tensors:
        """The tensors of one file, on the CPU; empty if there is no file of this name."""
        file = self.path / f"{name}.safetensors"
        try:
            return load_file(file) if file.exists() else {}
        except (SafetensorError, OSError) as error:
            raise HarmoniaError(f"cannot read {file}: {error}") from error


def save(folder: Path, step: int, tensors: Mapping[str, Tensors], state: Mapping[str, Any]) -> Path:
    """Write the checkpoint of ``step`` and remove old ones.

    The checkpoint of ``state["best_step"]`` is kept. HarmoniaError if the disk is full or the folder cannot
    be written; existing checkpoints are not affected.
    """
    path, temporary = _path(folder, step), folder / f"{TEMPORARY}{step:08d}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for name, group in tensors.items():
            save_file(
                {key: value.contiguous() for key, value in group.items()}, temporary / f"{name}.safetensors"
            )
        (temporary / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
        files = sorted(temporary.iterdir())
        sums = "".join(f"{_sha256(file)}  {file.name}\n" for file in files)
        (temporary / SUMS).write_text(sums, encoding="utf-8")
        for file in (*files, temporary / SUMS, temporary):
            _sync(file)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        raise HarmoniaError(f"cannot write the checkpoint {path}: {error}") from error
    _prune(folder)
    return path


def _prune(folder: Path) -> None:
    """Keep the last checkpoints and the best ones that they name."""
    steps = _steps(folder)
    keep: set[int | None] = set(steps[-KEPT:])
    for step in steps[-KEPT:]:
        with contextlib.suppress(OSError, ValueError):  # damaged: it names nothing
            keep.add(_state(_path(folder, step)).get("best_step"))
    for step in set(steps) - keep:
        shutil.rmtree(_path(folder, step), ignore_errors=True)


def latest(folder: Path) -> Checkpoint | None:
    """The newest intact checkpoint, or None if there is no checkpoint.

    Damaged checkpoints are skipped with a warning. HarmoniaError if all checkpoints are damaged.
    """
    steps = _steps(folder)
    for step in reversed(steps):
        path = _path(folder, step)
        problem = _damage(path)
        if problem is None:
            return Checkpoint(path, _state(path))
        print(f"warning: the checkpoint {path} is damaged ({problem}): using an earlier one", file=sys.stderr)
    if steps:
        raise HarmoniaError(f"every checkpoint in {folder} is damaged: move the folder away to start again")
    return None


def clean(folder: Path, after: int) -> None:
    """Remove unfinished checkpoints and those after step ``after``, which the run will write again."""
    for path in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(path, ignore_errors=True)
    for step in _steps(folder):
        if step > after:
            shutil.rmtree(_path(folder, step), ignore_errors=True)


def best(folder: Path) -> Checkpoint:
    """The checkpoint of a run's best evaluation; its last if it was never evaluated."""
    last = latest(folder)
    if last is None:
        raise HarmoniaError(f"there is no checkpoint in {folder}")
    step = last.state.get("best_step")
    if step is None or step == last.state["step"]:
        return last
    path = _path(folder, step)
    problem = _damage(path)
    if problem:
        raise HarmoniaError(f"the best checkpoint {path} is damaged ({problem}); the last one is {last.path}")
    return Checkpoint(path, _state(path))


def load_weights(model: nn.Module, folder: Path, *, average: bool = True) -> int:
    """Load the weights of a run's best checkpoint (the last, if never evaluated) into ``model``; return its
    step.

    With ``average`` the moving average of the weights, if the run has one. HarmoniaError if the folder has no
    checkpoint or that of another model.
    """
    checkpoint = best(Path(folder))
    give(model, checkpoint, average=average)
    return int(checkpoint.state["step"])


def give(model: nn.Module, checkpoint: Checkpoint, *, average: bool) -> None:
    """Load a checkpoint's weights into a model, sharded or not; with ``average`` the averaged ones."""
    values = checkpoint.tensors(WEIGHTS)
    if average:
        values |= checkpoint.tensors(AVERAGE)
    own = weights(model)
    wrong = [name for name in own.keys() | values.keys() if _shape(own, name) != _shape(values, name)]
    if wrong:
        name = min(wrong)
        raise HarmoniaError(
            f"{checkpoint.path} is of another model: {name} is {_shape(values, name)} there and "
            f"{_shape(own, name)} here"
        )
    copy(values, own)


def weights(model: nn.Module) -> Tensors:
    """The model's parameters and persistent buffers by name; of tied ones only the first name."""
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tied -= {name for name, _ in model.named_parameters()}
    state: Mapping[str, Any] = model.state_dict()
    return {name: value for name, value in state.items() if isinstance(value, Tensor) and name not in tied}


@torch.no_grad()
def copy(values: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
    """Write ``values`` into the targets of the same names; a sharded target takes its shard."""
    for name, target in targets.items():
        value = values[name]
        if isinstance(target, DTensor):
            value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)
        target.copy_(value)


def gathered(tensors: Mapping[str, Tensor]) -> Tensors:
    """Whole tensors on the CPU, from sharded ones too (every process has to call it)."""
    whole = {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors.items()}
    return {name: tensor.detach().cpu() for name, tensor in whole.items()}


def moments(optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]) -> Tensors:
    """The optimizer's state as ``parameter/moment`` -> tensor."""
    return {
        f"{names[parameter]}/{key}": value
        for group in optimizer.param_groups
        for parameter in group["params"]
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def give_moments(
    optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str], values: Tensors
) -> None:
    """Load what ``moments`` gave; a parameter that had no step yet has none afterwards."""
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for name, value in values.items():
        parameter, _, key = name.rpartition("/")
        by_parameter.setdefault(parameter, {})[key] = value
    state = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state["state"] = {
        index: {key: _placed(value, parameter) for key, value in by_parameter[names[parameter]].items()}
        for index, parameter in enumerate(parameters)
        if names[parameter] in by_parameter
    }
    optimizer.load_state_dict(state)


def _placed(value: Tensor, parameter: nn.Parameter) -> Tensor:
    if isinstance(parameter, DTensor) and value.shape == parameter.shape and value.ndim:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


def _shape(tensors: Mapping[str, Tensor], name: str) -> str:
    return str(tuple(tensors[name].shape)) if name in tensors else "absent"


def _path(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((path / STATE).read_text(encoding="utf-8"))
    return state


def _steps(folder: Path) -> list[int]:
    found = (path.name.removeprefix("step-") for path in folder.glob("step-*"))
    return sorted(int(number) for number in found if number.isdigit())


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint's files, or None."""
    try:
        listed = [line.split("  ", 1) for line in (path / SUMS).read_text(encoding="utf-8").splitlines()]
        wrong = [name for digest, name in listed if _sha256(path / name) != digest]
        if STATE not in {name for _, name in listed}:
            return f"{SUMS} is not complete"
    except (OSError, ValueError) as error:
        return str(error)
    return f"{wrong[0]} is not what was written" if wrong else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Have the system write a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
