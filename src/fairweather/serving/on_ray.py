"""The same application on Ray Serve: one front, and restorers on many cores, GPUs or machines.

The front is the service as it runs without Ray, with its queue, its bounds and its page, but its
threads hand each file to the next free restorer and wait for it. A restorer that dies costs time:
what it worked on is given to another one.
"""

import asyncio
import contextlib
import dataclasses
import logging
import math
import signal
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from ray import serve
from ray.exceptions import RayActorError, RayError, WorkerCrashedError

from fairweather.errors import FairweatherError, ImageError, OptionError
from fairweather.hardware import keep_freed_memory, use_threads
from fairweather.restoration import Restored
from fairweather.serving.app import LOOPBACK, create_app, hosts_of
from fairweather.serving.cluster import connected
from fairweather.serving.limits import Limits
from fairweather.serving.run import CONNECTIONS, log_as_json
from fairweather.serving.service import Service, read_key
from fairweather.serving.studio import LostError, Studio, Ticket
from fairweather.serving.uploads import UPLOAD
from fairweather.serving.workplace import private_folder

log = logging.getLogger(__name__)

NAME = "fairweather"
TRIES = 3
POLL_SECONDS = 0.05
WATCH_SECONDS = 1.0
T = TypeVar("T")


class Settings(BaseModel):
    """What a deployment is made of; the `args` of a `serve.yaml`."""

    model_config = ConfigDict(extra="forbid")

    replicas: int = Field(default=1, ge=1, description="Restorers.")
    cpus: float = Field(default=1, ge=0, description="Cores, and threads, of each restorer.")
    gpus: float = Field(default=0, ge=0, description="GPUs of each restorer.")
    device: str = "auto"
    engine: str = "auto"
    precision: str = "fp32"
    hosts: list[str] = Field(
        default=[*LOOPBACK], description="Host names that it answers to, or `*`."
    )
    origins: list[str] = Field(default=[], description="Pages elsewhere that may ask.")
    api_key_file: Path | None = Field(default=None, description="On the machine of the front.")
    api_key: SecretStr | None = None
    page: bool = True
    folder: Path | None = None
    limits: Limits = Limits()

    def read_key(self) -> str | None:
        """Return the key that requests must show, if there is one.

        Raises:
            OptionError: if its file holds none.
        """
        if self.api_key is not None:
            return self.api_key.get_secret_value()
        return None if self.api_key_file is None else read_key(self.api_key_file)


class Done(NamedTuple):
    """A restored file, as it comes from a restorer."""

    data: bytes
    restored: Restored


def build(settings: Settings) -> serve.Application:
    """Return the application, for `serve.run` and for `serve.yaml`."""
    resources = {"num_cpus": settings.cpus, "num_gpus": settings.gpus}
    restorers = RemoteRestorer.options(  # type: ignore[attr-defined]
        num_replicas=settings.replicas, ray_actor_options=resources
    )
    return Front.bind(restorers.bind(settings), settings)  # type: ignore[attr-defined]


# One file at a time: the queue is the front's, which knows its bounds.
@serve.deployment(name="restorer", max_ongoing_requests=1)
class RemoteRestorer:
    """Restores files that are sent to it."""

    def __init__(self, settings: Settings):
        """Load all weights."""
        log_as_json()
        keep_freed_memory()
        use_threads(max(1, int(settings.cpus)))
        self.studio = Studio(
            queue=0,
            device=settings.device,
            engine=settings.engine,
            precision=settings.precision,
        )
        self.studio.load()
        is_here = settings.folder is not None and settings.folder.is_dir()
        self.held = contextlib.ExitStack()
        self.folder = self.held.enter_context(private_folder(settings.folder if is_here else None))

    def __del__(self) -> None:
        """Remove its folder."""
        self.held.close()

    async def is_ready(self) -> bool:
        """Answer: its weights are loaded."""
        return True

    async def restore(
        self, suffix: str, data: bytes, *, seconds: float | None, **asked: Any
    ) -> AsyncIterator[tuple[int, int] | Done | BaseException]:
        """Yield how far it is, and in the end the result or what is wrong with the file.

        Args:
            suffix: of the file, which says what it is.
            data: its bytes.
            seconds: that the work may take; None for any time.
            asked: as for `Studio.restore_file`.
        """
        ticket = Ticket(seconds=seconds)
        working = asyncio.create_task(asyncio.to_thread(self._work, suffix, data, ticket, asked))
        try:
            told = (0, 0)
            while not (await asyncio.wait([working], timeout=POLL_SECONDS))[0]:
                if told != (now := (ticket.done, ticket.total)):
                    yield (told := now)
            yield working.result()
        finally:
            ticket.stop.set()
            await asyncio.wait([working])  # to the end of a tile, before the next file comes

    def _work(
        self, suffix: str, data: bytes, ticket: Ticket, asked: dict[str, Any]
    ) -> Done | BaseException:
        ticket.begin()
        try:
            return Done(
                *self.studio.restore_bytes(
                    data, suffix, ticket, within=self.folder, called=UPLOAD, **asked
                )
            )
        except (FairweatherError, OSError, MemoryError) as error:
            return error


class RemoteStudio(Studio):
    """One whose threads send files to restorers elsewhere."""

    def __init__(self, restorers: Any, *, queue: int, replicas: int, patience_seconds: float):
        """Begin to use restorers.

        Args:
            restorers: handle of their deployment.
            queue: how many requests may wait.
            replicas: how many restorers there are.
            patience_seconds: how long requests wait while none of them is up.
        """
        super().__init__(queue=queue)
        self.restorers = restorers
        self.workers = replicas
        self.patience_seconds = patience_seconds

    def load(self) -> None:
        """Wait until a restorer has its weights, and see from then on whether one is up."""
        self.restorers.is_ready.remote().result()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        seen = time.monotonic()
        while True:
            if is_up(self.restorers):
                seen = time.monotonic()
            self.is_lost = time.monotonic() - seen > self.patience_seconds
            time.sleep(WATCH_SECONDS)

    async def run(self, work: Callable[[], T], ticket: Ticket, *, patient: bool = False) -> T:
        """Do work as any studio does; what is not patient ends when no restorer comes up.

        Raises:
            BusyError: if too many wait.
            LostError: if no restorer has been up for too long.
        """
        working = asyncio.create_task(super().run(work, ticket, patient=patient))
        try:
            while not (await asyncio.wait([working], timeout=WATCH_SECONDS))[0]:
                if self.is_lost and not patient:
                    raise LostError("no worker process is up; come again later")
            return working.result()
        finally:
            working.cancel()

    def restore_file(
        self,
        source: Path,
        folder: Path,
        ticket: Ticket,
        **asked: Any,
    ) -> Restored:
        """Have a file restored; by another restorer if one dies over it."""
        data = source.read_bytes()
        for attempt in range(TRIES):
            try:
                done = asyncio.run(self._restored(source.suffix, data, ticket, asked))
                break
            except (RayActorError, WorkerCrashedError):
                log.warning("a restorer died", extra={"facts": {"attempt": attempt + 1}})
        else:
            raise ImageError(f"'{source}': {TRIES} restorers have died over it")
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / done.restored.target.name
        target.write_bytes(done.data)
        return dataclasses.replace(done.restored, source=source, target=target)

    async def _restored(
        self, suffix: str, data: bytes, ticket: Ticket, asked: dict[str, Any]
    ) -> Done:
        parts = self.restorers.restore.options(stream=True).remote(
            suffix, data, seconds=ticket.seconds, **asked
        )
        try:
            while True:
                coming = asyncio.ensure_future(anext(parts))
                while not (await asyncio.wait([coming], timeout=WATCH_SECONDS))[0]:
                    ticket.check(ticket.done, ticket.total)  # whether anybody waits for it
                part = coming.result()
                if isinstance(part, Done):
                    return part
                if isinstance(part, BaseException):
                    raise part
                ticket.check(*part)
        finally:
            parts.cancel()


def is_up(deployment: Any) -> bool:
    """Return whether a replica of a deployment runs, by its handle; if unknown, one does."""
    try:
        application = serve.status().applications[deployment.app_name]
        found = application.deployments[deployment.deployment_name]
    except (RayError, KeyError):  # Ray's controller is away for a moment, or it all ends
        return True
    return any(count for state, count in found.replica_states.items() if state == "RUNNING")


@serve.deployment(name="front", max_ongoing_requests=CONNECTIONS)
@serve.ingress()
class Front:
    """The page and the REST service; there is one, since it keeps the jobs."""

    def __init__(self, restorers: Any, settings: Settings):
        """Begin to serve; it is ready when a restorer is."""
        log_as_json()
        self.settings = settings
        self.held = contextlib.ExitStack()
        folder = self.held.enter_context(private_folder(settings.folder))
        tempfile.tempdir = str(folder)
        limits = settings.limits
        studio = RemoteStudio(
            restorers,
            queue=limits.queue,
            replicas=settings.replicas,
            patience_seconds=limits.patience_seconds,
        )
        self.service = Service(limits, studio, folder, settings.read_key())

    def __serve_build_asgi_app__(self) -> Any:
        """Return what answers requests; Ray calls this."""
        return create_app(
            self.service,
            hosts=self.settings.hosts,
            origins=self.settings.origins,
            page=self.settings.page and self.service.api_key is None,
        )

    async def drain(self) -> bool:
        """Take nothing new from now on; return whether all that was accepted is done."""
        self.service.is_draining = True
        return self.service.is_idle()

    def __del__(self) -> None:
        """Remove its files."""
        self.held.close()


def serve_on_ray(settings: Settings, *, host: str, port: int) -> None:
    """Serve on Ray until SIGTERM or Ctrl-C, then finish what was accepted.

    A cluster is used if the environment says where one is (`RAY_ADDRESS`); otherwise a Ray of this
    machine is started, and ended with the service. Where Ray Serve runs already on the cluster, it
    keeps its own address and port.

    Args:
        settings: of the deployment.
        host: address to listen at, on each machine of the cluster.
        port: to listen at; 0 for a free one.

    Raises:
        OptionError: if the address is taken.
    """
    try:
        port = port or free_port(host)
        socket.create_server((host, port)).close()
    except OSError as error:
        raise OptionError(f"--host {host} --port {port}: cannot listen there: {error}") from error
    settings = settings.model_copy(update={"hosts": list(hosts_of(host))})
    cores = max(1, math.ceil(settings.cpus * settings.replicas)) + 1  # one is the front's
    with connected(cores=cores):
        told = threading.Event()

        def stop(*_: object) -> None:
            if told.is_set():  # a second time: at once
                raise KeyboardInterrupt
            told.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        try:
            serve.start(http_options={"host": host, "port": port})
            front = serve.run(build(settings), name=NAME, route_prefix="/")
            log.info("running on http://%s:%d", host, port)
            told.wait()
            while not front.drain.remote().result():
                time.sleep(POLL_SECONDS)
        finally:
            serve.delete(NAME)  # a cluster may serve other applications, too


def free_port(host: str) -> int:
    """Return a port that nobody listens at."""
    with socket.create_server((host, 0)) as found:
        return int(found.getsockname()[1])
