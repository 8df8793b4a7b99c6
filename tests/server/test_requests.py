"""Bodies of every endpoint, by walking the OpenAPI document: nulls, wrong types, numbers at their ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from harmonia.server.settings import Settings
from tests.hostile import ids_of, refused
from tests.serving import generator_of, memory_of, serve

Json = dict[str, Any]

MESSAGE = {"role": "user", "content": "milk"}
CUE = {"text": "milk"}
ENDS = (0, -1, 2**31 - 1, -(2**31), 2**53, 2**63 - 1, -(2**63))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("requests")
    root = tmp_path_factory.getbasetemp()
    settings = Settings(memory_of(folder), generator=str(generator_of(folder)), roots=(root,))
    (root / "new.txt").write_text("a new note")
    with serve(settings) as url, httpx.Client(base_url=url, timeout=120) as found:
        yield found


@pytest.fixture(scope="module")
def ids(client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Json:
    return ids_of(client) | {"new": str(tmp_path_factory.getbasetemp() / "new.txt")}


@pytest.fixture(scope="module")
def bodies(client: httpx.Client, ids: Json) -> dict[str, Json]:
    """The least body of every endpoint that takes JSON, by its path."""
    cues = {"cues": [CUE]}
    least: dict[str, Json] = {
        "/v1/memory/recall": cues, "/v1/memory/retrieve": cues, "/v1/memory/answer": cues,
        "/v1/memory/landscape": cues, "/v1/memory/imagine": {**cues, "steps": 1},
        "/v1/memory/records": {"path": ids["new"]},
        "/v1/memory/records/{record_id}": {"metadata": {"a": 1}},
        "/v1/memory/jobs": {"files": [ids["file_id"]]},
        "/v1/chat/completions": {"model": "harmonia", "messages": [MESSAGE]},
        "/v1/chat/completions/{completion_id}": {"metadata": {"a": "b"}},
        "/v1/responses": {"model": "harmonia", "input": "milk"},
        "/v1/embeddings": {"model": "harmonia", "input": ["milk"]},
        "/v1/images/generations": {"prompt": "milk"},
        "/v1/vector_stores": {"name": "s"}, "/v1/vector_stores/{store_id}": {"name": "s"},
        "/v1/vector_stores/{store_id}/search": {"query": "milk"},
        "/v1/vector_stores/{store_id}/files": {"file_id": ids["file_id"]},
        "/v1/vector_stores/{store_id}/files/{file_id}": {"attributes": {"a": 1}},
        "/v1/vector_stores/{store_id}/file_batches": {"file_ids": [ids["file_id"]]},
    }  # fmt: skip
    return least


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> Json:
    found: Json = client.get("/openapi.json").json()
    return found


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    """Method, path and schema of every endpoint that takes JSON."""
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            body = operation.get("requestBody", {}).get("content", {}).get("application/json")
            if body is not None:
                yield method, path, resolved(body["schema"], document)


def resolved(schema: Json, document: Json) -> Json:
    if "$ref" in schema:
        found: Json = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        return found
    return schema


def send(client: httpx.Client, method: str, path: str, ids: Json, body: Json) -> httpx.Response:
    return client.request(method, path.format(**ids), json=body)


def test_null_is_not_given(client: httpx.Client, ids: Json, bodies: dict[str, Json], document: Json) -> None:
    tried = 0
    for method, path, schema in operations(document):
        least = bodies[path]
        optional = [one for one in schema["properties"] if one not in schema.get("required", ())]
        nulls = {one: None for one in optional if one not in least}
        for one in nulls:
            answer = send(client, method, path, ids, {**least, one: None})
            assert answer.is_success, (path, one, answer.text[:300])
            tried += 1
        answer = send(client, method, path, ids, {**least, **nulls})
        assert answer.is_success, (path, nulls, answer.text[:300])
    assert tried > 100


def test_null_is_not_given_inside(client: httpx.Client, document: Json, ids: Json) -> None:
    """The optional fields of what bodies hold: cues, parts, filters, ranking options."""
    for path, body in (
        ("/v1/memory/recall", {"cues": [{**CUE, **nulls(document, "CueIn", CUE)}]}),
        ("/v1/embeddings", {"input": [{**CUE, **nulls(document, "EmbeddingInput", CUE)}]}),
        ("/v1/vector_stores/vs_memory/search",
         {"query": "milk", "ranking_options": nulls(document, "Ranking", {})}),
        ("/v1/chat/completions",
         {"model": "harmonia", "messages": [{**MESSAGE, **nulls(document, "ChatMessage", MESSAGE)}],
          "stream_options": nulls(document, "StreamOptions", {})}),
        ("/v1/responses", {"model": "harmonia", "input": [
            {**MESSAGE, **nulls(document, "ResponseMessage", MESSAGE)}]}),
    ):  # fmt: skip
        answer = client.post(path, json=body)
        assert answer.is_success, (path, body, answer.text[:300])


def nulls(document: Json, schema: str, given: Json) -> Json:
    found = document["components"]["schemas"][schema]
    return {
        one: None for one in found["properties"] if one not in given and one not in found.get("required", ())
    }


def test_integers_at_their_ends(
    client: httpx.Client, ids: Json, bodies: dict[str, Json], document: Json
) -> None:
    """A seed is any 64-bit integer; any other integer is taken, or refused by its name."""
    for method, path, schema in operations(document):
        for name, field in schema["properties"].items():
            if not any(one.get("type") == "integer" for one in [field, *field.get("anyOf", ())]):
                continue
            for end in ENDS:
                if name in ("n", "steps", "partial_images") and end > 2:
                    continue  # taken or refused is a matter of minutes of drawing
                answer = send(client, method, path, ids, {**bodies[path], name: end})
                if name == "seed":
                    assert answer.is_success, (path, end, answer.text[:300])
                elif not answer.is_success:
                    assert refused(answer, 400)["param"] == name, (path, name, end, answer.text[:300])


def test_wrong_types_are_refused_by_name(
    client: httpx.Client, ids: Json, bodies: dict[str, Json], document: Json
) -> None:
    wrong = {"integer": "5", "number": "hot", "boolean": "yes", "string": {"a": 1}, "array": 5, "object": 5}
    tried = 0
    for method, path, schema in operations(document):
        for name, field in schema["properties"].items():
            shapes = [resolved(one, document) for one in [field, *field.get("anyOf", ())]]
            kinds = {one["type"] for one in shapes if one.get("type") in wrong}
            if len(kinds) != 1 or (path == "/v1/embeddings" and name == "input"):
                continue
            answer = send(client, method, path, ids, {**bodies[path], name: wrong[kinds.pop()]})
            error = refused(answer, 400)
            assert error["param"] == name and "\n" not in error["message"], (path, name, error)
            tried += 1
    assert tried > 60


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {"input": ["a", {"text": 5}]}, "input.1.text"),
        ("/v1/embeddings", {"input": ["a", {"image": "!"}]}, "input.1.image"),
        ("/v1/chat/completions", {"model": "harmonia", "messages": [{"role": "no", "content": "a"}]},
         "messages.0.role"),
        ("/v1/chat/completions",
         {"model": "harmonia", "messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
         "messages.0.content.0.text"),
        ("/v1/chat/completions",
         {"model": "harmonia", "messages": [{"role": "user", "content": [{"type": "text", "text": None}]}]},
         "messages.0.content.0.text"),
        ("/v1/chat/completions",
         {"model": "harmonia", "messages": [{"role": "user", "content": [
             {"type": "image_url", "image_url": {"url": 5}}]}]},
         "messages.0.content.0.image_url.url"),
        ("/v1/chat/completions",
         {"model": "harmonia", "messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages.0.content.0.image_url"),
        ("/v1/responses", {"model": "harmonia", "input": [{"role": "user", "content": [
            {"type": "input_text", "text": 5}]}]}, "input.0.content.0.text"),
        ("/v1/memory/recall", {"cues": [{"text": "a"}, {"text": 5}]}, "cues.1.text"),
        ("/v1/vector_stores/vs_memory/search", {"query": ["a", 5]}, "query.1"),
    ],
)  # fmt: skip
def test_the_path_of_what_is_wrong(client: httpx.Client, path: str, body: Json, param: str) -> None:
    assert refused(client.post(path, json=body), 400)["param"] == param


def test_histories_as_clients_send_them(client: httpx.Client) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    echoed = {
        "content": "yes", "refusal": None, "annotations": [], "audio": None, "function_call": None,
        "tool_calls": None, "reasoning_content": "hm", "name": "n", "x": {"y": 1},
    }  # fmt: skip
    history = [
        {"role": "system", "content": "a"}, {"role": "developer", "content": [{"type": "text", "text": "a"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "3"},
        {"role": "function", "name": "f", "content": None}, {"role": "assistant", **echoed},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},
    ]  # fmt: skip
    chunks = {"role": "user", "content": [{"type": "text", "text": "chunk"}] * 100}
    ask = {"model": "harmonia", "messages": [*history * 60, chunks, MESSAGE]}
    answer = client.post("/v1/chat/completions", json=ask)
    assert "buy milk" in answer.json()["choices"][0]["message"]["content"]
    alone = client.post("/v1/chat/completions", json={"model": "harmonia", "messages": history[:1]})
    assert alone.is_success
    items = [
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "3"},
        {"type": "reasoning", "id": "r", "summary": []}, {"type": "item_reference", "id": "m"},
        {"type": "message", "role": "assistant", "id": "m", "status": "completed",
         "content": [{"type": "output_text", "text": "yes", "annotations": [], "logprobs": []}]},
        {"role": "assistant", "content": [{"type": "reasoning_text", "text": "hm"}]},
    ]  # fmt: skip
    answer = client.post("/v1/responses", json={"model": "harmonia", "input": [*items * 60, MESSAGE]})
    assert "buy milk" in answer.json()["output"][0]["content"][0]["text"]
    wrong = client.post("/v1/responses", json={"model": "harmonia", "input": [{"type": "nothing"}]})
    assert refused(wrong, 400)["param"] == "input.0.type"


def test_input_items_page(client: httpx.Client) -> None:
    said = [{"role": "user", "content": f"milk {n}"} for n in range(5)]
    made = client.post("/v1/responses", json={"model": "harmonia", "input": said}).json()["id"]
    path = f"/v1/responses/{made}/input_items"
    texts, after = [], {}
    while True:
        page = client.get(path, params={"limit": 2, "order": "asc", **after}).json()
        texts += [one["content"][0]["text"] for one in page["data"]]
        if not page["has_more"]:
            break
        after = {"after": page["last_id"]}
    assert texts == [f"milk {n}" for n in range(5)]
    newest = client.get(path, params={"limit": 1}).json()["data"][0]
    assert newest["content"] == [{"type": "input_text", "text": "milk 4"}] and newest["role"] == "user"
    assert client.get(path, params={"after": "msg_0"}).json()["data"] == []
    assert refused(client.get("/v1/responses/resp_0/input_items"), 404)


def test_stored_completions(client: httpx.Client) -> None:
    ask = {"model": "harmonia", "messages": [MESSAGE], "store": True, "metadata": {"mine": "b"}}
    made = client.post("/v1/chat/completions", json=ask).json()
    path = f"/v1/chat/completions/{made['id']}"
    assert client.get(path).json() == made
    assert client.get(f"{path}/messages").json()["data"][0]["content"] == "milk"
    listed = client.get("/v1/chat/completions", params={"metadata[mine]": "b"}).json()["data"]
    assert [one["id"] for one in listed] == [made["id"]]
    assert client.post(path, json={"metadata": {"a": "c"}}).json()["metadata"] == {"a": "c"}
    assert client.get("/v1/chat/completions", params={"metadata[mine]": "b"}).json()["data"] == []
    assert client.delete(path).json()["deleted"] and refused(client.get(path), 404)
    unkept = client.post("/v1/chat/completions", json={**ask, "store": None}).json()
    assert refused(client.get(f"/v1/chat/completions/{unkept['id']}"), 404)


def test_no_match_is_an_answer(client: httpx.Client, ids: Json) -> None:
    conditions: list[Json] = [
        {"type": kind, "key": key, "value": value}
        for kind, key, value in (
            ("eq", "nosuch", 1), ("gte", "year", 9999), ("in", "nosuch", ["a"]), ("contains", "tags", "a"),
            ("eq", "a'b`c", "x"),
        )
    ]  # fmt: skip
    for condition in conditions:
        cues = {"cues": [CUE], "filters": condition}
        for path in ("recall", "answer"):
            found = client.post(f"/v1/memory/{path}", json=cues)
            assert found.is_success and found.json()["abstained"], found.text[:300]
        assert client.post("/v1/memory/recall", json=cues).json()["records"] == []
        assert client.post("/v1/memory/retrieve", json=cues).json()["records"] == []
        search = {"query": "milk", "filters": condition}
        for store in ("vs_memory", ids["store_id"]):
            page = client.post(f"/v1/vector_stores/{store}/search", json=search).json()
            assert page["data"] == [] and page["abstained"]


def test_a_parameter_that_is_empty_is_not_given(client: httpx.Client, document: Json, ids: Json) -> None:
    tried = 0
    for template, operations in document["paths"].items():
        names = [
            one["name"] for one in operations.get("get", {}).get("parameters", ()) if one["in"] == "query"
        ]
        if names and "{" not in template.replace("{store_id}", ""):
            path = template.replace("{store_id}", "vs_memory")
            answer = client.get(path, params=dict.fromkeys(names, ""))
            assert answer.is_success and answer.json() == client.get(path).json(), (path, answer.text[:300])
            tried += len(names)
    assert tried >= 25, tried


def test_no_advice_for_callers_of_python(client: httpx.Client) -> None:
    long = b"many words " * 500_000
    for form in ({"separate": "true"}, {}):
        answer = client.post("/v1/memory/records", data=form, files={"files": ("a.txt", long)})
        error = refused(answer, 400)
        assert "4 MiB" in error["message"] and "Limits" not in error["message"], error


def test_parameters_about_how_to_think_have_no_effect(client: httpx.Client) -> None:
    chat = {"model": "harmonia", "messages": [MESSAGE]}
    for more in ({"reasoning_effort": "high"}, {"verbosity": "medium"}, {"tool_choice": "none"}):
        assert client.post("/v1/chat/completions", json=chat | more).is_success, more
    ask = {"model": "harmonia", "input": [MESSAGE]}
    for more in (
        {"reasoning": {"effort": None, "summary": None}}, {"reasoning": {"effort": "low", "summary": "auto"}},
        {"text": {"format": {"type": "text"}, "verbosity": "low"}}, {"truncation": "auto"},
    ):  # fmt: skip
        assert client.post("/v1/responses", json=ask | more).is_success, more
    for more, param in (
        ({"text": {"format": {"type": "json_object"}}}, "text"), ({"include": "x"}, "include"),
        ({"tools": {}}, "tools"), ({"truncation": "maybe"}, "truncation"),
        ({"background": True}, "background"),
    ):  # fmt: skip
        assert refused(client.post("/v1/responses", json=ask | more), 400)["param"] == param


def test_texts_with_nul_and_what_is_no_text(client: httpx.Client) -> None:
    vectors = client.post("/v1/embeddings", json={"input": ["leek soup", "leek\0soup"]}).json()["data"]
    assert vectors[0]["embedding"] == pytest.approx(vectors[1]["embedding"], abs=1e-6)
    headers = {"Content-Type": "application/json"}
    for path, body, param in (
        ("/v1/embeddings", '{"input":["fine","\\ud800"]}', "input.1"),
        ("/v1/memory/recall", '{"cues":[{"text":"\\udfff"}]}', "cues.0.text"),
        ("/v1/chat/completions",
         '{"model":"harmonia","messages":[{"role":"user","content":"\\ud800"}]}', "messages.0.content"),
    ):  # fmt: skip
        assert refused(client.post(path, content=body, headers=headers), 400)["param"] == param, path


def test_a_field_where_a_file_belongs(client: httpx.Client) -> None:
    edge = "XX"
    form = "".join(
        f'--{edge}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in (("purpose", "assistants"), ("file", "hello"))
    )
    error = refused(
        client.post(
            "/v1/files", content=f"{form}--{edge}--\r\n",
            headers={"Content-Type": f"multipart/form-data; boundary={edge}"},
        ),
        400,
    )  # fmt: skip
    assert error["param"] == "file" and "UploadFile" not in error["message"] and "<" not in error["message"]


def test_forms_with_nothing_in_a_field(client: httpx.Client) -> None:
    for metadata, separate in (("null", "null"), ("", ""), ("{}", "false")):
        answer = client.post(
            "/v1/memory/records", files={"files": ("a.txt", b"a form with nothing in a field")},
            data={"metadata": metadata, "separate": separate},
        )  # fmt: skip
        assert answer.is_success, answer.text
