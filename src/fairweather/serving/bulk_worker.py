"""What works in each process of a bulk run: read, restore, write, tell."""

import collections
import dataclasses
import hashlib
import itertools
import json
import logging
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import ray
from ray.util.metrics import Counter, Histogram

from fairweather.errors import FairweatherError, ImageError
from fairweather.hardware import keep_freed_memory, use_threads
from fairweather.restoration import Restored
from fairweather.serving.ledger import WRITTEN, Entry, table_of
from fairweather.serving.orders import Order
from fairweather.serving.service import BUCKETS
from fairweather.serving.stores import Place
from fairweather.serving.studio import Studio, Ticket
from fairweather.serving.uploads import RestoreOptions
from fairweather.serving.workplace import private_folder

log = logging.getLogger(__name__)

DEATHS = 3  # of workers over a file, which is then given up
DEAD = "WorkerDied"
AHEAD = 2  # files that are read, or written, while one is restored
ATTEMPTS = 2  # at what an engine raises, or at memory that there is not


@dataclass(frozen=True)
class Setting:
    """How all files are restored.

    Attributes:
        device: of the Restorer, as the next two.
        engine: the same.
        precision: the same.
        cpus: threads of each worker.
        pixels: that a photograph may have at most.
    """

    device: str = "auto"
    engine: str = "auto"
    precision: str = "fp32"
    cpus: int = 1
    pixels: int = 100_000_000

    def studio(self) -> Studio:
        """Return Restorers, which are loaded when they are needed."""
        names = ("device", "engine", "precision")
        return Studio(queue=0, **{name: getattr(self, name) for name in names})


def way_of(studio: Studio, options: RestoreOptions) -> str:
    """Return a fingerprint of all that decides what is made of a file."""
    restorer = studio.restorer(options.task, **options.of_restorer())
    versions = [version(name) for name in ("fairweather", "torch", "pillow")]
    told = json.dumps([restorer.describe(), options.of_file(), versions], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()


class BulkWorker:
    """Restores files, in an actor of Ray."""

    def __init__(self, roots: list[Place], target: Place, setting: Setting, register: Any):
        """Prepare.

        Args:
            roots: of the orders.
            target: where results go.
            setting: how files are restored.
            register: handle of a `Register`.
        """
        use_threads(setting.cpus)
        keep_freed_memory()
        self.roots = roots
        self.target = target
        self.setting = setting
        self.register = register
        self.studio = setting.studio()
        self.pool = ThreadPoolExecutor(2 * AHEAD)
        self.name = f"{os.uname().nodename if hasattr(os, 'uname') else ''}:{os.getpid()}"
        self.files = Counter("fairweather_bulk_files", "Files.", tag_keys=("status",))
        self.megapixels = Counter("fairweather_bulk_megapixels", "Restored.")
        self.seconds = Histogram(
            "fairweather_bulk_seconds", "Of the work on a file.", boundaries=list(BUCKETS)
        )

    def __call__(self, table: pyarrow.Table) -> pyarrow.Table:
        """Restore the files of a table of tasks; return their entries."""
        with private_folder() as folder:  # a killed worker's is removed with the next one
            entries = self._restore_all(table, folder)
        for entry in entries:
            self.files.inc(tags={"status": entry.status})
            if entry.status in WRITTEN:
                self.megapixels.inc(entry.pixels / 1e6)
                self.seconds.observe(entry.seconds)
        return table_of(entries)

    def _restore_all(self, table: pyarrow.Table, folder: Path) -> list[Entry]:
        rows = iter(table.to_pylist())
        reading: collections.deque[tuple[Task, Future[bytes]]] = collections.deque()
        noted: list[Future[Entry]] = []

        def read_more() -> None:
            for row in itertools.islice(rows, 1):
                task = Task.of(row)
                source = Place(self.roots[task.root].fs, task.path, task.path)
                reading.append((task, self.pool.submit(source.read)))

        for _ in range(AHEAD):
            read_more()
        while reading:
            task, data = reading.popleft()
            read_more()
            noted.append(self._work(task, data, folder))
            if len(noted) > AHEAD:
                noted[-1 - AHEAD].result()
        return [one.result() for one in noted]

    def _work(self, task: "Task", reading: "Future[bytes]", folder: Path) -> "Future[Entry]":
        """Restore a file; what is returned has its entry when the result is written."""
        started = time.monotonic()
        entry = task.entry if not task.known else task.anew()
        entry = dataclasses.replace(entry, worker=self.name)

        def noted(**facts: Any) -> Entry:
            facts |= {"noted_ns": time.time_ns(), "seconds": time.monotonic() - started}
            return dataclasses.replace(entry, **facts)

        try:
            data = reading.result()
            entry = dataclasses.replace(entry, sha256=hashlib.sha256(data).hexdigest())
            target = self.target.at(task.entry.name)
            if entry.sha256 == task.known and target.exists():
                return done(dataclasses.replace(task.entry, noted_ns=time.time_ns()))
            count: int = ray.get(self.register.begin.remote(entry.name))
            if count > DEATHS:
                message = f"'{task.path}': {DEATHS} workers have died over it"
                return done(noted(status="failed", error=DEAD, message=message, attempts=DEATHS))
            entry = dataclasses.replace(entry, attempts=count)
            try:
                result, restored = self._restore_patiently(task, data, folder)
            finally:
                self.register.end.remote(entry.name)
        except Exception as error:
            tries = 1 if isinstance(error, (FairweatherError, OSError)) else ATTEMPTS
            return done(noted(**facts_of(error, task.path), attempts=entry.attempts + tries - 1))

        def write() -> Entry:
            try:
                target.write(result)
            except Exception as error:  # each store raises what it likes
                return noted(**facts_of(error, task.path))
            found = restored.diagnosis
            return noted(
                status="left" if found and found.weights is None else "restored",
                pixels=restored.height * restored.width,
                degradation=found.degradation if found else task.options.task,
            )

        return self.pool.submit(write)

    def _restore_patiently(self, task: "Task", data: bytes, folder: Path) -> tuple[bytes, Restored]:
        for _ in range(ATTEMPTS - 1):
            try:
                return self._restore(task, data, folder)
            except (FairweatherError, OSError):
                raise
            except Exception:  # of an engine, or of memory, which may be there in a moment
                log.warning("a file is tried again", exc_info=True)
        return self._restore(task, data, folder)

    def _restore(self, task: "Task", data: bytes, folder: Path) -> tuple[bytes, Restored]:
        options = task.options
        return self.studio.restore_bytes(
            data,
            PurePosixPath(task.path).suffix,
            Ticket(),
            within=folder,
            called=task.path,
            task=options.task,
            changes=options.of_restorer(),
            pixels=self.setting.pixels,
            **{**options.of_file(), "format": PurePosixPath(task.entry.name).suffix},
        )


def done(entry: Entry) -> "Future[Entry]":
    """Return a future that has its result."""
    future: Future[Entry] = Future()
    future.set_result(entry)
    return future


def facts_of(error: Exception, path: str) -> dict[str, Any]:
    """Return what is noted of an error, of work on a file."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    cause = error.__cause__
    is_passing = isinstance(cause, MemoryError) or getattr(cause, "errno", None) is not None
    is_final = isinstance(error, ImageError) and not is_passing
    if not isinstance(error, FairweatherError):
        text = f"'{path}' cannot be restored: {kind}: {text}"
    return {"status": "failed", "error": kind, "message": text, "is_final": is_final}


@dataclass(frozen=True)
class Task:
    """An order as it travels to a worker.

    Attributes:
        root: as in `Order`, as the next two.
        path: the same.
        options: the same.
        known: the fingerprint of the file when it was restored; empty if it was not.
        entry: what is noted if it is still the same; else what is known before it is worked on.
    """

    root: int
    path: str
    options: RestoreOptions
    known: str
    entry: Entry

    @classmethod
    def of_order(
        cls, order: Order, way: str, setting: Setting, known: Entry | None = None
    ) -> "Task":
        """Return the task of an order; known is what a table says of its result."""
        is_done = known is not None and known.status in (*WRITTEN, "unchanged")
        entry = known if known is not None and is_done else Entry(order.name, order.path)
        entry = dataclasses.replace(
            entry, size=order.size, mtime_ns=order.mtime_ns, way=way, limit=setting.pixels
        )
        if is_done:
            entry = dataclasses.replace(entry, status="unchanged")
        return cls(order.root, order.path, order.options, entry.sha256, entry)

    def anew(self) -> Entry:
        """Return what is known of a file that has changed."""
        kept = {name: getattr(self.entry, name) for name in ("size", "mtime_ns", "way", "limit")}
        return Entry(self.entry.name, self.entry.source, **kept)

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Task":
        """Return a task from its row."""
        options = RestoreOptions.model_validate_json(row["options"])
        entry = Entry(**json.loads(row["entry"]))
        return cls(row["root"], row["path"], options, row["known"], entry)

    def row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "root": self.root,
            "path": self.path,
            "options": self.options.model_dump_json(),
            "known": self.known,
            "entry": json.dumps(dataclasses.asdict(self.entry)),
        }
