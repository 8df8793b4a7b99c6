"""The ASGI application: routes, middleware, the service behind them, and the page."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import generate_latest

from harmonia import __version__
from harmonia.imports import lazy
from harmonia.server import errors
from harmonia.server.address import proof
from harmonia.server.file_response import MediaResponse
from harmonia.server.keys import read_keys
from harmonia.server.middleware import OPEN, GuardMiddleware
from harmonia.server.namespaces import PerNamespace
from harmonia.server.openai.vector_stores import KIND, VectorStores
from harmonia.server.schemas.errors import REFUSALS, Responses
from harmonia.server.service import SERVER_FOLDER, Service, check_unbound
from harmonia.server.settings import Settings

ROUTES: tuple[str, ...] = (
    "routes.recall",
    "routes.records",
    "routes.timeline",
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
PLAIN_TEXT: Responses = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}


def create_app(settings: Settings) -> FastAPI:
    """Create the app of one memory; HarmoniaError if its keys cannot be read."""
    keys = read_keys(settings.keys) if settings.keys else ()
    service = Service(settings)
    own = settings.memory / SERVER_FOLDER

    def open_stores(namespace: str | None) -> VectorStores:
        files = service.files.of(namespace)
        return VectorStores(own, service.writer, files, service.jobs, service.created_at, namespace)

    stores = PerNamespace(open_stores)
    service.jobs.after(KIND, lambda job, report: stores.of(job.namespace).add_records(job, report))
    for namespace in {None, *(key.namespace for key in keys)}:
        stores.of(namespace)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    app = FastAPI(
        title="Harmonia", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None,
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
    """Serve the page at ``/`` and its files under ``/page/``, both without a key."""

    @app.get("/", include_in_schema=False)
    async def page() -> MediaResponse:
        return MediaResponse(PAGE / "index.html")

    app.mount("/page", _PageFiles(directory=PAGE))


class _PageFiles(StaticFiles):
    """Static files that browsers cache: drawings for an hour, code with revalidation."""

    def file_response(self, full_path: Any, stat_result: Any, scope: Any, status_code: int = 200) -> Response:
        """The file response with its Cache-Control header; it reads ranges as media do."""
        response = super().file_response(full_path, stat_result, scope, status_code)
        if isinstance(response, FileResponse):
            response = MediaResponse(full_path, status_code, stat_result=stat_result)
        drawing = response.media_type == "image/svg+xml"
        response.headers["Cache-Control"] = "max-age=3600" if drawing else "no-cache"
        return response


def _add_probes(app: FastAPI) -> None:
    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:
        """Liveness: the process runs."""
        return {"status": "ok"}

    @app.get("/ready", tags=["operation"], responses={503: {"description": "Still loading."}})
    async def ready(request: Request) -> JSONResponse:
        """Readiness: models and memory are loaded."""
        loaded = request.app.state.service.ready
        return JSONResponse({"status": "ready" if loaded else "loading"}, 200 if loaded else 503)

    @app.get("/v1/memory/owner", include_in_schema=False)
    async def owner(
        request: Request, nonce: Annotated[str, Query(pattern="^[0-9a-f]{32,64}$")]
    ) -> JSONResponse:
        """Prove to the memory's owner that this is the server of that folder, before anything is sent."""
        memory = request.app.state.service.settings.memory
        return JSONResponse({"proof": proof(memory, request.app.state.token, nonce)})

    @app.get("/metrics", tags=["operation"], response_class=Response, responses=REFUSALS | PLAIN_TEXT)
    async def metrics(request: Request) -> PlainTextResponse:
        """Metrics in Prometheus' text format."""
        check_unbound(request, "metrics of the whole server")
        text = generate_latest(request.app.state.service.registry)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _describe(app: FastAPI, with_keys: bool) -> None:
    """Add the security scheme to the OpenAPI document if the server has keys."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        if with_keys:
            document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"key": []}]
            for path in OPEN:
                document["paths"][path]["get"]["security"] = []
        return document

    app.openapi = openapi  # type: ignore[method-assign]
