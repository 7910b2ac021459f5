"""Files, folders and globs → jobs with names that overwrite no input, and working them off."""

import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fairweather.errors import FairweatherError, OptionError
from fairweather.imaging import DEFAULT_MAX_PIXELS, IMAGE_SUFFIXES, Truncated
from fairweather.restoration.restorer import Restored, Restorer
from fairweather.restoration.tiled import OnTile

MARK = ".restored"  # photo.jpg → photo.restored.jpg
Existing = Literal["refuse", "skip", "overwrite"]


@dataclass(frozen=True)
class Job:
    """One file to restore and where to write it."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Failure:
    """A file that could not be restored, and why, in one line that names it."""

    source: Path
    reason: str


@dataclass
class Summary:
    """What became of each job."""

    restored: list[Restored] = field(default_factory=list)
    skipped: list[Job] = field(default_factory=list)
    failed: list[Failure] = field(default_factory=list)


def plan_jobs(inputs: Sequence[str], *, out: Path | None = None) -> tuple[list[Job], list[Failure]]:
    """Find the images that the inputs stand for, and name their targets.

    A file becomes `name.restored.ext` beside it, or OUT itself if that has an image suffix, or
    OUT/name. A folder `photos` is searched with all below and mirrored in `photos-restored` or OUT.

    Args:
        inputs: files, folders, and globs (`**` crosses folders).
        out: where to write.

    Returns:
        The jobs, and the inputs that stand for nothing.

    Raises:
        OptionError: if OUT names one file and there are several images, or looks like a file of a
            format that is not written.
    """
    jobs: list[Job] = []
    failures: list[Failure] = []
    names_file = out is not None and out.suffix.lower() in IMAGE_SUFFIXES and not is_folder(out)
    for given in inputs:
        path = Path(os.path.expanduser(given))  # noqa: PTH111  (a name may begin with ~)
        if is_folder(path):
            found, unread = images_under(path, out=out)
            failures += unread
            if not found and not unread:
                failures.append(Failure(path, f"'{path}' holds no image"))
            root = out or mirror_of(path)
            jobs += [
                Job(image, root if names_file else root / image.relative_to(path))
                for image in found
            ]
        elif os.path.lexists(path) or not glob.has_magic(given):
            jobs.append(Job(path, target_of(path, out=out, names_file=names_file)))
        else:
            matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
            found = [match for match in matches if is_candidate(match)]
            if not found:
                failures.append(Failure(path, f"'{path}' matches no image"))
            jobs += [
                Job(image, target_of(image, out=out, names_file=names_file)) for image in found
            ]
    if len(jobs) == 1 and len(inputs) == 1 and not is_folder(Path(inputs[0])):
        refuse_unknown_suffix(out)
    if names_file and len(jobs) > 1:
        raise OptionError(
            f"{out}: is one file, but there are {len(jobs)} images; give a folder with -o"
        )
    return without_clashes(jobs, failures)


def refuse_unknown_suffix(out: Path | None) -> None:
    """Raise if `-o result.heic` asks for a file of one photo, and not for a folder of that name."""
    if out is None or is_folder(out) or out.suffix.lower() in IMAGE_SUFFIXES:
        return
    if out.suffix[1:].isalnum() and not out.suffix[1:].isdecimal():
        raise OptionError(
            f"{out}: {out.suffix} is not written; use one of {', '.join(sorted(IMAGE_SUFFIXES))},"
            " or make the folder first"
        )


def is_folder(path: Path) -> bool:
    """Return whether there is a folder; False, not an error, for a name that no file can have."""
    return os.path.isdir(path)  # noqa: PTH112


def mirror_of(folder: Path) -> Path:
    """Return `photos-restored` beside `photos`, also where that is called `.` or `..`."""
    named = Path(os.path.realpath(folder)) if folder.name in ("", "..") else folder
    return named.parent / f"{named.name}-restored"


def images_under(folder: Path, *, out: Path | None) -> tuple[list[Path], list[Failure]]:
    """Find images in a folder and all below, and the folders there that cannot be read.

    Hidden ones, and what an earlier run wrote, are passed over.
    """
    results = os.path.realpath(out or mirror_of(folder))
    found: list[Path] = []
    unread: list[Failure] = []

    def note(error: OSError) -> None:
        reason = f"'{error.filename}' cannot be searched: {error.strerror}"
        unread.append(Failure(Path(error.filename), reason))

    for parent, folders, names in os.walk(folder, onerror=note):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(Path(parent, name)) != results
        ]
        paths = (Path(parent, name) for name in names if not name.startswith("."))
        found += [path for path in paths if is_candidate(path)]
    return sorted(found), unread


def is_candidate(path: Path) -> bool:
    """Return whether a file found in a folder or by a glob is to be restored."""
    return (
        path.suffix.lower() in IMAGE_SUFFIXES
        and not is_folder(path)
        and Path(path.stem).suffix not in (MARK, ".compare")
    )


def target_of(source: Path, *, out: Path | None, names_file: bool) -> Path:
    """Return where the restored version of a single file goes."""
    if out is None:
        return source.with_name(f"{source.stem}{MARK}{source.suffix}")
    return out if names_file else out / source.name


def comparison_of(target: Path) -> Path:
    """Return where input and result side by side go; unique, since the target is."""
    return target.with_name(f"{target.name}.compare.jpg")


def without_clashes(
    jobs: Iterable[Job], failures: list[Failure]
) -> tuple[list[Job], list[Failure]]:
    """Drop repeated sources; a target that is an input, or another job's, becomes a failure."""
    unique: dict[str, Job] = {}
    for job in jobs:
        unique.setdefault(os.path.abspath(job.source), job)  # noqa: PTH100
    inputs = {os.path.realpath(source) for source in unique}
    kept: list[Job] = []
    taken: dict[str, Path] = {}
    for job in unique.values():
        target = os.path.realpath(job.target)
        if target in inputs:
            reason = f"'{job.source}' would overwrite the input '{job.target}'; use another -o"
            failures.append(Failure(job.source, reason))
        elif target in taken:
            reason = (
                f"'{job.source}' would be written to '{job.target}', as '{taken[target]}';"
                " use another -o"
            )
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
    truncated: Truncated = "refuse",
    on_start: Callable[[Job], OnTile | None] = lambda job: None,
    on_done: Callable[[Restored | Failure | Job], None] = lambda outcome: None,
) -> None:
    """Restore one file after the other; a file that fails does not stop the rest.

    Args:
        restorer: what restores.
        jobs: what to restore.
        summary: filled as the work goes on, so that it tells the truth after an interrupt.
        existing: what to do where a target exists.
        compare: whether to write input beside result, as `TARGET.compare.jpg`.
        max_pixels: larger images are refused.
        truncated: whether JPEG and PNG files that are cut off are restored as far as they go.
        on_start: called with each job, gives the callback for its tiles.
        on_done: called with each outcome.
    """
    for job in jobs:
        outcome: Restored | Failure | Job = job
        if existing == "skip" and os.path.exists(job.target):  # noqa: PTH110  (see is_folder)
            summary.skipped.append(job)
        else:
            try:
                outcome = restorer.restore_file(
                    job.source,
                    job.target,
                    overwrite=existing == "overwrite",
                    compare=comparison_of(job.target) if compare else None,
                    max_pixels=max_pixels,
                    truncated=truncated,
                    on_tile=on_start(job),
                )
                summary.restored.append(outcome)
            except OptionError:
                raise  # of weights that were loaded for this file: a wrong call, for all files
            except (FairweatherError, OSError, MemoryError) as error:
                outcome = Failure(job.source, reason_of(error, job=job))
                summary.failed.append(outcome)
        on_done(outcome)


def reason_of(error: Exception, *, job: Job) -> str:
    """Return what to tell the user: one line, which names the file."""
    if isinstance(error, OSError):
        return f"'{job.source}' cannot be written to '{job.target}': {error.strerror or error}"
    if isinstance(error, MemoryError):
        return f"'{job.source}' does not fit into the memory; close other programs"
    text = str(error)
    return text if text.startswith(f"'{job.source}'") else f"'{job.source}': {text}"
