"""Training on one or many processes; `torchrun --nproc-per-node 8 ...` starts them without other changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from harmonia.training.config import TrainConfig
from harmonia.types import HarmoniaError

Losses = Mapping[str, Tensor]


@dataclass(frozen=True)
class World:
    """The processes of a run. ``control`` is a process group on the CPU for decisions."""

    device: torch.device
    rank: int = 0
    size: int = 1
    control: dist.ProcessGroup | None = None

    @property
    def main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def agreed(self, value: Any) -> Any:
        """The main process's value, on every process."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process."""
        if self.size == 1:
            return flag
        one = torch.tensor(int(flag))
        dist.all_reduce(one, dist.ReduceOp.MAX, group=self.control)
        return bool(one)

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        if self.size == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.size

    def wait(self) -> None:
        """Wait for every process."""
        if self.size > 1:
            dist.barrier(group=self.control)


@contextmanager
def opened(device: str) -> Iterator[World]:
    """The processes started by ``torchrun`` or the caller, or this one only."""
    started = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    chosen = _device(device)
    if started:
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    try:
        if dist.is_initialized() and dist.get_world_size() > 1:
            control = dist.new_group(backend="gloo")
            yield World(chosen, dist.get_rank(), dist.get_world_size(), control)
        else:
            yield World(chosen)
    finally:
        if started:
            dist.destroy_process_group()


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda":
            if not torch.cuda.is_available():
                raise RuntimeError("this PyTorch sees no CUDA")
            # One process of torchrun, one GPU of its machine.
            if device.index is None:
                device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise HarmoniaError(f"the device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def broadcast(model: nn.Module, world: World) -> None:
    """The main process's weights and buffers, on every process."""
    if world.size > 1:
        for value in model.state_dict().values():
            if isinstance(value, Tensor):
                dist.broadcast(value, src=0)


def shard(model: nn.Module, world: World, config: TrainConfig) -> None:
    """Split the model's parameters over the processes, in place (FSDP2).

    A unit that is gathered at a time is a member of an ``nn.ModuleList`` (a network's blocks); the rest
    of the model is one more. ``losses`` takes the place of ``forward``.
    HarmoniaError for a single process, several optimizer groups or float16.
    """
    if world.size == 1:
        raise HarmoniaError("shard needs several processes: start with torchrun, or set it to False")
    if len(model.groups()) > 1:  # type: ignore[operator]
        raise HarmoniaError("shard trains models of one optimizer group: set it to False")
    if config.precision == "float16":
        raise HarmoniaError("shard has no loss scaling: set precision to bfloat16 or float32")
    mesh = init_device_mesh(world.device.type, (world.size,))
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    # Scalars cannot be split; Parallel.reduce averages their gradients.
    scalars = {parameter for parameter in model.parameters() if not parameter.ndim}
    for block in (block for blocks in reversed(lists) for block in blocks):
        fully_shard(block, mesh=mesh, ignored_params=scalars)
    fully_shard(model, mesh=mesh, ignored_params=scalars)
    register_fsdp_forward_method(model, "losses")


class LossModule(nn.Module):
    """``model.losses`` as a forward pass, which is what DDP and ``torch.compile`` hook into."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Any) -> Losses:
        """The losses of a batch, by optimizer group."""
        losses: Losses = self.model.losses(batch)  # type: ignore[operator]
        return losses


class Parallel:
    """How a model's losses are computed and its gradients made those of the whole batch.

    * one process: ``model.losses`` itself;
    * one optimizer group: DDP, which reduces gradients while the backward pass still runs;
    * several groups: DDP cannot see them (it expects one backward pass that reaches every parameter, and
      each group has its own, that reaches only its parameters), so each group's gradients are averaged in
      one message after its backward pass;
    * ``shard``: FSDP2 has its own hooks.

    The loss of the whole batch is the mean of the processes' losses.
    """

    def __init__(
        self, model: nn.Module, groups: Mapping[str, Sequence[nn.Parameter]], world: World, *, compile: bool
    ) -> None:
        self.model, self.groups, self.world = model, groups, world
        self.sharded = isinstance(model, FSDPModule)
        self.ddp: DistributedDataParallel | None = None
        self.losses: Callable[[Any], Losses] = model.losses  # type: ignore[assignment]
        if compile:
            self.losses = torch.compile(self.losses)
        if world.size > 1 and len(groups) == 1 and not self.sharded:
            module = LossModule(model)
            # A batch may hold no part of some modality, on this process or on all.
            self.ddp = DistributedDataParallel(
                torch.compile(module) if compile else module,
                find_unused_parameters=True,
            )
            self.losses = self.ddp

    def part(self, last: bool) -> AbstractContextManager[None]:
        """Around the passes of one accumulated part: gradients are exchanged in the ``last`` one only."""
        if self.ddp is not None and not last:
            return self.ddp.no_sync()
        if self.sharded:
            self.model.set_requires_gradient_sync(last)  # type: ignore[operator]
        return nullcontext()

    def reduce(self) -> None:
        """Average the gradients over the processes, where no hook has done so."""
        if self.world.size == 1 or self.ddp is not None:
            return
        for parameters in self.groups.values():
            whole = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
            if whole:
                average(whole, self.world)


def average(parameters: Sequence[nn.Parameter], world: World) -> None:
    """Average ``.grad`` over the processes in one message.

    A parameter that had no gradient on some of them counts as zero there; without one on any it stays so.
    """
    given = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([given, *(gradient.reshape(-1).to(given.dtype) for gradient in gradients)])
    dist.all_reduce(flat)
    counts, *means = torch.split(flat, [len(parameters), *(p.numel() for p in parameters)])
    for parameter, gradient, mean, count in zip(parameters, gradients, means, counts.tolist(), strict=True):
        if count:
            parameter.grad = gradient.copy_((mean / world.size).view_as(gradient))
