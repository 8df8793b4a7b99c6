"""Answers to conversations: what the memory recalls, or imagines, in plain sentences, with the evidence.

No language model is here: the sentences are composed from the records, and say nothing that is not in them.
The last message of the user is the cue, its words and media together; those before it are not asked by.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harmonia.collection.cues import Media, RecallOptions, make_query
from harmonia.collection.sentences import answer_text, described
from harmonia.modalities import sniff
from harmonia.server.errors import ApiError, missing_model
from harmonia.server.formats import check_modality, decode_base64
from harmonia.server.image_requests import EVIDENCE, draw_plan, encode_picture, make_plan, recall_for_picture
from harmonia.server.service import Service
from harmonia.server.sse import count_words
from harmonia.server.uploaded_files import PREFIX
from harmonia.server.url_fetch import fetch
from harmonia.tasks.sampling import Sampling
from harmonia.types import Recollection

RECALLS, IMAGINES = "harmonia", "harmonia-imagine"
"""The models that answer: by what is remembered, and with a picture drawn from it."""
CUES, LONGEST = 16, 20_000
"""Most media of one message, and most characters of its words."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """Media as a client wrote them: base64, a data URL, an address, or the id of an uploaded file.

    ``modality`` is "" where the bytes say it; ``param`` names the field of the request.
    """

    given: str
    modality: str
    param: str


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One message of a conversation: who said it, its words, and its media, or their modality and bytes."""

    role: str
    text: str
    media: Sequence[Attachment | tuple[str, bytes]] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Reply:
    """What is said, by which recollection, and pictures (PNG) that were drawn for it."""

    text: str
    found: Recollection | None
    abstained: bool
    pictures: Sequence[bytes] = field(default=())

    def harmonia(self, number: int | None = None) -> dict[str, Any]:
        """The extension of OpenAI's messages: the records behind an answer, and the picture of one choice."""
        records = self.found.records if self.found else ()
        evidence = [{"record_id": one.record.id, "probability": one.probability} for one in records]
        told: dict[str, Any] = {"evidence": evidence, "abstained": self.abstained}
        if self.pictures and number is not None:
            picture = base64.b64encode(self.pictures[number]).decode()
            told["image"] = {"b64_json": picture, "output_format": "png"}
        return told


def check_model(name: str) -> None:
    """ApiError 404 for a model that does not answer here."""
    if name not in (RECALLS, IMAGINES):
        raise ApiError(
            404, f"there is no model of that name that answers: ask {RECALLS!r} or {IMAGINES!r}",
            code="model_not_found", param="model",
        )  # fmt: skip


def no_speech(param: str) -> ApiError:
    """The answer where a voice is asked for."""
    error = missing_model("answering aloud", "no recipe of this version makes one; ask for text")
    error.param = param
    return error


def count_input_words(turns: Sequence[Turn]) -> int:
    """The words of a conversation: what usage counts as its input. Media are not counted."""
    return sum(count_words(turn.text) for turn in turns)


async def answer(
    service: Service, model: str, turns: Sequence[Turn], *, param: str, n: int = 1, seed: int = 0
) -> Reply:
    """The answer to the last message of the user; ``n`` pictures if one imagines.

    ApiError for a conversation without a cue, or media that cannot be read; ``param`` names its field.
    """
    check_model(model)
    given = await _given(service, turns, param)
    if model == IMAGINES:
        return await _imagined(service, given, Sampling(n, seed=seed))
    found = await service.recall(make_query(given), RecallOptions(EVIDENCE))
    return Reply(answer_text(found), found, found.abstained)


async def _imagined(service: Service, given: dict[str, Media], sampling: Sampling) -> Reply:
    plan = await make_plan(
        service, given, sampling, found=await recall_for_picture(service, make_query(given))
    )
    drawn = await draw_plan(service, plan)
    found = plan.wish.found
    text = (
        f"This picture is generated, not remembered; it was drawn {_how(found)} by {plan.mark.generator!r}."
    )
    files = await service.work(lambda: [encode_picture(one, plan.mark) for one in drawn])
    return Reply(text, found, found is None, files)


def _how(found: Recollection | None) -> str:
    if found is None or not found.records:
        return "from the cue itself, for nothing that is remembered matches it,"
    return f"from what the memory recalls, {described(found.records[0])},"


async def _given(service: Service, turns: Sequence[Turn], param: str) -> dict[str, Media]:
    """The cues of the last message of the user, by modality."""
    last = next((turn for turn in reversed(turns) if turn.role == "user"), None)
    if last is None or not (last.text.strip() or last.media):
        raise ApiError(400, f"{param} has no words and no media of a user to recall by", param=param)
    if len(last.media) > CUES or len(last.text) > LONGEST:
        raise ApiError(
            400, f"a message has at most {LONGEST:,} characters and {CUES} media to recall by", param=param
        )
    found: dict[str, list[str | bytes]] = {"text": [last.text]} if last.text.strip() else {}
    for one in last.media:
        modality, media = one if isinstance(one, tuple) else await read_attachment(service, one)
        found.setdefault(modality, []).append(media)
    # imagine takes words as one text
    return {modality: several[0] if len(several) == 1 else several for modality, several in found.items()}


async def read_attachment(service: Service, one: Attachment) -> tuple[str, bytes]:
    """The modality and the bytes of media; ApiError 400 if they cannot be had or are none."""
    if one.given.lower().startswith(("http://", "https://")):
        if not service.settings.fetch:
            raise ApiError(
                400, f"{one.param}: this server fetches nothing; send data:...;base64, or serve with --fetch",
                code="fetch_disabled", param=one.param,
            )  # fmt: skip
        data = await fetch(one.given, one.param, most=service.settings.upload)
    elif one.given.startswith(PREFIX):
        data = await service.work(lambda: service.files.path(service.files.get(one.given)).read_bytes())
    else:
        data = await service.work(lambda: decode_base64(one.given, one.param))
    modality = one.modality or sniff(data[:512])
    if modality is None:
        raise ApiError(
            400, f"{one.param} is of no known format: send a picture, a sound, a video or a text",
            code="unsupported_media", param=one.param,
        )  # fmt: skip
    return modality, check_modality(data, modality, one.param)
