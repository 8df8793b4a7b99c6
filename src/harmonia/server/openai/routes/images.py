"""Pictures by OpenAI's endpoints: drawn from words, completed around what is known, or like another one."""

from __future__ import annotations

import asyncio
import base64
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request
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
from harmonia.server.formats import checked
from harmonia.server.forms import FILES, validated
from harmonia.server.image_requests import Plan, file_of, painted, planned, recalled
from harmonia.server.openai.messages import IMAGINES, RECALLS
from harmonia.server.openai.schemas.base import unsupported
from harmonia.server.openai.schemas.images import SIDE, Drawing, Prompted
from harmonia.server.schemas.errors import LACKS
from harmonia.server.service import Service, service
from harmonia.server.sse import STREAM, count, event, stream, while_there
from harmonia.tasks.image_io import read_known, shape_of, signal_of
from harmonia.tasks.sampling import Sampling, Start
from harmonia.types import HarmoniaError, Signal

router = APIRouter(prefix="/v1/images", tags=["openai"], responses=LACKS)

At = Annotated[Service, Depends(service)]
D = TypeVar("D", bound=Drawing)


def _documented(model: type[Drawing], *files: str) -> dict[str, Any]:
    """What OpenAPI is to say of a form."""
    schema = model.model_json_schema()
    schema["properties"] |= {name: {"type": "string", "format": "binary"} for name in files}
    schema["required"] = [*schema.get("required", []), "image"]
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


@router.post("/generations", responses=STREAM)
async def generations(asked: Prompted, request: Request, at: At) -> Response:
    """Pictures of a prompt: of what the memory recalls by it, or of the words if it recalls nothing."""
    _check(asked)
    return await _drawn(at, request, asked, await _prompted(at, request, asked), "image_generation")


@router.post("/edits", responses=STREAM, openapi_extra=_documented(Prompted, "image", "mask"))
async def edits(request: Request, at: At) -> Response:
    """What is missing of a picture, drawn anew: where it, or the mask, is transparent."""
    asked, files = await _form(request, Prompted)
    _check(asked)
    image, mask = files["image"], files.get("mask")

    def start(saved: Saved) -> Start:
        return _known(saved, image, mask, at.settings.limits)

    plan = await _prompted(at, request, asked, start)
    return await _drawn(at, request, asked, plan, "image_edit")


@router.post("/variations", openapi_extra=_documented(Drawing, "image"))
async def variations(request: Request, at: At) -> Response:
    """Pictures like another one: drawn from its code alone."""
    asked, files = await _form(request, Drawing)
    _check(asked)
    image, limits = files["image"], at.settings.limits
    signal = await at.work(lambda: pictures.read(image, max_side=1024, limits=limits))
    given: dict[str, Media] = {"image": signal}
    plan = await while_there(request, planned(at, given, _sampling(asked)))
    return await _drawn(at, request, asked, plan, "image_variation")


async def _form(request: Request, model: type[D]) -> tuple[D, dict[str, bytes]]:
    """The fields of a form, and its pictures by name: exactly one image."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise ApiError(400, "send a form (multipart/form-data) with the field image", param="image")
    async with request.form(max_files=FILES, max_fields=FILES) as form:
        said = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        files = await _pictures(form)
    return validated(said, model), files


async def _pictures(form: FormData) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for field, value in form.multi_items():
        name = field.removesuffix("[]")
        if not isinstance(value, UploadFile):
            continue
        if name not in ("image", "mask") or name in found:
            raise unsupported(name, "one image and one mask are taken")
        found[name] = checked(await value.read(), "image", name)
    if "image" not in found:
        raise ApiError(400, "the form has no picture in the field image", param="image")
    return found


def _check(asked: Drawing) -> None:
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
    if isinstance(asked, Prompted) and asked.stream and asked.n not in (None, 1):
        raise unsupported("n", "one picture at a time is streamed")


async def _prompted(
    at: Service, request: Request, asked: Prompted, start: Callable[[Saved], Start] | None = None
) -> Plan:
    """What the memory recalls by a prompt, or else the prompt itself."""
    given = {"text": asked.prompt}
    found = await while_there(request, recalled(at, make_query(given)))
    return await while_there(request, planned(at, given, _sampling(asked), found=found, start=start))


def _sampling(asked: Drawing) -> Sampling:
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


async def _drawn(at: Service, request: Request, asked: Drawing, plan: Plan, name: str) -> Response:
    if isinstance(asked, Prompted) and asked.stream:
        return stream(_partly(at, asked, plan, name))
    signals = await while_there(request, painted(at, plan))
    data = [{"b64_json": await _encoded(at, asked, plan, one)} for one in signals]
    facts = {"created": int(time.time()), "data": data, "background": "opaque", **_facts(asked, plan)}
    return JSONResponse({**facts, "usage": _usage(asked, name, len(data)), "harmonia": _evidence(plan)})


async def _partly(at: Service, asked: Prompted, plan: Plan, name: str) -> AsyncIterator[str]:
    """A picture as it comes to be. A client that goes away ends the drawing."""
    loop, seen, wanted = asyncio.get_running_loop(), asyncio.Queue[Signal | None](), asked.partial_images or 0

    def look(step: int, of: int, x: Tensor) -> None:
        shown = {-(-of * part // (wanted + 1)) for part in range(1, wanted + 1)} - {of}
        if step in shown:
            loop.call_soon_threadsafe(seen.put_nowait, signal_of(x[0]))

    facts = {"created_at": int(time.time()), "background": "opaque", "quality": "auto", **_facts(asked, plan)}
    task = asyncio.create_task(painted(at, plan, look))
    task.add_done_callback(lambda _: seen.put_nowait(None))
    number = 0
    try:
        while (partial := await seen.get()) is not None:
            told = {"partial_image_index": number, "b64_json": await _encoded(at, asked, plan, partial)}
            yield event({"type": f"{name}.partial_image", **facts, **told}, f"{name}.partial_image")
            number += 1
        last = {
            "b64_json": await _encoded(at, asked, plan, task.result()[0]),
            "usage": _usage(asked, name, 1),
        }
        ended = {"type": f"{name}.completed", **facts, **last, "harmonia": _evidence(plan)}
        yield event(ended, f"{name}.completed")
    except HarmoniaError as error:
        yield event(errors.body(400, at.told(str(error))), "error")
    finally:
        task.cancel()


async def _encoded(at: Service, asked: Drawing, plan: Plan, signal: Signal) -> str:
    kind = asked.output_format if isinstance(asked, Prompted) else None
    data = await at.work(lambda: file_of(signal, plan.mark, kind or "png", asked.pixels))
    return base64.b64encode(data).decode()


def _facts(asked: Drawing, plan: Plan) -> dict[str, Any]:
    _, height, width = shape_of(plan.saved.generator)
    kind = asked.output_format if isinstance(asked, Prompted) else None
    return {"output_format": kind or "png", "size": asked.size or f"{width}x{height}"}


def _usage(asked: Drawing, name: str, drawn: int) -> dict[str, Any]:
    """A token is a word of the prompt, a picture that was given, or one that was drawn."""
    said = count(asked.prompt) if isinstance(asked, Prompted) else 0
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
