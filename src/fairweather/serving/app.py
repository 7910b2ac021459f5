"""The application: the REST service, and the page beside it."""

import asyncio
import contextlib
import functools
import json
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from fairweather.errors import FairweatherError
from fairweather.models import list_models
from fairweather.restoration import Restored
from fairweather.serving.guard import Guard
from fairweather.serving.jobs import Jobs, shown_name, zip_files
from fairweather.serving.problems import (
    MEDIA_TYPE,
    Problem,
    add_handlers,
    as_problem,
    described,
)
from fairweather.serving.service import Service
from fairweather.serving.studio import Ticket
from fairweather.serving.uploads import (
    CHUNK,
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
LOOPBACK = ("localhost", "127.0.0.1", "::1")
BINARY = {"schema": {"type": "string", "format": "binary"}}
IMAGES = {media: BINARY for media in MEDIA_TYPES.values() if media.startswith("image")}
ONE_FILE = {"type": "object", "required": ["file"], "properties": {"file": BINARY["schema"]}}
MANY_FILES = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "array", "items": BINARY["schema"], "minItems": 1}},
}


class State(BaseModel):
    """Whether the service is well."""

    status: str


class ModelEntry(BaseModel):
    """Weights that restore."""

    name: str
    description: str
    parameters: int


class JobState(BaseModel):
    """What has become of a job."""

    id: str
    status: str
    files: int
    restored: int
    failed: int
    progress: float
    results: list[dict[str, Any]]


def body_of(form: dict[str, Any], *media: str) -> dict[str, Any]:
    """Return what a body is, for OpenAPI."""
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content | dict.fromkeys(media, BINARY)}}


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
    jobs = Jobs(service.studio, service.folder, most=limits.jobs, keep_seconds=limits.keep_seconds)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(get_ready())
        sweeping = asyncio.create_task(sweep_for_ever())
        yield
        await jobs.finish()
        await service.studio.idle()
        for task in (loading, sweeping):
            task.cancel()
        service.studio.close()

    async def sweep_for_ever() -> None:
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            jobs.sweep()
            await asyncio.to_thread(remove_old, service.folder, seconds=limits.keep_seconds)

    async def get_ready() -> None:
        await asyncio.to_thread(service.studio.load)
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
    app.state.service = service
    app.state.jobs = jobs
    add_handlers(app)
    add_health(app, service)
    add_restore(app, service)
    add_jobs(app, service, jobs)
    describe_problems(app)
    if page:
        from fairweather.serving.page import mount_page

        app = mount_page(app, service)
    app.add_middleware(Guard, service=service, hosts=tuple(hosts), origins=tuple(origins))
    return app


def add_health(app: FastAPI, service: Service) -> None:
    """Add what tells how the service is."""

    @app.get("/healthz", summary="Whether the process answers.", tags=["state"])
    async def healthz() -> State:
        return State(status="ok")

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
        if service.studio.is_full():
            seconds = service.studio.wait_seconds()
            raise Problem(429, "the queue is full", {"Retry-After": f"{seconds:.0f}"})
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
            try:
                restored = await unless_gone(request, ticket, service.studio.run(work, ticket))
            except FairweatherError as error:
                return as_problem(error, name=str(source))
            left = cleaning.pop_all()
        return StreamingResponse(
            chunks_of(restored.target, left),
            headers=told_headers(restored, options)
            | {"Content-Length": str(restored.target.stat().st_size)},
            media_type=MEDIA_TYPES.get(restored.target.suffix, "application/octet-stream"),
        )


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


def chunks_of(path: Path, left: contextlib.ExitStack) -> Iterator[bytes]:
    """Yield a file, and clean up behind it."""
    with left, path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


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


def add_jobs(app: FastAPI, service: Service, jobs: Jobs) -> None:
    """Add what restores many files, or clips, in its own time."""

    @app.post(
        "/v1/jobs",
        tags=["jobs"],
        status_code=202,
        summary="Restore several photographs or clips.",
        responses={
            202: {"headers": {"Location": {"schema": {"type": "string"}}}},
            **described(400, 401, 403, 408, 413, 415, 422, 429, 503),
        },
        openapi_extra=body_of(MANY_FILES, "application/octet-stream"),
    )
    async def post_job(
        request: Request, response: Response, options: Annotated[RestoreOptions, Query()]
    ) -> JobState:
        """Take files, and restore them later; the answer says where to ask for them."""
        service.must_be_open()
        jobs.must_have_room()
        folder = jobs.make_folder()
        try:
            files = await receive_files(request, folder, most=service.limits.job_files, clips=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

        def work(results: Path, source: Path, ticket: Ticket) -> Restored:
            return restore_upload(service, results, source, ticket, options)

        job = jobs.begin(folder, files, work)
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return JobState(**job.describe())

    @app.get(
        "/v1/jobs/{name}", tags=["jobs"], summary="How far a job is.", responses=described(401, 404)
    )
    async def get_job(name: str) -> JobState:
        return JobState(**jobs.get(name).describe())

    @app.get(
        "/v1/jobs/{name}/result",
        tags=["jobs"],
        summary="The restored file, or several of them as a zip.",
        response_class=Response,
        responses={
            200: {"content": {"application/zip": BINARY, **IMAGES}},
            **described(401, 404, 409, 422),
        },
    )
    async def get_result(name: str) -> Response:
        job = jobs.get(name)
        if job.ended is None:
            raise Problem(409, "the job is not done yet", {"Retry-After": "1"})
        done = [one.restored for one in job.files if one.restored is not None]
        if not done:
            raise Problem(422, job.files[0].error or "nothing could be restored")
        if len(job.files) == 1:
            path = done[0].target
            media = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
            shown = shown_name("", 1, suffix=path.suffix)
        else:
            path, media, shown = job.folder / "results.zip", "application/zip", "restored.zip"
            if not path.exists():
                await asyncio.to_thread(zip_files, job.files, path)
        headers = {
            "Content-Disposition": f'attachment; filename="{shown}"',
            "Content-Length": str(path.stat().st_size),
        }
        return StreamingResponse(
            chunks_of(path, contextlib.ExitStack()), headers=headers, media_type=media
        )

    @app.delete(
        "/v1/jobs/{name}",
        tags=["jobs"],
        status_code=204,
        summary="Stop and forget a job.",
        responses=described(401, 404),
    )
    async def delete_job(name: str) -> None:
        await jobs.cancel(jobs.get(name))


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
                        operation["responses"] |= json.loads(json.dumps(described(422)))
        return app.openapi_schema or {}

    app.openapi = openapi
