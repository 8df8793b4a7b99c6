"""OpenAI's models: what the other endpoints may be asked of."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from harmonia.server.openai import models
from harmonia.server.openai.messages import IMAGINES
from harmonia.server.service import Service, service
from harmonia.tasks.imagine import SHIPPED

router = APIRouter(prefix="/v1/models", tags=["openai"])

At = Annotated[Service, Depends(service)]
OWNER = "harmonia"


@router.get("")
async def list_models(at: At) -> dict[str, Any]:
    """The memory itself, its encoders, and the generator if there is one."""
    names = [*models.families(at.collection.encoders), *_generators(at)]
    return {"object": "list", "data": [_model(at, name) for name in names]}


@router.get("/{model:path}")
async def read(model: str, at: At) -> dict[str, Any]:
    """One of them; an encoder may be named by its space and by its own name too."""
    if model not in models.encoders(at.collection.encoders) and model not in _generators(at):
        raise models.unknown(model, at.collection.encoders)
    return _model(at, model)


def _generators(at: Service) -> list[str]:
    """The name that the generator answers to; none if there is no generator."""
    folder = Path(at.settings.generator) if at.settings.generator else SHIPPED
    return [IMAGINES] if folder.is_dir() else []


def _model(at: Service, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": at.made, "owned_by": OWNER}
