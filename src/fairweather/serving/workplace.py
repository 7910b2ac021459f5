"""One private folder for all that a service writes, removed even after a crash."""

import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import filelock

from fairweather.errors import OptionError

PREFIX = "fairweather-serve-"
LOCK = "lock"
PAGE = "page"  # what it was given
RESULTS = "page-"  # results that a page shows, which nobody asks to be removed


@contextlib.contextmanager
def private_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder that only this user may read, and remove it in the end.

    Folders of services that were killed are removed, too: those that no process holds any more.

    Args:
        parent: where; by default the system's temporary folder. It is made if it is missing.

    Raises:
        OptionError: if nothing can be written there.
    """
    parent = parent or Path(tempfile.gettempdir())
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(parent)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    except OSError as error:
        raise OptionError(
            f"'{parent}' takes no temporary files: {error.strerror}; choose another folder with"
            " --folder or TMPDIR"
        ) from error
    try:
        with filelock.FileLock(folder / LOCK):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned(parent: Path) -> None:
    """Remove the folders of services that are no more."""
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(filelock.Timeout, OSError):
            if not (folder / LOCK).exists():
                continue  # it is just being made
            with filelock.FileLock(folder / LOCK, timeout=0):
                shutil.rmtree(folder, ignore_errors=True)


def remove_old(folder: Path, *, seconds: float) -> None:
    """Remove what the page was given and has shown, if it is older than that."""
    now = time.time()
    uploads = [path for path in (folder / PAGE).rglob("*") if path.is_file()]
    results = list(folder.glob(f"{RESULTS}*"))
    loose = [path for path in folder.iterdir() if path.is_file() and path.name != LOCK]
    for path in (*uploads, *results, *loose):
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > seconds:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def without_paths(text: str, folder: Path, *, called: str = "upload") -> str:
    """Return an error without the paths of files in a folder; they are called otherwise."""
    return re.sub(rf"{re.escape(str(folder))}[^'\s]*", lambda _: called, text)
