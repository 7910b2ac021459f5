"""A service that is stopped, killed and abused: what it accepted is done, and others are served."""

import concurrent.futures
import io
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from skimage import data

pytest.importorskip("fastapi", reason="NOT TESTED: the service, because the extra serve is missing")

import httpx
from served import serving

from fairweather import Restorer
from fairweather.serving import allow_connections

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are others there")
PHOTO = np.ascontiguousarray(data.astronaut()[20:180, 180:340])
ACCEPTED = re.compile(
    r"^fairweather_(?:waiting|active|requests_total{route=./v1/restore.,.*}) (\S+)", re.MULTILINE
)


def encoded(pixels: np.ndarray = PHOTO) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_what_was_accepted_is_done_after_sigterm(tmp_path: Path) -> None:
    photos = [np.ascontiguousarray(np.roll(PHOTO, 7 * step, axis=1)) for step in range(20)]
    restorer = Restorer("rain", device="cpu")
    with serving(tmp_path, "--no-page") as served:
        url = f"{served.url}/v1/restore"
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            waiting = [
                pool.submit(httpx.post, url, content=encoded(photo), timeout=100)
                for photo in photos
            ]
            wait_until_accepted(served.url, 20)
            served.process.send_signal(signal.SIGTERM)
            answers = [one.result() for one in waiting]
        assert [answer.status_code for answer in answers] == [200] * 20
        for answer, photo in zip(answers, photos, strict=True):
            result = np.asarray(Image.open(io.BytesIO(answer.content)))
            np.testing.assert_array_equal(result, restorer.restore_pixels(photo))
        lines = served.end()
        assert served.process.returncode == 0
    assert list(tmp_path.iterdir()) == []
    assert sum(line.get("route") == "/v1/restore" for line in lines) == 20


def wait_until_accepted(url: str, requests: int) -> None:
    """Wait until so many requests are in the queue, worked on, or answered."""
    ends = time.monotonic() + 300
    while time.monotonic() < ends:
        text = httpx.get(f"{url}/metrics").text
        if sum(float(count) for count in ACCEPTED.findall(text)) >= requests:
            return
        time.sleep(0.02)
    raise AssertionError(text)


def test_a_killed_service_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-page") as served:
        job = httpx.post(f"{served.url}/v1/jobs", content=encoded(np.tile(PHOTO, (4, 4, 1))))
        assert job.status_code == 202
        served.process.kill()
        served.process.wait()
    (left,) = tmp_path.iterdir()
    with serving(tmp_path, "--no-page") as served:
        (folder,) = tmp_path.iterdir()
        assert folder != left
        assert [path.name for path in folder.iterdir()] == ["lock"]
        assert httpx.post(f"{served.url}/v1/restore", content=encoded()).status_code == 200


def test_uploads_of_the_page_that_break_off_are_removed(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        place = urlsplit(served.url)
        (folder,) = tmp_path.iterdir()
        content = encoded()
        field = 'Content-Disposition: form-data; name="files"; filename="a.png"'
        body = f"--x\r\n{field}\r\n\r\n".encode() + content + b"\r\n--x--\r\n"
        head = (
            f"POST /gradio_api/upload HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}\r\n\r\n"
        ).encode()

        def loose() -> int:
            return sum(path.is_file() for path in (folder / "page").glob("*"))

        with (
            socket.create_connection((place.hostname, place.port)) as whole,
            socket.create_connection((place.hostname, place.port)) as cut,
        ):
            whole.sendall(head + body[:-900])
            cut.sendall(head + body[:-900])
            wait_until(lambda: loose() == 2)
            cut.close()
            time.sleep(0.5)
            whole.sendall(body[-900:])
            assert whole.recv(12) == b"HTTP/1.1 200"
        wait_until(lambda: loose() == 0)
        (kept,) = (folder / "page").rglob("a.png")
        assert kept.read_bytes() == content
        with socket.create_connection((place.hostname, place.port)) as cut:
            cut.sendall(head + body[:-900])
            wait_until(lambda: loose() == 1)
        wait_until(lambda: loose() == 0)
        lines = served.lines
    assert not [line for line in lines if "unexpected" in line or line["level"] == "error"]


def wait_until(is_true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_heads_have_a_size(tmp_path: Path) -> None:
    """Also what follows a body as if it were more headers."""
    post = "POST /v1/restore HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving(tmp_path, "--no-page") as served:
        answer = httpx.get(f"{served.url}/healthz", headers={"X-Long": "a" * 66_000})
        assert answer.status_code == 431
        assert "65,536 bytes" in answer.json()["detail"]
        place = urlsplit(served.url)
        for start in ("GET /healthz HTTP/1.1\r\nX-Long: ", f"{post}1\r\na\r\n0\r\nX-Long: "):
            with socket.create_connection((place.hostname, place.port)) as client:
                client.sendall(start.encode())
                with pytest.raises(ConnectionError):
                    client.sendall(b"a" * 2**26)
        photo = encoded()
        parts = (photo[at : at + 64] for at in range(0, len(photo), 64))  # in chunks, many
        assert httpx.post(f"{served.url}/v1/restore", content=parts).status_code == 200


def test_work_ends_when_nobody_waits_for_it(tmp_path: Path) -> None:
    large = encoded(np.tile(PHOTO, (10, 10, 1)))  # 16 tiles
    with serving(tmp_path, "--no-page") as served:
        place = urlsplit(served.url)
        head = f"POST /v1/restore?levels=0 HTTP/1.1\r\nHost: {place.netloc}\r\n"
        with socket.create_connection((place.hostname, place.port)) as client:
            client.sendall(f"{head}Content-Length: {len(large)}\r\n\r\n".encode() + large)
            while count_of(served.url, "active") == 0:
                time.sleep(0.05)
        while count_of(served.url, "active") > 0:
            time.sleep(0.05)
        assert count_of(served.url, "tiles") < 12
        (folder,) = tmp_path.iterdir()
        while len(list(folder.iterdir())) > 1:  # the lock stays
            time.sleep(0.05)


def count_of(url: str, name: str) -> float:
    """One of the counts for Prometheus."""
    found = re.search(rf"^fairweather_{name} (\S+)", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


@pytest.mark.slow  # it waits until they are closed
def test_slow_and_many_connections_do_not_stop_others(tmp_path: Path) -> None:
    allow_connections()
    with serving(tmp_path, "--no-page") as served:
        place = urlsplit(served.url)
        address = (place.hostname, place.port)
        head = b"POST /v1/restore HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9000\r\n\r\n"
        with ThousandSockets(address) as open_ones:
            slow, begun, idle = open_ones[:5], open_ones[5:10], open_ones[10:]
            for one in slow:
                one.sendall(head + b"\x89")
            for one in begun:
                one.sendall(head[:-2])
            answer = httpx.post(f"{served.url}/v1/restore", content=encoded(), timeout=60)
            assert answer.status_code == 200
            for one in (*begun, *idle):
                one.settimeout(60)
                assert one.recv(1) == b""  # closed
            slow[0].settimeout(0.01)
            with pytest.raises(TimeoutError):
                slow[0].recv(1)
        for path in ("/v1/restore/../../../etc/passwd", "/v1/jobs/..%2f..%2fetc%2fpasswd"):
            assert httpx.get(f"{served.url}{path}").status_code in (404, 405)
        injected = {"X-Request-Id": "a\tb; Set-Cookie: c=d"}
        answer = httpx.get(f"{served.url}/healthz", headers=injected)
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])


class ThousandSockets:
    """Many open connections that say nothing."""

    def __init__(self, address: tuple[str | None, int | None]):
        self.sockets = [socket.create_connection(address) for _ in range(1000)]

    def __enter__(self) -> list[socket.socket]:
        return self.sockets

    def __exit__(self, *_: object) -> None:
        for one in self.sockets:
            one.close()


def test_an_address_that_is_taken_is_an_error(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from fairweather import cli

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(
            cli.app, ["serve", "--port", port, "--no-page", "--folder", str(tmp_path)]
        )
    assert "cannot listen there" in str(result.exception)
