"""Where a service restores: weights that are loaded once, threads, and a bounded queue."""

import asyncio
import functools
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import torch

from fairweather.errors import FairweatherError, ImageError
from fairweather.imaging import ClipOptions, is_clip, read_clip_facts
from fairweather.models import list_weights
from fairweather.restoration import Restored, Restorer, plan_jobs
from fairweather.serving.workplace import without_paths

AUTO = "auto"
FIRST_GUESS_SECONDS = 1.0
LEARNT = 0.2  # share of the last request in the mean time that one takes
T = TypeVar("T")


class BusyError(FairweatherError):
    """As many requests wait as may wait.

    Attributes:
        seconds: after which there should be room.
    """

    def __init__(self, seconds: float):
        super().__init__(f"the queue is full; come again in {seconds:.0f} s")
        self.seconds = seconds


class LostError(FairweatherError):
    """Nothing is up that could do the work."""


class TooSlowError(FairweatherError):
    """The work took longer than it may."""


class StoppedError(FairweatherError):
    """Nobody waits for the work any more."""


class Ticket:
    """One piece of work: how far it is, and whether it shall end.

    Attributes:
        done: tiles or frames that are done.
        total: how many there are.
        working: whether a thread works on it.
    """

    def __init__(self, *, seconds: float | None = None):
        self.seconds = seconds
        self.working = False
        self.done = self.total = 0
        self.stop = threading.Event()
        self._ends: float | None = None

    def begin(self) -> None:
        """Let its time run."""
        self._ends = None if self.seconds is None else time.monotonic() + self.seconds

    def check(self, done: int, total: int) -> None:
        """Note how far the work is; called for each tile.

        Raises:
            StoppedError: if it was stopped.
            TooSlowError: if its time is over.
        """
        self.done, self.total = done, total
        if self.stop.is_set():
            raise StoppedError("stopped")
        if self._ends is not None and done < total and time.monotonic() > self._ends:
            raise TooSlowError(
                f"takes longer than the {self.seconds:.0f} s that a request may take; post it to"
                " /v1/jobs, or scale the photograph down"
            )


class Studio:
    """Restorers for all tasks, and threads that work requests off in their order.

    Attributes:
        tasks: names of weights, and `auto`.
        waiting: what is in the queue.
        urgent: what of it is no part of a job.
        active: requests that are worked on.
        is_lost: whether nothing is up that could restore.
    """

    is_lost = False

    def __init__(self, *, queue: int, **options: Any):
        """Prepare; nothing is loaded yet.

        Args:
            queue: how many requests may wait.
            options: of each `Restorer`.
        """
        self.tasks = (AUTO, *list_weights())
        self.queue = queue
        self.waiting = self.urgent = self.active = self.tiles = 0
        self.mean_seconds = FIRST_GUESS_SECONDS
        self._options = options
        self._loading = threading.Lock()
        self._restorers: dict[str, Restorer] = {}
        self.threads = torch.get_num_threads()
        self._pool: ThreadPoolExecutor | None = None

    def load(self) -> None:
        """Load all weights."""
        for task in self.tasks:
            self.restorer(task)

    def restorer(self, task: str, **changes: Any) -> Restorer:
        """Return what restores a task, with options of `Restorer.with_options`."""
        with self._loading:
            if task not in self._restorers:
                self._restorers[task] = Restorer(task, **self._options)
        return self._restorers[task].with_options(**changes)

    def restore_file(
        self,
        source: Path,
        folder: Path,
        ticket: Ticket,
        *,
        task: str,
        changes: dict[str, Any],
        pixels: int,
        **written: Any,
    ) -> Restored:
        """Restore an uploaded file as `fairweather restore` does, in this thread.

        Args:
            source: the file.
            folder: of the results.
            ticket: of the work.
            task: one of `tasks`.
            changes: options of `Restorer.with_options`.
            pixels: that it may have at most.
            written: `format`, and options of `Restorer.restore_file`.

        Raises:
            FairweatherError: if it cannot be restored.
        """
        restorer = self.restorer(task, **changes)
        return restore_in(folder, source, restorer, ticket, pixels=pixels, **written)

    def restore_bytes(
        self, data: bytes, suffix: str, ticket: Ticket, *, within: Path, called: str, **asked: Any
    ) -> tuple[bytes, Restored]:
        """Restore a file that is in memory, as `restore_file` does.

        Args:
            data: what it holds.
            suffix: that says what it is.
            ticket: of the work.
            within: folder where it lies meanwhile.
            called: its name in errors.
            asked: as for `restore_file`.

        Returns:
            What the result holds, and what restoring gave; its paths are gone.

        Raises:
            FairweatherError: if it cannot be restored.
        """
        with tempfile.TemporaryDirectory(dir=within) as place:
            folder = Path(place)
            source = (folder / "file").with_suffix(suffix)
            source.write_bytes(data)
            try:
                restored = self.restore_file(source, folder / "results", ticket, **asked)
            except FairweatherError as error:
                error.args = (without_paths(str(error), folder, called=called), *error.args[1:])
                raise
            return restored.target.read_bytes(), restored

    @functools.cached_property
    def workers(self) -> int:
        """How many requests are worked on at the same time."""
        return max(1, self.restorer(self.tasks[1]).at_once())

    def must_have_room(self) -> None:
        """Refuse to let one more wait; files of jobs do not count.

        Raises:
            BusyError: if as many wait as may.
        """
        if self.urgent >= self.queue:
            raise BusyError(self.wait_seconds())

    def is_idle(self) -> bool:
        """Return whether nothing is left to do."""
        return not (self.waiting or self.active)

    def wait_seconds(self) -> float:
        """Return after how long a place should be free [s]."""
        return max(1.0, self.mean_seconds * (self.waiting + 1) / self.workers)

    async def run(self, work: Callable[[], T], ticket: Ticket, *, patient: bool = False) -> T:
        """Do work in a thread when its turn comes; it ends early if the call is cancelled.

        Args:
            work: what to do; it calls `ticket.check`.
            ticket: its.
            patient: whether it may wait in a queue that is full, as a part of accepted work may.

        Raises:
            BusyError: if too many wait.
        """
        if not patient:
            self.must_have_room()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.workers, thread_name_prefix="restore")
        urgent = int(not patient)
        self.waiting += 1
        self.urgent += urgent
        loop = asyncio.get_running_loop()
        future = self._pool.submit(self._begun, loop, work, ticket, urgent)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            ticket.stop.set()
            if future.cancelled():  # it had not begun
                self.waiting -= 1
                self.urgent -= urgent
            raise

    def _begun(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[], T], ticket: Ticket, urgent: int
    ) -> T:
        """Work in a thread of the pool; counts are kept in the loop's thread alone."""
        loop.call_soon_threadsafe(self._count_begun, urgent)
        ticket.working = True
        started = time.monotonic()
        try:
            ticket.check(0, 0)
            ticket.begin()
            # A request that is alone takes all cores, others one each.
            alone = self.waiting + self.active <= 1
            torch.set_num_threads(self.threads if alone else max(1, self.threads // self.workers))
            return work()
        finally:
            ticket.working = False
            loop.call_soon_threadsafe(self._count_ended, ticket.done, time.monotonic() - started)

    def _count_begun(self, urgent: int) -> None:
        self.waiting -= 1
        self.urgent -= urgent
        self.active += 1

    def _count_ended(self, tiles: int, seconds: float) -> None:
        self.active -= 1
        self.tiles += tiles
        self.mean_seconds += LEARNT * (seconds - self.mean_seconds)

    def close(self) -> None:
        """End the threads, when they have done what they have begun."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def restore_in(
    folder: Path, source: Path, restorer: Restorer, ticket: Ticket, *, pixels: int, **options: Any
) -> Restored:
    """Restore a file with a restorer; see `Studio.restore_file`."""
    plan = plan_jobs([str(source)], out=folder, format=options.pop("format", None))
    if plan.failures:
        raise FairweatherError(plan.failures[0].reason)
    (job,) = plan.jobs
    check = ticket.check
    if is_clip(source):
        facts = read_clip_facts(source, ClipOptions())
        if facts.width * facts.height > pixels:
            raise ImageError(f"'{source}' has frames of more than the {pixels:,} pixels allowed")

        def check(done: int, total: int) -> None:
            ticket.check(done, max(total, done + 1))  # a clip may be longer than it says

    return restorer.restore_file(
        job.source, job.target, max_pixels=pixels, on_tile=check, **options
    )
