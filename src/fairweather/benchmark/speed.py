"""Contestants in turns, and what their rounds amount to."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fairweather.benchmark.contestants import Contestant
from fairweather.benchmark.jobs import Job, Round
from fairweather.benchmark.works import COPY_BYTES, COPY_REPEATS, MATRIX_REPEATS, matrix_side
from fairweather.errors import BenchmarkError

MATRIX, COPY = "matrix product", "copy"

Tree = dict[str, Any]
OnTurn = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Raced:
    """A contestant that came through all rounds.

    Attributes:
        job: what it did.
        rounds: what each round cost.
        loaded_bytes: the most memory that its process held before it was given an image.
        note: what it said about itself.
    """

    job: Job
    rounds: tuple[Round, ...]
    loaded_bytes: int
    note: str

    @property
    def seconds(self) -> list[float]:
        """What is compared: of the processor, or of the clock for other devices."""
        on_cpu = torch.device(self.job.device).type == "cpu"
        return [one.processor_s for one in self.rounds] if on_cpu else self.wall_s

    @property
    def wall_s(self) -> list[float]:
        """Of the clock."""
        return [one.wall_s for one in self.rounds]


@dataclass(frozen=True)
class Load:
    """What one round of every contestant computes, counted and not measured.

    Attributes:
        gflop: multiplications and additions in products and convolutions [10⁹].
        gbytes: parameters, and each block's features read once and written once [10⁹].
        megapixels: of the images [10⁶].
    """

    gflop: float
    gbytes: float
    megapixels: float


def race(
    jobs: Sequence[Job], *, rounds: int, on_turn: OnTurn
) -> tuple[dict[str, Raced], list[str]]:
    """Runs every contestant once in each round, in turns.

    Args:
        jobs: the contestants, under different names.
        rounds: how often.
        on_turn: is told whose turn it is, how many are done, of how many.

    Returns:
        Those that came through by name, and what became of the others.

    Raises:
        OptionError: if a job cannot be done that way.
        MissingExtraError: if something that a job needs is not installed.
    """
    faults: list[str] = []
    taken: dict[str, list[Round]] = {job.name: [] for job in jobs}
    with ExitStack() as stack:
        racing: dict[str, Contestant] = {}
        for turn in range(-2, rounds):  # started, checked, and then timed
            for number, job in enumerate(jobs):
                on_turn(job.name, (turn + 2) * len(jobs) + number, (rounds + 2) * len(jobs))
                try:
                    if turn == -2:
                        racing[job.name] = stack.enter_context(Contestant(job))
                    elif job.name in racing and turn == -1:
                        racing[job.name].check()
                        if not job.races:
                            racing.pop(job.name).close()
                    elif job.name in racing:
                        taken[job.name].append(racing[job.name].round())
                except BenchmarkError as error:
                    faults.append(str(error))
                    racing.pop(job.name, None)
    through = {
        name: Raced(one.job, tuple(taken[name]), one.loaded_bytes, one.note)
        for name, one in racing.items()
    }
    return through, faults


def summary_of(
    raced: dict[str, Raced], *, load: Load, differences: dict[str, float | None]
) -> Tree:
    """The figures of one race.

    Args:
        raced: the contestants, with the ceilings.
        load: what a round computes.
        differences: of the contestants' outputs from the reference.
    """
    ceiling = {name: one for name, one in raced.items() if name in (MATRIX, COPY)}
    others = {name: one for name, one in raced.items() if name not in ceiling}
    speeds = ceiling_speeds(ceiling)
    contestants = []
    for name, one in others.items():
        tree = cost_of(one) | {
            "megapixels_per_s": load.megapixels / statistics.median(one.wall_s),
            "gflop_per_s": load.gflop / statistics.median(one.wall_s),
            "largest_difference": differences.get(name),
            "faster_than": {
                other.job.name: paired_ratio(other.seconds, one.seconds)
                for other in others.values()
                if other is not one
            },
            "faster_by_the_clock_than": {
                other.job.name: paired_ratio(other.wall_s, one.wall_s)
                for other in others.values()
                if other is not one
            },
        }
        for key, work in ((MATRIX, load.gflop), (COPY, load.gbytes)):
            if key in ceiling:
                possible = zip(speeds[key], one.seconds, strict=True)
                shares = [work / (speed * seconds) for speed, seconds in possible]
                tree[f"share_of_{key.split()[0]}_ceiling"] = statistics.median(shares)
        contestants.append(tree)
    return {
        "load": asdict(load),
        "ceiling": describe_ceiling(ceiling, speeds),
        "contestants": contestants,
    }


def cost_of(one: Raced) -> Tree:
    """Seconds and bytes of a contestant."""
    last = one.rounds[-1]
    return {
        "name": one.job.name,
        "role": one.job.role,
        "engine": one.job.engine or None,
        "allocator": one.job.allocator,
        "note": one.note,
        "processor_s": spread([each.processor_s for each in one.rounds]),
        "wall_s": spread(one.wall_s),
        "loaded_bytes": one.loaded_bytes,
        "peak_bytes": last.peak_bytes,
        "device_peak_bytes": last.device_peak_bytes,
    }


def spread(seconds: Sequence[float]) -> Tree:
    """Median, best, and every round."""
    return {
        "median": statistics.median(seconds),
        "best": min(seconds),
        "rounds": [round(each, 4) for each in seconds],
    }


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """The median over rounds of how many times as long one took as the other in that round."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def ceiling_speeds(ceiling: dict[str, Raced]) -> dict[str, list[float]]:
    """GFLOP or GB in a second that counts, round by round."""
    work = {name: ceiling_work(one.job) for name, one in ceiling.items()}
    return {name: [work[name] / second for second in one.seconds] for name, one in ceiling.items()}


def ceiling_work(job: Job) -> float:
    """GFLOP or GB of one round; a copy reads and writes."""
    if job.role == "matrix":
        return 2 * matrix_side(job.device) ** 3 * MATRIX_REPEATS / 1e9
    return 2 * COPY_BYTES * COPY_REPEATS / 1e9


def describe_ceiling(ceiling: dict[str, Raced], speeds: dict[str, list[float]]) -> Tree:
    """What the machine did when nothing stood in its way."""
    keys = {MATRIX: "matrix_gflop_per_s", COPY: "copy_gb_per_s"}
    tree: Tree = {
        keys[name]: {
            "median": statistics.median(found),
            "best": max(found),
            "rounds": [round(each, 2) for each in found],
        }
        for name, found in speeds.items()
    }
    if MATRIX in ceiling:
        tree["matrix_routine"] = ceiling[MATRIX].note
        tree["matrix_side"] = matrix_side(ceiling[MATRIX].job.device)
    return tree
