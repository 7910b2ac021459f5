"""A contestant as the benchmark sees it: a process that answers."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Self

from fairweather import errors
from fairweather.benchmark.jobs import ALLOCATOR_ENVIRONMENT, Job, Round
from fairweather.errors import BenchmarkError

COMMAND = (sys.executable, "-m", "fairweather.benchmark.worker")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PATIENCE_S = 10.0


class Contestant:
    """A process of its own for a job: its memory and its allocator are nobody else's.

    Attributes:
        job: what it does.
        note: what it says about itself.
        loaded_bytes: the most memory it held before it was given an image.
    """

    def __init__(self, job: Job):
        """Starts the process, and waits until it is ready.

        Raises:
            OptionError: if the job cannot be done that way.
            MissingExtraError: if something that it needs is not installed.
            BenchmarkError: if the process fails.
        """
        self.job = job
        self._log = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            env=environment_of(job),
        )
        try:
            ready = self._ask(job.as_line())
        except BaseException:
            self.close()
            raise
        self.note: str = ready["note"]
        self.loaded_bytes: int = ready["loaded_bytes"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Warms up, and writes what comes out for comparison."""
        self._ask("check")

    def round(self) -> Round:
        """Does one round.

        Raises:
            BenchmarkError: if the process fails.
        """
        return Round(**self._ask("round"))

    def close(self) -> None:
        """Ends the process; it may finish what it does unless that takes long."""
        process = self._process
        if self._log.closed:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        self._log.close()

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            text = self._process.stdout.readline()
        except BrokenPipeError:
            text = ""
        if not text:
            raise BenchmarkError(f"{self.job.name}: {self._last_words()}")
        answer = json.loads(text)
        if "error" in answer:
            kind = getattr(errors, answer["kind"], BenchmarkError)
            raise kind(f"{self.job.name}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        """Why the process is gone."""
        status = self._process.wait()
        self._log.seek(0)
        said = self._log.read().strip().splitlines()[-1:]
        killed = status == -9
        return (
            f"its process ended with status {status}"
            + (", as when the system runs out of memory" if killed else "")
            + "".join(f": {line}" for line in said)
        )


def environment_of(job: Job) -> dict[str, str]:
    """The environment of a contestant: its allocator, its threads, and no settings from outside."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    threads = dict.fromkeys(THREAD_VARIABLES, str(job.threads))
    return kept | threads | ALLOCATOR_ENVIRONMENT[job.allocator]
