"""The application: the REST service, and the page beside it."""

import asyncio
import contextlib
import functools
import json
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from fairweather.models import list_models
from fairweather.restoration import Restored
from fairweather.serving.answers import IMAGES, ONE_FILE, FileOnce, body_of
from fairweather.serving.guard import ANY_HOST, API, Guard
from fairweather.serving.job_routes import add_jobs
from fairweather.serving.problems import (
    MEDIA_TYPE,
    Problem,
    add_handlers,
    described,
    methods_at,
)
from fairweather.serving.service import Service
from fairweather.serving.studio import Ticket
from fairweather.serving.uploads import (
    MEDIA_TYPES,
    RestoreOptions,
    choose_format,
    receive_files,
    restore_upload,
)
from fairweather.serving.workplace import remove_old

log = logging.getLogger(__name__)

SWEEP_SECONDS = 15.0
WATCH_SECONDS = 0.5  # between two looks whether a client still waits
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def hosts_of(host: str) -> tuple[str, ...]:
    """Return the names under which a service is asked that listens at an address."""
    return LOOPBACK if host in LOOPBACK else (ANY_HOST,)


class State(BaseModel):
    """Whether the service is well."""

    status: str


class ModelEntry(BaseModel):
    """Weights that restore."""

    name: str
    description: str
    parameters: int


def create_app(
    service: Service,
    *,
    hosts: Iterable[str] = LOOPBACK,
    origins: Iterable[str] = (),
    page: bool = True,
) -> FastAPI:
    """Make the application of a service.

    Args:
        service: what it shares; its weights are loaded when the application starts.
        hosts: names under which it may be asked, or `*`.
        origins: of pages elsewhere that may ask.
        page: whether there is a page, too.
    """
    limits = service.limits
    jobs = service.jobs

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(get_ready())
        sweeping = asyncio.create_task(sweep_for_ever())
        yield
        for task in (loading, sweeping):
            task.cancel()
        await jobs.cancel_all()
        service.studio.close()

    async def sweep_for_ever() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            jobs.sweep()
            await asyncio.to_thread(remove_old, service.folder, seconds=limits.keep_seconds)

    async def get_ready() -> None:
        try:
            await asyncio.to_thread(service.studio.load)
        except Exception as error:
            log.exception("the weights cannot be loaded", exc_info=error)
            raise
        service.is_ready = True
        log.info("ready")

    app = FastAPI(
        title="fairweather",
        version=version("fairweather"),
        summary="Restores photographs spoiled by rain, raindrops, haze, snow, shadows or moiré.",
        docs_url=None,  # these load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    add_handlers(app, service.folder)
    add_health(app, service)
    add_restore(app, service)
    add_jobs(app, service)
    add_rest(app)
    describe_problems(app)
    if page:
        from fairweather.serving.page import mount_page

        app = mount_page(app, service)
    app.add_middleware(Guard, service=service, hosts=tuple(hosts), origins=tuple(origins))
    return app


def add_health(app: FastAPI, service: Service) -> None:
    """Add what tells how the service is."""

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Whether the process answers.", tags=["state"])
    async def healthz() -> State:
        return State(status="ok")

    @app.head("/readyz", include_in_schema=False)
    @app.get(
        "/readyz", summary="Whether it takes requests.", tags=["state"], responses=described(503)
    )
    async def readyz() -> State:
        service.must_be_open()
        return State(status="ready")

    @app.get(
        "/metrics",
        summary="Counts for Prometheus.",
        tags=["state"],
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
            **described(401),
        },
    )
    async def metrics() -> Response:
        return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get(
        "/v1/models", summary="Weights that restore.", tags=["models"], responses=described(401)
    )
    async def models() -> list[ModelEntry]:
        return [ModelEntry(**entry) for entry in await asyncio.to_thread(list_entries)]


@functools.cache
def list_entries() -> list[dict[str, Any]]:
    """Return the bundled weights; what they are takes a moment to find out."""
    return [
        {"name": one.name, "description": one.description, "parameters": one.parameters}
        for one in list_models()
        if one.kind == "weights"
    ]


def add_restore(app: FastAPI, service: Service) -> None:
    """Add what restores a photograph at once."""
    limits = service.limits

    @app.post(
        "/v1/restore",
        summary="Restore a photograph.",
        tags=["restore"],
        response_class=Response,
        responses={
            200: {
                "description": "The restored photograph, byte for byte as the command writes it.",
                "content": IMAGES,
            },
            **described(400, 401, 403, 406, 408, 413, 415, 422, 429, 503),
        },
        openapi_extra=body_of(ONE_FILE, "application/octet-stream", *IMAGES),
    )
    async def restore(request: Request, options: Annotated[RestoreOptions, Query()]) -> Response:
        """Restore one photograph, the body or the file of a form.

        The answer has the format of the upload unless `format` or `Accept` asks for another one.
        Headers tell how long it took, how often it was halved, what `auto` found, and notes.
        """
        service.must_be_open()
        service.studio.must_have_room()
        with contextlib.ExitStack() as cleaning:
            folder = Path(tempfile.mkdtemp(prefix="request-", dir=service.folder))
            cleaning.callback(shutil.rmtree, folder, ignore_errors=True)
            ((source, _),) = await receive_files(request, folder, most=1)
            if options.format is None:
                accept = request.headers.get("Accept", "")
                asked = choose_format(accept, source=source)
                options = options.model_copy(update={"format": asked})
            ticket = Ticket(seconds=limits.seconds)
            work = functools.partial(
                restore_upload, service, folder / "results", source, ticket, options
            )
            restored = await unless_gone(request, ticket, service.studio.run(work, ticket))
            told, suffix = told_headers(restored, options), restored.target.suffix
            return FileOnce(restored.target, cleaning.pop_all(), told, MEDIA_TYPES.get(suffix))


async def unless_gone(request: Request, ticket: Ticket, work: Any) -> Any:
    """Wait for work, which stops if the client goes away meanwhile."""

    async def watch() -> None:
        while not await request.is_disconnected():
            await asyncio.sleep(WATCH_SECONDS)
        ticket.stop.set()

    watching = asyncio.create_task(watch())
    try:
        return await work
    finally:
        watching.cancel()


def told_headers(restored: Restored, options: RestoreOptions) -> dict[str, str]:
    """Return what is told of a restored photograph."""
    told = {
        "Fairweather-Task": options.task,
        "Fairweather-Seconds": f"{restored.seconds:.3f}",
        "Fairweather-Levels": str(restored.levels),
        "Fairweather-Notes": json.dumps(restored.notes),
    }
    if restored.diagnosis is not None:
        told["Fairweather-Found"] = restored.diagnosis.degradation
        told["Fairweather-Certainty"] = f"{restored.diagnosis.probability:.3f}"
    return told


def add_rest(app: FastAPI) -> None:
    """Refuse what else is asked of the service, before the page does, which says it otherwise."""

    async def rest(request: Request) -> Response:
        raise Problem(405 if methods_at(request) else 404, "there is no such address or method")

    for path in (f"{API}{{path:path}}", "/healthz", "/readyz", "/metrics"):
        app.api_route(path, methods=METHODS, include_in_schema=False)(rest)


def describe_problems(app: FastAPI) -> None:
    """Put problem details into the description of the service, in place of FastAPI's own."""
    describe = app.openapi
    text: dict[str, Any] = {"type": "string"}

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = describe()
            schemas = schema["components"]["schemas"]
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas["Problem"] = {
                "type": "object",
                "required": ["type", "title", "status", "detail"],
                "properties": {
                    **dict.fromkeys(("type", "title", "detail"), text),
                    "status": {"type": "integer"},
                },
            }
            for methods in schema["paths"].values():
                for operation in methods.values():
                    said = operation["responses"].get("422")
                    if said and MEDIA_TYPE not in said["content"]:
                        operation["responses"]["422"] = described(422)[422]
        return app.openapi_schema or {}

    app.openapi = openapi
