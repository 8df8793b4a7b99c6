"""Pictures by OpenAI's endpoints: drawn from words, completed around what is known, or like another one."""

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

from harmonia.collection.cues import Media, make_query
from harmonia.generators import Saved
from harmonia.modalities import Limits
from harmonia.modalities import image as pictures
from harmonia.server import errors
from harmonia.server.errors import ApiError
from harmonia.server.formats import check_modality
from harmonia.server.forms import FILES, validate_body
from harmonia.server.image_requests import Plan, draw_plan, encode_picture, make_plan, recall_for_picture
from harmonia.server.openai.messages import IMAGINES, RECALLS
from harmonia.server.openai.schemas.base import unsupported
from harmonia.server.openai.schemas.images import SIDE, ImageRequest, PromptedImageRequest
from harmonia.server.schemas.errors import LACKS
from harmonia.server.service import Service, ServiceDep
from harmonia.server.sse import STREAM, cancel_on_disconnect, count_words, event, stream
from harmonia.tasks.image_io import read_known, shape_of, signal_of
from harmonia.tasks.sampling import Sampling, Start
from harmonia.types import HarmoniaError, Signal

router = APIRouter(prefix="/v1/images", tags=["openai"], responses=LACKS)

D = TypeVar("D", bound=ImageRequest)


def _documented(model: type[ImageRequest], *files: str) -> dict[str, Any]:
    """What OpenAPI is to say of a form."""
    schema = model.model_json_schema()
    schema["properties"] |= {name: {"type": "string", "format": "binary"} for name in files}
    schema["required"] = [*schema.get("required", []), "image"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post("/generations", responses=STREAM)
async def generations(asked: PromptedImageRequest, request: Request, service: ServiceDep) -> Response:
    """Pictures of a prompt: of what the memory recalls by it, or of the words if it recalls nothing."""
    _check(asked)
    return await _drawn(service, request, asked, await _prompted(service, request, asked), "image_generation")


@router.post("/edits", responses=STREAM, openapi_extra=_documented(PromptedImageRequest, "image", "mask"))
async def edits(request: Request, service: ServiceDep) -> Response:
    """What is missing of a picture, drawn anew: where it, or the mask, is transparent."""
    asked, files = await _form(request, PromptedImageRequest)
    _check(asked)
    image, mask = files["image"], files.get("mask")

    def start(saved: Saved) -> Start:
        return _known(saved, image, mask, service.settings.limits)

    plan = await _prompted(service, request, asked, start)
    return await _drawn(service, request, asked, plan, "image_edit")


@router.post("/variations", openapi_extra=_documented(ImageRequest, "image"))
async def variations(request: Request, service: ServiceDep) -> Response:
    """Pictures like another one: drawn from its code alone."""
    asked, files = await _form(request, ImageRequest)
    _check(asked)
    image, limits = files["image"], service.settings.limits
    signal = await service.work(lambda: pictures.read(image, max_side=1024, limits=limits))
    given: dict[str, Media] = {"image": signal}
    plan = await cancel_on_disconnect(request, make_plan(service, given, _sampling(asked)))
    return await _drawn(service, request, asked, plan, "image_variation")


async def _form(request: Request, model: type[D]) -> tuple[D, dict[str, bytes]]:
    """The fields of a form, and its pictures by name: exactly one image."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(400, "send a form (multipart/form-data) with the field image", param="image")
    async with request.form(max_files=FILES, max_fields=FILES) as form:
        said = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        files = await _pictures(form)
    return validate_body(said, model), files


async def _pictures(form: FormData) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for field, value in form.multi_items():
        name = field.removesuffix("[]")
        if not isinstance(value, UploadFile):
            continue
        if name not in ("image", "mask") or name in found:
            raise unsupported(name, "one image and one mask are taken")
        found[name] = check_modality(await value.read(), "image", name)
    if "image" not in found:
        raise ApiError(400, "the form has no picture in the field image", param="image")
    return found


def _check(asked: ImageRequest) -> None:
    """Refuse what nothing here can follow, by name."""
    asked.refuse_unsupported()
    if asked.model not in (None, RECALLS, IMAGINES):
        raise ApiError(404, f"there is no such model: leave it out, or ask {IMAGINES!r}",
                       code="model_not_found", param="model")  # fmt: skip
    if asked.response_format == "url":
        raise unsupported(
            "response_format", "pictures are not kept here, so that they have no url; take b64_json"
        )
    if asked.pixels and max(asked.pixels) > SIDE:
        raise ApiError(400, f"size has at most {SIDE} pixels a side", param="size")
    if isinstance(asked, PromptedImageRequest) and asked.stream and asked.n not in (None, 1):
        raise unsupported("n", "one picture at a time is streamed")


async def _prompted(
    service: Service,
    request: Request,
    asked: PromptedImageRequest,
    start: Callable[[Saved], Start] | None = None,
) -> Plan:
    """What the memory recalls by a prompt, or else the prompt itself."""
    given = {"text": asked.prompt}
    found = await cancel_on_disconnect(request, recall_for_picture(service, make_query(given)))
    return await cancel_on_disconnect(
        request, make_plan(service, given, _sampling(asked), found=found, start=start)
    )


def _sampling(asked: ImageRequest) -> Sampling:
    return Sampling(asked.n or 1, seed=asked.seed or 0)


def _known(saved: Saved, image: bytes, mask: bytes | None, limits: Limits) -> Start:
    """What of a picture is to stay; HarmoniaError if that is all of it, or nothing."""
    signal = pictures.read(image, limits=limits)
    alpha = pictures.opacity(image if mask is None else mask, limits=limits)
    if alpha is None:
        raise HarmoniaError(
            "nothing is to be drawn: make the missing part of the image or the mask transparent"
        )
    if alpha.shape != signal.array.shape[:2]:
        raise HarmoniaError("the mask has another size than the image: give both the same")
    whole = Image.fromarray(signal.array)
    whole.putalpha(Image.fromarray(alpha))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.png"
        whole.save(file, compress_level=1)
        return Start(known=read_known(file, shape_of(saved.generator)))


async def _drawn(service: Service, request: Request, asked: ImageRequest, plan: Plan, name: str) -> Response:
    if isinstance(asked, PromptedImageRequest) and asked.stream:
        return stream(_partly(service, asked, plan, name))
    signals = await cancel_on_disconnect(request, draw_plan(service, plan))
    data = [{"b64_json": await _encoded(service, asked, plan, one)} for one in signals]
    facts = {"created": int(time.time()), "data": data, "background": "opaque", **_facts(asked, plan)}
    return JSONResponse({**facts, "usage": _usage(asked, name, len(data)), "harmonia": _evidence(plan)})


async def _partly(service: Service, asked: PromptedImageRequest, plan: Plan, name: str) -> AsyncIterator[str]:
    """A picture as it comes to be. A client that goes away ends the drawing."""
    loop, seen, wanted = asyncio.get_running_loop(), asyncio.Queue[Signal | None](), asked.partial_images or 0

    def look(step: int, of: int, x: Tensor) -> None:
        shown = {-(-of * part // (wanted + 1)) for part in range(1, wanted + 1)} - {of}
        if step in shown:
            loop.call_soon_threadsafe(seen.put_nowait, signal_of(x[0]))

    facts = {"created_at": int(time.time()), "background": "opaque", "quality": "auto", **_facts(asked, plan)}
    task = asyncio.create_task(draw_plan(service, plan, look))
    task.add_done_callback(lambda _: seen.put_nowait(None))
    number = 0
    try:
        while (partial := await seen.get()) is not None:
            told = {"partial_image_index": number, "b64_json": await _encoded(service, asked, plan, partial)}
            yield event({"type": f"{name}.partial_image", **facts, **told}, f"{name}.partial_image")
            number += 1
        last = {
            "b64_json": await _encoded(service, asked, plan, task.result()[0]),
            "usage": _usage(asked, name, 1),
        }
        ended = {"type": f"{name}.completed", **facts, **last, "harmonia": _evidence(plan)}
        yield event(ended, f"{name}.completed")
    except HarmoniaError as error:
        yield event(errors.body(400, service.without_paths(str(error))), "error")
    finally:
        task.cancel()


async def _encoded(service: Service, asked: ImageRequest, plan: Plan, signal: Signal) -> str:
    kind = asked.output_format if isinstance(asked, PromptedImageRequest) else None
    data = await service.work(lambda: encode_picture(signal, plan.mark, kind or "png", asked.pixels))
    return base64.b64encode(data).decode()


def _facts(asked: ImageRequest, plan: Plan) -> dict[str, Any]:
    _, height, width = shape_of(plan.saved.generator)
    kind = asked.output_format if isinstance(asked, PromptedImageRequest) else None
    return {"output_format": kind or "png", "size": asked.size or f"{width}x{height}"}


def _usage(asked: ImageRequest, name: str, drawn: int) -> dict[str, Any]:
    """A token is a word of the prompt, a picture that was given, or one that was drawn."""
    said = count_words(asked.prompt) if isinstance(asked, PromptedImageRequest) else 0
    given = 0 if name == "image_generation" else 1
    return {
        "input_tokens": said + given, "output_tokens": drawn, "total_tokens": said + given + drawn,
        "input_tokens_details": {"text_tokens": said, "image_tokens": given},
    }  # fmt: skip


def _evidence(plan: Plan) -> dict[str, Any]:
    """The extension: the records that it was drawn from, how, by what, from which random numbers."""
    records = plan.wish.found.records if plan.wish.found else ()
    return {
        "generated": True, "generator": plan.mark.generator, "seed": plan.sampling.seed, "how": plan.wish.how,
        "evidence": [{"record_id": one.record.id, "probability": one.probability} for one in records],
    }  # fmt: skip
