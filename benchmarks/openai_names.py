"""A pytest plugin for the client's own tests: names that they invent become names that the server has.

The tests were written for a mock that answers to any id with an example. Here every test starts with new
things of the server's own (a file, a vector store that holds it, a batch, a response, a completion), made
when a request first names them, and a request's names are replaced in its path and its body before it is
sent. The tests themselves are as published.
"""

from __future__ import annotations

import fnmatch
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai._base_client import BaseClient

LIST = Path(__file__).with_name("openai_client.txt")
"""Which tests are left out: a pattern, and after # the reason, on each line."""
MODEL = "harmonia"
MODELS = ("gpt-6-astra", "text-embedding-3-small")
SAID = {"model": MODEL, "messages": [{"role": "user", "content": "milk"}], "store": True}


class Things:
    """What the names of one test mean, by the kind of thing; made when they are first needed."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.made: dict[str, str] = {}

    def id(self, kind: str) -> str:
        """The id of the test's own file, store, batch, response or completion."""
        if kind not in self.made:
            make: dict[str, Callable[[], str]] = {
                "file": self._file, "store": self._store, "batch": self._batch,
                "response": lambda: self._post("/responses", {"model": MODEL, "input": "milk"}),
                "completion": lambda: self._post("/chat/completions", SAID),
            }  # fmt: skip
            self.made[kind] = make[kind]()
        return self.made[kind]

    def attached(self) -> str:
        """The id of the file, once it is in the store."""
        if "attached" not in self.made:
            self.made["attached"] = self._post(
                f"/vector_stores/{self.id('store')}/files", {"file_id": self.id("file")}
            )
        return self.made["attached"]

    def _post(self, path: str, body: Any) -> str:
        answer = self.http.post(path, json=body).raise_for_status()
        return str(answer.json()["id"])

    def _file(self) -> str:
        note = {"file": ("note.txt", f"note number {time.time_ns()}".encode())}
        answer = self.http.post("/files", files=note, data={"purpose": "assistants"}).raise_for_status()
        return str(answer.json()["id"])

    def _store(self) -> str:
        return self._post("/vector_stores", {"name": "mine"})

    def _batch(self) -> str:
        return self._post(f"/vector_stores/{self.id('store')}/file_batches", {"file_ids": [self.id("file")]})


NAMES = {
    "file_id": "file", "file-abc123": "file", "string": "file",
    "vs_abc123": "store", "vector_store_id": "store",
    "vsfb_abc123": "batch", "batch_id": "batch",
    "response_id": "response", "resp_677efb5139a88190b512bc3fef8e535d": "response", "resp_123": "response",
    "previous_response_id": "response", "completion_id": "completion",
}  # fmt: skip
"""The names that the tests invent, and the kinds of things that they mean."""
FIELDS = ("file_id", "file_ids", "previous_response_id")
"""Fields of a body whose values are such names."""


def renamed_path(path: str, things: Things) -> str:
    """A path with ids of the server's own."""
    parts = path.split("/")
    for place, part in enumerate(parts):
        before = parts[place - 1] if place else ""
        if before == "files" and "vector_stores" in parts and part in NAMES:
            parts[place] = things.attached()
        elif before in ("files", "vector_stores", "file_batches", "responses", "completions"):
            parts[place] = things.id(NAMES[part]) if part in NAMES else part
        elif part in MODELS:
            parts[place] = MODEL
    return "/".join(parts)


def renamed_body(value: Any, things: Things, field: str = "") -> Any:
    """A body with models and ids of the server's own."""
    if isinstance(value, dict):
        return {name: renamed_body(one, things, name) for name, one in value.items()}
    if isinstance(value, list):
        return [renamed_body(one, things, field) for one in value]
    if field == "model" and value in MODELS:
        return MODEL
    return things.id(NAMES[value]) if field in FIELDS and value in NAMES else value


class Plugin:
    """Leaves out what the list names, gives every test its own things, and counts."""

    def __init__(self) -> None:
        self.reasons = dict(read_list())
        self.http = httpx.Client(base_url=os.environ["TEST_API_BASE_URL"], timeout=60)
        self.things: Things | None = None
        self.seen: dict[str, Any] = {"passed": 0, "failed": [], "left out": Counter(), "unused": []}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Deselect what is left out."""
        used: set[str] = set()
        kept: list[pytest.Item] = []
        left: list[pytest.Item] = []
        for item in items:
            name = item.nodeid.partition("api_resources/")[2]
            pattern = next((one for one in self.reasons if fnmatch.fnmatchcase(name, one)), None)
            (kept if pattern is None else left).append(item)
            if pattern is not None:
                used.add(pattern)
                self.seen["left out"][self.reasons[pattern]] += 1
        self.seen["unused"] = [one for one in self.reasons if one not in used]
        config.hook.pytest_deselected(items=left)
        items[:] = kept

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin with nothing made; a test that mocks the server keeps its names."""
        mocked = "respx2_mock" in getattr(item, "fixturenames", ())
        self.things = None if mocked else Things(self.http)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count."""
        if report.failed:
            self.seen["failed"].append(report.nodeid)
        elif report.when == "call" and report.passed:
            self.seen["passed"] += 1

    def pytest_sessionfinish(self) -> None:
        """Write what was counted."""
        self.http.close()
        Path(os.environ["OPENAI_TESTS_REPORT"]).write_text(json.dumps(self.seen))


def read_list() -> list[tuple[str, str]]:
    """The patterns of the tests that are left out, and the reason of each."""
    lines = [line for line in LIST.read_text(encoding="utf-8").splitlines() if line.strip()]
    pairs = [line.partition(" # ") for line in lines if not line.startswith("#")]
    return [(pattern.strip(), reason.strip()) for pattern, _, reason in pairs]


def pytest_configure(config: pytest.Config) -> None:
    """Rename in every request that the client builds."""
    plugin = Plugin()
    config.pluginmanager.register(plugin)
    build = BaseClient._build_request

    def renamed(self: Any, options: Any, **more: Any) -> Any:
        if plugin.things is not None:
            options.url = renamed_path(options.url, plugin.things)
            options.json_data = renamed_body(options.json_data, plugin.things)
        return build(self, options, **more)

    BaseClient._build_request = renamed  # type: ignore[method-assign]
