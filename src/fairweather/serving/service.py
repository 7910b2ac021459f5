"""What all parts of a running service share: its limits, its studio, its folder, its counts."""

from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from fairweather.errors import OptionError
from fairweather.serving.jobs import Jobs
from fairweather.serving.limits import Limits
from fairweather.serving.problems import RETRY_SECONDS, Problem
from fairweather.serving.studio import Studio

SHORTEST_KEY = 16
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counts for Prometheus."""

    def __init__(self, studio: Studio):
        """Begin to count."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "fairweather_requests", "Answers.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "fairweather_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        for name, text, value in (
            ("fairweather_waiting", "Requests in the queue.", lambda: studio.waiting),
            ("fairweather_active", "Requests that are worked on.", lambda: studio.active),
            ("fairweather_tiles", "Tiles and frames since the start.", lambda: studio.tiles),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)


@dataclass
class Service:
    """A running service.

    Attributes:
        limits: what it takes on.
        studio: where it restores.
        folder: private, of all files.
        api_key: that requests to /v1 and /metrics must show; None for none.
        is_ready: whether all weights are loaded.
        is_draining: whether it takes nothing new, since it is about to stop.
        clients: requests in work by address.
    """

    limits: Limits
    studio: Studio
    folder: Path
    api_key: str | None = None
    is_ready: bool = False
    is_draining: bool = False
    clients: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.metrics = Metrics(self.studio)
        limits = self.limits
        self.jobs = Jobs(
            self.studio, self.folder, most=limits.jobs, keep_seconds=limits.keep_seconds
        )

    def must_be_open(self) -> None:
        """Refuse new work while starting or stopping, or while nothing could do it.

        Raises:
            Problem: 503.
        """
        if self.is_draining:
            what = "is about to stop"
        elif not self.is_ready:
            what = "is loading its weights"
        elif self.studio.is_lost:
            what = "has no worker process at present"
        else:
            return
        raise Problem(503, f"the service {what}", {"Retry-After": RETRY_SECONDS})

    def is_idle(self) -> bool:
        """Return whether all that it accepted is done."""
        return not self.clients and self.studio.is_idle() and self.jobs.is_idle()


def read_key(path: Path) -> str:
    """Return the key in a file.

    Raises:
        OptionError: if there is none, or a short one.
    """
    try:
        key = path.read_text("utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise OptionError(f"--api-key-file {path}: cannot be read: {error}") from error
    if len(key) < SHORTEST_KEY or not key.isascii() or not key.isprintable():
        raise OptionError(
            f"--api-key-file {path}: must hold a key of at least {SHORTEST_KEY} plain characters,"
            " as `openssl rand -hex 32` gives"
        )
    return key
