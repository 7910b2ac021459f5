"""Folders here and in object stores: what lies there, read, and written whole or not at all."""

import contextlib
import errno
import functools
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import fsspec
import pyarrow
import pyarrow.fs as arrow_fs
from fsspec.utils import glob_translate

from fairweather.errors import OptionError

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")  # Amazon's own variables
KNOWN = ("s3", "gs", "gcs")  # to Arrow; fsspec has the others
# Where a file appears when it is closed; "memory" is fsspec's, for trials.
OBJECT_STORES = ("s3", "gcs", "gs", "abfs", "abfss", "az", "adl", "oss", "obs", "oci", "memory")
TRIES = 4
FIRST_WAIT_SECONDS = 0.5
OPTIONS = re.compile(r"\?((?:[a-z_]+=[^&?]*)(?:&[a-z_]+=[^&?]*)*)$")
MAGIC = re.compile(r"[*?\[]")
PART = re.compile(r"/\.[^/]+\.[0-9a-f]{32}\.part$")
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """A file in a store.

    Attributes:
        path: in its file system.
        size: of it [bytes].
        mtime_ns: when it was last changed; 0 if the store does not say.
    """

    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Place:
    """A file or folder in a file system.

    Attributes:
        fs: the file system.
        path: in it.
        text: what the user calls it.
        store: where the file system is; empty for this machine.
    """

    fs: Any
    path: str
    text: str
    store: str = ""

    @property
    def is_local(self) -> bool:
        """Whether it is of this machine."""
        return not self.store

    def at(self, name: str) -> "Place":
        """Return a file or folder below."""
        return Place(self.fs, f"{self.path}/{name}", f"{self.text}/{name}", self.store)

    def parent(self) -> "Place":
        """Return the folder that it lies in."""
        return Place(
            self.fs, self.path.rpartition("/")[0], self.text.rpartition("/")[0], self.store
        )

    def read(self) -> bytes:
        """Return what the file holds.

        Raises:
            OSError: if it cannot be read, by the last of several tries.
        """

        def read() -> bytes:
            with self.fs.open_input_stream(self.path) as stream:
                return stream.readall()

        return with_patience(read)

    def write(self, data: bytes) -> None:
        """Write a file, which appears whole or not at all.

        Raises:
            OSError: if it cannot be written, by the last of several tries.
        """
        with_patience(functools.partial(self._write, data))

    def _write(self, data: bytes) -> None:
        # In an object store a file appears when its stream is closed; elsewhere it is renamed.
        parent, _, name = self.path.rpartition("/")
        part = self.path if self.is_object_store() else f"{parent}/.{name}.{uuid.uuid4().hex}.part"
        if part != self.path:
            self.fs.create_dir(parent, recursive=True)
        try:
            with self.fs.open_output_stream(part) as stream:
                stream.write(data)
            if (size := self.fs.get_file_info(part).size) != len(data):
                raise OSError(f"{self.text}: {size} bytes of {len(data)} were written")
            if part != self.path:
                self.fs.move(part, self.path)
        except BaseException:
            if part != self.path:
                with contextlib.suppress(OSError):
                    self.fs.delete_file(part)
            raise

    def is_object_store(self) -> bool:
        """Return whether there are no folders, and files are replaced whole."""
        return self.fs.type_name.rpartition("+")[2] in OBJECT_STORES

    def exists(self) -> bool:
        """Return whether there is a file."""
        return with_patience(lambda: self.fs.get_file_info(self.path)).type == (
            arrow_fs.FileType.File
        )

    def facts(self, path: str) -> Found:
        """Return what is known of a file of this file system.

        Raises:
            OSError: if there is none, or it cannot be asked for.
        """
        info = with_patience(lambda: self.fs.get_file_info(path))
        if info.type != arrow_fs.FileType.File:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", path)
        return Found(info.path, info.size, info.mtime_ns or 0)

    def files(self) -> Iterator[Found]:
        """Yield all files below; none if there is no such folder."""
        selector = arrow_fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        try:
            found = with_patience(lambda: self.fs.get_file_info(selector))
        except NotADirectoryError:
            return
        for info in found:
            if info.type == arrow_fs.FileType.File:
                yield Found(info.path, info.size, info.mtime_ns or 0)

    def matches(self) -> tuple["Place", list[Found]]:
        """Return the folder of a glob, and the files that match it."""
        fixed = self.path[: found.start()] if (found := MAGIC.search(self.path)) else self.path
        folder = fixed.rpartition("/")[0]
        pattern = re.compile(glob_translate(self.path))
        place = Place(self.fs, folder, folder, self.store)
        return place, [one for one in place.files() if pattern.match(one.path)]


def open_place(text: str) -> Place:
    """Return a place by its path or URI.

    Amazon's variables `AWS_ENDPOINT_URL_S3` and `AWS_ENDPOINT_URL` name another store that speaks
    S3.

    Args:
        text: a path, or `s3://bucket/prefix`, `gs://…`, `az://…`, or what fsspec knows. Options of
            Arrow may follow, as `?region=eu-west-1`.

    Raises:
        OptionError: if there is no such kind of store here.
    """
    scheme, found, rest = text.removeprefix("file://").partition("://")
    if not found:
        local = Path(os.path.expanduser(scheme)).absolute()  # noqa: PTH111
        return Place(arrow_fs.LocalFileSystem(), local.as_posix(), scheme.rstrip("/") or "/")
    try:
        if scheme not in KNOWN:
            fs, path = fsspec.url_to_fs(text)
            fs = arrow_fs.PyFileSystem(arrow_fs.FSSpecHandler(fs))
            return Place(fs, path.rstrip("/"), text.rstrip("/"), scheme)
        path, query = rest, ""
        if options := OPTIONS.search(rest):  # a question mark may also be part of a name
            path, query = rest[: options.start()], options[1]
        path = path.rstrip("/")
        bucket = path.partition("/")[0]
        if not bucket:
            raise ValueError("names no bucket")
        if scheme == "s3" and "endpoint_override" not in query:
            query = "&".join(filter(None, (query, own_endpoint())))
        fs, _ = arrow_fs.FileSystem.from_uri(f"{scheme}://{bucket}{'?' * bool(query)}{query}")
    except (OSError, ValueError, ImportError, pyarrow.ArrowException) as error:
        raise OptionError(f"{text}: cannot be opened: {error}") from error
    return Place(fs, path, f"{scheme}://{path}", f"{scheme}?{query}")


def own_endpoint() -> str:
    """Return what Arrow is to be told of another store than Amazon's; empty for Amazon's."""
    address = next((os.environ[name] for name in ENDPOINTS if os.environ.get(name)), "")
    if not address:
        return ""
    parts = urlsplit(address)
    return f"scheme={parts.scheme}&endpoint_override={parts.netloc}"


def remove_halves(place: Place, files: Iterable[Found]) -> None:
    """Remove what writers that were killed have left, of files below a place."""
    for one in files:
        if PART.search(one.path):
            with contextlib.suppress(OSError):
                place.fs.delete_file(one.path)


def with_patience(work: Callable[[], T]) -> T:
    """Do what may fail for a moment; wait longer after each failure.

    Raises:
        OSError: of the last try.
    """
    for attempt in range(TRIES - 1):
        try:
            return work()
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            raise
        except OSError:
            time.sleep(FIRST_WAIT_SECONDS * 2**attempt * random.uniform(0.5, 1.5))
    return work()
