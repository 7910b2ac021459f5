"""Jobs of the REST service: many files and clips, bounds, and an end of each."""

import concurrent.futures
import io
import json
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import data

pytest.importorskip("fastapi", reason="NOT TESTED: the service, because the extra serve is missing")

from served_here import Client, by_command, client_of, encoded, problem, service_in


def wait_for(client: Client, url: str) -> dict[str, Any]:
    for _ in range(600):
        told = client.get(url).json()
        if told["status"] in ("done", "failed", "cancelled"):
            return told
        time.sleep(0.05)
    raise AssertionError(url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "service").mkdir()
    return tmp_path / "service"


@pytest.fixture
def client(folder: Path) -> Iterator[Client]:
    with client_of(service_in(folder)) as made:
        yield made


def test_a_job_of_several_files(client: Client, tmp_path: Path, folder: Path) -> None:
    content, other = encoded(), encoded("JPEG")
    names = ("../../etc/cron.d/a.png", "b.txt", "b.jpg")
    uploads = zip(names, (content, content[:500], other), strict=True)
    answer = client.post("/v1/jobs", files=[("file", upload) for upload in uploads])
    assert answer.status_code == 202
    url = answer.headers["location"]
    told = wait_for(client, url)
    assert (told["status"], told["files"], told["restored"], told["failed"]) == ("done", 3, 2, 1)
    assert told["progress"] == 1
    assert str(folder) not in json.dumps(told)
    result = client.get(f"{url}/result")
    with zipfile.ZipFile(io.BytesIO(result.content)) as archive:
        assert sorted(archive.namelist()) == ["a.restored.png", "b.restored.jpg"]
        expected = by_command(tmp_path / "one", "a.png", content)
        assert archive.read("a.restored.png") == expected
    assert client.delete(url).status_code == 204
    problem(client.get(url), 404)
    assert list(folder.iterdir()) == []


def test_jobs_are_bounded_and_removed(tmp_path: Path) -> None:
    service = service_in(tmp_path, jobs=1, job_files=2, keep_seconds=0.3)
    with client_of(service) as made:
        uploads = [("file", ("a.png", encoded())) for _ in range(3)]
        problem(made.post("/v1/jobs", files=uploads), 400)
        url = made.post("/v1/jobs", content=encoded()).headers["location"]
        assert wait_for(made, url)["status"] == "done"
        assert made.get(f"{url}/result").headers["content-type"] == "image/png"
        problem(made.post("/v1/jobs", content=encoded()), 429)
        time.sleep(0.4)
        problem(made.get(url), 404)
        assert list(tmp_path.iterdir()) == []


def test_jobs_that_wait_are_cancelled(tmp_path: Path) -> None:
    with client_of(service_in(tmp_path)) as made:
        large = encoded(pixels=np.ascontiguousarray(np.tile(data.astronaut(), (2, 2, 1))))
        urls = [made.post("/v1/jobs?levels=0", content=large).headers["location"] for _ in range(4)]
        for url in reversed(urls):  # each waits behind those before it
            assert made.delete(url).status_code == 204
        assert "fairweather_waiting 0.0" in made.get("/metrics").text
        assert made.post("/v1/restore", content=encoded()).status_code == 200
        assert list(tmp_path.iterdir()) == []


def test_what_fails_in_a_strange_way_ends_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise LookupError("nothing that one expects")

    service = service_in(tmp_path)
    with client_of(service) as made:
        monkeypatch.setattr(service.studio, "restorer", fail)
        url = made.post("/v1/jobs", content=encoded()).headers["location"]
        assert wait_for(made, url)["results"][0]["error"] == "nothing that one expects"
        problem(made.get(f"{url}/result"), 422)


def test_a_clip_is_a_job(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="NOT TESTED: clips in the service, because PyAV is missing")
    from tiny_clips import make_clip

    make_clip(tmp_path / "a.mp4", frames=3)
    place = tmp_path / "service"
    place.mkdir()
    with client_of(service_in(place)) as made:
        content = (tmp_path / "a.mp4").read_bytes()
        url = made.post("/v1/jobs", files={"file": ("a.mov", content)}).headers["location"]
        assert wait_for(made, url)["restored"] == 1
        result = made.get(f"{url}/result")
        assert result.headers["content-type"] == "video/quicktime"
        problem(made.post("/v1/restore", content=content), 415)


def test_one_job_is_cancelled_by_many(client: Client) -> None:
    url = client.post("/v1/jobs", content=encoded()).headers["location"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(client.delete, [url] * 8))
    assert {answer.status_code for answer in answers} <= {204, 404}
    problem(client.get(url), 404)
