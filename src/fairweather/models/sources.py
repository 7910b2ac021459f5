"""Weights from a URL: downloaded once, checked against their SHA-256, kept in a cache.

They lie in the user's cache folder, each in a folder named after its SHA-256, which may be deleted
at any time. Weights of the Hugging Face Hub: `hub`.
"""

import base64
import contextlib
import functools
import hashlib
import http.client
import logging
import os
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import platformdirs

from fairweather.errors import CheckpointError
from fairweather.files import replacing

log = logging.getLogger(__name__)

WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
SUFFIXES_TEXT = ", ".join(WEIGHTS_SUFFIXES)
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
TIMEOUT_SECONDS = 30.0  # without a byte
MAX_SECONDS = 3600.0  # for a file
WATCH_SECONDS = 15.0  # how often the speed is looked at
LEAST_BYTES = 15_000  # in that time
CHUNK_BYTES = 1 << 20
MAX_BYTES = 2 << 30  # eight times ast_b


class WeightsURL(NamedTuple):
    """A URL of a weights file.

    Attributes:
        address: the URL without its fragment, user and password.
        login: user and password, as HTTP takes them; empty without.
        shown: the same for messages, without user, password and query, which may hold secrets.
        host: with the port.
        name: of the file.
        sha256: in lower case.
    """

    address: str
    login: str
    shown: str
    host: str
    name: PurePosixPath
    sha256: str


def is_offline() -> bool:
    """Return whether `HF_HUB_OFFLINE` forbids the network, read as huggingface_hub reads it."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, computed again only after it changed."""
    status = path.stat()
    return _sha256_of(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _sha256_of(path: Path, size: int, changed_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_by_url(weights: str) -> Path:
    """Return the file that a URL stands for; download it if no whole copy is in the cache.

    Args:
        weights: `https://…/NAME.safetensors#sha256=…`, or `http://` on this machine.

    Returns:
        A file in the cache with that SHA-256.

    Raises:
        CheckpointError: for another URL, or if the file cannot be had or is another one.
    """
    url = parse_url(weights)
    folder = Path(platformdirs.user_cache_dir("fairweather")) / "weights" / url.sha256
    for file in sorted(folder.glob(f"*{url.name.suffix}")):  # maybe from another URL
        with contextlib.suppress(OSError):
            if sha256_of(file) == url.sha256:
                return file
    if is_offline():
        raise CheckpointError(
            f"{url.shown}: there is no whole copy in '{folder}', and HF_HUB_OFFLINE forbids the"
            " network; load it once without, or give a weights file"
        )
    safe = re.sub(r"[^a-zA-Z0-9_-]", "_", url.name.stem)[:100]
    target = folder / f"{safe}{url.name.suffix}"
    download(url, target)
    return target


def parse_url(weights: str) -> WeightsURL:
    """Return the parts of a URL, or raise CheckpointError if it must not be loaded."""
    try:
        parts = urlsplit(weights)
    except ValueError as error:
        raise CheckpointError(f"{weights}: is no URL: {error}") from error
    shown, name = shown_url(parts), PurePosixPath(unquote(parts.path))
    if not parts.hostname or name.suffix not in WEIGHTS_SUFFIXES:
        raise CheckpointError(
            f"{shown}: is no URL of a weights file, which ends in {SUFFIXES_TEXT}"
        )
    refuse_unencrypted(parts)
    match = re.fullmatch(r"sha256=([0-9a-f]{64})", parts.fragment.lower())
    if match is None:
        raise CheckpointError(
            f"{shown}: needs the file's SHA-256, so that nothing but this file is ever loaded; add"
            " #sha256= and the 64 digits that its publisher gives, or that sha256sum prints"
        )
    login, _, host = parts.netloc.rpartition("@")  # a resolver would be asked for both
    address = parts._replace(netloc=host, fragment="").geturl()
    return WeightsURL(address, unquote(login), shown, host, name, match[1])


def shown_url(url: SplitResult) -> str:
    """Return a URL for messages."""
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


def refuse_unencrypted(url: SplitResult) -> None:
    """Raise unless this is https, or http on this machine."""
    if url.scheme != "https" and not (url.scheme == "http" and url.hostname in LOCAL_HOSTS):
        raise CheckpointError(
            f"{shown_url(url)}: {url.scheme}:// is read and changed on its way; use https://, or"
            " download the file yourself and give its path"
        )


def download(url: WeightsURL, target: Path) -> None:
    """Write the file of a URL, in one move, if its SHA-256 is the right one.

    Downloads of one file at the same time do not meet: each has a temporary file of its own.

    Raises:
        CheckpointError: if it cannot be had or kept, or is another file; then nothing is kept.
    """
    log.warning("downloading %s, once; kept in '%s'", url.shown, target.parent)
    digest = hashlib.sha256()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as file:
            for chunk in in_time(url, chunks_of(url)):
                digest.update(chunk)
                file.write(chunk)
            if digest.hexdigest() != url.sha256:
                raise CheckpointError(
                    f"{url.shown}: the file there has SHA-256 {digest.hexdigest()}, not the"
                    f" {url.sha256} that was asked for; it was not kept. Was it replaced, or the"
                    " hash copied from another one?"
                )
    except OSError as error:
        with contextlib.suppress(OSError):
            if sha256_of(target) == url.sha256:  # another process was first
                return
        raise CheckpointError(
            f"{url.shown}: cannot be kept in '{target.parent}': {error.strerror or error};"
            " XDG_CACHE_HOME chooses another folder"
        ) from error


def in_time(url: WeightsURL, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield chunks as long as they come fast enough, and tell now and then how many came.

    They are fetched in a thread, so that no step of it can wait for ever: a host that is looked up,
    or headers that come byte by byte.
    """
    arrived: queue.Queue[bytes | Exception | None] = queue.Queue(maxsize=8)

    def fetch() -> None:
        try:
            for chunk in chunks:
                arrived.put(chunk)
            arrived.put(None)
        except Exception as error:
            arrived.put(error)

    threading.Thread(target=fetch, daemon=True).start()
    received, before, started = 0, 0, time.monotonic()
    looked = started
    while True:
        now = time.monotonic()
        if now - looked > WATCH_SECONDS:
            if now - started > MAX_SECONDS or received - before < LEAST_BYTES:
                raise CheckpointError(
                    f"{url.shown}: {url.host} sent {received:,} bytes in {now - started:.0f} s,"
                    " which is too slow; download it yourself and give its path"
                )
            log.warning("%s: %.1f MB so far", url.shown, received / 1e6)
            looked, before = now, received
        try:
            chunk = arrived.get(timeout=max(0.01, looked + WATCH_SECONDS - now))
        except queue.Empty:
            continue
        if isinstance(chunk, Exception):
            raise chunk
        if chunk is None:
            return
        received += len(chunk)
        yield chunk


class EncryptedRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects only to where a URL may lead, too."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        try:
            refuse_unencrypted(urlsplit(newurl))
        except CheckpointError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def chunks_of(url: WeightsURL) -> Iterator[bytes]:
    """Yield the content behind a URL, or raise CheckpointError with the host and what it said."""
    agent = {"User-Agent": f"fairweather/{version('fairweather')}"}
    request = urllib.request.Request(url.address, headers=agent)
    if url.login:  # for this host only
        login = base64.b64encode(url.login.encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {login}")
    received, expected = 0, None
    try:
        opener = urllib.request.build_opener(EncryptedRedirects)
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            expected = response.length  # None where the server does not say it
            while chunk := response.read1(CHUNK_BYTES):
                received += len(chunk)
                if received > MAX_BYTES:
                    raise CheckpointError(
                        f"{url.shown}: is larger than {MAX_BYTES:,} bytes, which no weights of AST"
                        " are; if it is right, download it yourself and give its path"
                    )
                yield chunk
    except urllib.error.HTTPError as error:
        error.close()
        raise CheckpointError(
            f"{url.shown}: {url.host} answers {error.code} {error.reason}; is the address right?"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CheckpointError(
            f"{url.shown}: {url.host} cannot be reached: {reason or type(error).__name__}; try"
            " again when the network is up, or give a weights file"
        ) from error
    if expected is not None and received < expected:
        raise CheckpointError(
            f"{url.shown}: {url.host} broke off after {received:,} of {expected:,} bytes; try again"
        )
