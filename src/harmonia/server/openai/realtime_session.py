"""A realtime session: applies client events to a conversation and yields the server events."""

from __future__ import annotations

import io
import uuid
import wave
from collections.abc import AsyncIterator, Iterator
from typing import Any

from harmonia.modalities import sniff
from harmonia.server.errors import ApiError, not_found
from harmonia.server.formats import decode_base64
from harmonia.server.keys import Key
from harmonia.server.openai.messages import (
    Attachment,
    Turn,
    answer,
    count_input_words,
    no_speech,
    read_attachment,
)
from harmonia.server.openai.schemas.realtime import (
    BufferAppend,
    BufferEvent,
    Event,
    Item,
    ItemCreate,
    ItemNamed,
    ResponseCreate,
    SessionUpdate,
)
from harmonia.server.service import Service
from harmonia.server.sse import count_words, split_words, truncate

MAX_ITEMS, MAX_BYTES = 256, 32 * 2**20
"""Most messages of one conversation, and most bytes of its media."""
SAMPLE_RATE = 24_000
"""Sample rate of audio without a header, in Hz."""

JsonObject = dict[str, Any]


class RealtimeSession:
    """One conversation over one connection; nothing is stored after it closes. ``key`` is the caller's."""

    def __init__(self, service: Service, model: str, key: Key) -> None:
        self.service, self.model, self.key = service, model, key
        self.items: dict[str, JsonObject] = {}
        self.turns: dict[str, Turn] = {}
        self.buffer = bytearray()
        self.settings: JsonObject = {
            "type": "realtime", "object": "realtime.session", "id": _id("sess"), "model": model,
            "output_modalities": ["text"], "instructions": "", "max_output_tokens": "inf", "tools": [],
            "tool_choice": "none", "expires_at": None,
            "audio": {
                "input": {"format": {"type": "audio/pcm", "rate": SAMPLE_RATE}, "turn_detection": None},
            },
        }  # fmt: skip

    async def handle(self, event: Event) -> AsyncIterator[JsonObject]:
        """The server events that answer a client event; ApiError or HarmoniaError if it is invalid."""
        if isinstance(event, SessionUpdate):
            yield self._update(event)
        elif isinstance(event, ItemCreate):
            for message in await self._create(event.item):
                yield message
        elif isinstance(event, ItemNamed):
            yield self._named(event)
        elif isinstance(event, BufferAppend):
            self._append(decode_base64(event.audio, "audio"))
        elif isinstance(event, BufferEvent):
            for message in await self._buffered(event):
                yield message
        elif isinstance(event, ResponseCreate):
            async for message in self._respond(event):
                yield message
        else:
            raise ApiError(400, "no response is in progress", code="response_cancel_not_active")

    def _update(self, event: SessionUpdate) -> JsonObject:
        change = event.session
        change.refuse_unsupported()
        if change.audio is not None:
            change.audio.refuse_unsupported()
            if change.audio.input is not None:
                change.audio.input.refuse_unsupported()
        if "audio" in (change.output_modalities or ()):
            raise no_speech("session.output_modalities")
        if change.model not in (None, self.model):
            raise ApiError(400, "the model cannot change within a session", param="session.model")
        for name in ("instructions", "output_modalities", "max_output_tokens"):
            if (value := getattr(change, name)) is not None:
                self.settings[name] = value
        return {"type": "session.updated", "session": self.settings}

    async def _create(self, item: Item) -> list[JsonObject]:
        """Add a message; it is read in full first."""
        name = item.id or _id("item")
        if name in self.items:
            raise ApiError(400, "an item with this id exists already", param="item.id")
        if len(self.items) >= MAX_ITEMS:
            raise ApiError(400, f"a conversation has at most {MAX_ITEMS} items: delete some", param="item")
        texts, media = [], []
        for i, part in enumerate(item.content):
            place = f"item.content.{i}"
            if part.type in ("input_text", "output_text"):
                texts.append(part.text)
            elif part.type == "input_image" and part.image_url:
                media.append(
                    await read_attachment(
                        self.service, Attachment(part.image_url, "image", f"{place}.image_url"), self.key
                    )
                )
            elif part.type == "input_audio" and part.audio:
                media.append(("audio", _sound(decode_base64(part.audio, f"{place}.audio"), f"{place}.audio")))
            else:
                raise ApiError(400, f"{place} is empty", param=place)
        self._room(sum(len(data) for _, data in media))
        shown = [part.model_dump(include={"type", "text"}) for part in item.content]
        return self._add(name, item.role, shown, Turn(item.role, "\n".join(texts), media))

    def _add(self, name: str, role: str, content: list[JsonObject], turn: Turn) -> list[JsonObject]:
        item = {"id": name, "object": "realtime.item", "type": "message", "status": "completed", "role": role,
                "content": content}  # fmt: skip
        before = next(reversed(self.items), None)
        self.items[name], self.turns[name] = item, turn
        return [{"type": f"conversation.item.{what}", "previous_item_id": before, "item": item}
                for what in ("added", "done")]  # fmt: skip

    def _named(self, event: ItemNamed) -> JsonObject:
        if event.item_id not in self.items:
            raise not_found("item", event.item_id)
        if event.type == "conversation.item.retrieve":
            return {"type": "conversation.item.retrieved", "item": self.items[event.item_id]}
        del self.items[event.item_id], self.turns[event.item_id]
        return {"type": "conversation.item.deleted", "item_id": event.item_id}

    def _append(self, data: bytes) -> None:
        self._room(len(data))
        self.buffer += data

    async def _buffered(self, event: BufferEvent) -> list[JsonObject]:
        data = bytes(self.buffer)
        self.buffer.clear()
        if event.type == "input_audio_buffer.clear":
            return [{"type": "input_audio_buffer.cleared"}]
        if not data:
            raise ApiError(400, "the input audio buffer is empty", code="input_audio_buffer_commit_empty")
        before, name = next(reversed(self.items), None), _id("item")
        turn = Turn("user", "", [("audio", _sound(data, "audio"))])
        committed = {"type": "input_audio_buffer.committed", "previous_item_id": before, "item_id": name}
        return [committed, *self._add(name, "user", [{"type": "input_audio", "transcript": None}], turn)]

    def _room(self, more: int) -> None:
        used = len(self.buffer) + sum(len(medium[1]) for turn in self.turns.values() for medium in turn.media
                                      if isinstance(medium, tuple))  # fmt: skip
        if used + more > MAX_BYTES:
            raise ApiError(
                400,
                f"a conversation may hold at most {MAX_BYTES:,} bytes of media: delete some items",
                code="conversation_too_large",
            )

    async def _respond(self, event: ResponseCreate) -> AsyncIterator[JsonObject]:
        """Answer the last message of the user."""
        options = event.response
        if options is not None:
            options.refuse_unsupported()
        if "audio" in ((options and options.output_modalities) or ()):
            raise no_speech("response.output_modalities")
        most = (options and options.max_output_tokens) or self.settings["max_output_tokens"]
        turns = list(self.turns.values())
        reply = await answer(self.service, self.model, turns, key=self.key, param="conversation")
        text, cut = truncate(reply.text, None if most == "inf" else most)
        for message in self._told(
            text, cut, reply.harmonia(0 if reply.pictures else None), count_input_words(turns)
        ):
            yield message

    def _told(self, text: str, cut: bool, harmonia: JsonObject, input_words: int) -> Iterator[JsonObject]:
        """The events of one response, in OpenAI's order."""
        name, response_id = _id("item"), _id("resp")
        status = "incomplete" if cut else "completed"
        part = {"type": "output_text", "text": text}
        response: JsonObject = {
            "id": response_id, "object": "realtime.response", "status": "in_progress", "status_details": None,
            "output": [], "output_modalities": ["text"], "conversation_id": self.settings["id"],
            "metadata": None, "usage": None,
        }  # fmt: skip
        begun = {"id": name, "object": "realtime.item", "type": "message", "status": "in_progress",
                 "role": "assistant", "content": []}  # fmt: skip
        item = {**begun, "status": status, "content": [part], "harmonia": harmonia}
        whole = {"response_id": response_id, "output_index": 0}
        place = {**whole, "item_id": name, "content_index": 0}
        yield {"type": "response.created", "response": response}
        yield {"type": "response.output_item.added", **whole, "item": begun}
        added, done = self._add(name, "assistant", [part], Turn("assistant", text))
        yield {**added, "item": begun}
        yield {"type": "response.content_part.added", **place, "part": {"type": "text", "text": ""}}
        for word in split_words(text):
            yield {"type": "response.output_text.delta", **place, "delta": word}
        yield {"type": "response.output_text.done", **place, "text": text}
        yield {"type": "response.content_part.done", **place, "part": {"type": "text", "text": text}}
        yield {**done, "item": item}
        yield {"type": "response.output_item.done", **whole, "item": item}
        output_words = count_words(text)
        details = {"type": "incomplete", "reason": "max_output_tokens"} if cut else None
        usage = {
            "input_tokens": input_words,
            "output_tokens": output_words,
            "total_tokens": input_words + output_words,
        }
        ended = {"status": status, "status_details": details, "output": [item], "usage": usage}
        yield {"type": "response.done", "response": {**response, **ended}}


def _id(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def _sound(data: bytes, param: str) -> bytes:
    """An audio file: the data itself if it is one, else the data as a WAV of 16-bit PCM at 24 kHz."""
    if sniff(data[:512]) in ("audio", "video"):
        return data
    if len(data) < 2 or len(data) % 2:
        raise ApiError(400, f"{param} is neither 16-bit PCM nor an audio file", param=param)
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(data)
    return file.getvalue()
