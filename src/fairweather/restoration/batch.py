"""Working jobs off, several at a time: a file that fails does not stop the rest."""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairweather.errors import FairweatherError, FileTakenError, ImageError, OptionError
from fairweather.hardware import available_memory_bytes, map_in_threads
from fairweather.imaging import (
    DEFAULT_MAX_PIXELS,
    Chroma,
    ClipOptions,
    Truncated,
    is_clip,
    read_image,
    write_side_by_side,
)
from fairweather.restoration.jobs import Failure, Job, PassedOver
from fairweather.restoration.options import Existing
from fairweather.restoration.outcome import Restored
from fairweather.restoration.restorer import Restorer
from fairweather.restoration.sequences import is_sequence
from fairweather.restoration.tiled import OnTile

BYTES_PER_JOB = 2 << 30  # more than a photograph of 96 megapixels takes


@dataclass
class Summary:
    """What became of each job, and what of the folders was none."""

    restored: list[Restored] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)


def comparison_of(target: Path) -> Path:
    """Return where input and result side by side go; unique, since the target is."""
    return target.with_name(f"{target.name}.compare.jpg")


def run_jobs(
    restorer: Restorer,
    jobs: Sequence[Job],
    *,
    summary: Summary,
    existing: Existing = "refuse",
    compare: bool = False,
    quality: int | None = None,
    chroma: Chroma | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    truncated: Truncated = "refuse",
    clip: ClipOptions | None = None,
    on_start: Callable[[Job], OnTile | None] = lambda job: None,
    on_done: Callable[[Restored | Failure | Job], None] = lambda outcome: None,
) -> None:
    """Restore files, as many at a time as there are threads; a failure does not stop the rest.

    An exception, such as Ctrl-C, is raised when each thread has ended its tile.

    Args:
        restorer: what restores.
        jobs: what to restore.
        summary: filled as the work goes on, so that it tells the truth after an interrupt.
        existing: what to do where a target exists. `skip` also leaves what another process writes
            meanwhile, and makes up for missing comparisons.
        compare: whether to write input beside result, as `TARGET.compare.jpg`.
        quality: of formats with loss, 1 to 100; None keeps that of a JPEG.
        chroma: the resolution of colours in JPEG, AVIF and HEIC; None keeps that of a JPEG.
        max_pixels: larger images are refused.
        truncated: whether JPEG and PNG files that are cut off are restored as far as they go.
        clip: how clips are written.
        on_start: called with each job by its thread, gives the callback for its tiles.
        on_done: called with each outcome by its thread.
    """
    stop = threading.Event()
    lists: dict[type, list[Any]] = {
        Restored: summary.restored,
        Failure: summary.failed,
        Job: summary.skipped,
    }

    def work_off(job: Job) -> None:
        on_tile = on_start(job)

        def count(done: int, total: int) -> None:
            if stop.is_set():
                raise KeyboardInterrupt
            if on_tile is not None:
                on_tile(done, total)

        outcome = outcome_of(
            restorer,
            job,
            existing=existing,
            compare=compare,
            reading={"max_pixels": max_pixels, "truncated": truncated},
            writing={"quality": quality, "chroma": chroma, "clip": clip},
            on_tile=count,
        )
        lists[type(outcome)].append(outcome)
        on_done(outcome)

    # With fewer of them than threads, each computes several tiles at a time.
    workers = min(len(jobs), restorer.at_once(), available_memory_bytes() // BYTES_PER_JOB)
    for _ in map_in_threads(work_off, jobs, workers=workers, stop=stop, ordered=False):
        pass
    order = {job.source: number for number, job in enumerate(jobs)}
    for outcomes in lists.values():
        outcomes.sort(key=lambda outcome: order.get(outcome.source, -1))


def outcome_of(
    restorer: Restorer,
    job: Job,
    *,
    existing: Existing,
    compare: bool,
    reading: dict[str, Any],
    writing: dict[str, Any],
    on_tile: OnTile,
) -> Restored | Failure | Job:
    """Restore one file, unless it is skipped, and return what became of it; see `run_jobs`."""
    moves = is_clip(job.source) or is_sequence(job.source)
    comparison = comparison_of(job.target) if compare and not moves else None
    if comparison is not None and existing == "skip" and is_there(comparison):
        comparison = None
    try:
        if existing == "skip" and is_there(job.target):
            if comparison is not None:
                compare_again(job, comparison, reading=reading)
            return job
        return restorer.restore_file(
            job.source,
            job.target,
            overwrite=existing == "overwrite",
            go_on=existing == "skip",
            compare=comparison,
            on_tile=on_tile,
            **reading,
            **writing,
        )
    except OptionError:
        raise  # of weights that were loaded for this file: a wrong call, for all files
    except FileTakenError as error:
        return job if existing == "skip" else Failure(job.source, reason_of(error, job=job))
    except Exception as error:  # each engine raises what it likes
        return Failure(job.source, reason_of(error, job=job))


def is_there(path: Path) -> bool:
    """Return whether there is a file; False for a name that no file can have."""
    return os.path.exists(path)  # noqa: PTH110  (see is_folder)


def compare_again(job: Job, comparison: Path, *, reading: dict[str, Any]) -> None:
    """Write the missing picture of a file that was restored before."""
    before, after = (read_image(one, **reading) for one in (job.source, job.target))
    if before.pixels.shape != after.pixels.shape:
        raise ImageError(
            f"'{job.source}' has not the size of '{job.target}', so it is not compared"
        )
    write_side_by_side(comparison, before, after)


def reason_of(error: Exception, *, job: Job) -> str:
    """Return what to tell the user: one line, which names the file."""
    if isinstance(error, OSError):
        return f"'{job.source}' cannot be written to '{job.target}': {error.strerror or error}"
    if isinstance(error, MemoryError):
        return f"'{job.source}' does not fit into the memory; close other programs"
    text = str(error)
    if not isinstance(error, FairweatherError):
        words = " ".join(text.split())
        return f"'{job.source}' cannot be restored: {type(error).__name__}: {words}"
    return text if text.startswith(f"'{job.source}'") else f"'{job.source}': {text}"
