"""Two keys of two namespaces: every operation of the OpenAPI document, called by the one with all that the
other has.

A new route is called too: an operation whose parameters are not known here, or that cannot be called, fails.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from harmonia.server.keys import new_key
from harmonia.server.settings import Settings
from tests.media import make_photo
from tests.serving import generator_of, memory_of, serve

Json = dict[str, Any]

TEXT, NOTE, CAPTION = "zanzibar has a quiet aardvark", "the ledger of the lighthouse", "a kumquat at noon"
WORDS = ("the quiet aardvark of zanzibar", "ledger kumquat", "milk dentist photo thing")
"""What B asks for: words of A's texts, and of those of the memory's owner."""
METADATA = {"tag": "quagga", "kiwicolumn": "persimmon"}
STORE, FILE, JOB_FILE = "store-of-alpha", "ledger-of-alpha.txt", "second-of-alpha.txt"


class Party:
    """A client with a key, and what it has stored, by the names of the parameters of paths."""

    def __init__(self, url: str, secret: str) -> None:
        headers = {"Authorization": f"Bearer {secret}"}
        self.client = httpx.Client(base_url=url, headers=headers, timeout=120)
        self.ids: dict[str, str] = {}

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.is_success, (path, answer.text[:300])
        return answer.json()

    def post(self, path: str, **more: Any) -> Json:
        answer = self.client.post(path, **more)
        assert answer.is_success, (path, answer.text[:300])
        found: Json = answer.json()
        return found

    def store_everything(self, folder: Path) -> None:
        """One of everything that has an id."""
        picture = make_photo(folder / "of-alpha.png", seed=77)
        self.picture = picture.read_bytes()
        form = {"text": CAPTION, "metadata": json.dumps(METADATA)}
        upload = {"files": ("picture-of-alpha.png", self.picture)}
        record = self.post("/v1/memory/records", files=upload, data=form)
        note = self.post("/v1/memory/records", files={"text": (None, TEXT)})
        file = self.upload(FILE, NOTE)
        store = self.post("/v1/vector_stores", json={"name": STORE, "metadata": {"of": "alpha-only"}})
        place = f"/v1/vector_stores/{store['id']}"
        batch = self.post(
            f"{place}/file_batches",
            json={"files": [{"file_id": file["id"], "attributes": {"dish": "tamarind"}}]},
        )
        second = self.upload(JOB_FILE, "an armadillo of alpha")
        job = self.post("/v1/memory/jobs", json={"files": [second["id"]]})
        said = self.post("/v1/responses", json={"model": "harmonia", "input": "ask of the aardvark"})
        chat = {"model": "harmonia", "messages": [{"role": "user", "content": "chat of the aardvark"}]}
        stored = self.post("/v1/chat/completions", json={**chat, "store": True})
        while self.get(f"/v1/memory/jobs/{job['id']}")["state"] != "completed":
            time.sleep(0.02)
        while self.get(f"{place}/file_batches/{batch['id']}")["status"] != "completed":
            time.sleep(0.02)
        digest = next(part["digest"] for part in record["parts"] if part["modality"] == "image")
        self.ids = {
            "record_id": record["id"], "digest": digest, "file_id": file["id"], "store_id": store["id"],
            "batch_id": batch["id"], "job_id": job["id"], "response_id": said["id"],
            "completion_id": stored["id"], "note_id": note["id"], "second_id": second["id"],
            "file_record_id": file["id"].removeprefix("file-"),
        }  # fmt: skip

    def upload(self, name: str, text: str) -> Json:
        return self.post("/v1/files", files={"file": (name, text.encode())}, data={"purpose": "user_data"})

    def all(self) -> list[Any]:
        """All that it can read of its own."""
        i = self.ids
        place = f"/v1/vector_stores/{i['store_id']}"
        found = [
            self.get(path)
            for path in (
                "/v1/memory/records?limit=1000", "/v1/files", "/v1/vector_stores", "/v1/memory/jobs",
                "/v1/memory/timeline", "/v1/chat/completions", f"/v1/responses/{i['response_id']}",
                f"{place}/files", f"{place}/files/{i['file_id']}", f"{place}/file_batches/{i['batch_id']}",
                "/v1/vector_stores/vs_memory/files?limit=100",
            )
        ]  # fmt: skip
        media = self.client.get(f"/v1/memory/media/{i['digest']}").content
        return [*found, media, self.client.get(f"/v1/files/{i['file_id']}/content").content]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("isolation")


@pytest.fixture(scope="module")
def parties(folder: Path) -> Iterator[tuple[Party, Party, Party]]:
    """A of namespace alpha, B of namespace beta, and the owner, whose key is bound to none."""
    keys, root = folder / "keys.json", folder / "root"
    root.mkdir()
    (root / "disk.txt").write_text("a note on the disk of the server")
    secrets = [new_key(keys, name, "write", name) for name in ("alpha", "beta")]
    secrets.append(new_key(keys, "owner", "admin"))
    settings = Settings(memory_of(folder), keys=keys, roots=(root,), generator=str(generator_of(folder)))
    with serve(settings) as url:
        a, b, owner = (Party(url, secret) for secret in secrets)
        a.store_everything(folder)
        picture = make_photo(folder / "of-beta.png", seed=78).read_bytes()
        b.post("/v1/memory/records", files={"files": ("b.png", picture)}, data={"text": "a beta photo"})
        b.post("/v1/memory/records", files={"text": (None, "what beta wrote")})
        yield a, b, owner
        for party in (a, b, owner):
            party.client.close()


@pytest.fixture(scope="module")
def document(parties: tuple[Party, Party, Party]) -> Json:
    found: Json = parties[0].get("/openapi.json")
    return found


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def ways(a: Party, folder: Path) -> dict[str, list[Any]]:
    """What to try in each field or parameter, by its name; the first is the usual one."""
    i, picture = a.ids, base64.b64encode(a.picture).decode()
    record, file, words = i["record_id"], i["file_id"], list(WORDS)
    cues: list[Any] = [
        *([{"text": one}] for one in words), [{"record": record}], [{"record": record, "part": 0}],
        [{"record": i["note_id"]}], [{"image": picture}],
    ]  # fmt: skip
    conditions = [
        "tag = 'quagga'", "tag != 'x'", "kiwicolumn IS NOT NULL", "unheard_of = 1", "kiwicolumn > 1",
        f"id = '{record}'", "namespace = 'alpha'", "namespace IS NULL", "metadata LIKE '%a%'",
        "vector_stores IS NOT NULL", f"array_has(vector_stores, '{i['store_id']}')",
        "created > 0 or tag = 'quagga'", "NOT (tag = 'x')", " AND ".join(["(" * 12 + "year > 1" + ")" * 12]),
    ]  # fmt: skip
    filters: list[Json] = [
        {"type": "eq", "key": "tag", "value": "quagga"}, {"type": "ne", "key": "tag", "value": "x"},
        {"type": "eq", "key": "namespace", "value": "alpha"}, {"type": "in", "key": "id", "value": [record]},
        {"type": "contains", "key": "vector_stores", "value": i["store_id"]},
        {"type": "eq", "key": "dish", "value": "tamarind"},
    ]  # fmt: skip
    paths = [str(folder / "root" / "disk.txt"), str(folder / "memory"), "/etc/hostname"]
    said = {"role": "user", "content": [{"type": "input_file", "file_id": file}]}
    return {
        "cues": cues, "not_like": [[record]], "against": [words], "where": conditions, "filters": filters,
        "explain": [True], "leave_out_cues": [True], "from_memory": [True, False], "steps": [1], "n": [1],
        "model": ["harmonia", "harmonia-imagine"],
        "messages": [
            *([{"role": "user", "content": one}] for one in words),
            [{"role": "user", "content": [{"type": "file", "file": {"file_id": file}}]}],
        ],
        "input": [*words, [said]], "prompt": words, "query": words, "stream": [True],
        "previous_response_id": [i["response_id"]], "store": [True],
        "file_id": [file, i["second_id"]], "file_ids": [[file]],
        "files": [[file], [{"file_id": file, "attributes": {"dish": "x"}}]],
        "paths": [[one] for one in paths], "path": paths,
        "metadata": [{"a": "b"}, {"namespace": "alpha"}, {"Namespace": "alpha"}],
        "attributes": [{"a": "b"}, {"namespace": "alpha"}], "name": ["taken"], "purpose": ["user_data"],
        "after": list(i.values()), "before": list(i.values()), "sort": ["date"],
    }  # fmt: skip


def value_of(name: str, schema: Json, document: Json) -> Any:
    """Any value of a schema, for a field that no one has thought of."""
    if "$ref" in schema:
        return value_of(name, document["components"]["schemas"][schema["$ref"].rpartition("/")[2]], document)
    if "anyOf" in schema:
        return value_of(name, next(one for one in schema["anyOf"] if one.get("type") != "null"), document)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    plain = {"string": "milk", "integer": schema.get("minimum", 1), "number": schema.get("minimum", 1.0),
             "boolean": False, "object": {}}  # fmt: skip
    kind = schema.get("type", "string")  # without one, any value will do
    return [value_of(name, schema["items"], document)] if kind == "array" else plain[kind]


def requests_of(
    method: str, path: str, operation: Json, document: Json, tried: Mapping[str, list[Any]], ids: Json
) -> Iterator[Json]:
    """Requests of an operation as JSON: the least one, and each with one field or parameter more."""
    given = operation.get("parameters", [])
    named = {one["name"]: ids[one["name"]] for one in given if one["in"] == "path"}
    places = [path.format(**named)]
    if "store_id" in named:
        places.append(path.format(**{**named, "store_id": "vs_memory"}))
    query = {one["name"]: one["schema"] for one in given if one["in"] == "query"}
    bodies: list[tuple[str, list[Json]]] = [
        (kind, list(bodies_of(held["schema"], document, tried)))
        for kind, held in operation.get("requestBody", {}).get("content", {}).items()
    ]
    for place in places:
        whole = {"method": method, "path": place, "kind": "", "query": {}, "body": {}}
        for kind, several in bodies or [("", [{}])]:
            for body in several:
                yield {**whole, "kind": kind, "body": body}
        for name, schema in query.items():
            for value in tried.get(name) or [value_of(name, schema, document)]:
                text = value if isinstance(value, str) else json.dumps(value)
                yield {**whole, "query": {name: text}, "kind": bodies[0][0] if bodies else "",
                       "body": bodies[0][1][0] if bodies else {}}  # fmt: skip


def bodies_of(schema: Json, document: Json, tried: Mapping[str, list[Any]]) -> Iterator[Json]:
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    fields = schema["properties"]

    def choices(name: str) -> list[Any]:
        return tried.get(name) or [value_of(name, fields[name], document)]

    least = {name: choices(name)[0] for name in schema.get("required", ())}
    yield least
    for name in fields:
        for value in choices(name):
            yield {**least, name: value}


def send(client: httpx.Client, request: Json, picture: bytes) -> httpx.Response:
    place: Json = {"params": request["query"]}
    body = request["body"]
    if request["kind"] == "application/json":
        return client.request(request["method"], request["path"], json=body, **place)
    if request["kind"]:
        binary = ("image", "mask", "file", "files")
        if request["path"].endswith(("/recall", "/retrieve", "/answer", "/landscape", "/imagine")):
            body = {"request": json.dumps({"cues": [{"image": "cid:picture"}]})}
            binary = (*binary, "picture")
        fields = {k: v if isinstance(v, str) else json.dumps(v) for k, v in body.items() if k not in binary}
        names = {"/v1/files": "file", "/v1/memory/records": "files"}
        name = names.get(request["path"], "image" if "images" in request["path"] else "picture")
        files: Json = {name: ("b.png", picture)}
        return client.request(request["method"], request["path"], data=fields, files=files, **place)
    return client.request(request["method"], request["path"], **place)


def half_transparent(folder: Path) -> bytes:
    """A picture that can be inpainted."""
    whole = Image.open(make_photo(folder / "third.png", seed=79)).convert("RGBA")
    whole.putalpha(Image.linear_gradient("L").resize(whole.size).point(lambda level: 255 * (level > 127)))
    whole.save(folder / "third.png")
    return (folder / "third.png").read_bytes()


def stand_in(found: str) -> str:
    """An id of the same form that nothing has."""
    head = next(
        (one for one in ("file-", "vs_", "vsfb_", "job-", "resp_", "chatcmpl-") if found.startswith(one)), ""
    )
    return head + found[len(head) :].translate(str.maketrans("0123456789abcdef", "123456789abcdef0"))


def test_one_namespace_sees_and_changes_nothing_of_another(
    parties: tuple[Party, Party, Party], document: Json, folder: Path
) -> None:
    a, b, owner = parties
    before, owned = a.all(), owner.get("/v1/memory/records?limit=1000&order=asc")["data"]
    of_owner = [record for record in owned if "namespace" not in record["metadata"]]
    assert len(of_owner) == 11 and len(owned) == 11 + 4 + 2
    texts = {part["text"] for record in owned for part in record["parts"] if part["text"]}
    texts -= {"a beta photo", "what beta wrote"}
    digests = {part["digest"] for record in owned for part in record["parts"]}
    mine = b.get("/v1/memory/records?limit=1000")["data"]
    assert len(mine) == 2
    digests -= {part["digest"] for record in mine for part in record["parts"]}
    foreign = {record["id"] for record in owned} - {record["id"] for record in mine}
    hidden = texts | {
        NOTE, TEXT, CAPTION, "armadillo", "persimmon", "kiwicolumn", "tamarind", STORE, "alpha-only", FILE,
        JOB_FILE, "picture-of-alpha", "ask of the aardvark", "chat of the aardvark", "on the disk of",
        base64.b64encode(a.picture).decode(),
    }  # fmt: skip
    names = digests | foreign | set(a.ids.values())
    picture = half_transparent(folder)
    tried, turned = ways(a, folder), {one: stand_in(one) for one in names}
    called, refused = 0, 0
    for method, path, operation in operations(document):
        statuses = []
        for request in requests_of(method, path, operation, document, tried, {**a.ids, "model": "mini"}):
            answer = send(b.client, request, picture)
            where, said = f"{request}"[:400], json.dumps(request)
            assert answer.status_code < 500 or answer.status_code == 501, (where, answer.text[:300])
            statuses.append(answer.status_code)
            assert a.picture not in answer.content, where
            shown = (
                answer.text
                if answer.headers.get("content-type", "").startswith(("application/json", "text/"))
                else ""
            )
            for secret in hidden - {one for one in hidden if one in said}:
                assert secret not in shown and json.dumps(secret)[1:-1] not in shown, (
                    where,
                    secret,
                    shown[:2000],
                )
            told = {one for one in names if one in shown}
            assert not told or (not answer.is_success and told <= {one for one in names if one in said}), (
                where, told, shown[:2000],
            )  # fmt: skip
            # what is there for another is answered as what is nowhere
            for one, other in turned.items():
                said = said.replace(one, other)
            again = send(b.client, json.loads(said), picture)
            same = again.is_success if answer.is_success else again.status_code == answer.status_code
            assert same, (where, answer.text[:300], again.text[:300])
            if not answer.is_success and shown:
                for one, other in turned.items():
                    shown = shown.replace(one, other)
                assert again.text == shown, (where, answer.text[:300], again.text[:300])
                refused += 1
            called += 1
        callable_ = [status for status in statuses if status not in (400, 405, 422)]
        assert callable_, (method, path, statuses)
    assert called > 300 and refused > 100
    assert a.all() == before
    now = {record["id"]: record for record in owner.get("/v1/memory/records?limit=1000&order=asc")["data"]}
    assert [now.get(record["id"]) for record in of_owner] == of_owner


def test_the_owner_of_a_namespace_can_read_it_all(
    parties: tuple[Party, Party, Party], document: Json
) -> None:
    """Of what was refused above, the same requests with the right key are answered."""
    a, _, owner = parties
    for method, path, operation in operations(document):
        named = [one["name"] for one in operation.get("parameters", []) if one["in"] == "path"]
        if method != "get" or not named or "model" in named:
            continue
        place = path.format(**a.ids)
        with a.client.stream("GET", place) as answer:
            assert answer.status_code == 200, place
        if named == ["record_id"] or "digest" in named:
            assert owner.client.get(place).status_code == 200
