"""Conversations as the real openai client has them: chat completions and responses."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from harmonia.server.openai.response_store import ResponseStore
from harmonia.server.settings import Settings
from harmonia.server.sse import split_words, truncate
from tests.serving import media_of, memory_of, serve

MODEL = "harmonia"
NOTE = "buy milk and bread"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("chat")
    with serve(Settings(memory_of(folder), generator=str(folder / "none"))) as found:
        yield found


@pytest.fixture(scope="module")
def client(url: str) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none")


def said(*content: Any, role: str = "user") -> Any:
    return {"role": role, "content": content[0] if isinstance(content[0], str) else list(content)}


def encoded(name: str) -> str:
    return base64.b64encode((media_of() / name).read_bytes()).decode()


def picture(number: int) -> dict[str, Any]:
    data = f"data:image/png;base64,{encoded(f'photo-{number}.png')}"
    return {"type": "image_url", "image_url": {"url": data, "detail": "low"}}


def test_words_recall_a_note_with_its_evidence(client: OpenAI, url: str) -> None:
    answer = client.chat.completions.create(
        model=MODEL, messages=[said("be brief", role="developer"), said("who sells bread?"), said("milk")],
        temperature=0, n=2,
    )  # fmt: skip
    first, second = answer.choices
    assert NOTE in (first.message.content or "") and first.finish_reason == "stop"
    assert second.message.content == first.message.content
    harmonia = first.message.harmonia  # type: ignore[attr-defined]
    assert not harmonia["abstained"]
    best = harmonia["evidence"][0]
    record = httpx.get(f"{url}/v1/memory/records/{best['record_id']}").json()
    assert record["parts"][0]["text"] == NOTE and best["probability"] > 0.5
    usage = answer.usage
    assert usage and usage.prompt_tokens == 6 and usage.total_tokens == 6 + usage.completion_tokens
    assert usage.completion_tokens == 2 * len((first.message.content or "").split())


def test_a_picture_and_a_sound_recall_theirs(client: OpenAI) -> None:
    seen = client.chat.completions.create(model=MODEL, messages=[said(picture(2))])
    assert "the photo number 2" in (seen.choices[0].message.content or "").split(";")[0]
    sound: Any = {"type": "input_audio", "input_audio": {"data": encoded("tone-1.wav"), "format": "wav"}}
    file: Any = {"type": "file", "file": {"file_data": encoded("tone-1.wav"), "filename": "x.png"}}
    for part in (sound, file):
        heard = client.chat.completions.create(model=MODEL, messages=[said(part)])
        assert "a high tone" in (heard.choices[0].message.content or "").split(";")[0]


def test_abstaining_is_said_plainly(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=[said("qwxz vvkj")]).choices[0].message
    assert (answer.content or "").startswith("Nothing that is remembered matches")
    assert answer.harmonia["abstained"]  # type: ignore[attr-defined]


def test_a_stream_says_the_same(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=MODEL, messages=[said("milk")])
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=[said("milk")], stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content and len(chunks) > 5
    assert chunks[0].choices[0].delta.role == "assistant"
    *_, last, usage = chunks
    assert last.choices[0].finish_reason == "stop"
    harmonia = whole.choices[0].message.harmonia  # type: ignore[attr-defined]
    assert last.choices[0].delta.harmonia == harmonia == last.harmonia  # type: ignore[attr-defined]
    assert usage.choices == [] and usage.usage == whole.usage
    assert len({c.id for c in chunks}) == 1
    with client.chat.completions.stream(model=MODEL, messages=[said("milk")]) as stream:
        assert stream.get_final_completion().choices[0].message.content == text


def test_raw_stream_ends_with_done(url: str) -> None:
    body = {"model": MODEL, "messages": [said("milk")], "stream": True}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")


def test_length_and_stop(client: OpenAI) -> None:
    ask: Any = {"model": MODEL, "messages": [said("milk")]}
    short = client.chat.completions.create(**ask, max_completion_tokens=3, max_tokens=9).choices[0]
    assert short.message.content == "The memory recalls" and short.finish_reason == "length"
    stopped = client.chat.completions.create(**ask, stop=["bread", "milk"]).choices[0]
    assert stopped.message.content == "The memory recalls “buy " and stopped.finish_reason == "stop"
    chunks = client.chat.completions.create(**ask, stop="milk", stream=True)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == stopped.message.content
    assert truncate("a b  c", 2) == ("a b", True) and truncate("a b", 2) == ("a b", False)
    assert "".join(split_words(" a\n b ")) == " a\n b "


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"n": 99}, "n"),
        ({"messages": [{"role": "user", "content": []}]}, "messages"),
        ({"messages": [said("hello", role="assistant")]}, "messages"),
        ({"messages": [said("x" * 20_001)]}, "messages"),
        ({"messages": [said(picture(1) | {"image_url": {"url": "data:image/png;base64,!!"}})]},
         "messages.0.content.0.image_url.url"),
        ({"messages": [said({"type": "file", "file": {"filename": "x"}})]},
         "messages.0.content.0.file.file_data"),
        ({"messages": [said(picture(1) | {"image_url": {"url": "http://127.0.0.1/x.png"}})]},
         "messages.0.content.0.image_url.url"),
    ],
)  # fmt: skip
def test_what_cannot_be_followed_is_named(client: OpenAI, more: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": MODEL, "messages": [said("milk")], **more})
    assert refused.value.param == param


def test_what_asks_for_nothing_is_let_through(client: OpenAI) -> None:
    client.chat.completions.create(
        model=MODEL, messages=[said("milk")], tools=[], logprobs=False, response_format={"type": "text"},
        user="me", seed=4, top_p=0.5, store=False,
    )  # fmt: skip


def test_unknown_and_missing_models(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-9", messages=[said("milk")])
    assert unknown.value.code == "model_not_found" and unknown.value.param == "model"
    for ask in ({"model": "harmonia-imagine"}, {"model": MODEL, "modalities": ["text", "audio"]}):
        with pytest.raises(openai.InternalServerError) as missing:
            client.chat.completions.create(messages=[said("milk")], **ask)
        assert missing.value.status_code == 501 and missing.value.code == "model_not_available"
        # the client must not try again: what is missing stays missing
        assert missing.value.response.headers["x-should-retry"] == "false"
        assert missing.value.response.request.headers["x-stainless-retry-count"] == "0"


def test_responses_and_their_life(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="milk", instructions="in short", metadata={"a": "b"})
    assert NOTE in first.output_text and first.status == "completed" and first.metadata == {"a": "b"}
    assert first.output[0].harmonia["evidence"]  # type: ignore[union-attr]
    assert first.usage and first.usage.input_tokens == 3
    second = client.responses.create(
        model=MODEL, previous_response_id=first.id, max_output_tokens=4,
        input=[{"role": "user", "content": [
            {"type": "input_text", "text": "and this?"},
            {"type": "input_image", "detail": "auto", "image_url": picture(4)["image_url"]["url"]},
        ]}],
    )  # fmt: skip
    assert second.status == "incomplete" and len(second.output_text.split()) == 4
    assert second.incomplete_details and second.incomplete_details.reason == "max_output_tokens"
    assert second.usage and second.usage.input_tokens == 1 + len(first.output_text.split()) + 2
    assert client.responses.retrieve(first.id).output_text == first.output_text
    with pytest.raises(openai.BadRequestError):
        client.responses.cancel(first.id)
    client.responses.delete(first.id)
    for call in (client.responses.retrieve, client.responses.delete):
        with pytest.raises(openai.NotFoundError):
            call(first.id)
    unkept = client.responses.create(model=MODEL, input="milk", store=False)
    with pytest.raises(openai.NotFoundError) as gone:
        client.responses.create(model=MODEL, input="milk", previous_response_id=unkept.id)
    assert gone.value.param == "previous_response_id"


def test_an_uploaded_file_is_a_cue(client: OpenAI) -> None:
    file = client.files.create(file=media_of() / "photo-3.png", purpose="user_data")
    part: Any = {"type": "file", "file": {"file_id": file.id}}
    chat = client.chat.completions.create(model=MODEL, messages=[said(part)])
    assert "the photo number 3" in (chat.choices[0].message.content or "").split(";")[0]
    image: Any = {"type": "input_image", "detail": "auto", "file_id": file.id}
    answer = client.responses.create(model=MODEL, input=[{"role": "user", "content": [image]}])
    assert answer.output_text == chat.choices[0].message.content
    client.files.delete(file.id)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=MODEL, messages=[said(part)])


def test_an_output_can_be_an_input(client: OpenAI) -> None:
    first = client.responses.create(model=MODEL, input="milk")
    history: Any = [{"role": "user", "content": "milk"}, *(one.model_dump() for one in first.output)]
    again = client.responses.create(model=MODEL, input=[*history, {"role": "user", "content": "dentist"}])
    assert "the dentist" in again.output_text


def test_streamed_responses_come_in_order(client: OpenAI) -> None:
    events = list(client.responses.create(model=MODEL, input="milk", stream=True))
    assert [one.sequence_number for one in events] == list(range(len(events)))
    kinds = list(dict.fromkeys(one.type.removeprefix("response.") for one in events))
    assert kinds == [
        "created", "in_progress", "output_item.added", "content_part.added", "output_text.delta",
        "output_text.done", "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    deltas = "".join(one.delta for one in events if one.type == "response.output_text.delta")
    ended = events[-1]
    assert ended.type == "response.completed" and ended.response.output_text == deltas
    assert client.responses.retrieve(ended.response.id).output_text == deltas
    with client.responses.stream(model=MODEL, input="milk", max_output_tokens=2) as stream:
        *_, last = stream
    assert last.type == "response.incomplete"


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"text": {"format": {"type": "json_object"}}}, "text"),
        ({"background": True}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
         "input.0.content.0.file_id"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "input.0.content.0"),
    ],
)  # fmt: skip
def test_responses_name_what_they_cannot_follow(client: OpenAI, more: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.responses.create(**{"model": MODEL, "input": "milk", **more})
    assert refused.value.param == param


def test_kept_responses_are_bounded_and_private() -> None:
    kept = ResponseStore(most=2, size=10_000)
    for number in range(4):
        kept.keep("me", {"id": str(number)}, [])
    assert [name for _, name in kept.held] == ["2", "3"]
    with pytest.raises(Exception, match=r"unknown response id \(responses are not persisted\)"):
        kept.get("you", "3")
    kept.keep("me", {"id": "large", "text": "x" * 20_000}, [])
    assert not kept.held and kept.size == 0


def test_the_async_client(url: str) -> None:
    async def converse() -> None:
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            answer = await client.chat.completions.create(model=MODEL, messages=[said("milk")])
            assert NOTE in (answer.choices[0].message.content or "")
            stream = await client.chat.completions.create(model=MODEL, messages=[said("milk")], stream=True)
            text = "".join([c.choices[0].delta.content or "" async for c in stream])
            assert text == answer.choices[0].message.content
            events = [
                one async for one in await client.responses.create(model=MODEL, input="milk", stream=True)
            ]
            assert events[-1].type == "response.completed"
            assert (await client.responses.create(model=MODEL, input="milk")).output_text == text
            with pytest.raises(openai.InternalServerError, match="imagine-mini"):
                await client.chat.completions.create(model="harmonia-imagine", messages=[said("milk")])
            with pytest.raises(openai.InternalServerError, match="imagine-mini"):
                await client.responses.create(model="harmonia-imagine", input="milk")

    asyncio.run(converse())


def test_no_memory_yet_is_said(tmp_path: Path) -> None:
    with serve(Settings(tmp_path / "new")) as url:
        client = OpenAI(base_url=f"{url}/v1", api_key="none")
        message = client.chat.completions.create(model=MODEL, messages=[said("milk")]).choices[0].message
    assert "remember something first" in (message.content or "")
    assert message.model_extra and message.model_extra["harmonia"]["abstained"]
