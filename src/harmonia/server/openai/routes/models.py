"""OpenAI's models endpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter

from harmonia.server.openai import models
from harmonia.server.openai.messages import IMAGINES
from harmonia.server.service import Service, ServiceDep
from harmonia.tasks.imagine import SHIPPED

router = APIRouter(prefix="/v1/models", tags=["openai"])

OWNER = "harmonia"


@router.get("")
async def list_models(service: ServiceDep) -> dict[str, Any]:
    """List the memory, the families of its encoders, and the image generator if there is one."""
    names = [*models.families(service.collection.encoders), *_generators(service)]
    return {"object": "list", "data": [_model(service, name) for name in names]}


@router.get("/{model:path}")
async def read(model: str, service: ServiceDep) -> dict[str, Any]:
    """Read one model; an encoder is also known by its space and by its own name."""
    if model not in models.encoders(service.collection.encoders) and model not in _generators(service):
        raise models.unknown_model(model, service.collection.encoders)
    return _model(service, model)


def _generators(service: Service) -> list[str]:
    """The model names of the image generator: none without a generator."""
    folder = Path(service.settings.generator) if service.settings.generator else SHIPPED
    return [IMAGINES] if folder.is_dir() else []


def _model(service: Service, name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": service.created_at, "owned_by": OWNER}
