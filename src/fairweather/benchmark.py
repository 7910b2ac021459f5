"""Which engine and precision is fastest here: every one in a process of its own, in turns.

A process of its own keeps memory, threads and allocator apart. Turns let other work on the machine
disturb all alike.
"""

import contextlib
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairweather.errors import BenchmarkError, FairweatherError, MissingExtraError, OptionError
from fairweather.hardware import keep_freed_memory, pick_device
from fairweather.imaging import resized
from fairweather.models import find_weights
from fairweather.restoration import Restorer, list_engines

STATUS = Path("/proc/self/status")
ON_CPU = {"torch": ("fp32", "bf16"), "openvino": ("fp32", "bf16"), "onnxruntime": ("fp32",)}
ON_GPU = {"torch": ("fp32", "bf16", "fp16"), "compiled": ("fp32", "bf16", "fp16")}

OnTurn = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Work:
    """What a contestant does: a warm-up whose result comes back, and rounds that are timed."""

    round: Callable[[], object]
    check: Callable[[], Any]
    note: str = ""  # for tables


@dataclass(frozen=True)
class Entry:
    """A contestant before the race.

    Attributes:
        name: differs from the others'.
        build: a function of a module that makes the work, in the contestant's process.
        job: what `build` is given; it is pickled.
        environment: all variables of the process; None keeps those of this one.
        races: False for one that only warms up, for others to be compared with.
    """

    name: str
    build: Callable[[Any], Work]
    job: Any
    environment: Mapping[str, str] | None = None
    races: bool = True


@dataclass(frozen=True)
class Round:
    """What one round cost: seconds, those of all threads, and the peaks of memory so far."""

    wall_s: float
    processor_s: float
    peak_bytes: int
    device_peak_bytes: int


@dataclass
class Raced:
    """A contestant that came through; `loaded_bytes` is its peak of memory before it worked."""

    entry: Entry
    note: str
    loaded_bytes: int
    checked: Any = None
    rounds: list[Round] = field(default_factory=list)


@dataclass(frozen=True)
class Timing:
    """Medians of one engine with one precision.

    Attributes:
        engine: as `--engine` takes it.
        precision: as `--precision` takes it.
        wall_s: on the clock, for one image [s].
        processor_s: of all threads [s].
        peak_bytes: the most main memory of its process, with Python and the libraries.
        device_peak_bytes: the most memory of a GPU.
        largest_difference: of any value from torch in fp32 [of 255].
    """

    engine: str
    precision: str
    wall_s: float
    processor_s: float
    peak_bytes: int
    device_peak_bytes: int
    largest_difference: int


def rank_engines(
    weights: str = "rain",
    *,
    size_px: int = 512,
    threads: int | None = None,
    device: str = "auto",
    rounds: int = 5,
    on_turn: OnTurn = lambda name, done, total: None,
) -> tuple[list[Timing], list[str]]:
    """Time every installed engine with every precision that it has on a device.

    Args:
        weights: as for `Restorer`.
        size_px: height and width of the photograph.
        threads: of each engine; by default as many as PyTorch takes.
        device: as for `Restorer`. `compiled` takes part on GPUs only, as it compiles for minutes.
        rounds: how often all take turns.
        on_turn: is told whose turn it is, how many turns are done, of how many.

    Returns:
        The fastest on the clock first, and a line about each that failed.

    Raises:
        CheckpointError: if there are no such weights.
        OptionError: if there is no such device.
    """
    from skimage.data import astronaut

    find_weights(weights)
    kind = pick_device(device).type
    image = resized(astronaut(), (size_px, size_px))
    installed = [engine.name for engine in list_engines() if engine.installed]
    jobs = [
        (weights, name, precision, device, threads, image)
        for name, precisions in (ON_CPU if kind == "cpu" else ON_GPU).items()
        if name in installed
        for precision in precisions
    ]
    entries = [Entry(f"{job[1]} {job[2]}", restoring, job) for job in jobs]
    raced, faults = race(entries, rounds=rounds, on_turn=on_turn)
    if not raced:
        raise BenchmarkError("; ".join(faults))
    reference = next(iter(raced.values())).checked.astype(int)
    timings = [timing_of(one, reference=reference) for one in raced.values()]
    return sorted(timings, key=lambda timing: timing.wall_s), faults


def timing_of(raced: Raced, *, reference: np.ndarray) -> Timing:
    """Sum up the rounds of an engine."""
    return Timing(
        engine=raced.entry.job[1],
        precision=raced.entry.job[2],
        wall_s=statistics.median(one.wall_s for one in raced.rounds),
        processor_s=statistics.median(one.processor_s for one in raced.rounds),
        peak_bytes=raced.rounds[-1].peak_bytes,
        device_peak_bytes=raced.rounds[-1].device_peak_bytes,
        largest_difference=int(np.abs(raced.checked - reference).max()),
    )


def restoring(job: tuple[str, str, str, str, int | None, np.ndarray]) -> Work:
    """Make a Restorer ready, as the command `restore` would."""
    weights, engine, precision, device, threads, image = job
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
    restorer = Restorer(weights, engine=engine, precision=precision, device=device)
    return Work(round=lambda: restorer(image), check=lambda: restorer(image))


def race(
    entries: Sequence[Entry], *, rounds: int, on_turn: OnTurn
) -> tuple[dict[str, Raced], list[str]]:
    """Run every contestant once in each round, in turns.

    Returns:
        Those that came through by name, and what became of the others.

    Raises:
        OptionError: if one cannot work that way.
        MissingExtraError: if something that it needs is not installed.
    """
    raced: dict[str, Raced] = {}
    faults: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        pools = {
            entry.name: stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
            for entry in entries
        }
        for turn in range(-2, rounds):  # started, checked, and then timed
            for number, entry in enumerate(entries):
                on_turn(entry.name, (turn + 2) * len(entries) + number, (rounds + 2) * len(entries))
                if entry.name in faults or (turn >= 0 and not entry.races):
                    continue
                try:
                    take_turn(turn, entry, pools[entry.name], raced)
                except (OptionError, MissingExtraError):
                    raise
                except FairweatherError as error:
                    faults[entry.name] = str(error)
                    raced.pop(entry.name, None)
                    pools[entry.name].shutdown()
    return raced, list(faults.values())


def take_turn(turn: int, entry: Entry, pool: ProcessPoolExecutor, raced: dict[str, Raced]) -> None:
    """Start a contestant in turn -2, check it in turn -1, and time it from then on."""

    def ask(function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return pool.submit(_guarded, function, *arguments).result()
        except BrokenProcessPool as error:
            raise BenchmarkError(
                f"{entry.name}: its process ended, as when the system runs out of memory"
            ) from error
        except FairweatherError as error:
            raise type(error)(f"{entry.name}: {error}") from error

    if turn == -2:
        with environment(entry.environment):
            raced[entry.name] = Raced(entry, *ask(_start, entry.build, entry.job))
    elif turn == -1:
        raced[entry.name].checked = ask(_check)
        if not entry.races:
            pool.shutdown()
    else:
        raced[entry.name].rounds.append(ask(_round))


@contextlib.contextmanager
def environment(variables: Mapping[str, str] | None) -> Iterator[None]:
    """Give processes that start within other variables than this one's."""
    before = dict(os.environ)
    try:
        if variables is not None:
            os.environ.clear()
            os.environ.update(variables)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def timed(work: Callable[[], object]) -> Round:
    """Do some work once."""
    processor, wall = time.process_time(), time.perf_counter()
    work()
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    on_gpu = torch.cuda.is_initialized()
    return Round(wall, processor, peak_bytes(), torch.cuda.max_memory_allocated() if on_gpu else 0)


def peak_bytes() -> int:
    """Return the most main memory that this process has held; 0 on Windows.

    Linux hands ru_maxrss on from the process that started this one; VmHWM is this one's own.
    """
    if STATUS.is_file():
        for line in STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return 0
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# In the process of a contestant

_work: list[Work] = []


def _start(build: Callable[[Any], Work], job: Any) -> tuple[str, int]:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.dup2(2, 1)  # what libraries print must not mix with the command's output
    _work.append(build(job))
    return _work[0].note, peak_bytes()


def _check() -> Any:
    return _work[0].check()


def _round() -> Round:
    return timed(_work[0].round)


def _guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Raise errors of ours only: not every other one can be sent to the main process."""
    try:
        return function(*arguments)
    except FairweatherError:
        raise
    except Exception as error:
        raise BenchmarkError(f"{type(error).__name__}: {error}") from None
