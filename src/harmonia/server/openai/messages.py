"""Answers to conversations: what the memory recalls, or imagines, in sentences, with the records used.

No language model is involved: the sentences are composed from the records alone. The cue is the last message
of the user, its text and media together; earlier messages are ignored.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harmonia.collection.cues import Media, RecallOptions, make_query
from harmonia.collection.recall import NOTHING
from harmonia.collection.sentences import answer_text, described
from harmonia.modalities import sniff
from harmonia.server.errors import ApiError, missing_model
from harmonia.server.formats import check_modality, decode_base64
from harmonia.server.image_requests import EVIDENCE, draw_plan, encode_picture, make_plan, recall_for_picture
from harmonia.server.keys import Key
from harmonia.server.service import Service
from harmonia.server.sse import count_words
from harmonia.server.uploaded_files import PREFIX
from harmonia.server.url_fetch import fetch
from harmonia.tasks.sampling import Sampling
from harmonia.types import Recollection

RECALLS, IMAGINES = "harmonia", "harmonia-imagine"
"""The models that answer: with recalled records, and with a picture generated from them."""
ASKING = ("user", "developer", "system")
"""The roles whose last message is the cue; those after the first only where the ones before are absent."""
MAX_MEDIA, MAX_CHARACTERS = 16, 20_000
"""Most media of one message, and most characters of its text."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """Media as a client sends them: base64, a data URL, a URL, or the id of an uploaded file.

    ``modality`` is "" to detect it from the bytes; ``param`` names the field of the request.
    """

    given: str
    modality: str
    param: str


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One message of a conversation: role, text, and media (unread, or read to modality and bytes)."""

    role: str
    text: str
    media: Sequence[Attachment | tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """An answer: its text, the recollection behind it, and generated pictures (PNG)."""

    text: str
    found: Recollection | None
    abstained: bool
    pictures: Sequence[bytes] = field(default=())

    def harmonia(self, number: int | None = None) -> dict[str, Any]:
        """The extension ``harmonia`` of a message: the records used, and the picture of choice ``number``."""
        records = self.found.records if self.found else ()
        evidence = [
            {"record_id": recalled.record.id, "probability": recalled.probability} for recalled in records
        ]
        extension: dict[str, Any] = {"evidence": evidence, "abstained": self.abstained}
        if self.pictures and number is not None:
            picture = base64.b64encode(self.pictures[number]).decode()
            extension["image"] = {"b64_json": picture, "output_format": "png"}
        return extension


NOTHING_YET = "Nothing is remembered yet: remember something first."
NOTHING_ASKED = Reply("Nothing is asked: the input is empty.", None, abstained=True)


def check_model(name: str) -> None:
    """ApiError 404 for a model name that cannot answer conversations."""
    if name not in (RECALLS, IMAGINES):
        raise ApiError(
            404, f"unknown model: use {RECALLS!r} or {IMAGINES!r}",
            code="model_not_found", param="model",
        )  # fmt: skip


def no_speech(param: str) -> ApiError:
    """The error for a request of spoken output."""
    error = missing_model(
        "speech output", "this version has no recipe that trains a speech model; ask for text"
    )
    error.param = param
    return error


def count_input_words(turns: Sequence[Turn]) -> int:
    """The number of words of a conversation: the input of usage. Media are not counted."""
    return sum(count_words(turn.text) for turn in turns)


async def answer(
    service: Service, model: str, turns: Sequence[Turn], *, key: Key, param: str, n: int = 1, seed: int = 0
) -> Reply:
    """Answer the last message of the user, with ``n`` pictures if the model imagines.

    ``key`` is that of the caller: what it may not see is not recalled. ApiError if the conversation has no
    cue or media cannot be read; ``param`` names the field of the request.
    """
    check_model(model)
    cues = await _cues_of(service, turns, key, param)
    options = RecallOptions(EVIDENCE, where=key.records)
    if model == IMAGINES:
        return await _imagine(service, cues, options, Sampling(n, seed=seed))
    recollection = await service.recall(make_query(cues), options)
    # without a condition of its own, a conversation has nothing to ask only where nothing is remembered
    text = NOTHING_YET if recollection is NOTHING else answer_text(recollection)
    return Reply(text, recollection, recollection.abstained)


async def _imagine(
    service: Service, cues: dict[str, Media], options: RecallOptions, sampling: Sampling
) -> Reply:
    found = await recall_for_picture(service, make_query(cues), options)
    plan = await make_plan(service, cues, sampling, found=found)
    signals = await draw_plan(service, plan)
    recollection = plan.request.found
    text = (
        f"This picture is generated, not remembered; it was drawn {_how(recollection)} "
        f"by {plan.mark.generator!r}."
    )
    pictures = await service.work(lambda: [encode_picture(picture, plan.mark) for picture in signals])
    return Reply(text, recollection, recollection is None, pictures)


def _how(found: Recollection | None) -> str:
    if found is None or not found.records:
        return "from the cue itself, for nothing that is remembered matches it,"
    return f"from what the memory recalls, {described(found.records[0])},"


async def _cues_of(service: Service, turns: Sequence[Turn], key: Key, param: str) -> dict[str, Media]:
    """The cues in the last message of the user, by modality."""
    asked = next((role for role in ASKING if any(turn.role == role for turn in turns)), None)
    last = next((turn for turn in reversed(turns) if turn.role == asked), None)
    if last is None or not (last.text.strip() or last.media):
        raise ApiError(400, f"{param} has no user message with text or media", param=param)
    if len(last.media) > MAX_MEDIA or len(last.text) > MAX_CHARACTERS:
        raise ApiError(
            400,
            f"a message may have at most {MAX_CHARACTERS:,} characters and {MAX_MEDIA} media",
            param=param,
        )
    cues: dict[str, list[str | bytes]] = {"text": [last.text]} if last.text.strip() else {}
    for medium in last.media:
        modality, media = medium if isinstance(medium, tuple) else await read_attachment(service, medium, key)
        cues.setdefault(modality, []).append(media)
    # the generator takes one text
    return {modality: values[0] if len(values) == 1 else values for modality, values in cues.items()}


async def read_attachment(service: Service, attachment: Attachment, key: Key) -> tuple[str, bytes]:
    """The modality and the bytes of an attachment; ApiError 400 if it cannot be fetched, decoded or used.

    ``key`` is that of the caller, whose uploaded files it may name.
    """
    if attachment.given.lower().startswith(("http://", "https://")):
        if not service.settings.fetch:
            raise ApiError(
                400, f"{attachment.param}: fetching is disabled; send data:...;base64, or start with --fetch",
                code="fetch_disabled", param=attachment.param,
            )  # fmt: skip
        data = await fetch(attachment.given, attachment.param, max_bytes=service.settings.upload)
    elif attachment.given.startswith(PREFIX):
        files = service.files.of(key.namespace)
        data = await service.work(lambda: files.path(files.get(attachment.given)).read_bytes())
    else:
        data = await service.work(lambda: decode_base64(attachment.given, attachment.param))
    modality = attachment.modality or sniff(data[:512])
    if modality is None:
        raise ApiError(
            400, f"{attachment.param} has an unknown format: send an image, audio, video or text file",
            code="unsupported_media", param=attachment.param,
        )  # fmt: skip
    return modality, check_modality(data, modality, attachment.param)
