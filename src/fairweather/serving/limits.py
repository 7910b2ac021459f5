"""What a service takes on, so that nobody can take it down by asking for too much."""

from dataclasses import dataclass

HEAD_BYTES = 64 * 2**10  # of a request: its address and its headers


@dataclass(frozen=True)
class Limits:
    """Bounds of a service; what is over them is refused with a reason.

    Attributes:
        queue: requests that may wait for the network; more are answered with 429.
        upload_bytes: of one request; more are answered with 413.
        pixels: of one photograph; more are answered with 422.
        seconds: that the work of one request may take; more are answered with 422. Jobs have none.
        patience_seconds: without any worker process, on Ray; then requests are answered with 503.
        upload_seconds: in which a request must have arrived; slower ones are answered with 408.
        uploads_per_client: requests of one address that may be in work; more are answered with 429.
        jobs: that are kept, done or not; more are answered with 429.
        job_files: in one job.
        keep_seconds: how long the results of a job are kept.
    """

    queue: int = 32
    upload_bytes: int = 200 * 2**20
    pixels: int = 100_000_000
    seconds: float = 600
    patience_seconds: float = 60
    upload_seconds: float = 120
    uploads_per_client: int = 32
    jobs: int = 64
    job_files: int = 100
    keep_seconds: float = 3600
