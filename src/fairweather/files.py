"""Files and folders that appear whole under their names, or not at all; JSON documents of ours."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from fairweather.errors import DataError


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
    temporary = target.with_name(f".fairweather-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            temporary.replace(target)
        else:
            _move_to_free_name(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


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
    hidden = target.with_name(f".fairweather-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    whole = hidden / "new" / target.name
    hidden.mkdir()
    try:
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
