"""What tests of killed processes share."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import filelock
import pytest

# Ray starts its workers at niceness 15, at which they would starve beside other tests.
os.environ.setdefault("RAY_worker_niceness", "0")

LOCK = Path(tempfile.gettempdir(), "fairweather-tests-with-ray.lock")
STARTS = 'import ray; ray.init("local", num_cpus=1, include_dashboard=False)'


@pytest.fixture(scope="session")
def ray_lock(tmp_path_factory: pytest.TempPathFactory) -> filelock.FileLock:
    """A lock for tests with Ray, where Ray by itself starts: that is tried once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    told, lock = shared / "ray.log", filelock.FileLock(LOCK)
    with lock:
        if not told.exists():
            environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
            command = [sys.executable, "-c", STARTS]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            told.write_text(done.stderr.strip()[-300:] if done.returncode else "")
    if fault := told.read_text():
        pytest.skip(f"NOT TESTED: Ray does not start here: {fault}")
    return lock


@pytest.fixture
def alone_with_ray(ray_lock: filelock.FileLock) -> Iterator[None]:
    """Let one test at a time start Ray: a second one here would find the first one's cluster."""
    with ray_lock:
        yield
