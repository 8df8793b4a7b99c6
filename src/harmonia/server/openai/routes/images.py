"""OpenAI's image endpoints: generation from text, inpainting, and variations of an image."""

from __future__ import annotations

import asyncio
import base64
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from PIL import Image
from starlette.datastructures import FormData, UploadFile
from torch import Tensor

from harmonia.collection.cues import Media, RecallOptions, make_query
from harmonia.generators import Saved
from harmonia.modalities import Limits
from harmonia.modalities import image as pictures
from harmonia.server import errors
from harmonia.server.errors import ApiError
from harmonia.server.formats import check_modality
from harmonia.server.forms import FILES, validate_body
from harmonia.server.image_requests import (
    EVIDENCE,
    Plan,
    draw_plan,
    encode_picture,
    make_plan,
    recall_for_picture,
)
from harmonia.server.openai.messages import IMAGINES, RECALLS
from harmonia.server.openai.schemas.base import unsupported
from harmonia.server.openai.schemas.images import SIDE, ImageRequest, PromptedImageRequest
from harmonia.server.schemas.errors import NO_MODEL
from harmonia.server.service import Service, ServiceDep, key_of
from harmonia.server.sse import STREAM, cancel_on_disconnect, count_words, event, stream
from harmonia.tasks.image_io import read_known, shape_of, signal_of
from harmonia.tasks.sampling import Sampling, Start
from harmonia.types import HarmoniaError, Signal

router = APIRouter(prefix="/v1/images", tags=["openai"], responses=NO_MODEL)

D = TypeVar("D", bound=ImageRequest)


def _documented(model: type[ImageRequest], *files: str) -> dict[str, Any]:
    """The OpenAPI description of a form with files."""
    schema = model.model_json_schema()
    schema["properties"] |= {name: {"type": "string", "format": "binary"} for name in files}
    schema["required"] = [*schema.get("required", []), "image"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post("/generations", responses=STREAM)
async def generations(body: PromptedImageRequest, request: Request, service: ServiceDep) -> Response:
    """Generate images from what the prompt recalls, or from the prompt if it recalls nothing."""
    _check(body)
    return await _picture_response(
        service, request, body, await _plan_of_prompt(service, request, body), "image_generation"
    )


@router.post("/edits", responses=STREAM, openapi_extra=_documented(PromptedImageRequest, "image", "mask"))
async def edits(request: Request, service: ServiceDep) -> Response:
    """Inpaint an image where it, or the mask, is transparent."""
    body, files = await _form(request, PromptedImageRequest)
    _check(body)
    image, mask = files["image"], files.get("mask")

    def start(saved: Saved) -> Start:
        return _known_pixels(saved, image, mask, service.settings.limits)

    plan = await _plan_of_prompt(service, request, body, start)
    return await _picture_response(service, request, body, plan, "image_edit")


@router.post("/variations", openapi_extra=_documented(ImageRequest, "image"))
async def variations(request: Request, service: ServiceDep) -> Response:
    """Generate images from the code of another image."""
    body, files = await _form(request, ImageRequest)
    _check(body)
    image, limits = files["image"], service.settings.limits
    signal = await service.work(lambda: pictures.read(image, max_side=1024, limits=limits))
    cues: dict[str, Media] = {"image": signal}
    plan = await cancel_on_disconnect(request, make_plan(service, cues, _sampling(body)))
    return await _picture_response(service, request, body, plan, "image_variation")


async def _form(request: Request, model: type[D]) -> tuple[D, dict[str, bytes]]:
    """The fields of a form, and its files: one image, and at most one mask."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(400, "send a form (multipart/form-data) with the field image", param="image")
    async with request.form(max_files=FILES, max_fields=FILES) as form:
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        files = await _pictures(form)
    optional = {name for name, field in model.model_fields.items() if not field.is_required()}
    given = {k: v for k, v in fields.items() if k not in optional or v not in ("", "null")}
    return validate_body(given, model, strict=False), files


async def _pictures(form: FormData) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for field, value in form.multi_items():
        name = field.removesuffix("[]")
        if not isinstance(value, UploadFile):
            continue
        if name not in ("image", "mask") or name in files:
            raise unsupported(name, "send one image and at most one mask")
        files[name] = check_modality(await value.read(), "image", name)
    if "image" not in files:
        raise ApiError(400, "the form has no file in the field image", param="image")
    return files


def _check(body: ImageRequest) -> None:
    """Refuse unsupported parameters by name."""
    body.refuse_unsupported()
    if body.model not in (None, RECALLS, IMAGINES):
        raise ApiError(404, f"unknown model: leave it out, or use {IMAGINES!r}",
                       code="model_not_found", param="model")  # fmt: skip
    if body.response_format == "url":
        raise unsupported("response_format", "images are not stored and have no URL; use b64_json")
    if body.pixels and max(body.pixels) > SIDE:
        raise ApiError(400, f"size may be at most {SIDE} pixels a side", param="size")
    if isinstance(body, PromptedImageRequest) and body.stream and body.n not in (None, 1):
        raise unsupported("n", "only one image can be streamed")


async def _plan_of_prompt(
    service: Service,
    request: Request,
    body: PromptedImageRequest,
    start: Callable[[Saved], Start] | None = None,
) -> Plan:
    """The plan for what the memory recalls by a prompt, or else for the prompt itself."""
    cues = {"text": body.prompt}
    options = RecallOptions(EVIDENCE, where=key_of(request).records)
    recollection = await cancel_on_disconnect(request, recall_for_picture(service, make_query(cues), options))
    return await cancel_on_disconnect(
        request, make_plan(service, cues, _sampling(body), found=recollection, start=start)
    )


def _sampling(body: ImageRequest) -> Sampling:
    return Sampling(body.n or 1, seed=body.seed or 0)


def _known_pixels(saved: Saved, image: bytes, mask: bytes | None, limits: Limits) -> Start:
    """The pixels to keep; HarmoniaError if nothing is transparent or the mask does not fit."""
    signal = pictures.read(image, limits=limits)
    alpha = pictures.opacity(image if mask is None else mask, limits=limits)
    if alpha is None:
        raise HarmoniaError("nothing to inpaint: make part of the image or the mask transparent")
    if alpha.shape != signal.array.shape[:2]:
        raise HarmoniaError("the mask and the image must have the same size")
    whole = Image.fromarray(signal.array)
    whole.putalpha(Image.fromarray(alpha))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.png"
        whole.save(file, compress_level=1)
        return Start(known=read_known(file, shape_of(saved.generator)))


async def _picture_response(
    service: Service, request: Request, body: ImageRequest, plan: Plan, name: str
) -> Response:
    if isinstance(body, PromptedImageRequest) and body.stream:
        return stream(_stream_pictures(service, body, plan, name))
    signals = await cancel_on_disconnect(request, draw_plan(service, plan))
    data = [{"b64_json": await _encode(service, body, plan, signal)} for signal in signals]
    facts = {"created": int(time.time()), "data": data, "background": "opaque", **_facts(body, plan)}
    return JSONResponse({**facts, "usage": _usage(body, name, len(data)), "harmonia": _evidence(plan)})


async def _stream_pictures(
    service: Service, body: PromptedImageRequest, plan: Plan, name: str
) -> AsyncIterator[str]:
    """The events of a streamed image. Sampling stops when the client disconnects."""
    loop, queue, partial_count = (
        asyncio.get_running_loop(),
        asyncio.Queue[Signal | None](),
        body.partial_images or 0,
    )

    def on_step(step: int, of: int, x: Tensor) -> None:
        shown = {-(-of * part // (partial_count + 1)) for part in range(1, partial_count + 1)} - {of}
        if step in shown:
            loop.call_soon_threadsafe(queue.put_nowait, signal_of(x[0]))

    facts = {"created_at": int(time.time()), "background": "opaque", "quality": "auto", **_facts(body, plan)}
    task = asyncio.create_task(draw_plan(service, plan, on_step))
    task.add_done_callback(lambda _: queue.put_nowait(None))
    number = 0
    try:
        while (partial := await queue.get()) is not None:
            partial_fields = {
                "partial_image_index": number,
                "b64_json": await _encode(service, body, plan, partial),
            }
            yield event({"type": f"{name}.partial_image", **facts, **partial_fields}, f"{name}.partial_image")
            number += 1
        final_fields = {
            "b64_json": await _encode(service, body, plan, task.result()[0]),
            "usage": _usage(body, name, 1),
        }
        completed = {"type": f"{name}.completed", **facts, **final_fields, "harmonia": _evidence(plan)}
        yield event(completed, f"{name}.completed")
    except HarmoniaError as error:
        yield event(errors.body(400, service.without_paths(str(error))), "error")
    finally:
        task.cancel()


async def _encode(service: Service, body: ImageRequest, plan: Plan, signal: Signal) -> str:
    kind = body.output_format if isinstance(body, PromptedImageRequest) else None
    data = await service.work(lambda: encode_picture(signal, plan.mark, kind or "png", body.pixels))
    return base64.b64encode(data).decode()


def _facts(body: ImageRequest, plan: Plan) -> dict[str, Any]:
    _, height, width = shape_of(plan.saved.generator)
    kind = body.output_format if isinstance(body, PromptedImageRequest) else None
    return {"output_format": kind or "png", "size": body.size or f"{width}x{height}"}


def _usage(body: ImageRequest, name: str, drawn: int) -> dict[str, Any]:
    """Usage counts each word of the prompt, each given image and each generated image as one token."""
    words = count_words(body.prompt) if isinstance(body, PromptedImageRequest) else 0
    pictures_in = 0 if name == "image_generation" else 1
    return {
        "input_tokens": words + pictures_in, "output_tokens": drawn,
        "total_tokens": words + pictures_in + drawn,
        "input_tokens_details": {"text_tokens": words, "image_tokens": pictures_in},
    }  # fmt: skip


def _evidence(plan: Plan) -> dict[str, Any]:
    """The extension ``harmonia``: the records used, the method, the generator and the seed."""
    records = plan.request.found.records if plan.request.found else ()
    return {
        "generated": True, "generator": plan.mark.generator, "seed": plan.sampling.seed,
        "how": plan.request.how,
        "evidence": [{"record_id": r.record.id, "probability": r.probability} for r in records],
    }  # fmt: skip
