"""Folders, globs, stores and lists of files → what is to be restored, and under which name."""

import contextlib
import io
import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
from pydantic import ValidationError

from fairweather.errors import OptionError
from fairweather.imaging import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from fairweather.restoration import as_written, plan_jobs
from fairweather.serving.ledger import FOLDER, Entry
from fairweather.serving.stores import MAGIC, Found, Place, open_place, with_patience
from fairweather.serving.uploads import RestoreOptions

LISTS = (".parquet", ".csv")
PATH = "path"  # the column of a list that names files
NOWHERE = Path("/nowhere/at/all")  # a folder that is not there, to name results of other stores


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


def find_orders(sources: Sequence[str], target: Place, options: RestoreOptions) -> Orders:
    """Find what sources stand for.

    Args:
        sources: folders, files and globs, here or in stores, and lists: Parquet or CSV files with
            a column `path` and one for each option that differs between files.
        target: where results go; what lies there is no source.
        options: for files that say nothing else.

    Raises:
        OptionError: if a source or a list cannot be read, or a list asks for what there is not.
    """
    found = Orders()
    for text in sources:
        place = open_place(text)
        if PurePosixPath(place.path).suffix.lower() in LISTS:
            add_list(found, place, options)
        elif place.is_local:
            add_local(found, place, target, options)
        else:
            add_stored(found, place, target, options)
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
            facts = stat_of(job.source.absolute())
        except OSError as error:
            found.fail(str(job.source), f"'{job.source}' cannot be read: {error.strerror}")
            continue
        name = job.target.relative_to(out).as_posix()
        root = len(found.roots) - 1
        found.orders.append(Order(root, facts.path, name, facts.size, facts.mtime_ns, options))


def add_stored(found: Orders, place: Place, target: Place, options: RestoreOptions) -> None:
    """Add files of a store."""
    if MAGIC.search(place.path):
        folder, files = place.matches()
    elif files := list(place.files()):
        folder = place
    elif place.exists():
        folder = Place(place.fs, posixpath.dirname(place.path), place.text, is_local=False)
        files = [Found(place.path, place.fs.get_file_info(place.path).size, 0)]
    else:
        found.fail(place.text, f"'{place.text}' holds no image")
        return
    found.roots.append(folder)
    count = len(found.orders)
    for one in files:
        relative = one.path.removeprefix(folder.path).lstrip("/")
        is_result = target.fs == folder.fs and one.path.startswith(f"{target.path}/")
        is_hidden = any(part.startswith(".") or part == FOLDER for part in relative.split("/"))
        if is_result or is_hidden or Path(one.path).suffix.lower() not in IMAGE_SUFFIXES:
            found.passed_over += 1
            continue
        order = Order(
            root=len(found.roots) - 1,
            path=one.path,
            name=name_of(relative, options),
            size=one.size,
            mtime_ns=one.mtime_ns,
            options=options,
        )
        found.orders.append(order)
    if len(found.orders) == count:
        found.fail(place.text, f"'{place.text}' holds no image")


def add_list(found: Orders, place: Place, options: RestoreOptions) -> None:
    """Add what a list names; paths that are not absolute lie beside it."""
    rows = read_list(place)
    for row in rows:
        if not isinstance(row.get(PATH), str) or not row[PATH]:
            raise OptionError(f"{place.text}: a row has no {PATH}")
    folder = place.path.rpartition("/")[0]
    roots: dict[str, int] = {}
    files: list[tuple[int, str, dict[str, Any]]] = []
    for row in rows:
        path = row[PATH].removeprefix("file://")
        is_elsewhere = "://" in path
        key = path.partition("://")[0] + path.partition("://")[2].partition("/")[0]
        key = key if is_elsewhere else ""
        if key not in roots:
            roots[key] = len(found.roots)
            found.roots.append(open_place(path) if is_elsewhere else place)
        if is_elsewhere:
            path = path.partition("://")[2].partition("?")[0]
        elif not path.startswith("/"):
            path = f"{folder}/{path}"
        files.append((roots[key], path, row))
    common = {
        root: common_folder([path for other, path, _ in files if other == root])
        for root in roots.values()
    }
    facts = {
        (root, one.path): one
        for root in roots.values()
        for one in facts_of(found.roots[root], [path for other, path, _ in files if other == root])
    }
    for number, (root, path, row) in enumerate(files, 1):
        try:
            given = {name: value for name, value in row.items() if name != PATH}
            told = {name: value for name, value in given.items() if value is not None}
            made = RestoreOptions(**{**options.model_dump(), **told})
        except ValidationError as error:
            what = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise OptionError(f"{place.text}: row {number}: {what}") from error
        relative = path.removeprefix(common[root]).lstrip("/")
        if (known := facts.get((root, path))) is None:
            found.fail(path, f"'{path}' is not there, or cannot be read")
            continue
        name = name_of(relative, made)
        found.orders.append(Order(root, path, name, known.size, known.mtime_ns, made))


def read_list(place: Place) -> list[dict[str, Any]]:
    """Return the rows of a list.

    Raises:
        OptionError: if it cannot be read, or has no column of paths.
    """
    try:
        file = io.BytesIO(place.read())
        is_csv = place.path.lower().endswith(".csv")
        told = pyarrow.csv.ConvertOptions(null_values=[""], strings_can_be_null=True)
        table = (
            pyarrow.csv.read_csv(file, convert_options=told)
            if is_csv
            else pyarrow.parquet.read_table(file)
        )
    except (OSError, pyarrow.ArrowException) as error:
        raise OptionError(f"{place.text}: cannot be read: {error}") from error
    if PATH not in table.column_names:
        raise OptionError(f"{place.text}: has no column `{PATH}`")
    return table.to_pylist()


def facts_of(root: Place, paths: Sequence[str]) -> Iterator[Found]:
    """Yield what is known of files; nothing of those that are not there."""
    if root.is_local:
        for path in paths:
            with contextlib.suppress(OSError):
                yield stat_of(Path(path))
        return
    for info in with_patience(lambda: root.fs.get_file_info(list(paths))):
        if info.size is not None:
            yield Found(info.path, info.size, info.mtime_ns or 0)


def stat_of(path: Path) -> Found:
    """Return what is known of a file of this machine.

    Raises:
        OSError: if it cannot be read.
    """
    facts = path.stat()
    # A file that is written anew with its old date has another date of its entry, but on Windows.
    changed_ns = facts.st_mtime_ns if os.name == "nt" else facts.st_ctime_ns
    return Found(path.as_posix(), facts.st_size, max(facts.st_mtime_ns, changed_ns))


def common_folder(paths: Sequence[str]) -> str:
    """Return the folder that all paths have in common."""
    return posixpath.commonpath([posixpath.dirname(path) for path in paths])


def name_of(relative: str, options: RestoreOptions) -> str:
    """Return what the result of a file is called."""
    suffix = options.format and f".{options.format}"
    return as_written(Path(relative), suffix, lossless=False).as_posix()


def without_clashes(found: Orders, target: Place) -> Iterable[Order]:
    """Yield orders whose results overwrite neither a source nor another result."""
    taken: set[str] = set()
    for order in unique(found.orders):
        root = found.roots[order.root]
        if root.fs == target.fs and order.path == f"{target.path}/{order.name}":
            found.fail(order.path, f"'{order.path}' would overwrite itself; use another --out")
        elif order.name in taken:
            found.fail(order.path, f"'{order.path}': another file is written to '{order.name}'")
        else:
            taken.add(order.name)
            yield order


def unique(orders: Iterable[Order]) -> Iterator[Order]:
    """Yield each file once."""
    seen: set[tuple[int, str]] = set()
    for order in orders:
        if (order.root, order.path) not in seen:
            seen.add((order.root, order.path))
            yield order
