"""Files and folders that appear whole under their names, or not at all; JSON documents of ours."""

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from fairweather.errors import DataError

# What is not whole yet: machine, process, and a number of its own.
_HIDDEN = re.compile(r"\.fairweather-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.tmp")
_DAY_SECONDS = 24 * 3600


@contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[BinaryIO]:
    """Open a hidden temporary file beside `path` and move it there once it is complete.

    A reader of `path` sees the old file or the new one, never half of it. Whatever ends the block
    early, an interrupt included, removes the temporary file and leaves `path` as it was. The new
    file has the permissions that the umask gives to any new file (`tempfile` would make it 0600),
    and a symbolic link is written through, as `open` would.

    Args:
        path: The file to create or replace.
        overwrite: False refuses to replace a file, even one that appears during the block.

    Yields:
        A binary file, open for writing and reading.

    Raises:
        FileExistsError: `overwrite` is False and there is a file.
        OSError: The folder is missing or cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not overwrite and target.exists():
        raise FileExistsError(17, "File exists", str(path))
    temporary = _hidden_beside(target)
    try:
        with temporary.open("x+b") as file:
            _remove_leftovers(target.parent, now=os.fstat(file.fileno()).st_mtime)
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(target)
        else:
            _move_to_free_name(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _hidden_beside(target: Path) -> Path:
    """Return a name that no other call gets, on any machine that shares the folder."""
    token = secrets.token_hex(4)
    return target.with_name(f".fairweather-{_this_machine()}-{os.getpid()}-{token}.tmp")


@functools.cache
def _this_machine() -> str:
    """Return what tells processes apart that may have one number: the host, and its container."""
    processes = Path("/proc/self/ns/pid")
    space = processes.readlink() if processes.is_symlink() else ""
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


_searched: set[Path] = set()


def _remove_leftovers(folder: Path, *, now: float) -> None:
    """Remove the hidden files of this user's runs that were killed, once for each folder.

    Those of this machine go when their process has gone, those of others when nothing has happened
    to them for a day, by the clock that set the time `now` of a new file in the folder.
    """
    if folder in _searched:
        return
    _searched.add(folder)
    mine = os.getuid() if hasattr(os, "getuid") else 0
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (told := _HIDDEN.fullmatch(entry.name)) is None:
                continue
            status = entry.stat(follow_symlinks=False)
            if told[1] == _this_machine():
                is_left = not psutil.pid_exists(int(told[2]))
            else:
                is_left = now - status.st_mtime > _DAY_SECONDS
            if status.st_uid == mine and is_left:
                with contextlib.suppress(OSError):
                    _remove_leftover(Path(entry.path))


def _remove_leftover(hidden: Path) -> None:
    """Remove a hidden file or folder; one that was killed while replacing a folder goes on."""
    if not hidden.is_dir():
        hidden.unlink()
        return
    if (hidden / "old").exists():
        for part in (hidden / "new").iterdir():
            if not (target := hidden.with_name(part.name)).exists():
                part.replace(target)
    shutil.rmtree(hidden)


def walk_once(
    root: str | os.PathLike[str],
    *,
    on_error: Callable[[OSError], None] | None = None,
    on_again: Callable[[Path], None] = lambda folder: None,
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield what `os.walk` does, through links to folders too, but no folder twice.

    Args:
        root: where to begin.
        on_error: called with what a folder that cannot be read raises.
        on_again: called with a link that leads to a folder that was or will be seen as itself.
    """
    seen: set[str] = set()
    for place, folders, names in os.walk(root, followlinks=True, onerror=on_error):
        real = os.path.realpath(place)
        below = os.path.relpath(real, os.path.realpath(root))
        as_itself = below == os.path.relpath(place, root)
        if real in seen or not (as_itself or below.startswith(".")):  # elsewhere, or hidden here
            folders.clear()
            on_again(Path(place))
            continue
        seen.add(real)
        folders.sort()
        yield Path(place), folders, sorted(names)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; what cannot be encoded, as in some files' names, becomes an escape.

    Raises:
        DataError: It cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(text.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror or error}") from error


def read_document(path: Path, *, form: str, otherwise: str) -> dict[str, Any]:
    """Read what one of our commands wrote as JSON.

    Args:
        path: The file.
        form: What it has to say under `format`.
        otherwise: What is wrong with it if it says something else.

    Raises:
        DataError: It is something else.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(tree, dict) or tree.get("format") != form:
        raise DataError(f"{path}: {otherwise}")
    return tree


def _move_to_free_name(temporary: Path, target: Path) -> None:
    """Move without replacing: of two writers that race for one name, one fails."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        # Memory cards and some network shares have no hard links: claim the name, then fill it.
        target.open("xb").close()
        try:
            temporary.replace(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


@contextmanager
def staging(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a path of the same name in a hidden folder, whose content is moved beside `path`.

    For a folder, for files that belong together, and for writers that want a path. Whatever ends
    the block early removes what was written and leaves everything as it was. Files that belong
    together are moved one after the other, in the order of their names.

    Args:
        path: The file or folder to create or replace.
        overwrite: False refuses to replace anything.

    Yields:
        Where to write.

    Raises:
        FileExistsError: `overwrite` is False and there is a file or folder.
        OSError: The folder is missing or cannot be written, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    if not overwrite and target.exists():
        raise FileExistsError(17, "File exists", str(path))
    hidden = _hidden_beside(target)
    whole = hidden / "new" / target.name
    hidden.mkdir()
    try:
        _remove_leftovers(target.parent, now=hidden.stat().st_mtime)
        whole.parent.mkdir()
        yield whole
        for written in whole.parent.rglob("*"):
            if written.is_file():
                with written.open("rb") as file:
                    os.fsync(file.fileno())
        for part in sorted(whole.parent.iterdir()):
            _move_part(part, target.with_name(part.name), aside=hidden / "old", overwrite=overwrite)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _move_part(part: Path, target: Path, *, aside: Path, overwrite: bool) -> None:
    """Move a file, or a folder, which no system can put in place of another in one step."""
    if not overwrite and target.exists():
        raise FileExistsError(17, "File exists", str(target))
    if not (part.is_dir() and target.is_dir()):
        part.replace(target)
        return
    target.replace(aside)
    try:
        part.replace(target)
    except BaseException:
        aside.replace(target)
        raise
