"""A service in a process of its own, as a user starts it."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

COMMAND = "from fairweather.cli import main; main()"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_browser() -> str | None:
    """Where a browser is that Playwright drives."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


class Served:
    """A running `fairweather serve`.

    Attributes:
        process: it.
        folder: in which its own folder lies.
        url: where it answers.
        lines: of its log so far.
        ready_seconds: from its start until it took requests.
    """

    def __init__(self, process: subprocess.Popen[str], folder: Path):
        self.folder = folder
        started = time.monotonic()
        self.process = process
        self.url = ""
        self.lines: list[dict[str, object]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        while time.monotonic() - started < 300:
            with contextlib.suppress(httpx.HTTPError):
                if self.url and httpx.get(f"{self.url}/readyz").status_code == 200:
                    self.ready_seconds = time.monotonic() - started
                    return
            assert process.poll() is None, self.lines
            time.sleep(0.05)
        raise AssertionError(self.lines)

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            is_json = line.startswith("{")
            self.lines.append(json.loads(line) if is_json else {"unexpected": line})
            if found := re.search(r"running on (http://[\w.:]+)", line):
                self.url = found[1]

    def end(self) -> list[dict[str, object]]:
        """Wait for its end, and return its log."""
        self.process.wait(120)
        self._reader.join(10)
        assert self.process.stderr
        self.process.stderr.close()
        return self.lines


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[Served]:
    """Serve from a folder of temporary files, and kill what still runs in the end."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", COMMAND, "serve", "--port", "0"),
            *("--device", "cpu", "--folder", str(folder), *options),
        ],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
    )
    served = None
    try:
        served = Served(process, folder)
        yield served
    finally:
        process.kill()
        if served is not None:
            served.end()
