"""The application: routes, the guard before them, and their life."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import generate_latest

from harmonia import __version__
from harmonia.imports import lazy
from harmonia.server import errors
from harmonia.server.keys import OWNER, read_keys
from harmonia.server.middleware import OPEN, GuardMiddleware
from harmonia.server.openai.vector_stores import VectorStores
from harmonia.server.schemas.errors import REFUSALS, Responses
from harmonia.server.service import SERVER_FOLDER, Service
from harmonia.server.settings import Settings

ROUTES: tuple[str, ...] = (
    "routes.recall",
    "routes.records",
    "routes.media",
    "routes.imagine",
    "routes.jobs",
    "routes.report",
    "openai.routes.chat",
    "openai.routes.responses",
    "openai.routes.images",
    "openai.routes.audio",
    "openai.routes.realtime",
    "openai.routes.models",
    "openai.routes.embeddings",
    "openai.routes.files",
    "openai.routes.vector_stores",
    "openai.routes.vector_store_files",
)
"""Modules of ``harmonia.server``, each with a ``router``. To add one: write it, add its name."""
PAGE = Path(__file__).parent / "page"
TEXT: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


def create_app(settings: Settings) -> FastAPI:
    """The app of one memory; HarmoniaError if its keys cannot be read."""
    keys = read_keys(settings.keys) if settings.keys else ()
    service = Service(settings)
    own = settings.memory / SERVER_FOLDER
    stores = VectorStores(own / "stores", service.writer, service.files, service.jobs, service.created_at)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="Harmonia", version=__version__, lifespan=life, docs_url=None, redoc_url=None,
        description="A memory that sees, hears and reads.",
    )  # fmt: skip
    app.state.service, app.state.vector_stores = service, stores
    errors.install(app)
    for name in ROUTES:
        router = lazy(f"harmonia.server.{name}:router")
        app.include_router(router, responses=REFUSALS)
    _add_probes(app)
    _add_page(app)
    _describe(app, bool(keys))
    app.state.token = secrets.token_urlsafe(32)
    app.add_middleware(
        GuardMiddleware, settings=settings, keys=keys, registry=service.registry, owner=app.state.token
    )
    return app


def _add_page(app: FastAPI) -> None:
    """The page at ``/`` and what it is made of under ``/page/``, where the guard asks for no key."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    app.mount("/page", _PageFiles(directory=PAGE))


class _PageFiles(StaticFiles):
    """Files that a browser keeps; it asks about code each time, about drawings once in an hour."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """The file, or 304."""
        response = super().file_response(*args, **kwargs)
        drawing = response.media_type == "image/svg+xml"
        response.headers["Cache-Control"] = "max-age=3600" if drawing else "no-cache"
        return response


def _add_probes(app: FastAPI) -> None:
    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/ready", tags=["operation"], responses={503: {"description": "They are not."}})
    async def ready(request: Request) -> JSONResponse:
        """Models and memory are loaded."""
        there = request.app.state.service.ready
        return JSONResponse({"status": "ready" if there else "loading"}, 200 if there else 503)

    @app.get("/v1/memory/owner", include_in_schema=False)
    async def owner(request: Request) -> dict[str, bool]:
        """Whether the caller gives this server's own token, which lies in the folder of the memory."""
        return {"owner": request.state.key is OWNER}

    @app.get("/metrics", tags=["operation"], response_class=Response, responses=REFUSALS | TEXT)
    async def metrics(request: Request) -> PlainTextResponse:
        """Counters for Prometheus."""
        text = generate_latest(request.app.state.service.registry)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _describe(app: FastAPI, guarded: bool) -> None:
    """Let the OpenAPI document say that a key is needed, where one is."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        if guarded:
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
            for path in OPEN:
                document["paths"][path]["get"]["security"] = []
        return document

    app.openapi = openapi  # type: ignore[method-assign]
