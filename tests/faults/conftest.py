"""What tests of killed processes share."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

LOCK = Path(tempfile.gettempdir(), "fairweather-tests-with-ray.lock")
STARTS = 'import ray; ray.init("local", num_cpus=1, include_dashboard=False)'


@pytest.fixture(scope="session")
def ray_lock() -> filelock.FileLock:
    """A lock for tests with Ray, where Ray by itself starts."""
    lock = filelock.FileLock(LOCK)
    with lock:
        environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
        command = [sys.executable, "-c", STARTS]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"NOT TESTED: Ray does not start here: {done.stderr.strip()[-300:]}")
    return lock


@pytest.fixture
def alone_with_ray(ray_lock: filelock.FileLock) -> Iterator[None]:
    """Let one test at a time start Ray: a second one here would find the first one's cluster."""
    with ray_lock:
        yield
