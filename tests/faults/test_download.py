"""Faults while weights are downloaded: killed runs, and servers that hardly send anything."""

import base64
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from weights_server import Server, stop

from fairweather.errors import CheckpointError
from fairweather.models import find_weights, sources

CONTENT = bytes(range(256)) * 4000
FETCH = "import sys; from fairweather.models import find_weights; print(find_weights(sys.argv[1]))"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with Server() as server:
        server.files["/mine.safetensors"] = CONTENT
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        stop(server)


def cached(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def start(url: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", FETCH, url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")


@pytest.mark.skipif(sys.platform != "linux", reason="the cache is placed by XDG_CACHE_HOME there")
def test_a_killed_download_leaves_nothing_and_the_next_one_finishes(
    server: Server, tmp_path: Path
) -> None:
    url = server.url("/mine.safetensors")
    server.gate.clear()
    for _ in range(2):
        process = start(url)
        assert server.half_sent.acquire(timeout=60)
        process.kill()
        process.communicate(timeout=60)
        assert [name for name in cached(tmp_path) if not name.startswith(".")] == []
    server.gate.set()
    process = start(url)
    out, _ = process.communicate(timeout=60)
    assert Path(out.strip()).read_bytes() == CONTENT
    assert cached(tmp_path) == ["mine.safetensors"]


@pytest.fixture
def dripping(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket whose server sends what it is given, a byte now and then."""
    monkeypatch.setattr(sources, "WATCH_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n"])
def test_a_server_that_drips_is_given_up(
    server: Server, tmp_path: Path, dripping: socket.socket, head: bytes
) -> None:
    """Headers that never end, and a body that hardly begins."""
    ended = threading.Event()

    def drip() -> None:
        connection, _ = dripping.accept()
        with connection:
            connection.sendall(head or b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not ended.wait(0.05):
                connection.sendall(b"x")

    threading.Thread(target=drip, daemon=True).start()
    port = dripping.getsockname()[1]
    url = f"http://127.0.0.1:{port}/mine.safetensors#sha256={'0' * 64}"
    try:
        with pytest.raises(CheckpointError, match=rf"127.0.0.1:{port} sent .* which is too slow"):
            find_weights(url)
    finally:
        ended.set()
    assert cached(tmp_path) == []


def test_user_and_password_go_to_the_server_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up, sent = [], []
    find = socket.getaddrinfo
    handler = server.RequestHandlerClass
    answer = handler.do_GET

    def getaddrinfo(host: str, *rest: object, **options: object) -> object:
        looked_up.append(host)
        return find(host, *rest, **options)

    def listen(request: Any) -> None:
        sent.append(request.headers["Authorization"])
        answer(request)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(handler, "do_GET", listen)
    server.redirects["/moved.safetensors"] = (
        f"http://localhost:{server.server_port}/mine.safetensors"
    )
    url = server.url("/moved.safetensors", CONTENT).replace("http://", "http://me:p%40ss@")
    found = find_weights(url)
    assert hashlib.sha256(found.read_bytes()).hexdigest() == url[-64:]
    assert set(looked_up) <= {"127.0.0.1", "localhost"}
    assert sent == [f"Basic {base64.b64encode(b'me:p@ss').decode()}", None]
    assert os.environ["XDG_CACHE_HOME"] in str(found)
