"""What the rounds of a race amount to."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fairweather.benchmark import Raced
from laboratory.jobs import COPY, MATRIX, Job
from laboratory.works import COPY_BYTES, COPY_REPEATS, MATRIX_REPEATS, matrix_side

Tree = dict[str, Any]


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


def compared_s(raced: Raced) -> list[float]:
    """Return what is compared: seconds of the processor, or of the clock for other devices."""
    on_cpu = torch.device(raced.entry.job.device).type == "cpu"
    return [one.processor_s if on_cpu else one.wall_s for one in raced.rounds]


def wall_s(raced: Raced) -> list[float]:
    """Return seconds of the clock."""
    return [one.wall_s for one in raced.rounds]


def summary_of(
    raced: dict[str, Raced], *, load: Load, differences: dict[str, float | None]
) -> Tree:
    """Return the figures of one race.

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
            "megapixels_per_s": load.megapixels / statistics.median(wall_s(one)),
            "gflop_per_s": load.gflop / statistics.median(wall_s(one)),
            "largest_difference": differences.get(name),
            "faster_than": {
                rival: paired_ratio(compared_s(other), compared_s(one))
                for rival, other in others.items()
                if other is not one
            },
            "faster_by_the_clock_than": {
                rival: paired_ratio(wall_s(other), wall_s(one))
                for rival, other in others.items()
                if other is not one
            },
        }
        for key, work in ((MATRIX, load.gflop), (COPY, load.gbytes)):
            if key in ceiling:
                possible = zip(speeds[key], compared_s(one), strict=True)
                shares = [work / (speed * seconds) for speed, seconds in possible]
                tree[f"share_of_{key.split()[0]}_ceiling"] = statistics.median(shares)
        contestants.append(tree)
    return {
        "load": asdict(load),
        "ceiling": describe_ceiling(ceiling, speeds),
        "contestants": contestants,
    }


def cost_of(one: Raced) -> Tree:
    """Return seconds and bytes of a contestant."""
    job, last = one.entry.job, one.rounds[-1]
    return {
        "name": job.name,
        "role": job.role,
        "engine": job.engine or None,
        "allocator": job.allocator,
        "note": one.note,
        "processor_s": spread([each.processor_s for each in one.rounds]),
        "wall_s": spread(wall_s(one)),
        "loaded_bytes": one.loaded_bytes,
        "peak_bytes": last.peak_bytes,
        "device_peak_bytes": last.device_peak_bytes,
    }


def spread(seconds: Sequence[float]) -> Tree:
    """Return median, best, and every round."""
    return {
        "median": statistics.median(seconds),
        "best": min(seconds),
        "rounds": [round(each, 4) for each in seconds],
    }


def paired_ratio(slower: Sequence[float], faster: Sequence[float]) -> float:
    """Return the median over rounds of how many times as long one took as the other."""
    return statistics.median(a / b for a, b in zip(slower, faster, strict=True))


def ceiling_speeds(ceiling: dict[str, Raced]) -> dict[str, list[float]]:
    """Return GFLOP or GB in a second that counts, round by round."""
    work = {name: ceiling_work(one.entry.job) for name, one in ceiling.items()}
    return {
        name: [work[name] / second for second in compared_s(one)] for name, one in ceiling.items()
    }


def ceiling_work(job: Job) -> float:
    """Return GFLOP or GB of one round; a copy reads and writes."""
    if job.role == "matrix":
        return 2 * matrix_side(job.device) ** 3 * MATRIX_REPEATS / 1e9
    return 2 * COPY_BYTES * COPY_REPEATS / 1e9


def describe_ceiling(ceiling: dict[str, Raced], speeds: dict[str, list[float]]) -> Tree:
    """Return what the machine did when nothing stood in its way."""
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
        tree["matrix_side"] = matrix_side(ceiling[MATRIX].entry.job.device)
    return tree
