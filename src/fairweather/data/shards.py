"""A folder of images as a few large tar files, here or in an object store, and what they hold.

Small files cost an object store a request each, so a set is packed into shards. The file index.json
beside them lists them with their sizes and hashes.
"""

import contextlib
import hashlib
import io
import tarfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fairweather.data.pairs import iterate_images
from fairweather.errors import (
    DataError,
    FairweatherError,
    MissingExtraError,
    OptionError,
    installing,
)

INDEX = "index.json"
FORM = "fairweather shards 1"
LIST_SUFFIXES = frozenset({".txt", ".csv"})  # which layouts read beside images
CHUNK_BYTES = 4 << 20
BLOCK_BYTES = 512  # of a tar file: a header, and what each file is filled up to
BACKENDS = {
    "s3fs": ("s3", "s3a"),
    "gcsfs": ("gs", "gcs"),
    "adlfs": ("az", "abfs", "abfss", "adl"),
}


class Shard(BaseModel):
    """A tar file of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    name: Annotated[str, Field(pattern=r"^[0-9]{6,12}\.tar$")]
    """beside the index"""
    size_bytes: Annotated[int, Field(ge=0)]
    """of the tar file"""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """of the tar file"""
    files: Annotated[int, Field(ge=1)]
    """how many it holds"""
    unpacked_bytes: Annotated[int, Field(ge=0)]
    """of those files together"""


class Index(BaseModel):
    """All shards of a set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["fairweather shards 1"] = FORM
    shards: Annotated[tuple[Shard, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Store:
    """A folder here or in an object store, by way of fsspec.

    Attributes:
        fs: fsspec's file system.
        path: in it.
        text: what the user calls it.
    """

    fs: Any
    path: str
    text: str

    def chunks(self, name: str) -> Generator[bytes, None, None]:
        """Yield what a file of the folder holds.

        Raises:
            DataError: if the store fails, by name.
        """
        with self.naming(name), self.fs.open(f"{self.path}/{name}", "rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator["Hashing"]:
        """Open a new file of the folder.

        Raises:
            DataError: if the store fails, by name.
        """
        with self.naming(name), self.fs.open(f"{self.path}/{name}", "wb") as file:
            yield Hashing(file, store=self, name=name)

    @contextlib.contextmanager
    def naming(self, name: str) -> Iterator[None]:
        """Name a file in whatever the store raises; errors of this machine pass."""
        try:
            yield
        except FairweatherError:
            raise
        except FileNotFoundError as error:
            raise DataError(f"{self.text}/{name}: there is no such file") from error
        except Exception as error:  # the libraries of the stores have trees of their own
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise DataError(f"{self.text}/{name}: {reason}; try the same command again") from error

    def prepare(self) -> None:
        """Make the folder, where there are folders."""
        from fsspec.implementations.local import LocalFileSystem

        if isinstance(self.fs, LocalFileSystem):
            with self.naming(""):
                self.fs.makedirs(self.path, exist_ok=True)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        with self.naming(name), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(f"{self.path}/{name}")


class Hashing(io.RawIOBase):
    """A file that is written, hashed and counted.

    Attributes:
        digest: SHA-256 of what was written.
        count: how many bytes.
    """

    def __init__(self, file: IO[bytes], *, store: Store, name: str):
        super().__init__()
        self._file, self._store, self._name = file, store, name
        self.digest = hashlib.sha256()
        self.count = 0

    def write(self, data: Any, /) -> int:
        """Write bytes; whatever the store raises becomes a DataError."""
        with self._store.naming(self._name):
            self._file.write(data)
        self.digest.update(data)
        self.count += len(data)
        return len(data)


@dataclass(frozen=True)
class Packed:
    """What was packed.

    Attributes:
        files: how many.
        shards: into how many.
        size_bytes: of all shards.
    """

    files: int
    shards: int
    size_bytes: int


def open_store(text: str) -> Store:
    """Return a folder by its path or URL; nothing is asked of the store yet.

    Raises:
        MissingExtraError: if fsspec, or its backend for this kind of store, is not installed.
        OptionError: if there is no such kind of store.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise MissingExtraError(
            f"{text}: shards need fsspec; install it with: {installing('train')}"
        ) from error
    scheme = text.partition("://")[0]
    try:
        fs, path = url_to_fs(text)
    except ImportError as error:
        package = next((name for name, known in BACKENDS.items() if scheme in known), None)
        way = f"pip install {package}" if package else str(error)
        raise MissingExtraError(f"{text}: {scheme}:// cannot be read here; {way}") from error
    except Exception as error:  # unknown schemes, and whatever a backend asks for
        raise OptionError(f"{text}: cannot be opened: {error}") from error
    return Store(fs, path.rstrip("/"), text.rstrip("/"))


def read_index(store: Store) -> tuple[Index, str]:
    """Return the index of a set, and a hash of it.

    Raises:
        DataError: if there is none, or it is not one of ours.
    """
    with store.naming(INDEX):
        try:
            text = store.fs.cat_file(f"{store.path}/{INDEX}")
        except FileNotFoundError as error:
            raise DataError(
                f"{store.text}: holds no {INDEX}; give a folder that was packed by"
                f" `fairweather data pack FOLDER -o {store.text}`"
            ) from error
    try:
        index = Index.model_validate_json(text)
    except ValidationError as error:
        raise DataError(
            f"{store.text}/{INDEX}: does not list shards of fairweather"
            f" ({error.errors()[0]['msg']}); pack the folder again"
        ) from error
    if len({shard.name for shard in index.shards}) < len(index.shards):
        raise DataError(f"{store.text}/{INDEX}: lists a shard twice; pack the folder again")
    return index, hashlib.sha256(text).hexdigest()


def pack_folder(
    folder: Path,
    target: str,
    *,
    shard_mb: int = 512,
    overwrite: bool = False,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> Packed:
    """Pack the images and lists under a folder into tar files, which keep the relative paths.

    The same files make the same shards, to the byte, on any machine. The index is written last, so
    a set is whole if it has one.

    Args:
        folder: what a recipe's folders are relative to.
        target: a folder, or a URL that fsspec knows.
        shard_mb: a shard is closed before it would be larger [10^6 bytes].
        overwrite: replace a set that is there.
        on_done: called with (files done, files in all).

    Raises:
        DataError: if there is nothing to pack, a file cannot be read, the target holds a set, or
            the store fails.
        MissingExtraError: if fsspec or its backend is not installed.
    """
    store = open_store(target)
    if Path(store.path).absolute() == folder.absolute():
        raise OptionError(f"{target}: is the folder that is packed; choose another one")
    files = find_files(folder)
    before = _make_way(store, overwrite=overwrite)
    store.prepare()
    shards: list[Shard] = []
    done = 0
    for group in _group(files, most_bytes=shard_mb * 1_000_000):
        shards.append(_write_shard(store, f"{len(shards):06}.tar", group, folder=folder))
        done += len(group)
        on_done(done, len(files))
    with store.writing(INDEX) as file:
        file.write(Index(shards=tuple(shards)).model_dump_json(indent=1).encode())
    for name in before - {shard.name for shard in shards}:
        store.remove(name)
    return Packed(len(files), len(shards), sum(shard.size_bytes for shard in shards))


def find_files(folder: Path) -> list[Path]:
    """List the images and lists under a folder by name.

    Raises:
        DataError: if there is no folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give the folder that holds the images")
    files = sorted(iterate_images(folder, also=LIST_SUFFIXES))
    if all(path.suffix.lower() in LIST_SUFFIXES for path in files):
        raise DataError(f"{folder}: holds no image")
    return files


def _make_way(store: Store, *, overwrite: bool) -> set[str]:
    """Return the names of the shards of a set that is replaced, whose index goes first."""
    with store.naming(INDEX):
        if not store.fs.exists(f"{store.path}/{INDEX}"):
            return set()
    if not overwrite:
        raise DataError(
            f"{store.text}: has an {INDEX}; choose another target, or replace it with --overwrite"
            " (overwrite=True)"
        )
    index, _ = read_index(store)
    store.remove(INDEX)
    return {shard.name for shard in index.shards}


def _group(files: list[Path], *, most_bytes: int) -> Iterator[list[Path]]:
    """Yield the files of each shard; one that is larger than a shard has one to itself."""
    group: list[Path] = []
    held = 0
    for path in files:
        with _reading(path):
            size = BLOCK_BYTES + -(-path.stat().st_size // BLOCK_BYTES) * BLOCK_BYTES
        if group and held + size > most_bytes:
            yield group
            group, held = [], 0
        group.append(path)
        held += size
    yield group


def _write_shard(store: Store, name: str, files: list[Path], *, folder: Path) -> Shard:
    unpacked = 0
    with (
        store.writing(name) as file,
        tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in files:
            # Without the time, so that the same files make the same shard.
            entry = tarfile.TarInfo(path.relative_to(folder).as_posix())
            with _reading(path), path.open("rb") as image:
                entry.size = path.stat().st_size
                tar.addfile(entry, image)
            unpacked += entry.size
    return Shard(
        name=name,
        size_bytes=file.count,
        sha256=file.digest.hexdigest(),
        files=len(files),
        unpacked_bytes=unpacked,
    )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{path}: cannot be packed: {error.strerror or error}") from error
