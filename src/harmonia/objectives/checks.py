"""Checks of the inputs of losses, and the decorator that computes a loss in float32 or wider."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor

from harmonia.types import HarmoniaError

P = ParamSpec("P")
HALF = (torch.float16, torch.bfloat16)


def full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """``loss`` computed in float32 (or in float64, if given that), also inside ``torch.autocast``.

    A softmax over thousands of scores, and the difference of two energies, do not survive half precision.
    """

    @wraps(loss)
    def computed(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        wide = [_widened(a) for a in args]
        named = {k: _widened(v) for k, v in kwargs.items()}
        device = next((a.device.type for a in [*wide, *named.values()] if isinstance(a, Tensor)), "cpu")
        with torch.autocast(device, enabled=False):
            return loss(*wide, **named)

    return computed


def check_rows(rows: Tensor, name: str, least: int = 1) -> None:
    """``rows`` is (n, d) of real numbers with n at least ``least``."""
    if rows.dim() != 2 or not rows.is_floating_point():
        raise HarmoniaError(
            f"{name} must be rows (n, d) of real numbers, got {rows.dtype} of shape {tuple(rows.shape)}"
        )
    if rows.shape[0] < least:
        raise HarmoniaError(f"{name} has {rows.shape[0]} rows; this loss needs a batch of at least {least}")


def check_width(x: Tensor, y: Tensor) -> None:
    """x (n, d) and y (m, d) are rows of one width."""
    check_rows(x, "x")
    check_rows(y, "y")
    if x.shape[1] != y.shape[1]:
        raise HarmoniaError(f"x has rows of width {x.shape[1]} and y of {y.shape[1]}; project them to one")


def check_same(**tensors: Tensor) -> None:
    """All of them have one shape."""
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if len(set(shapes.values())) > 1:
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise HarmoniaError(f"these must have the same shape: {told}")


def check_shape(tensor: Tensor, shape: tuple[int, ...], name: str) -> None:
    """``tensor`` is of ``shape``."""
    if tuple(tensor.shape) != shape:
        raise HarmoniaError(f"{name} must have the shape {shape}, got {tuple(tensor.shape)}")


def check_mask(mask: Tensor, shape: tuple[int, ...], name: str) -> None:
    """``mask`` is bool and of ``shape``."""
    if mask.dtype != torch.bool:
        raise HarmoniaError(f"{name} must be bool, got {mask.dtype}")
    check_shape(mask, shape, name)


def check_number(value: float | Tensor, name: str) -> None:
    """``value`` is one number; a plain one is not negative."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise HarmoniaError(f"{name} must be one number, got a tensor of shape {tuple(value.shape)}")
    elif not value >= 0:
        raise HarmoniaError(f"{name} must not be negative, got {value}")


def _widened(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value
