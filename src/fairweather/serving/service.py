"""What all parts of a running service share: its limits, its studio, its folder, its counts."""

from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from fairweather.serving.limits import Limits
from fairweather.serving.problems import Problem
from fairweather.serving.studio import Studio

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

    def must_be_open(self) -> None:
        """Refuse new work while starting or stopping.

        Raises:
            Problem: 503.
        """
        if self.is_draining or not self.is_ready:
            what = "about to stop" if self.is_draining else "loading its weights"
            raise Problem(503, f"the service is {what}", {"Retry-After": "5"})
