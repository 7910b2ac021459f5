"""One process that serves until it is told to stop, and then finishes what it has accepted."""

import asyncio
import contextlib
import logging
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from fairweather.errors import OptionError
from fairweather.serving.app import create_app, hosts_of
from fairweather.serving.guard import JsonLines
from fairweather.serving.limits import HEAD_BYTES, Limits
from fairweather.serving.service import Service
from fairweather.serving.studio import Studio
from fairweather.serving.workplace import private_folder

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as Protocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as Protocol  # the faster one, if there

CONNECTIONS = 2000  # open ones; more are answered with 503
KEEP_ALIVE_SECONDS = 10
HEAD_SECONDS = 20  # in which the head of a request must have come
POLL_SECONDS = 0.05
GOODBYE_SECONDS = 5  # for connections that nothing more comes from, such as those of an open page


class Connection(Protocol):
    """One that is closed if it begins no request, or if a head does not end in time or in size."""

    _late: asyncio.TimerHandle | None = None
    _head_bytes = 0  # received since the last byte of a body; trailers count, too

    def connection_made(self, transport: Any) -> None:
        """Let its time run."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Let the time of a head run, from its first byte on."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES:
            self.transport.close()
        self._watch()

    def on_body(self, body: bytes) -> None:
        """Note that what comes is no head; the parser calls this."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a head begins next; the parser calls this."""
        self._head_bytes = 0
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        super().connection_lost(exc)
        if self._late is not None:
            self._late.cancel()

    def _watch(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            if self._late is not None:
                self._late.cancel()
                self._late = None
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self.transport.close)


class Server(uvicorn.Server):
    """One that ends with status 0 after SIGTERM, when all that it accepted is done."""

    def __init__(self, config: uvicorn.Config, service: Service):
        super().__init__(config)
        self.service = service

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals, and do not raise them again in the end, as uvicorn does."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Take nothing new from now on."""
        self.service.is_draining = True
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: Any = None) -> None:
        """Finish what was accepted, unless it is told to stop once more; then close."""
        while not (self.force_exit or self.service.is_idle()):
            await asyncio.sleep(POLL_SECONDS)
        await super().shutdown(sockets)


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits | None = None,
    api_key: str | None = None,
    origins: Iterable[str] = (),
    page: bool = True,
    folder: Path | None = None,
    **options: Any,
) -> None:
    """Serve the page and the REST service until SIGTERM or Ctrl-C.

    Args:
        host: address to listen at; one that other machines reach has to be asked for.
        port: to listen at; 0 for a free one.
        limits: what it takes on.
        api_key: that requests to /v1 and /metrics must show. There is no page then.
        origins: of pages elsewhere that may ask, such as `https://example.org`.
        page: whether there is a page.
        folder: of temporary files; by default in the system's.
        options: of each `Restorer`: `device`, `engine`, `precision`.

    Raises:
        OptionError: if an option of the restorers is wrong, or the address is taken.
    """
    limits = limits or Limits()
    allow_connections()
    with private_folder(folder) as private:
        tempfile.tempdir = str(private)  # what libraries write goes there, too
        studio = Studio(queue=limits.queue, **options)
        studio.restorer(studio.tasks[1])  # a wrong option is said before anything is opened
        service = Service(limits, studio, private, api_key)
        app = create_app(
            service,
            hosts=hosts_of(host),
            origins=origins,
            page=page and api_key is None,
        )
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            http=Connection,
            limit_concurrency=CONNECTIONS,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=GOODBYE_SECONDS,
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # any client could call itself another one
        )
        try:
            Server(config, service).run()
        except SystemExit as stop:
            if stop.code:
                raise OptionError(
                    f"--host {host} --port {port}: cannot listen there; the log says why"
                ) from None
            raise
        finally:
            tempfile.tempdir = None


def allow_connections() -> None:
    """Allow this process as many open files as the system lets it have."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows has no such limit
        import resource

        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def log_as_json(level: int = logging.INFO) -> None:
    """Write the log to standard error, one JSON object for each line."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in ("httpx", "asyncio", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
