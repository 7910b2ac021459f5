"""Work in processes that are forked from one that has loaded everything: kills fall into the work.

The scripts of the tests run in a process of their own (`run_script`), import what the work needs,
and start the work with `start` or `start_command`.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def run_script(script: str, *arguments: object) -> str:
    """Run Python that may fork, and that can import what tests share; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONIOENCODING": "utf-8",
            "PYTHONPATH": os.pathsep.join(
                filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH")))
            ),
        },
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


def start(work: Callable[[], object]) -> int:
    """Fork, and do the work in the child, which ends with its status; return the child's id."""
    pid = os.fork()
    if pid:
        return pid
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    status = 1
    try:
        work()
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    finally:
        os._exit(status if isinstance(status, int) else 1)


def start_command(*words: str) -> int:
    """Start `fairweather` with these words."""
    from fairweather.cli import main

    def work() -> None:
        sys.argv = ["fairweather", *words]
        main()

    return start(work)
