"""Schemathesis over the OpenAPI document, against a real uvicorn: what comes back is what is documented."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.checks import CheckContext
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from harmonia.server.keys import new_key
from harmonia.server.settings import Settings
from tests.hostile import ids_of
from tests.serving import generator_of, memory_of, serve

EXAMPLES = max(2, int(os.environ.get("HARMONIA_HOSTILE", "0")) // 20)
"""Requests of each operation: a few; ``HARMONIA_HOSTILE=2000`` for more."""
SECONDS = 20.0
"""Any answer that takes longer is a hang."""

Json = dict[str, Any]


def no_failure(ctx: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """The server never fails; 501 and 503 are its words for what it lacks."""
    assert response.status_code in (501, 503) or response.status_code < 500, response.text[:500]


def one_error_body(ctx: CheckContext, response: schemathesis.Response, case: schemathesis.Case) -> None:
    """Refusals have the one body, are never sniffed, and say nothing of this machine."""
    assert response.headers["x-content-type-options"] == ["nosniff"]
    if response.status_code >= 400:
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}
        assert "/tmp" not in response.text and "Traceback" not in response.text


CHECKS = [
    no_failure, one_error_body, status_code_conformance, content_type_conformance,
    response_headers_conformance, response_schema_conformance,
]  # fmt: skip


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server with keys and a generator, and one of everything that has an id."""
    folder = tmp_path_factory.mktemp("schema")
    secret = new_key(folder / "keys.json", "test", "admin")
    settings = Settings(memory_of(folder), keys=folder / "keys.json", generator=str(generator_of(folder)))
    headers = {"Authorization": f"Bearer {secret}"}
    with serve(settings) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as found:
        yield found


@pytest.fixture(scope="module")
def known(client: httpx.Client) -> Json:
    """An id that there is, for every parameter of a path."""
    return ids_of(client)


def test_what_comes_back_is_documented(client: httpx.Client, known: Json) -> None:
    schema = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json", headers=dict(client.headers))
    operations = [one.ok() for one in schema.exclude(path_regex="/events$").get_all_operations()]
    assert len(operations) > 50
    troubles = []
    with requests.Session() as session:
        # what is deleted is needed until then
        for operation in sorted(operations, key=lambda one: one.method == "delete"):
            ids = {name: value for name, value in known.items() if f"{{{name}}}" in operation.path}
            for mode in GenerationMode:
                try:
                    _try(operation.as_strategy(mode, path_parameters=ids or None), session, client)
                except (AssertionError, FailureGroup) as error:
                    troubles.append(f"{operation.label} ({mode.value}): {error}"[:1500])
            if ids:
                _try(operation.as_strategy(GenerationMode.POSITIVE), session, client)
    assert not troubles, "\n\n".join(troubles)


def _try(cases: SearchStrategy[schemathesis.Case], session: requests.Session, client: httpx.Client) -> None:
    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=cases)
    def answered(case: schemathesis.Case) -> None:
        headers = {"Authorization": client.headers["authorization"]}
        case.call_and_validate(session=session, headers=headers, checks=CHECKS, timeout=SECONDS)

    with suppress(Unsatisfiable):  # there is nothing in the request that could be wrong
        answered()
