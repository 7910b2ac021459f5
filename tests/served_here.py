"""A service in this process, for tests that ask it without a network."""

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from fastapi.testclient import TestClient
from PIL import Image
from skimage import data
from typer.testing import CliRunner

from fairweather import cli
from fairweather.serving import Limits, Service, Studio, create_app

PHOTO = np.ascontiguousarray(data.astronaut()[20:100, 180:284])
HERE = "http://127.0.0.1"


class Client(TestClient):
    """A client that waits until the service is ready."""

    def __enter__(self) -> "Client":
        super().__enter__()
        for _ in range(600):
            if self.get("/readyz").status_code == 200:
                break
            time.sleep(0.05)
        return self


def service_in(folder: Path, *, api_key: str | None = None, **limits: Any) -> Service:
    bounds = Limits(**limits)
    return Service(bounds, Studio(queue=bounds.queue, device="cpu"), folder, api_key)


def client_of(service: Service, **options: Any) -> Client:
    app = create_app(service, page=False, **options)
    return Client(app, base_url=HERE, raise_server_exceptions=False)


def encoded(form: str = "PNG", pixels: np.ndarray = PHOTO, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def by_command(folder: Path, name: str, content: bytes, *options: str) -> bytes:
    folder.mkdir()
    (folder / name).write_bytes(content)
    arguments = ["restore", str(folder / name), "-o", str(folder / "out"), "--device", "cpu"]
    result = CliRunner().invoke(cli.app, [*arguments, *options])
    assert result.exit_code == 0, result.output
    (made,) = (folder / "out").iterdir()
    return made.read_bytes()


def problem(answer: Any, status: int) -> str:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    told = answer.json()
    assert (answer.status_code, told["status"]) == (status, status), told
    return told["detail"]
