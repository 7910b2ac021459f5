"""Files, folders and globs → jobs with names that overwrite no input."""

import glob
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from fairweather.errors import OptionError
from fairweather.files import walk_once
from fairweather.imaging import (
    CONTAINERS,
    FORMATS,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    WRITTEN_SUFFIXES,
    written_suffix,
)

MARK = ".restored"  # photo.jpg → photo.restored.jpg


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


@dataclass(frozen=True)
class PassedOver:
    """What lies in a folder and is not restored, and why."""

    path: Path
    reason: str


class Plan(NamedTuple):
    """What the inputs stand for: jobs, inputs that stand for nothing, and what is passed over."""

    jobs: list[Job]
    failures: list[Failure]
    passed_over: list[PassedOver]


def plan_jobs(
    inputs: Sequence[str],
    *,
    out: Path | None = None,
    format: str | None = None,
    lossless: bool = False,
) -> Plan:
    """Find the images that the inputs stand for, and name their targets.

    A file becomes `name.restored.ext` beside it, or OUT itself if that has an image suffix, or
    OUT/name. A folder `photos` is searched with all below and mirrored in `photos-restored` or OUT;
    so is the folder above the first wildcard of a glob in OUT.
    The suffix stays where it names a format that is written, and becomes `.png` otherwise.

    Args:
        inputs: files, folders, and globs (`**` crosses folders).
        out: where to write.
        format: suffix of all targets.
        lossless: whether targets of formats that always lose something become `.png`.

    Raises:
        OptionError: if an input is empty, or OUT is a file where a folder is needed, names one file
            and there are several images, or looks like a file of a format that is not written; or
            if the format is not written, or contradicts OUT or `lossless`.
    """
    suffix = format and f".{format.lower().removeprefix('.')}"
    jobs: list[Job] = []
    failures: list[Failure] = []
    passed_over: list[PassedOver] = []
    written = (*WRITTEN_SUFFIXES, *CONTAINERS)
    names_file = out is not None and out.suffix.lower() in written and not is_folder(out)
    if out is not None and not names_file:
        refuse_file(out)
    check_suffixes(suffix, out.suffix.lower() if out and names_file else None, lossless=lossless)
    for given in inputs:
        if not given:
            raise OptionError("an input is empty; name a photo, a folder or a glob")
        path = Path(os.path.expanduser(given))  # noqa: PTH111  (a name may begin with ~)
        found = search(given, path, out=out)
        failures += found.failures
        passed_over += found.passed_over
        for image in found.images:
            if names_file and out is not None:
                target = out
            elif is_folder(path):
                target = (out or mirror_of(path)) / image.relative_to(path)
            elif out is None:
                target = image.with_stem(image.stem + MARK)
            else:
                within = path.parent if image == path else fixed_part(path)
                target = out / image.relative_to(within)
            jobs.append(
                Job(image, target if names_file else as_written(target, suffix, lossless=lossless))
            )
    if len(jobs) == 1 and len(inputs) == 1 and not is_folder(Path(inputs[0])):
        refuse_unknown_suffix(out)
    if names_file and len(jobs) > 1:
        raise OptionError(
            f"{out}: is one file, but there are {len(jobs)} images; give a folder with -o"
        )
    return Plan(*without_clashes(jobs, failures), passed_over)


def check_suffixes(asked: str | None, named: str | None, *, lossless: bool) -> None:
    """Refuse a format that is not written, contradicts OUT, or always loses something."""
    if asked and asked not in WRITTEN_SUFFIXES:
        known = ", ".join(sorted(suffix[1:] for suffix in WRITTEN_SUFFIXES))
        raise OptionError(f"format {asked[1:]}: is not written; use one of {known}")
    if asked and named and FORMATS[asked] != FORMATS.get(named):
        raise OptionError(f"format {asked[1:]}: contradicts the name of the result, *{named}")
    for suffix in filter(None, (asked, named if named in FORMATS else None)):
        if lossless and not FORMATS[suffix].lossless:
            raise OptionError(f"lossless: {suffix[1:]} always loses something; use png")


def as_written(target: Path, suffix: str | None, *, lossless: bool) -> Path:
    """Return a target with the suffix that is asked for, or else its own if that is written."""
    if target.suffix.lower() in VIDEO_SUFFIXES:
        return target if target.suffix.lower() in CONTAINERS else target.with_suffix(".mkv")
    if suffix is None:
        suffix = written_suffix(target)
        known = FORMATS.get(suffix.lower())
        if known is None or (lossless and not known.lossless):
            suffix = ".png"
    return target.with_suffix(suffix)


def refuse_file(out: Path) -> None:
    """Raise if a file stands where a folder is to be written to."""
    for place in (out, *out.parents):
        if os.path.lexists(place):
            if not is_folder(place):
                raise OptionError(f"{out}: '{place}' is a file, no folder; choose another -o")
            return


def refuse_unknown_suffix(out: Path | None) -> None:
    """Raise if `-o result.heic` asks for a file of one photo, and not for a folder of that name."""
    if out is None or is_folder(out) or out.suffix.lower() in WRITTEN_SUFFIXES:
        return
    if out.suffix.lower() in CONTAINERS:
        return
    if out.suffix[1:].isalnum() and not out.suffix[1:].isdecimal():
        raise OptionError(
            f"{out}: {out.suffix} is not written; use one of {', '.join(sorted(WRITTEN_SUFFIXES))},"
            " or make the folder first"
        )


def is_folder(path: Path) -> bool:
    """Return whether there is a folder; False, not an error, for a name that no file can have."""
    return os.path.isdir(path)  # noqa: PTH112


def mirror_of(folder: Path) -> Path:
    """Return `photos-restored` beside `photos`, also where that is called `.` or `..`."""
    named = Path(os.path.realpath(folder)) if folder.name in ("", "..") else folder
    return named.parent / f"{named.name}-restored"


def fixed_part(pattern: Path) -> Path:
    """Return the folder above the first wildcard of a glob."""
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))


@dataclass
class Found:
    """What one input stands for."""

    images: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)

    def add(self, path: Path) -> None:
        """Add a file that was not named itself, but found."""
        if path.suffix.lower() not in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES):
            self.passed_over.append(PassedOver(path, "no images by their suffix"))
        elif Path(path.stem).suffix in (MARK, ".compare"):
            self.passed_over.append(PassedOver(path, "results of an earlier run"))
        else:
            self.images.append(path)


def search(given: str, path: Path, *, out: Path | None) -> Found:
    """Find the images that an input stands for; given as it is written, and as a path."""
    if is_folder(path):
        found, empty = images_under(path, out=out), "holds no image"
    elif os.path.lexists(path) or not glob.has_magic(given):
        return Found([path])
    else:
        found, empty = Found(), "matches no image"
        for match in sorted(glob.glob(str(path), recursive=True)):  # noqa: PTH207
            if not is_folder(Path(match)):
                found.add(Path(match))
            elif "**" not in given:
                found.passed_over.append(PassedOver(Path(match), "folders"))
    if not found.images and not found.failures:
        found.failures.append(Failure(path, f"'{path}' {empty}"))
    return found


def images_under(folder: Path, *, out: Path | None) -> Found:
    """Find the images in a folder and all below."""
    results = os.path.realpath(out or mirror_of(folder))
    found = Found()

    def fail(error: OSError) -> None:
        reason = f"'{error.filename}' cannot be searched: {error.strerror}"
        found.failures.append(Failure(Path(error.filename), reason))

    def pass_over(path: Path, reason: str = "links to folders that are searched anyway") -> None:
        found.passed_over.append(PassedOver(path, reason))

    for parent, folders, names in walk_once(folder, on_error=fail, on_again=pass_over):
        for name in list(folders):
            is_result = os.path.realpath(parent / name) == results
            if is_result or name.startswith("."):
                pass_over(parent / name, "folders of results" if is_result else "hidden")
                folders.remove(name)
        for name in names:
            if name.startswith("."):
                pass_over(parent / name, "hidden")
            else:
                found.add(parent / name)
    found.images.sort()
    return found


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
                " give their folder or a quoted glob, which keep folders, or use another -o"
            )
            failures.append(Failure(job.source, reason))
        else:
            taken[target] = job.source
            kept.append(job)
    return kept, failures
