"""The service on Ray: the same answers, also while a restorer is killed, and an end in order."""

import concurrent.futures
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml
from PIL import Image
from skimage import data

pytest.importorskip("ray", reason="NOT TESTED: the service on Ray, because Ray is not installed")
pytest.importorskip("fastapi", reason="NOT TESTED: the service, because the extra serve is missing")

from served import serving

from fairweather import Restorer
from fairweather.serving import Settings, private_folder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("alone_with_ray")]
PHOTO = np.ascontiguousarray(data.astronaut()[20:200, 160:360])
RESTORER = "ray::ServeReplica:fairweather:restorer"
OFFLINE = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
DEPLOYED = Path(__file__).parents[2] / "deploy/serve.yaml"


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def restorers_of(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    restorers = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # one that has just ended
            if RESTORER in " ".join(one.cmdline()):
                restorers.append(one)
    return restorers


def test_it_answers_the_same_while_a_restorer_is_killed(tmp_path: Path) -> None:
    photos = [np.ascontiguousarray(np.roll(PHOTO, 9 * step, axis=1)) for step in range(12)]
    restorer = Restorer("rain", device="cpu")
    with serving(tmp_path, "--no-page", "--ray", "--replicas", "2") as served:
        one, two = restorers_of(served.process)

        def post(photo: np.ndarray) -> httpx.Response:
            return httpx.post(f"{served.url}/v1/restore", content=encoded(photo), timeout=200)

        broken = httpx.post(f"{served.url}/v1/restore", content=encoded(PHOTO)[:-900])
        assert broken.status_code == 422
        assert "upload" in broken.json()["detail"]
        assert "/tmp" not in broken.text
        job = httpx.post(f"{served.url}/v1/jobs", content=encoded(photos[0]))
        assert job.status_code == 202
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            answers = pool.map(post, photos)
            first = next(answers)
            one.kill()
            answers = [first, *answers]
        assert [answer.status_code for answer in answers] == [200] * 12
        for answer, photo in zip(answers, photos, strict=True):
            result = np.asarray(Image.open(io.BytesIO(answer.content)))
            np.testing.assert_array_equal(result, restorer.restore_pixels(photo))
        place = f"{served.url}{job.headers['Location']}"
        wait_until(lambda: httpx.get(place).json()["status"] == "done")
        assert httpx.get(f"{place}/result").content == answers[0].content
        assert two.is_running()

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(post, photo) for photo in photos[:4]]
            wait_until(lambda: is_active(served.url))
            served.process.send_signal(signal.SIGTERM)
            statuses = {one.result().status_code for one in waiting}
        assert statuses <= {200, 503}
        assert 200 in statuses
        served.end()
        assert served.process.returncode == 0
    with private_folder(tmp_path) as folder:  # of the next one, which removes that of the killed
        assert list(tmp_path.iterdir()) == [folder]


def wait_until(is_true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 300
    while not is_true():
        assert time.monotonic() < ends
        time.sleep(0.02)


def is_active(url: str) -> bool:
    return "fairweather_active 0.0" not in httpx.get(f"{url}/metrics").text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def answers_at(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_file_for_a_cluster_is_an_application() -> None:
    (application,) = yaml.safe_load(DEPLOYED.read_text("utf-8"))["applications"]
    assert application["import_path"] == "fairweather.serving.on_ray:build"
    assert Settings(**application["args"]).replicas > 1


def test_the_file_for_a_cluster_answers(tmp_path: Path) -> None:
    """On one machine, with one restorer, as `serve run` of Ray starts it; also without any."""
    document = yaml.safe_load(DEPLOYED.read_text("utf-8"))
    document["http_options"] = {"host": "127.0.0.1", "port": (port := free_port())}
    args = document["applications"][0]["args"]
    args |= {"replicas": 1, "cpus": 1, "gpus": 0, "device": "cpu", "folder": str(tmp_path)}
    args["page"] = False
    args["limits"]["patience_seconds"] = 1
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(document))
    program = str(Path(sys.executable).with_name("serve"))
    command = [program, "run", "--address", "local", str(tmp_path / "serve.yaml")]
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, env=OFFLINE, cwd=tmp_path)
    try:
        wait_until(lambda: answers_at(url))
        answer = httpx.post(f"{url}/v1/restore", content=encoded(PHOTO), timeout=200)
        assert answer.status_code == 200
        (restorer,) = restorers_of(process)
        restorer.kill()
        with concurrent.futures.ThreadPoolExecutor(3) as pool:  # one is sent on, others wait
            waiting = [
                pool.submit(httpx.post, f"{url}/v1/restore", content=encoded(PHOTO), timeout=200)
                for _ in range(3)
            ]
            while not all(one.done() for one in waiting):
                for one in restorers_of(process):  # so that none comes up
                    with contextlib.suppress(psutil.Error):
                        one.kill()
                time.sleep(0.1)
        for answer in (one.result() for one in waiting):
            assert answer.status_code == 503
            assert int(answer.headers["Retry-After"]) >= 1
            assert "no worker process" in answer.json()["detail"]
        assert httpx.get(f"{url}/readyz").status_code == 503
        wait_until(lambda: answers_at(url))
        answer = httpx.post(f"{url}/v1/restore", content=encoded(PHOTO), timeout=200)
        assert answer.status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(300)
