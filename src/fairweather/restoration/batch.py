"""Files, folders and globs → jobs with names that overwrite no input, and working them off."""

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fairweather.errors import ImageError, OptionError
from fairweather.imaging import DEFAULT_MAX_PIXELS, IMAGE_SUFFIXES
from fairweather.restoration.restorer import OnTile, Restored, Restorer

MARK = ".restored"  # photo.jpg → photo.restored.jpg
Existing = Literal["refuse", "skip", "overwrite"]


@dataclass(frozen=True)
class Job:
    """One file to restore and where to write it."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Failure:
    """A file that could not be restored, and why, in one line."""

    source: Path
    reason: str


@dataclass
class Summary:
    """What became of each job."""

    restored: list[Restored] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)


def plan_jobs(inputs: Sequence[str], *, out: Path | None = None) -> tuple[list[Job], list[Failure]]:
    """Finds the images that the inputs stand for and names their targets.

    A file becomes `name.restored.ext` beside it, or OUT itself if that has an image suffix, or
    OUT/name. A folder `photos` is searched with all below and mirrored in `photos-restored` or OUT.

    Args:
        inputs: files, folders, and globs (`**` crosses folders).
        out: where to write.

    Returns:
        The jobs, and the inputs that stand for nothing.

    Raises:
        OptionError: if OUT names one file and there are several images.
    """
    jobs: list[Job] = []
    failures: list[Failure] = []
    names_file = out is not None and out.suffix.lower() in IMAGE_SUFFIXES and not out.is_dir()
    for given in inputs:
        path = Path(given).expanduser()
        if path.is_dir():
            found = images_under(path)
            if not found:
                failures.append(Failure(path, "holds no image"))
            root = out or path.with_name(f"{path.resolve().name}-restored")
            jobs += [Job(image, root / image.relative_to(path)) for image in found]
        elif os.path.lexists(path) or not glob.has_magic(given):
            jobs.append(Job(path, target_of(path, out=out, names_file=names_file)))
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
            found = [match for match in matches if is_candidate(match)]
            if not found:
                failures.append(Failure(path, "matches no image"))
            jobs += [
                Job(image, target_of(image, out=out, names_file=names_file)) for image in found
            ]
    if names_file and len(jobs) > 1:
        raise OptionError(
            f"{out}: is one file, but there are {len(jobs)} images; give a folder with -o"
        )
    return without_clashes(jobs, failures)


def images_under(folder: Path) -> list[Path]:
    """Images in a folder and all below, except hidden ones and what an earlier run wrote."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if is_candidate(path)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def is_candidate(path: Path) -> bool:
    """Whether a file found in a folder or by a glob is to be restored."""
    return (
        path.suffix.lower() in IMAGE_SUFFIXES
        and not path.is_dir()
        and Path(path.stem).suffix not in (MARK, ".compare")
    )


def target_of(source: Path, *, out: Path | None, names_file: bool) -> Path:
    """Where the restored version of a single file goes."""
    if out is None:
        return source.with_name(f"{source.stem}{MARK}{source.suffix}")
    return out if names_file else out / source.name


def without_clashes(
    jobs: Iterable[Job], failures: list[Failure]
) -> tuple[list[Job], list[Failure]]:
    """Drops repeated sources; a target that is an input, or another job's, becomes a failure."""
    unique = {job.source.resolve(): job for job in reversed(list(jobs))}
    kept: list[Job] = []
    taken: dict[Path, Path] = {}
    for job in reversed(unique.values()):
        target = job.target.resolve()
        if target in unique:
            failures.append(Failure(job.source, f"would overwrite the input '{job.target}'"))
        elif target in taken:
            reason = f"would be written to '{job.target}', as '{taken[target]}'; use another -o"
            failures.append(Failure(job.source, reason))
        else:
            taken[target] = job.source
            kept.append(job)
    return kept, failures


def run_jobs(
    restorer: Restorer,
    jobs: Sequence[Job],
    *,
    summary: Summary,
    existing: Existing = "refuse",
    compare: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    on_start: Callable[[Job], OnTile | None] = lambda job: None,
    on_done: Callable[[Restored | Failure | Job], None] = lambda outcome: None,
) -> None:
    """Restores one file after the other; a file that fails does not stop the rest.

    Args:
        restorer: what restores.
        jobs: what to restore.
        summary: filled as the work goes on, so that it tells the truth after an interrupt.
        existing: what to do where a target exists.
        compare: whether to write `name.compare.jpg`, input beside result, with each target.
        max_pixels: larger images are refused.
        on_start: called with each job, gives the callback for its tiles.
        on_done: called with each outcome.
    """
    for job in jobs:
        outcome: Restored | Failure | Job = job
        if existing == "skip" and job.target.exists():
            summary.skipped.append(job)
        else:
            try:
                job.target.parent.mkdir(parents=True, exist_ok=True)
                outcome = restorer.restore_file(
                    job.source,
                    job.target,
                    overwrite=existing == "overwrite",
                    compare=job.target.with_suffix(".compare.jpg") if compare else None,
                    max_pixels=max_pixels,
                    on_tile=on_start(job),
                )
                summary.restored.append(outcome)
            except ImageError as error:
                outcome = Failure(job.source, str(error))
                summary.failed.append(outcome)
            except OSError as error:
                outcome = Failure(job.source, f"'{job.target.parent}': {error.strerror or error}")
                summary.failed.append(outcome)
        on_done(outcome)
