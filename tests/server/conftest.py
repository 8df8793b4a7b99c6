"""One server for clients that mean harm, for each test file that asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.browser import browser, visit  # noqa: F401 (fixtures)
from tests.hostile import Json, bearer, hostile, ids_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    with hostile(folder) as found:
        yield found


@pytest.fixture(scope="module")
def url(server: tuple[str, dict[str, str]]) -> str:
    return server[0]


@pytest.fixture(scope="module")
def keys(server: tuple[str, dict[str, str]]) -> dict[str, str]:
    return server[1]


@pytest.fixture(scope="module")
def client(url: str, keys: dict[str, str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, headers=bearer(keys["admin"]), timeout=20) as found:
        yield found


@pytest.fixture(scope="module")
def ids(client: httpx.Client) -> Json:
    return ids_of(client)
