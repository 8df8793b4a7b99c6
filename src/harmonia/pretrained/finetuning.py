"""Fine-tuning of towers: freeze, unfreeze the last blocks, LoRA adapters. See docs/training.md.

Reference: LoRA, Hu et al. 2022, by ``peft``; on all linear maps of the blocks, Dettmers et al. 2023.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from harmonia.types import HarmoniaError

ADAPTER = "lora_"
"""How peft names the layers that it adds."""


def freeze(tower: nn.Module) -> None:
    """Freeze all parameters of a tower.

    Frozen modules also stay in evaluation mode during training, so that batch norm keeps its statistics and
    dropout is off.
    """
    tower.requires_grad_(False)
    _watch(tower)


def unfreeze(tower: nn.Module, last: int | None = None) -> None:
    """Unfreeze a tower: all of it, or its ``last`` blocks, everything after them, and the norms.

    ``last=0`` unfreezes the head and the norms only. Batch norms before the last blocks stay frozen, since
    statistics of small batches would replace those of pretraining. ``unfreeze(tower.head)`` unfreezes the
    head only.

    Raises:
        HarmoniaError: the tower has no such blocks, or fewer.
    """
    if last is None:
        tower.requires_grad_(True)
        return
    order, found = list(tower.modules()), blocks(tower)
    if not 0 <= last <= len(found):
        raise HarmoniaError(f"the tower has {len(found)} blocks: give last from 0 to {len(found)}")
    # Modules are in the order of use.
    end = order.index(found[-1]) + len(list(found[-1].modules()))
    start = order.index(found[-last]) if last else end
    norms = [module for module in order[:start] if _is_norm(module) and not isinstance(module, _BatchNorm)]
    for module in (*order[start:], *norms):
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(True)


def blocks(tower: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a tower in order: transformer layers, ConvNeXt blocks, bottlenecks.

    They are the modules of the class with the most parameters in total, among classes with more than one
    instance and at least two weight matrices each; on ties (a stage and its blocks) the finer one.
    """
    kinds: dict[type[nn.Module], list[nn.Module]] = {}
    for module in tower.modules():
        maps = sum(parameter.ndim > 1 for parameter in module.parameters())
        if maps > 1 and not isinstance(module, nn.Sequential | nn.ModuleList | nn.MultiheadAttention):
            kinds.setdefault(type(module), []).append(module)
    repeated = [found for found in kinds.values() if len(found) > 1]
    if not repeated:
        raise HarmoniaError(
            f"{type(tower).__name__} has no repeated blocks: freeze or unfreeze its parts by name"
        )
    return max(repeated, key=lambda found: (sum(_count(module) for module in found), len(found)))


def parameter_groups(tower: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The trained parameters as the groups "backbone" (with adapters) and "head", for separate learning
    rates.

    A group without trained parameters is left out.
    """
    head = {id(parameter) for parameter in _head(tower).parameters()}
    groups: dict[str, list[nn.Parameter]] = {"backbone": [], "head": []}
    for parameter in tower.parameters():
        if parameter.requires_grad:
            groups["head" if id(parameter) in head else "backbone"].append(parameter)
    return {name: parameters for name, parameters in groups.items() if parameters}


def lora(
    tower: nn.Module, rank: int = 8, alpha: float = 16, targets: Sequence[str] | None = None
) -> nn.Module:
    """Freeze a tower and add LoRA adapters in place: a trained update ``alpha / rank * B A`` of linear
    layers.

    B is initially zero, so that codes do not change at first. The ``head`` of the tower is trained in full.
    ``targets`` are names, or suffixes of names ("q_proj"), of linear or convolutional layers; None stands for
    all linear layers in ``blocks(tower)``, or all convolutions if there are none (ResNet).

    Example:
        tower = lora(Backbone(BackboneConfig(model="openai/clip-vit-base-patch32", dim=256)))
        ...                                    # train parameter_groups(tower)
        save_adapter(tower, path)              # a few megabytes
        merge(tower)                           # plain layers again, as fast as before

    Raises:
        HarmoniaError: no layer has such a name, the tower has adapters already, or peft is not installed.
    """
    peft = _peft()
    if adapted(tower):
        raise HarmoniaError("the tower has adapters already: merge them first")
    if rank < 1 or alpha <= 0:
        raise HarmoniaError(f"LoRA needs rank >= 1 and alpha > 0, not {rank} and {alpha}")
    names = list(targets) if targets is not None else _linear_maps(tower)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=names)
    try:
        peft.inject_adapter_in_model(config, tower)
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise HarmoniaError(f"cannot add LoRA to the layers {', '.join(names)[:100]}: {reason}") from error
    _head(tower).requires_grad_(True)
    _watch(tower)
    return tower


def merge(tower: nn.Module) -> nn.Module:
    """Merge the adapters into the weights, in place.

    Afterwards the tower has the layers and names that it had before ``lora``; frozen parameters stay frozen.
    """
    if not adapted(tower):
        return tower
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapters = [(n, module) for n, module in tower.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, adapter in adapters:
        adapter.merge()
        tower.set_submodule(name, adapter.get_base_layer())
    del tower.peft_config
    return tower


def adapted(tower: nn.Module) -> bool:
    """Whether a tower has unmerged LoRA adapters."""
    return any(ADAPTER in name for name, _ in tower.named_parameters())


def save_adapter(tower: nn.Module, path: Path) -> None:
    """Write the adapters and the head of a tower, and nothing else, to one safetensors file.

    The file has a digest of the base weights. HarmoniaError if there are no adapters or the disk is full.
    """
    if not adapted(tower):
        raise HarmoniaError("the tower has no adapters: add them with lora")
    config: Any = tower.peft_config["default"]  # type: ignore[index]
    settings = {
        "rank": config.r,
        "alpha": config.lora_alpha,
        "targets": sorted(config.target_modules),
        "base": _base(tower),
    }
    trained = {name: value.contiguous() for name, value in _trained(tower).items()}
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tmp-") as folder:
            temporary = Path(folder) / path.name
            save_file(trained, temporary, {"lora": json.dumps(settings)})
            temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise HarmoniaError(f"cannot write {path}: {error}") from error


def load_adapter(tower: nn.Module, path: Path) -> nn.Module:
    """Add the adapters of a file of ``save_adapter`` to a tower without adapters.

    HarmoniaError if the file is damaged or belongs to other base weights.
    """
    try:
        with safe_open(path, framework="pt") as file:
            settings = json.loads((file.metadata() or {})["lora"])
            values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise HarmoniaError(f"{path} has no adapters or is damaged: write it with save_adapter") from error
    if settings["base"] != _base(tower):
        raise HarmoniaError(f"the adapters in {path} were trained for other weights than those of this tower")
    head = {name: value.shape for name, value in values.items() if ADAPTER not in name}
    if head != {name: value.shape for name, value in _trained(tower).items()}:
        raise HarmoniaError(f"the head in {path} has another shape than that of this tower: use the same dim")
    lora(tower, settings["rank"], settings["alpha"], settings["targets"])
    for name, own in _trained(tower).items():
        own.copy_(values[name])
    return tower


def _watch(tower: nn.Module) -> None:
    """Call ``_rest`` before every forward pass."""
    if _rest not in tower._forward_pre_hooks.values():
        tower.register_forward_pre_hook(_rest)


def _rest(module: nn.Module, _: object = None) -> None:
    """Set parts of a module whose parameters are all frozen to evaluation mode."""
    own = list(module.parameters())
    if own and not any(parameter.requires_grad for parameter in own):
        module.eval()
    elif own:
        for child in module.children():
            _rest(child)


def _linear_maps(tower: nn.Module) -> list[str]:
    """Names of the linear layers in the blocks, or of the convolutions if there are none."""
    inside = {id(module) for block in blocks(tower) for module in block.modules()}
    # nn.MultiheadAttention uses the weight of its out_proj directly and would bypass an adapter.
    hidden = {id(m.out_proj) for m in tower.modules() if isinstance(m, nn.MultiheadAttention)}
    for kind in (nn.Linear, nn.Conv2d):
        names = [
            name
            for name, module in tower.named_modules()
            if isinstance(module, kind)
            and id(module) in inside - hidden
            and getattr(module, "groups", 1) == 1
        ]
        if names:
            return names
    raise HarmoniaError(f"the blocks of {type(tower).__name__} have no linear layer: give targets")


def _trained(tower: nn.Module) -> dict[str, Tensor]:
    """The tensors of the adapters and the head."""
    head = {id(parameter) for parameter in _head(tower).parameters()}
    return {name: p.data for name, p in tower.named_parameters() if ADAPTER in name or id(p) in head}


def _base(tower: nn.Module) -> str:
    """16 hex digits of a hash of the weights without adapters and head."""
    trained = _trained(tower)
    plain = {n.replace(".base_layer.", "."): p for n, p in tower.named_parameters() if n not in trained}
    total = hashlib.sha256()
    for name in sorted(plain):
        total.update(name.encode())
        total.update(plain[name].detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()[:16]


def _head(tower: nn.Module) -> nn.Module:
    head = getattr(tower, "head", None)
    return head if isinstance(head, nn.Module) else nn.Identity()


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError as error:
        raise HarmoniaError(f"LoRA needs the package {error.name}: pip install 'harmonia[train]'") from error
    return peft
