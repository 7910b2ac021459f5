"""Converted models, each made once and kept in the user's cache folder, found by its content.

An entry is a folder named after what it was made of: the weights, the config, and the versions of
whatever had a part in it. It appears whole or not at all, and holds the checksums of its files, so
that a reader never takes a broken one. What was not used for months makes room when another entry
is written; the folder may be deleted at any time.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import platformdirs

from fairweather.files import staging
from fairweather.models import AST

log = logging.getLogger(__name__)

LAYOUT = 1  # to be raised when other files are written under the same versions
CHECKSUMS = "checksums.json"
KEPT_S = 90 * 24 * 3600  # after its last use
Write = Callable[[Path], None]


def conversions_folder() -> Path:
    """Where converted models are kept."""
    return Path(platformdirs.user_cache_dir("fairweather")) / "engines"


@contextlib.contextmanager
def converted(model: AST, *, kind: str, packages: tuple[str, ...], write: Write) -> Iterator[Path]:
    """Gives a folder with the converted model, made now if it is not there yet, or broken.

    Of two processes that convert the same at the same time, the later one takes what the other one
    wrote. Where nothing can be kept, the folder lasts as long as the block.

    Args:
        model: what is converted.
        kind: the beginning of the entry's name.
        packages: whose versions matter, besides fairweather and torch.
        write: writes the files into the empty folder that it is given.

    Yields:
        The folder, whole.
    """
    key = content_key(model, packages=packages)
    entry = conversions_folder() / f"{kind}-{key}"
    if is_whole(entry) or keep(entry, write=write):
        with contextlib.suppress(OSError):
            os.utime(entry)  # the time of its last use
        yield entry
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        write(Path(folder))
        yield Path(folder)


def content_key(model: AST, *, packages: tuple[str, ...]) -> str:
    """The same for the same weights, config and versions."""
    about = {
        "layout": LAYOUT,
        "config": dataclasses.asdict(model.config),
        "versions": {package: version(package) for package in ("fairweather", "torch", *packages)},
    }
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()[:32]


def keep(entry: Path, *, write: Write) -> bool:
    """Makes an entry; False, with a warning, where that is impossible."""
    try:
        entry.parent.mkdir(parents=True, exist_ok=True)
        # A warning, so that whoever waits for a first photograph sees why.
        log.warning("converting the model, once, which takes a minute or more; kept in '%s'", entry)
        with staging(entry, overwrite=entry.exists()) as folder:
            folder.mkdir()
            write(folder)
            (folder / CHECKSUMS).write_text(json.dumps(checksums(folder)), "utf-8")
        remove_unused(entry.parent)
    except OSError as error:
        if is_whole(entry):  # another process was first
            return True
        log.warning(
            "the converted model cannot be kept in '%s', so it is made each time: %s;"
            " XDG_CACHE_HOME chooses another folder",
            entry.parent,
            error.strerror or error,
        )
        return False
    return True


def remove_unused(folder: Path) -> None:
    """Removes entries, and what a killed process left of one, that were not used for months."""
    for entry in folder.iterdir():
        if time.time() - entry.stat().st_mtime > KEPT_S:
            shutil.rmtree(entry, ignore_errors=True)


def is_whole(entry: Path) -> bool:
    """Whether an entry is there with all of its files as they were written."""
    try:
        return json.loads((entry / CHECKSUMS).read_text("utf-8")) == checksums(entry)
    except (OSError, ValueError):
        return False


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file but the one that holds them."""
    sums = {}
    for path in sorted(folder.iterdir()):
        if path.name != CHECKSUMS:
            with path.open("rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
