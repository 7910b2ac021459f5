"""What a piece of work costs the process that does it."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fairweather.benchmark.jobs import Round
from fairweather.errors import OptionError

STATUS = Path("/proc/self/status")


def timed(work: Callable[[], object]) -> Round:
    """Does some work once.

    Raises:
        OptionError: on Windows, which does not count this way.
    """
    processor_before, wall_before = processor_s(), time.perf_counter()
    work()
    wall_s = time.perf_counter() - wall_before
    spent = processor_s() - processor_before
    return Round(wall_s, spent, peak_bytes(), device_peak_bytes())


def processor_s() -> float:
    """Seconds that all threads of this process have computed, in the program and in the kernel."""
    usage = resource_usage()
    return usage.ru_utime + usage.ru_stime


def peak_bytes() -> int:
    """The most main memory that this process has held.

    Linux hands ru_maxrss on from the process that started this one; VmHWM is this one's own.
    """
    if STATUS.is_file():
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource_usage().ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def device_peak_bytes() -> int:
    """The most memory of a GPU that torch has held."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0


def resource_usage() -> Any:
    """What the system has counted for this process."""
    try:
        import resource
    except ModuleNotFoundError as error:
        raise OptionError(
            "benchmark: Windows does not count what it needs; run it on Linux, macOS or in WSL"
        ) from error
    return resource.getrusage(resource.RUSAGE_SELF)
