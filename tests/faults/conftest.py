"""What tests of killed processes share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

LOCK = Path(tempfile.gettempdir(), "fairweather-tests-with-ray.lock")


@pytest.fixture(scope="session")
def ray_lock() -> filelock.FileLock:
    return filelock.FileLock(LOCK)


@pytest.fixture
def alone_with_ray(ray_lock: filelock.FileLock) -> Iterator[None]:
    """Let one test at a time start Ray: a second one here would find the first one's cluster."""
    with ray_lock:
        yield
