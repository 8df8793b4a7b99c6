"""Keys that are bound to a namespace: what is theirs, what is shared, and what they may not do."""

from __future__ import annotations

import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from harmonia.cli import main
from harmonia.collection.collection import Memory
from harmonia.server.app import create_app
from harmonia.server.keys import Key, find_key, new_key, read_keys
from harmonia.server.settings import Settings
from harmonia.types import HarmoniaError
from tests.media import make_photo
from tests.serving import failed, generator_of, memory_of, recall, serve, words

Json = dict[str, Any]
SAME = "the same words in three places"
RIGHT = ("a", "A", "7", "team-1", "x.y_z", "a" * 64)
WRONG = ("", ".", "..", "-a", "a b", "a/b", "a\\b", "é", "a\n", "a" * 65, "../x", "*")


def test_a_key_of_a_namespace_is_kept_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    secret = new_key(file, "first", "write", "team")
    new_key(file, "second", "read")
    bound, free = read_keys(file)
    assert (bound.namespace, free.namespace) == ("team", None)
    assert find_key((bound, free), secret) == bound and bound.may("write")
    assert "namespace" not in json.loads(file.read_text())["keys"][1]
    assert bound.owns("team") and not bound.owns(None) and not bound.owns("Team")
    assert free.owns(None) and free.owns("team") and free.records is None


def test_a_file_of_before_has_keys_of_no_namespace(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    rows = [{"name": "old", "sha256": "0" * 64, "scope": "admin"}]
    file.write_text(json.dumps({"keys": rows}))
    assert read_keys(file) == (Key("old", "0" * 64, "admin"),)
    new_key(file, "new", "write", "team")
    assert json.loads(file.read_text())["keys"][0] == rows[0]


@pytest.mark.parametrize("name", RIGHT)
def test_names_of_namespaces(tmp_path: Path, name: str) -> None:
    new_key(tmp_path / "keys.json", "k", "read", name)
    assert read_keys(tmp_path / "keys.json")[0].namespace == name


@pytest.mark.parametrize("name", WRONG)
def test_wrong_names_of_namespaces(tmp_path: Path, name: str) -> None:
    file = tmp_path / "keys.json"
    with pytest.raises(HarmoniaError, match="invalid namespace"):
        new_key(file, "k", "read", name)
    assert not file.exists()
    row = {"name": "k", "sha256": "0" * 64, "scope": "read", "namespace": name}
    file.write_text(json.dumps({"keys": [row]}))
    with pytest.raises(HarmoniaError, match="invalid namespace"):
        read_keys(file)


def test_admin_takes_no_namespace(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    with pytest.raises(HarmoniaError, match="takes scope read or write"):
        new_key(file, "k", "admin", "team")
    for namespace in ("team", 5, ["team"], {}):
        row = {"name": "k", "sha256": "0" * 64, "scope": "admin", "namespace": namespace}
        file.write_text(json.dumps({"keys": [row]}))
        with pytest.raises(HarmoniaError, match="namespace"):
            read_keys(file)


def test_the_command_binds_a_new_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys.json"

    def run(*arguments: object) -> tuple[int, str, str]:
        command = ["harmonia", "serve", "-m", str(tmp_path / "m"), "--keys", str(keys), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return int(ended.value.code or 0), shown.out, shown.err

    code, out, _ = run("--new-key", "phone", "--scope", "write", "--namespace", "team")
    found = find_key(read_keys(keys), out.strip())
    assert code == 0 and found and (found.scope, found.namespace) == ("write", "team")
    code, out, err = run("--new-key", "other", "--scope", "admin", "--namespace", "team")
    assert code == 1 and out == "" and "scope read or write" in err and err.count("\n") == 1
    code, out, err = run("--new-key", "other", "--namespace", "a/b")
    assert code == 1 and out == "" and "invalid namespace 'a/b'" in err and err.count("\n") == 1
    assert [key.name for key in read_keys(keys)] == ["phone"]
    with socket.create_server(("127.0.0.1", 0)) as taken:  # were it served, the error would be another
        code, out, err = run("--namespace", "team", "--port", taken.getsockname()[1])
    assert code == 2 and out == "" and "--namespace needs --new-key" in err


# A server with keys of two namespaces, one that only reads, and one of the owner


class Served:
    def __init__(self, url: str, secrets: dict[str, str], folder: Path) -> None:
        self.url, self.secrets, self.folder = url, secrets, folder
        self.clients = {
            name: httpx.Client(base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=120)
            for name, secret in secrets.items()
        }

    def __getitem__(self, name: str) -> httpx.Client:
        return self.clients[name]

    def openai(self, name: str) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.secrets[name], max_retries=0)


def keys_of(folder: Path) -> dict[str, str]:
    file = folder / "keys.json"
    secrets = {name: new_key(file, name, "write", name) for name in ("a", "b", "A")}
    secrets["reader of a"] = new_key(file, "reader of a", "read", "a")
    return secrets | {"owner": new_key(file, "owner", "admin"), "writer": new_key(file, "writer", "write")}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("namespaces")
    secrets, root = keys_of(folder), folder / "root"
    root.mkdir()
    (root / "disk.txt").write_text("a note on the disk")
    settings = Settings(
        memory_of(folder), keys=folder / "keys.json", roots=(root,), generator=str(generator_of(folder))
    )
    with serve(settings) as url:
        found = Served(url, secrets, folder)
        yield found
        for client in found.clients.values():
            client.close()


def add(client: httpx.Client, text: str = "", file: bytes = b"", **metadata: Any) -> httpx.Response:
    """Add a record of a text or of a picture."""
    form = {"metadata": json.dumps(metadata)} | ({"text": text} if text else {})
    files = {"files": ("picture.png", file)} if file else {"none": (None, "")}
    return client.post("/v1/memory/records", data=form, files=files)


def held(client: httpx.Client, **query: Any) -> list[Json]:
    found: list[Json] = client.get("/v1/memory/records", params={"limit": 1000, **query}).json()["data"]
    return found


def test_equal_content_is_a_record_of_each(served: Served) -> None:
    picture = make_photo(served.folder / "same.png", seed=91).read_bytes()
    for text, file in ((SAME, b""), ("a thing", picture)):
        made = {name: add(served[name], text, file, tag=f"of {name}") for name in ("owner", "a", "b", "A")}
        assert {name: answer.status_code for name, answer in made.items()} == dict.fromkeys(made, 201)
        assert all(answer.json()["created"] for answer in made.values())
        ids = {name: answer.json()["id"] for name, answer in made.items()}
        assert len(set(ids.values())) == 4
        again = add(served["b"], text, file)
        assert (again.status_code, again.json()["id"]) == (200, ids["b"])

        # each has its own metadata, and changes its own
        assert (
            served["b"].patch(f"/v1/memory/records/{ids['b']}", json={"metadata": {"tag": "new"}}).is_success
        )
        for name, one in ids.items():
            shown = served[name].get(f"/v1/memory/records/{one}").json()
            assert shown["metadata"]["tag"] == ("new" if name == "b" else f"of {name}")
            assert ("namespace" in shown["metadata"]) is False
            for other in ("a", "b", "A"):
                for call in ("GET", "DELETE"):
                    if other != name:
                        answer = served[other].request(call, f"/v1/memory/records/{one}")
                        assert failed(answer, 404)["message"] == f"unknown record {one!r}"

        # one forgets its own; the others keep theirs, and the media
        assert served["a"].delete(f"/v1/memory/records/{ids['a']}").is_success
        assert served["a"].get(f"/v1/memory/records/{ids['a']}").status_code == 404
        digest = made["b"].json()["parts"][0]["digest"]
        for name in ("b", "A", "owner"):
            assert served[name].get(f"/v1/memory/records/{ids[name]}").is_success
        if file:
            for name, status in (("a", 404), ("b", 200), ("owner", 200), ("reader of a", 404)):
                assert served[name].get(f"/v1/memory/media/{digest}").status_code == status
                assert served[name].get(f"/v1/memory/media/{digest}/preview").status_code == status
        # the owner's forgetting takes nothing from a namespace
        assert served["owner"].delete(f"/v1/memory/records/{ids['owner']}").is_success
        assert served["b"].get(f"/v1/memory/records/{ids['b']}").is_success
        if file:
            assert served["b"].get(f"/v1/memory/media/{digest}").content == file
        for name in ("b", "A"):
            assert served[name].delete(f"/v1/memory/records/{ids[name]}").is_success


def test_a_key_without_a_namespace_sees_and_changes_all(served: Served) -> None:
    one = add(served["a"], "seen by the owner", tag="x").json()["id"]
    assert served["owner"].get(f"/v1/memory/records/{one}").json()["metadata"]["namespace"] == "a"
    assert "namespace" not in served["writer"].get(f"/v1/memory/records/{one}").json()["metadata"]
    assert [r["id"] for r in held(served["owner"], where="namespace = 'a'")] == [one]
    assert [r["id"] for r in held(served["reader of a"])] == [one]
    assert served["reader of a"].delete(f"/v1/memory/records/{one}").status_code == 403
    assert served["writer"].delete(f"/v1/memory/records/{one}").is_success
    assert held(served["a"]) == []


def test_recall_is_of_the_own_records(served: Served) -> None:
    a, b = served["a"], served["b"]
    text = "buy milk and bread"  # a note of the owner says the same
    cue = {"text": "milk and bread"}
    assert (
        recall(a, cue) == recall(b, cue) and recall(a, cue)["records"] == [] and recall(a, cue)["abstained"]
    )
    one = add(a, text, tag="mine").json()["id"]
    other = add(b, "bread of another", tag="other").json()["id"]
    try:
        assert [record["id"] for record in recall(a, cue, k=50)["records"]] == [one]
        assert [record["id"] for record in recall(b, cue, k=50)["records"]] == [other]
        assert len(recall(served["owner"], cue, k=50)["records"]) > 10
        for path in ("retrieve", "recall"):
            body = {"cues": [{"record": one}], "k": 50, "leave_out_cues": True}
            assert failed(b.post(f"/v1/memory/{path}", json=body), 404)["code"] == "record_not_found"
            assert a.post(f"/v1/memory/{path}", json=body).json()["records"] == []
            body = {"cues": [cue], "not_like": [one]}
            assert failed(b.post(f"/v1/memory/{path}", json=body), 404)["code"] == "record_not_found"
        found = b.post("/v1/memory/retrieve", json={"cues": [cue], "k": 50}).json()["records"]
        assert [record["id"] for record in found] == [other]
        told = a.post("/v1/memory/answer", json={"cues": [cue]}).json()
        assert "milk and bread" in told["text"] and "of another" not in told["text"]
        for ask in (
            lambda c: c.responses.create(model="harmonia", input="bread").output[-1].harmonia,
            lambda c: c.chat.completions.create(
                model="harmonia", messages=[{"role": "user", "content": "bread"}]
            ).choices[0].message.harmonia,
            lambda c: c.images.generate(prompt="bread").harmonia,
            in_realtime,
        ):  # fmt: skip
            for name, wanted in (("a", one), ("b", other)):
                assert [said["record_id"] for said in ask(served.openai(name))["evidence"]] == [wanted]
        drawn = b.post("/v1/memory/imagine", json={"cues": [cue], "from_memory": True}).json()
        assert [said["record"] for said in drawn["evidence"]] == [other]
    finally:
        a.delete(f"/v1/memory/records/{one}")
        b.delete(f"/v1/memory/records/{other}")


def in_realtime(client: OpenAI) -> Json:
    with client.realtime.connect(model="harmonia") as connection:
        connection.recv()
        content: list[Any] = [{"type": "input_text", "text": "bread"}]
        connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        connection.response.create()
        while (event := connection.recv()).type != "response.done":
            pass
        found: Json = event.response.output[0].model_extra["harmonia"]
        return found


def test_files_of_another_are_not_attached(served: Served) -> None:
    with served.openai("a").realtime.connect(model="harmonia") as connection:
        connection.recv()
        uploaded = served["b"].post(
            "/v1/files",
            files={"file": ("p.png", make_photo(served.folder / "p.png").read_bytes())},
            data={"purpose": "vision"},
        )
        content: list[Any] = [{"type": "input_image", "image_url": uploaded.json()["id"]}]
        connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        assert "unknown file" in connection.recv().error.message


def test_lists_and_counts_are_of_the_own_records(served: Served) -> None:
    ids = [add(served["a"], f"note {i}", taken=f"2019-0{i}-01").json()["id"] for i in (1, 2)]
    other = add(served["b"], "a note of b", secretcolumn=1).json()["id"]
    months = served["a"].get("/v1/memory/timeline?order=asc").json()["data"]
    assert [(one["month"], one["count"], one["after"]) for one in months] == [
        ("2019-01", 1, None), ("2019-02", 1, ids[0]),
    ]  # fmt: skip
    assert [r["id"] for r in held(served["a"], sort="date", order="asc")] == ids
    assert served["a"].get("/v1/memory/records", params={"after": other}).json()["data"] == []
    status = served["a"].get("/v1/memory/status").json()
    assert status["records"] == 2 and status["parts"] == {"text": 2} and status["columns"] == ["taken"]
    assert {"version", "files", "media_bytes"}.isdisjoint(status)
    assert served["owner"].get("/v1/memory/status").json()["records"] >= 14

    # a column that another has is none, and no error tells the names of columns
    for client, where in ((served["a"], "secretcolumn = 1"), (served["a"], "nothing_has_it = 1")):
        assert held(client, where=where) == []
    assert (
        "secretcolumn" in failed(served["owner"].get("/v1/memory/records?where=nothing_has_it=1"))["message"]
    )
    for depth in range(10, 18):
        answer = served["a"].get("/v1/memory/records", params={"where": "NOT " * depth + "taken > '2000'"})
        assert answer.status_code in (200, 400) and "secretcolumn" not in answer.text
        assert answer.is_success or "deep" in answer.json()["error"]["message"]
    for where in ("namespace = 'b'", "path LIKE '%'", "metadata LIKE '%'"):
        assert failed(served["a"].get("/v1/memory/records", params={"where": where}), 403)
    for one in ids:
        served["a"].delete(f"/v1/memory/records/{one}")
    served["b"].delete(f"/v1/memory/records/{other}")


def test_no_client_says_whose_a_record_is(served: Served) -> None:
    one = add(served["a"], "whose is it?").json()["id"]
    for key in ("namespace", "Namespace", "NAMESPACE"):
        for value in ("b", None, ["b"]):
            for name in ("a", "owner"):
                body = {"metadata": {key: value}}
                assert (
                    "reserved"
                    in failed(served[name].patch(f"/v1/memory/records/{one}", json=body))["message"]
                )
                assert "reserved" in failed(add(served[name], "another", **{key: value}))["message"]
    file = served["a"].post(
        "/v1/files", files={"file": ("n.md", b"---\nNamespace: b\n---\nfront")}, data={"purpose": "user_data"}
    )
    place = "/v1/vector_stores/vs_memory/files"
    body = {"file_id": file.json()["id"]}
    for key in ("namespace", "Namespace"):
        assert failed(served["a"].post(place, json={**body, "attributes": {key: "b"}}))["param"] in (
            "attributes", "metadata",
        )  # fmt: skip
    served["a"].post(place, json=body)
    polled = served.openai("a").vector_stores.files.poll(body["file_id"], vector_store_id="vs_memory")
    attached = polled.to_dict()
    assert attached["status"] == "completed" and set(attached["attributes"]) == {"name", "modified"}
    # what a client reads as attributes it may write back
    again = {"attributes": attached["attributes"]}
    assert (
        served["a"].post(f"{place}/{attached['id']}", json=again).json()["attributes"]
        == attached["attributes"]
    )
    assert held(served["b"]) == [] and len(held(served["a"])) == 2
    for record in held(served["a"]):
        served["a"].delete(f"/v1/memory/records/{record['id']}")


def test_what_takes_a_key_without_a_namespace(served: Served) -> None:
    a, disk = served["a"], str(served.folder / "root" / "disk.txt")
    cues = {"cues": [{"text": "milk"}]}
    for path in (disk, "/etc/hostname", "no such file"):
        assert failed(a.post("/v1/memory/records", json={"path": path}), 403)["code"] == "insufficient_scope"
        assert failed(a.post("/v1/memory/jobs", json={"paths": [path]}), 403)["code"] == "insufficient_scope"
    assert failed(a.post("/v1/memory/landscape", json=cues), 403)
    for path in ("/v1/memory/report", "/metrics"):
        assert failed(a.get(path), 403)["code"] == "insufficient_scope"
        assert served["writer"].get(path).is_success
    made = served["writer"].post("/v1/memory/records", json={"path": disk})
    assert made.status_code == 201 and words(made.json()) == "a note on the disk"
    assert a.get(f"/v1/memory/records/{made.json()['id']}").status_code == 404


def test_files_and_stores_are_of_each(served: Served) -> None:
    a, b, owner = (served.openai(name) for name in ("a", "b", "owner"))
    content = b"a leek soup in three kitchens"
    parties = (a, b, owner)
    files = [
        one.files.create(file=(f"{i}.txt", content), purpose="user_data") for i, one in enumerate(parties)
    ]
    assert len({file.id for file in files}) == 3
    stores = [one.vector_stores.create(name=f"kitchen {i}") for i, one in enumerate(parties)]
    for i, one in enumerate(parties):
        made = one.vector_stores.files.create_and_poll(
            files[i].id, vector_store_id=stores[i].id, attributes={"cook": str(i)}
        )
        assert made.status == "completed"
    for i, one in enumerate(parties[:2]):
        assert [store.id for store in one.vector_stores.list()] == [stores[i].id, "vs_memory"]
        assert one.vector_stores.retrieve("vs_memory").file_counts.total == 1
        assert [file.filename for file in one.files.list()][:1] == [f"{i}.txt"]
        for store in (stores[i].id, "vs_memory"):
            (found,) = one.vector_stores.search(store, query="leek soup").data
            assert (found.file_id, found.attributes["cook"]) == (files[i].id, str(i))
            assert found.filename == f"{i}.txt"
    # the own store of a namespace has its own name and expiry, and is not another's
    a.vector_stores.update("vs_memory", metadata={"is": "of a"})
    assert b.vector_stores.retrieve("vs_memory").metadata == {}
    assert owner.vector_stores.retrieve("vs_memory").metadata == {}
    # one deletes its file, and so its record; the others keep theirs
    a.files.delete(files[0].id)
    assert a.vector_stores.search("vs_memory", query="leek soup").data == []
    assert b.files.content(files[1].id).read() == content == owner.files.content(files[2].id).read()
    assert b.vector_stores.search(stores[1].id, query="leek soup").data[0].content[0].text == content.decode()
    for one, file in zip(parties[1:], files[1:], strict=True):
        one.files.delete(file.id)


def test_jobs_are_of_each_and_go_on_in_their_namespace(tmp_path: Path) -> None:
    secrets, root = keys_of(tmp_path), tmp_path / "memory"
    settings = Settings(root, keys=tmp_path / "keys.json")
    state = create_app(settings).state
    state.service.jobs.ending.set()  # the process ends before the jobs begin
    ids = {}
    for name in ("a", "b"):
        stores, note = state.vector_stores.of(name), tmp_path / f"{name}.txt"
        note.write_text("the same job in both")
        with note.open("rb") as content:
            file = stores.files.add(content, f"{name}.txt", "user_data")
        store = stores.create(f"store of {name}", None, {})
        job = stores.attach(store, {file.id: {"by": name}})
        assert job.state == "queued" and job.namespace == name
        ids[name] = store.id, file.id
    with serve(settings) as url:
        served = Served(url, secrets, tmp_path)
        for name, (store, file) in ids.items():
            place, until = f"/v1/vector_stores/{store}/files/{file}", time.monotonic() + 60
            while (shown := served[name].get(place).json())["status"] == "in_progress":
                assert time.monotonic() < until
                time.sleep(0.02)
            assert (shown["status"], shown["attributes"]["by"]) == ("completed", name)
        jobs = {}
        for name in ("a", "b"):
            body = {"files": [ids[name][1]]}
            jobs[name] = served[name].post("/v1/memory/jobs", json=body).json()["id"]
        for name, other in (("a", "b"), ("b", "a")):
            listed = served[name].get("/v1/memory/jobs").json()["data"]
            assert [job["id"] for job in listed] == [jobs[name]] and "namespace" not in listed[0]
            for call in ("GET", "DELETE"):
                assert served[name].request(call, f"/v1/memory/jobs/{jobs[other]}").status_code == 404
        assert len(served["owner"].get("/v1/memory/jobs").json()["data"]) == 2
        assert served["owner"].get("/v1/files").json()["data"] == []
    # all of it is there after another start, and on this machine
    with serve(settings) as url:
        served = Served(url, secrets, tmp_path)
        for name, (store, file) in ids.items():
            assert [one["id"] for one in served[name].get("/v1/files").json()["data"]] == [file]
            assert served[name].get(f"/v1/vector_stores/{store}").json()["file_counts"]["completed"] == 1
    found = Memory(root).store.records()
    assert sorted(record.metadata["namespace"] for record in found) == ["a", "b"]
    assert len(Memory(root).forget(where="namespace = 'a'")) == 1
