"""A set of shards, brought once to this machine: checked, unpacked, and shared by all processes."""

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from fairweather.data.shards import FORM, INDEX, Index, Shard, Store, open_store, read_index
from fairweather.errors import DataError, MissingExtraError, installing
from fairweather.files import read_document

log = logging.getLogger(__name__)

AT_ONCE = 4  # shards
FULL = (errno.ENOSPC, errno.EDQUOT)


def bring_data(data: str | Path, *, cache: Path) -> Path:
    """Return a local folder of images: `data` itself, or a copy of the set of shards that it holds.

    The copy lies below `cache` and is made once: by one process of the machine, while others wait.
    It appears whole or not at all. If it was stopped, the next call goes on with the shards that
    are missing. A set whose index has changed is brought again, to another folder.

    Args:
        data: a folder, or a URL that fsspec knows, as in s3://bucket/set.
        cache: folder on a disk of this machine.

    Raises:
        DataError: if there is no set, a shard is not what the index says, or the disk is full.
        MissingExtraError: if fsspec, its backend for the store, or filelock is not installed.
        OptionError: if there is no such kind of store.
    """
    if "://" not in str(data) and not _holds_shards(Path(data)):
        return Path(data)
    store = open_store(str(data))
    index, digest = read_index(store)
    name = re.sub(r"[^\w.-]", "_", store.path.rpartition("/")[2]).lstrip(".") or "set"
    below = cache / "sets"
    place = below / f"{name}-{digest[:16]}"
    if not place.is_dir():
        with _room_for(below, index), _alone(below / f".{name}.lock", store):
            if not place.is_dir():  # nor has another process brought it meanwhile
                _bring(store, index, place, before=below.glob(f".{name}-*.part"))
    return place


def _holds_shards(folder: Path) -> bool:
    if not (folder / INDEX).is_file():
        return False
    try:
        read_document(folder / INDEX, form=FORM, otherwise="is of something else")
    except DataError:  # many a data set comes with an index.json of its own
        return False
    return True


@contextlib.contextmanager
def _room_for(below: Path, index: Index) -> Iterator[None]:
    """Say how much room a set takes if the disk is full."""
    try:
        below.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        room = (
            f" (the set takes {_room_bytes(index.shards) / 1e9:.1f} GB)"
            if error.errno in FULL
            else ""
        )
        raise DataError(
            f"{error.filename or below}: cannot be written: {reason}{room}; make room, or choose a"
            " folder on another disk with --cache"
        ) from error


def _room_bytes(shards: Sequence[Shard]) -> int:
    """Return what files take, and the shards that are being unpacked."""
    packed = sorted(shard.size_bytes for shard in shards)
    return sum(shard.unpacked_bytes for shard in shards) + sum(packed[-AT_ONCE:])


@contextlib.contextmanager
def _alone(lock: Path, store: Store) -> Iterator[None]:
    """Let one process of the machine bring a set; one that dies lets go of it."""
    try:
        import filelock
    except ImportError as error:
        raise MissingExtraError(
            f"{store.text}: shards need filelock; install it with: {installing('train')}"
        ) from error
    held = filelock.FileLock(lock)
    try:
        held.acquire(timeout=0)
    except filelock.Timeout:
        log.info("%s: another process brings it; waiting", store.text)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@dataclass(frozen=True)
class _Copy:
    """A copy in the making.

    Attributes:
        folder: what is there already: unpacked files, and a mark for each shard that is done.
        stop: set when it fails or is stopped.
    """

    store: Store
    folder: Path
    stop: threading.Event

    @property
    def files(self) -> Path:
        return self.folder / "set"

    def is_done(self, shard: Shard) -> bool:
        return (self.folder / f"{shard.name}.done").exists()


def _bring(store: Store, index: Index, place: Path, *, before: Iterator[Path]) -> None:
    part = place.with_name(f".{place.name}.part")
    for other in before:  # of an index that has changed before it was brought
        if other != part:
            shutil.rmtree(other, ignore_errors=True)
    copy = _Copy(store, part, threading.Event())
    copy.files.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in index.shards if not copy.is_done(shard)]
    if shutil.disk_usage(part).free < _room_bytes(missing):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(part))
    size_bytes = sum(shard.size_bytes for shard in missing)
    words = (store.text, len(missing), len(index.shards), size_bytes / 1e6, place)
    log.info("%s: bringing %d of %d shards (%.0f MB) to %s", *words)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        work = [pool.submit(_bring_shard, copy, shard) for shard in missing]
        try:
            for done, one in enumerate(as_completed(work), 1):
                one.result()
                if done * 10 // len(work) > (done - 1) * 10 // len(work):
                    log.info("%s: %d of %d shards are here", store.text, done, len(work))
        except BaseException:
            copy.stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    copy.files.replace(place)
    shutil.rmtree(part, ignore_errors=True)


def _bring_shard(copy: _Copy, shard: Shard) -> None:
    tar = copy.folder / shard.name
    try:
        _fetch(copy, shard, tar)
        _unpack(tar, shard, copy)
        if hasattr(os, "sync"):  # what is marked as done has to outlive a power cut
            os.sync()
        (copy.folder / f"{shard.name}.done").touch()
    finally:
        tar.unlink(missing_ok=True)


def _fetch(copy: _Copy, shard: Shard, to: Path) -> None:
    digest, size = hashlib.sha256(), 0
    with to.open("wb") as file, contextlib.closing(copy.store.chunks(shard.name)) as chunks:
        for chunk in chunks:
            if copy.stop.is_set():
                raise DataError(f"{copy.store.text}/{shard.name}: was stopped")
            digest.update(chunk)
            size += len(chunk)
            if size > shard.size_bytes:
                break
            file.write(chunk)
    if (size, digest.hexdigest()) != (shard.size_bytes, shard.sha256):
        raise DataError(
            f"{copy.store.text}/{shard.name}: is not the file that {INDEX} lists (another size or"
            " hash); copy the set or pack the folder again"
        )


def _unpack(tar: Path, shard: Shard, copy: _Copy) -> None:
    """Unpack a shard: plain files, as many and as large as the index says, below one folder."""
    name = f"{copy.store.text}/{shard.name}"
    files = size_bytes = 0

    def checked(members: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        nonlocal files, size_bytes
        for member in members:
            files, size_bytes = files + 1, size_bytes + member.size
            if not member.isreg():
                raise DataError(f"{name}: '{member.name}' is a link, a folder or a device")
            if files > shard.files or size_bytes > shard.unpacked_bytes:
                raise DataError(f"{name}: holds more than {INDEX} lists")
            inside = tarfile.data_filter(member, str(copy.files))
            # tarfile fails where two threads make a folder at the same time.
            (copy.files / inside.name).parent.mkdir(parents=True, exist_ok=True)
            yield member

    try:
        with tarfile.open(tar, "r:") as members:
            members.extractall(copy.files, members=checked(members), filter="data")
    except tarfile.TarError as error:
        raise DataError(f"{name}: cannot be unpacked: {error}") from error
    if (files, size_bytes) != (shard.files, shard.unpacked_bytes):
        raise DataError(f"{name}: holds less than {INDEX} lists; pack the folder again")
