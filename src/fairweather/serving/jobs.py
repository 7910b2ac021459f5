"""Long work: many files or clips, taken now and fetched later."""

import asyncio
import contextlib
import shutil
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from fairweather.restoration import Restored
from fairweather.serving.problems import Problem, for_clients
from fairweather.serving.studio import Studio, Ticket

POLL_SECONDS = 0.05
Status = Literal["queued", "running", "done", "failed", "cancelled"]
Work = Callable[[Path, Path, Ticket], Restored]


@dataclass
class JobFile:
    """One file of a job."""

    source: Path
    name: str
    ticket: Ticket = field(default_factory=Ticket)
    restored: Restored | None = None
    error: str | None = None


@dataclass
class Job:
    """Files that are restored one after another.

    Attributes:
        id: nobody can guess it.
        folder: of its files.
        files: they.
        status: what has become of it.
        ended: when that was, by `time.monotonic`.
    """

    id: str
    folder: Path
    files: list[JobFile]
    status: Status = "queued"
    ended: float | None = None
    task: asyncio.Task[None] | None = None
    zipping: asyncio.Lock = field(default_factory=asyncio.Lock)

    def describe(self) -> dict[str, Any]:
        """Return what is told of it."""
        restored = sum(one.restored is not None for one in self.files)
        return {
            "id": self.id,
            "status": self.status,
            "files": len(self.files),
            "restored": restored,
            "failed": sum(one.error is not None for one in self.files),
            "progress": sum(map(progress_of, self.files)) / len(self.files),
            "results": [
                {
                    "name": one.name,
                    "error": one.error,
                    "notes": list(one.restored.notes) if one.restored else [],
                }
                for one in self.files
            ],
        }


def progress_of(file: JobFile) -> float:
    """Return how much of a file is done, in [0, 1]."""
    if file.restored is not None or file.error is not None:
        return 1.0
    return file.ticket.done / file.ticket.total if file.ticket.total else 0.0


class Jobs:
    """All jobs that are kept."""

    def __init__(self, studio: Studio, folder: Path, *, most: int, keep_seconds: float):
        """Begin without any.

        Args:
            studio: where they are worked on.
            folder: of their files.
            most: how many are kept.
            keep_seconds: how long after their end.
        """
        self.studio = studio
        self.folder = folder
        self.most = most
        self.keep_seconds = keep_seconds
        self._jobs: dict[str, Job] = {}
        self._reserved = 0
        # One worker, where there are more, is left to those who wait.
        self._places = asyncio.Semaphore(max(1, studio.workers - 1))

    @contextlib.contextmanager
    def room(self) -> Iterator[None]:
        """Keep a place for a job while it is uploaded.

        Raises:
            Problem: 429.
        """
        self.sweep()
        if len(self._jobs) + self._reserved >= self.most:
            text = f"{self.most} jobs are kept; delete one that you have fetched"
            raise Problem(429, text, {"Retry-After": "30"})
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    def make_folder(self) -> Path:
        """Make the folder of a job that is about to come."""
        folder = self.folder / f"job-{uuid.uuid4().hex}"
        folder.mkdir()
        return folder

    def begin(self, folder: Path, files: list[tuple[Path, str]], work: Work) -> Job:
        """Take a job on."""
        job = Job(uuid.uuid4().hex, folder, [JobFile(path, name) for path, name in files])
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._work_off(job, work))
        return job

    async def _work_off(self, job: Job, work: Work) -> None:
        async def restore(index: int, file: JobFile) -> None:
            async with self._places:
                job.status = "running" if job.status == "queued" else job.status
                results = job.folder / f"results-{index}"

                def begun() -> Restored:
                    results.mkdir()
                    return work(results, file.source, file.ticket)

                try:
                    file.restored = await self.studio.run(begun, file.ticket, patient=True)
                except Exception as error:  # each engine raises what it likes
                    file.error = for_clients(error, self.folder)

        try:
            await asyncio.gather(*(restore(index, file) for index, file in enumerate(job.files)))
        finally:
            if job.status != "cancelled":
                job.status = "done" if any(one.restored for one in job.files) else "failed"
            job.ended = time.monotonic()

    def get(self, name: str) -> Job:
        """Return a job.

        Raises:
            Problem: 404.
        """
        self.sweep()
        if name not in self._jobs:
            raise Problem(404, "there is no such job; its results may have been removed")
        return self._jobs[name]

    async def cancel(self, job: Job) -> None:
        """End a job and remove its files."""
        job.status = "cancelled"
        for one in job.files:
            one.ticket.stop.set()
        if job.task is not None:
            job.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await job.task
        job.ended = job.ended or time.monotonic()  # it may not have begun
        while any(one.ticket.working for one in job.files):  # to the end of a tile
            await asyncio.sleep(POLL_SECONDS)
        await asyncio.to_thread(shutil.rmtree, job.folder, ignore_errors=True)
        self._jobs.pop(job.id, None)

    async def cancel_all(self) -> None:
        """End all jobs."""
        for job in list(self._jobs.values()):
            await self.cancel(job)

    def is_idle(self) -> bool:
        """Return whether all jobs have ended."""
        return all(job.ended is not None for job in self._jobs.values())

    def sweep(self) -> None:
        """Remove what has been kept for long enough."""
        now = time.monotonic()
        for job in list(self._jobs.values()):
            if job.ended is not None and now - job.ended > self.keep_seconds:
                self._jobs.pop(job.id)
                shutil.rmtree(job.folder, ignore_errors=True)


def zip_files(files: Sequence[JobFile], path: Path) -> None:
    """Write results into one archive, under the names of their uploads."""
    taken: set[str] = set()
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for index, one in enumerate(files, 1):
            if one.restored is None:
                continue
            name = shown_name(one.name, index, suffix=one.restored.target.suffix)
            while name in taken:
                name = f"{index}-{name}"
            taken.add(name)
            archive.write(one.restored.target, name)
    part.replace(path)


def shown_name(given: str, index: int, *, suffix: str) -> str:
    """Return a name for a result, which leads out of no folder."""
    name = PureWindowsPath(PurePosixPath(given.replace("\0", "")).name).name
    stem = "".join(letter for letter in Path(name).stem if letter.isprintable()).strip(". ")
    return f"{stem or f'photo-{index}'}.restored{suffix}"
