"""Weights from a repository of the Hugging Face Hub: downloaded once, checked, kept in its cache.

The cache is that of huggingface_hub, which other programs share, and which `HF_HOME` and
`HF_HUB_CACHE` place. huggingface_hub itself compares the size of what it downloads, no hash; the
Hub gives one for each file (https://github.com/huggingface/huggingface_hub/issues/3018).
"""

import contextlib
import functools
import hashlib
import logging
import os
import re
from collections.abc import Collection, Iterable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fairweather.errors import CheckpointError
from fairweather.models.sources import SUFFIXES_TEXT, WEIGHTS_SUFFIXES, is_offline, sha256_of

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0  # for the list of files; huggingface_hub has its own for the rest
HUB_NAME = re.compile(
    r"hf:(?P<repository>\w[\w.-]*/\w[\w.-]*)(@(?P<revision>[^:#]+))?(:(?P<file>[^#]+))?"
    r"(#sha256=(?P<sha256>[0-9a-fA-F]{64}))?",
    re.ASCII,
)


class HubName(NamedTuple):
    """The parts of `hf:OWNER/NAME@REVISION:FILE#sha256=…`."""

    repository: str
    revision: str | None
    file: str | None
    sha256: str | None


class HubFile(NamedTuple):
    """A file in the cache, and the hash that the Hub gives for it; None if that is not known."""

    path: Path
    told: str | None


def find_in_hub(weights: str) -> Path:
    """Return the file that an `hf:` name stands for; download it if it is not in the cache.

    Within a process a name keeps its meaning, so that all photographs are restored with the same
    file, and the Hub is asked once.

    Args:
        weights: `hf:OWNER/NAME`, and after it `@REVISION` (a branch, a tag or a commit), `:FILE`
            (needed where there are several) and `#sha256=…` (of the file) where they are wanted.

    Raises:
        CheckpointError: for another name, or if the file cannot be had or is another one.
    """
    name = parse_hub_name(weights)
    place = (name, os.environ.get("HF_ENDPOINT", "").rstrip("/") or None, is_offline())
    found = locate(*place)
    if not found.path.is_file():  # the cache was emptied since
        locate.cache_clear()
        found = locate(*place)
    check_told(name, found)
    if name.sha256 not in (None, actual := sha256_of(found.path)):
        raise CheckpointError(
            f"{weights.partition('#')[0]}: {found.path.name} has SHA-256 {actual}, not the"
            f" {name.sha256} that was asked for; is it of another revision?"
        )
    return found.path


def parse_hub_name(weights: str) -> HubName:
    """Return the parts of an `hf:` name, or raise CheckpointError."""
    match = HUB_NAME.fullmatch(weights)
    if match is None:
        raise CheckpointError(
            f"{weights}: is no name of weights on the Hub; write hf:OWNER/NAME, and after it"
            " @REVISION, :FILE and #sha256=… where they are needed"
        )
    repository, revision, file, sha256 = match.group("repository", "revision", "file", "sha256")
    for part in filter(None, (file, revision)):
        if part.startswith("/") or "\\" in part or ".." in part.split("/"):
            raise CheckpointError(f"{weights}: {part} leads out of the repository")
    if file is not None and not file.endswith(WEIGHTS_SUFFIXES):
        raise CheckpointError(
            f"{weights}: {file} is no weights file, which ends in {SUFFIXES_TEXT}"
        )
    return HubName(repository, revision, file, sha256.lower() if sha256 else None)


def import_hub() -> ModuleType:
    """Import huggingface_hub, which local weights do without: it takes long."""
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors

    return huggingface_hub


@functools.lru_cache(maxsize=64)
def locate(name: HubName, endpoint: str | None, offline: bool) -> HubFile:  # noqa: FBT001
    """Return the file in the cache; download it if need be."""
    hub = import_hub()
    shown = f"hf:{name.repository}"
    is_commit = re.fullmatch(r"[0-9a-f]{40}", name.revision or "")  # which never changes
    if (offline or is_commit) and (found := find_cached(name)):
        return found
    if offline:
        raise CheckpointError(
            f"{shown}: {name.file or 'a weights file'} of {name.revision or 'main'} is not in"
            f" '{hub.constants.HF_HUB_CACHE}', and HF_HUB_OFFLINE forbids the network; load it once"
            " without, or give a weights file"
        )
    api = hub.HfApi(
        endpoint=endpoint, library_name="fairweather", library_version=version("fairweather")
    )
    try:
        info = api.model_info(
            name.repository,
            revision=name.revision,
            files_metadata=True,
            timeout=TIMEOUT_SECONDS,
        )
    except Exception as error:  # of requests or httpx, by the version of huggingface_hub
        host = urlsplit(api.endpoint).netloc
        if refusal := describe_refusal(error, name=name, host=host):
            raise CheckpointError(f"{shown}: {refusal}") from error
        reason = f"{host} cannot be reached: {first_line(error)}"
        if found := find_cached(name):
            log.warning("%s: %s; taking the copy in the cache", shown, reason)
            return found
        raise CheckpointError(
            f"{shown}: {reason}; nothing is in the cache. Try again when the network is up, or give"
            " a weights file"
        ) from error
    return fetch(name, api=api, info=info)


def fetch(name: HubName, *, api: Any, info: Any) -> HubFile:
    """Have huggingface_hub put the file into its cache, if it is not there yet."""
    hashes = {
        file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id
        for file in info.siblings or []
    }
    file = choose_file(name, hashes)
    try:
        path = Path(api.hf_hub_download(name.repository, file, revision=name.revision))
    except Exception as error:  # as above, and all that can go wrong on a disk
        host = urlsplit(api.endpoint).netloc
        raise CheckpointError(
            f"hf:{name.repository}: {file} could not be downloaded from {host}: {first_line(error)}"
        ) from error
    # A branch may have moved between the two questions; then the cache knows the later answer.
    told = hashes[file] if info.sha in path.parts else None
    return HubFile(path, told or told_by_cache(path) or "nothing")


def describe_refusal(error: Any, *, name: HubName, host: str) -> str | None:
    """Say what the Hub answered; None if it said nothing, or that it is out of order."""
    errors = import_hub().errors
    if isinstance(error, errors.GatedRepoError):
        return f"asks for consent to its terms at {host}/{name.repository}, and for a login"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no revision {name.revision}; give a branch, a tag or a commit"
    if isinstance(error, errors.HFValidationError):
        return f"is no name of a repository: {first_line(error)}"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 500
    if status in (401, 404):  # without a login the Hub says 401 of what does not exist, too
        return (
            f"{host} has no model repository of this name, or a private one; check the spelling,"
            " or log in with 'hf auth login'"
        )
    if status < 500 and status not in (408, 429):
        return f"{host} answers: {first_line(error)}"
    return None


def first_line(error: BaseException) -> str:
    """Return the type of an error, and the first line that it says."""
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


def pick_weights(files: Iterable[str]) -> list[str]:
    """Pick the weights among names of files: the safetensors, or else those of other formats."""
    found = sorted(file for file in files if file.endswith(WEIGHTS_SUFFIXES))
    return [file for file in found if file.endswith(".safetensors")] or found


def choose_file(name: HubName, files: Collection[str]) -> str:
    """Return the file that is asked for, or the only one with weights."""
    found = pick_weights(files)
    shown = f"hf:{name.repository}" + (f"@{name.revision}" if name.revision else "")
    if name.file is not None:
        if name.file in files:
            return name.file
        every = ", ".join(file for file in sorted(files) if file.endswith(WEIGHTS_SUFFIXES))
        raise CheckpointError(f"{shown}: holds no {name.file}; it holds {every or 'no weights'}")
    if not found:
        raise CheckpointError(f"{shown}: holds no weights, which end in {SUFFIXES_TEXT}")
    if len(found) > 1:
        raise CheckpointError(
            f"{shown}: holds {', '.join(found)}; name the one to load, as in {shown}:{found[0]}"
        )
    return found[0]


def find_cached(name: HubName) -> HubFile | None:
    """Return the file if it is in the cache; never ask the network."""
    hub = import_hub()
    try:
        folder = Path(
            hub.snapshot_download(  # gives the folder; no pattern asks for none of its files
                name.repository, revision=name.revision, local_files_only=True, allow_patterns=[]
            )
        )
    except (hub.errors.LocalEntryNotFoundError, hub.errors.HFValidationError):
        return None
    files = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    if not (name.file in files if name.file else pick_weights(files)):
        return None
    path = folder / choose_file(name, files)
    return HubFile(path, told_by_cache(path))


def told_by_cache(path: Path) -> str | None:
    """Return the hash that the Hub gave: links in the cache lead to files named after it."""
    return path.readlink().name if path.is_symlink() else None


def check_told(name: HubName, found: HubFile) -> None:
    """Compare a file with the hash that the Hub gives, and remove another one from the cache.

    The Hub gives the SHA-256 of large files, as weights are, and the id in git of the others.
    """
    path, told = found
    if told is None:  # a cache without links, without the network: it was compared when it came
        return
    if re.fullmatch(r"[0-9a-f]{64}", told):
        kind, actual = "SHA-256", sha256_of(path)
    elif re.fullmatch(r"[0-9a-f]{40}", told):
        kind, actual = "git id", git_id_of(path)
    elif name.sha256 is not None:
        return
    else:
        raise CheckpointError(
            f"hf:{name.repository}: for {path.name} the Hub gives {told}, which is no hash; add"
            " #sha256= and the 64 digits that its publisher gives"
        )
    if actual == told:
        return
    with contextlib.suppress(OSError):
        if path.is_symlink():
            (path.parent / path.readlink()).unlink()
        path.unlink()
    raise CheckpointError(
        f"hf:{name.repository}: {path.name} has {kind} {actual}, but the Hub gives {told}; it was"
        " cut short or changed, and is removed from the cache. Load it again to download it again"
    )


def git_id_of(path: Path) -> str:
    """Return the id that git gives to a file with this content."""
    content = path.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()
