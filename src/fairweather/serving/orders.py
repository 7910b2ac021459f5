"""Folders, globs, stores and lists of files → what is to be restored, and under which name."""

import io
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet

from fairweather.errors import OptionError
from fairweather.imaging import IMAGE_SUFFIXES, VIDEO_SUFFIXES, WRITTEN_SUFFIXES
from fairweather.restoration import as_written, plan_jobs
from fairweather.serving.ledger import FOLDER, Entry
from fairweather.serving.stores import MAGIC, Found, Place, open_place
from fairweather.serving.uploads import RestoreOptions

LISTS = (".parquet", ".csv")
PATH, NAME = "path", "name"  # columns of a list
NOWHERE = Path("/nowhere/at/all")  # a folder that is not there, to name results of other stores
QUESTIONS = 32  # at a time, to a store


@dataclass(frozen=True)
class Order:
    """A file to restore.

    Attributes:
        root: which of the sources it lies in.
        path: in the file system of that.
        name: of the result, below the target.
        size: of the file [bytes].
        mtime_ns: when it was last changed; 0 if that is not known.
        options: how it is restored.
    """

    root: int
    path: str
    name: str
    size: int
    mtime_ns: int
    options: RestoreOptions


@dataclass
class Orders:
    """What is to be restored.

    Attributes:
        roots: the sources.
        orders: files in them.
        failures: what stands for no file that could be restored.
        passed_over: how many files are no photographs.
    """

    roots: list[Place] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    failures: list[Entry] = field(default_factory=list)
    passed_over: int = 0

    def fail(self, source: str, message: str) -> None:
        """Note a source that cannot be restored."""
        error = OptionError.__name__
        self.failures.append(Entry(source, source, status="failed", error=error, message=message))

    def add(self, root: int, file: Found, name: str, options: RestoreOptions) -> None:
        """Note a file that can be, unless its result could not be written under that name."""
        if PurePosixPath(name).suffix.lower() not in WRITTEN_SUFFIXES:
            self.fail(
                file.path, f"'{file.path}': '{name}' has no suffix of a format that is written"
            )
            return
        if name.startswith("/") or ".." in name.split("/"):
            self.fail(file.path, f"'{file.path}': '{name}' is no name below the target")
            return
        self.orders.append(Order(root, file.path, name, file.size, file.mtime_ns, options))


def find_orders(sources: Sequence[str], target: Place, options: RestoreOptions) -> Orders:
    """Find what sources stand for.

    Args:
        sources: folders, files and globs, here or in stores, and lists: Parquet or CSV files with
            a column `path`, perhaps one `name` for results, and one for each option that differs.
        target: where results go; what lies there is no source.
        options: for files that say nothing else.

    Raises:
        OptionError: if a source or a list cannot be read, or a list asks for what there is not.
    """
    found = Orders()
    for text in sources:
        place = open_place(text)
        try:
            if PurePosixPath(place.path).suffix.lower() in LISTS:
                add_list(found, place, options)
            elif place.is_local:
                add_local(found, place, target, options)
            else:
                add_stored(found, place, target, options)
        except OSError as error:
            raise OptionError(f"{place.text}: cannot be searched: {error}") from error
    found.orders = list(without_clashes(found, target))
    return found


def add_local(found: Orders, place: Place, target: Place, options: RestoreOptions) -> None:
    """Add files of this machine, named as `fairweather restore` names its results."""
    out = Path(target.path) if target.is_local else NOWHERE
    plan = plan_jobs([place.path], out=out, format=options.format)
    for failure in plan.failures:
        found.fail(str(failure.source), failure.reason)
    found.passed_over += len(plan.passed_over)
    found.roots.append(place)
    for job in plan.jobs:
        if job.source.suffix.lower() in VIDEO_SUFFIXES:
            found.passed_over += 1
            continue
        try:
            file = stat_of(job.source.absolute())
        except OSError as error:
            found.fail(str(job.source), f"'{job.source}' cannot be read: {error.strerror}")
            continue
        found.add(len(found.roots) - 1, file, job.target.relative_to(out).as_posix(), options)


def add_stored(found: Orders, place: Place, target: Place, options: RestoreOptions) -> None:
    """Add files of a store."""
    if MAGIC.search(place.path):
        folder, files = place.matches()
    elif files := list(place.files()):
        folder = place
    elif files := list(facts_of(found, place, [place.path])):
        folder = place.parent()
    else:
        return  # noted by `facts_of`
    found.roots.append(folder)
    count = len(found.orders)
    for file in files:
        relative = file.path.removeprefix(folder.path).lstrip("/")
        is_result = target.store == folder.store and file.path.startswith(f"{target.path}/")
        is_hidden = any(part.startswith(".") or part == FOLDER for part in relative.split("/"))
        if (is_result and target.path != folder.path) or is_hidden or not is_photograph(file.path):
            found.passed_over += 1
        else:
            found.add(len(found.roots) - 1, file, name_of(relative, options), options)
    if len(found.orders) == count:
        found.fail(place.text, f"'{place.text}' holds no image")


def add_list(found: Orders, place: Place, options: RestoreOptions) -> None:
    """Add what a list names; paths that are not absolute lie beside it."""
    roots: dict[str, int] = {}
    wanted: dict[int, list[tuple[str, str, RestoreOptions]]] = {}
    for number, row in enumerate(read_list(place), 1):
        given = row.pop(PATH, None)
        name = row.pop(NAME, None)
        if not isinstance(given, str) or not given:
            raise OptionError(f"{place.text}: row {number} has no {PATH}")
        if not is_photograph(given):
            found.passed_over += 1
            continue
        told = {key: value for key, value in row.items() if value is not None}
        if "levels" in told:
            told["levels"] = str(told["levels"])  # a number, for a reader of CSV
        made = options
        if told:
            where = f"{place.text}: row {number}: "
            made = RestoreOptions.of({**options.model_dump(), **told}, where=where)
        file, relative = resolved(given, place)
        if file.store not in roots:
            roots[file.store] = len(found.roots)
            found.roots.append(file)
        shown = str(name) if name else name_of(relative, made)
        wanted.setdefault(roots[file.store], []).append((file.path, shown, made))
    for root, files in wanted.items():
        paths = list(dict.fromkeys(path for path, _, _ in files))
        facts = {one.path: one for one in facts_of(found, found.roots[root], paths)}
        for path, name, made in files:
            if path in facts:
                found.add(root, facts[path], name, made)


def resolved(given: str, place: Place) -> tuple[Place, str]:
    """Return the file that a row of a list means, and what its result is called.

    That is the path below the folder of the list, or all of the path for what lies elsewhere, so
    that it depends on no other row.
    """
    folder = place.parent()
    if "://" in given or given.startswith("/"):
        file = open_place(given)
    else:
        file = Place(place.fs, f"{folder.path}/{given}", f"{folder.text}/{given}", place.store)
    is_local = file.is_local
    path = os.path.abspath(file.path) if is_local else posixpath.normpath(file.path)  # noqa: PTH100
    file = Place(file.fs, path, file.text, file.store)
    is_below = file.store == folder.store and path.startswith(f"{folder.path}/")
    return file, path.removeprefix(f"{folder.path}/") if is_below else path.lstrip("/")


def read_list(place: Place) -> list[dict[str, Any]]:
    """Return the rows of a list.

    Raises:
        OptionError: if it cannot be read, or has no column of paths.
    """
    try:
        file = io.BytesIO(place.read())
        told = pyarrow.csv.ConvertOptions(null_values=[""], strings_can_be_null=True)
        table = (
            pyarrow.csv.read_csv(file, convert_options=told)
            if place.path.lower().endswith(".csv")
            else pyarrow.parquet.read_table(file)
        )
    except (OSError, pyarrow.ArrowException) as error:
        raise OptionError(f"{place.text}: cannot be read: {error}") from error
    if PATH not in table.column_names:
        raise OptionError(f"{place.text}: has no column `{PATH}`")
    return table.to_pylist()


def facts_of(found: Orders, root: Place, paths: Sequence[str]) -> Iterator[Found]:
    """Yield what is known of files; those that cannot be read are noted as failures."""
    ask = (lambda path: stat_of(Path(path))) if root.is_local else root.facts

    def asked(path: str) -> Found | OSError:
        try:
            return ask(path)
        except OSError as error:
            return error

    with ThreadPoolExecutor(1 if root.is_local else QUESTIONS) as pool:
        for path, answer in zip(paths, pool.map(asked, paths), strict=True):
            if isinstance(answer, Found):
                yield answer
            else:
                found.fail(path, f"'{path}' cannot be read: {answer.strerror or answer}")


def stat_of(path: Path) -> Found:
    """Return what is known of a file of this machine.

    Raises:
        OSError: if it cannot be read.
    """
    facts = path.stat()
    # A file that is written anew with its old date has another date of its entry, but on Windows.
    changed_ns = facts.st_mtime_ns if os.name == "nt" else facts.st_ctime_ns
    return Found(path.as_posix(), facts.st_size, max(facts.st_mtime_ns, changed_ns))


def is_photograph(path: str) -> bool:
    """Return whether a file is a photograph by its suffix."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def name_of(relative: str, options: RestoreOptions) -> str:
    """Return what the result of a file is called."""
    suffix = options.format and f".{options.format}"
    return as_written(Path(relative), suffix, lossless=False).as_posix()


def without_clashes(found: Orders, target: Place) -> Iterable[Order]:
    """Yield orders whose results overwrite neither a source nor another result, each once."""

    def real(place: Place, path: str) -> tuple[str, str]:
        return place.store, os.path.realpath(path) if place.is_local else path

    sources = {real(found.roots[order.root], order.path) for order in found.orders}
    sources |= {("", os.path.realpath(failure.source)) for failure in found.failures}
    taken: dict[str, Order] = {}
    for order in found.orders:
        source = real(found.roots[order.root], order.path)
        if real(target, f"{target.path}/{order.name}") in sources:
            text = f"'{order.path}' would overwrite the input '{target.text}/{order.name}'"
            found.fail(order.path, f"{text}; use another --out")
        elif (other := taken.setdefault(order.name, order)) is order:
            yield order
        elif (real(found.roots[other.root], other.path), other.options) != (source, order.options):
            text = f"'{order.path}' would be written to '{order.name}', as '{other.path}'"
            found.fail(
                order.path,
                f"{text}; give their folder or a quoted glob, which keep folders, or a list that"
                " names it",
            )
