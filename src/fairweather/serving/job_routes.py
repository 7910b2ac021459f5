"""The addresses of jobs."""

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from fairweather.restoration import Restored
from fairweather.serving.answers import BINARY, IMAGES, MANY_FILES, FileOnce, body_of
from fairweather.serving.jobs import shown_name, zip_files
from fairweather.serving.problems import Problem, described
from fairweather.serving.service import Service
from fairweather.serving.studio import Ticket
from fairweather.serving.uploads import (
    MEDIA_TYPES,
    RestoreOptions,
    receive_files,
    restore_upload,
)


class JobState(BaseModel):
    """What has become of a job."""

    id: str
    status: str
    files: int
    restored: int
    failed: int
    progress: float
    results: list[dict[str, Any]]


def add_jobs(app: FastAPI, service: Service) -> None:
    """Add what restores many files, or clips, in its own time."""
    jobs = service.jobs

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
        with jobs.room():
            folder = jobs.make_folder()
            most = service.limits.job_files
            try:
                files = await receive_files(request, folder, most=most, clips=True)
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
            media = MEDIA_TYPES.get(path.suffix)
            shown = shown_name("", 1, suffix=path.suffix)
        else:
            path, media, shown = job.folder / "results.zip", "application/zip", "restored.zip"
            async with job.zipping:
                if not path.exists():
                    await asyncio.to_thread(zip_files, job.files, path)
        headers = {"Content-Disposition": f'attachment; filename="{shown}"'}
        return FileOnce(path, contextlib.ExitStack(), headers, media)

    @app.delete(
        "/v1/jobs/{name}",
        tags=["jobs"],
        status_code=204,
        summary="Stop and forget a job.",
        responses=described(401, 404),
    )
    async def delete_job(name: str) -> None:
        await jobs.cancel(jobs.get(name))
