"""The REST service: the command's bytes, bounds that hold, and refusals that say why."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

pytest.importorskip("fastapi", reason="NOT TESTED: the service, because the extra serve is missing")

from served_here import HERE, Client, by_command, client_of, encoded, problem, service_in

from fairweather import cli
from fairweather.errors import OptionError
from fairweather.serving import private_folder

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    with client_of(service_in(folder, upload_bytes=300_000, pixels=90_000, job_files=3)) as made:
        yield made


@pytest.mark.parametrize(
    ("name", "content", "query", "options"),
    [
        ("a.png", encoded(), "", ()),
        (
            "a.jpg",
            encoded("JPEG", quality=80, comment=b"hello"),
            "?strength=0.5",
            ("--strength", "0.5"),
        ),
        ("a.tif", encoded("TIFF"), "?task=snow", ("--task", "snow")),
        ("a.png", encoded(), "?format=webp&quality=70", ("--format", "webp", "--quality", "70")),
        ("a.jpg", encoded("JPEG"), "?task=auto&format=png", ("--task", "auto", "--format", "png")),
    ],
)
def test_an_answer_is_what_the_command_writes(
    client: Client, tmp_path: Path, name: str, content: bytes, query: str, options: tuple[str, ...]
) -> None:
    expected = by_command(tmp_path / "command", name, content, *options)
    raw = client.post(f"/v1/restore{query}", content=content)
    form = client.post(f"/v1/restore{query}", files={"file": ("../../x.bin", content)})
    for answer in (raw, form):
        assert answer.status_code == 200, answer.text
        assert answer.content == expected
        assert float(answer.headers["fairweather-seconds"]) >= 0
        assert isinstance(json.loads(answer.headers["fairweather-notes"]), list)
    assert ("fairweather-found" in raw.headers) == ("auto" in query)


def test_nothing_is_left_behind(client: Client, folder: Path) -> None:
    client.post("/v1/restore", content=encoded())
    client.post("/v1/restore", content=b"no image")
    assert [path.name for path in folder.iterdir()] == []


def test_accept_chooses_the_format(client: Client) -> None:
    accept = {"Accept": "image/jpeg, text/html"}
    answer = client.post("/v1/restore", content=encoded(), headers=accept)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content.startswith(b"\xff\xd8")
    answer = client.post("/v1/restore", content=encoded(), headers={"Accept": "image/*"})
    assert answer.headers["content-type"] == "image/png"
    answer = client.post("/v1/restore", content=encoded(), headers={"Accept": "text/html"})
    assert "image/png" in problem(answer, 406)
    assert client.post("/v1/restore", content=encoded(), headers={"Accept": ", ;"}).is_success


def test_a_packed_body_is_refused(client: Client) -> None:
    packed = gzip.compress(encoded())
    answer = client.post("/v1/restore", content=packed, headers={"Content-Encoding": "gzip"})
    assert "Content-Encoding" in problem(answer, 415)


@pytest.mark.parametrize(
    ("photo", "options", "mode", "said"),
    [
        (Image.new("RGB", (1, 1)), {"format": "PNG"}, "RGB", ""),
        (Image.new("I;16", (40, 30), 50_000), {"format": "PNG"}, "I;16", ""),
        (Image.new("CMYK", (40, 30)), {"format": "JPEG"}, "RGB", "CMYK"),
        (
            Image.new("RGB", (40, 30)),
            {
                "format": "GIF",
                "save_all": True,
                "append_images": [Image.new("RGB", (40, 30), "red")],
            },
            "P",
            "first of 2 frames",
        ),
    ],
    ids=["a pixel", "16 bits", "CMYK", "animated"],
)
def test_unusual_photographs(
    client: Client, photo: Image.Image, options: dict[str, Any], mode: str, said: str
) -> None:
    file = io.BytesIO()
    photo.save(file, **options)
    answer = client.post("/v1/restore", content=file.getvalue())
    assert answer.status_code == 200, answer.text
    result = Image.open(io.BytesIO(answer.content))
    assert (result.mode, result.size, result.format) == (mode, photo.size, options["format"])
    assert said in answer.headers["fairweather-notes"]


@pytest.mark.parametrize(
    ("query", "content", "status", "said"),
    [
        ("", b"", 422, "empty"),
        ("", b"hello, this is text", 415, "is not an image"),
        ("", encoded()[:400], 422, "damaged|cut off|truncated"),
        (
            "",
            encoded(pixels=np.zeros((301, 300, 3), np.uint8)),
            422,
            "more than the 90,000 allowed$",
        ),
        ("", bytes(300_001), 413, "300,000 bytes"),
        ("?task=fog", encoded(), 422, "none of auto"),
        ("?strength=2", encoded(), 422, "less than or equal to 1"),
        ("?colour=yes", encoded(), 422, "Extra inputs"),
    ],
)
def test_a_refusal_says_why(
    client: Client, query: str, content: bytes, status: int, said: str
) -> None:
    import re

    detail = problem(client.post(f"/v1/restore{query}", content=content), status)
    assert re.search(said, detail)
    assert "/tmp" not in detail
    assert "request-" not in detail


def bomb(form: str) -> bytes:
    """A few bytes that become 25 megapixels."""
    file = io.BytesIO()
    options = {"TIFF": {"compression": "tiff_deflate"}}.get(form, {})
    Image.new("1" if form in ("PNG", "TIFF") else "L", (5000, 5000)).save(file, form, **options)
    return file.getvalue()


@pytest.mark.parametrize("form", ["PNG", "TIFF", "GIF", "WEBP"])
def test_bombs_are_not_opened(client: Client, form: str) -> None:
    content = bomb(form)
    assert len(content) < 300_000
    assert "the 90,000 allowed" in problem(client.post("/v1/restore", content=content), 422)


def test_what_hides_behind_a_photograph_does_not_come_back(client: Client) -> None:
    hidden = b"<script>alert(1)</script>PK\x03\x04"
    answer = client.post("/v1/restore", content=encoded("JPEG") + hidden)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert b"<script>" not in answer.content


def test_no_error_names_a_path(client: Client, folder: Path) -> None:
    wide = encoded(pixels=np.zeros((2, 17_000, 3), np.uint8))
    detail = problem(client.post("/v1/restore?format=webp", content=wide), 422)
    assert "16383" in detail
    assert str(folder) not in detail


def test_forms_in_a_strange_encoding_are_refused(client: Client) -> None:
    head = {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}
    field = 'Content-Disposition: form-data; name="file"; filename="ä.png"'
    body = f"--x\r\n{field}\r\n\r\nabc\r\n--x--\r\n".encode()
    problem(client.post("/v1/restore", content=body, headers=head), 400)


def test_a_body_without_its_length_is_bounded_too(client: Client) -> None:
    parts = (bytes(100_000) for _ in range(5))
    problem(client.post("/v1/restore", content=parts), 413)


def test_forms_without_a_file_are_refused(client: Client) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    for content in (
        b"",
        b"--x\r\n",
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--',
    ):
        problem(client.post("/v1/restore", content=content, headers=kind), 422)


def test_other_sites_and_other_names_are_refused(client: Client) -> None:
    problem(client.get("/v1/models", headers={"Origin": "https://elsewhere.example"}), 403)
    problem(client.get("/v1/models", headers={"Host": "elsewhere.example"}), 403)
    for name in ("Host", "Origin"):
        problem(client.get("/v1/models", headers={name: "http://["}), 403)
    assert client.get("/v1/models", headers={"Origin": HERE}).status_code == 200


def test_an_origin_that_is_allowed(tmp_path: Path) -> None:
    origin = "https://friend.example"
    with client_of(service_in(tmp_path), origins=[origin]) as made:
        answer = made.get("/healthz", headers={"Origin": origin})
        asks = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = made.options("/v1/restore", headers=asks)
        stranger = {**asks, "Origin": "https://elsewhere.example"}
        problem(made.options("/v1/restore", headers=stranger), 403)
    assert answer.headers["access-control-allow-origin"] == origin
    assert preflight.status_code == 204
    assert "Authorization" in preflight.headers["access-control-allow-headers"]


def test_models_and_description(client: Client) -> None:
    names = [entry["name"] for entry in client.get("/v1/models").json()]
    assert {"rain", "haze"} <= set(names)
    told = client.get("/openapi.json").json()
    assert set(told["paths"]) == {
        *("/healthz", "/readyz", "/metrics", "/v1/models", "/v1/restore"),
        *("/v1/jobs", "/v1/jobs/{name}", "/v1/jobs/{name}/result"),
    }
    assert "HTTPValidationError" not in told["components"]["schemas"]
    assert (
        "application/problem+json"
        in told["paths"]["/v1/restore"]["post"]["responses"]["422"]["content"]
    )
    problem(client.get("/nowhere"), 404)
    problem(client.get("/v1/nowhere"), 404)
    problem(client.get("/v1/restore"), 405)
    for path in ("/healthz", "/readyz"):
        assert client.head(path).status_code == 200
        assert problem(client.post(path), 405)
    answer = client.put("/v1/jobs/0")
    problem(answer, 405)
    assert answer.headers["allow"] == "DELETE, GET"


def test_metrics_count(client: Client) -> None:
    client.post("/v1/restore", content=encoded())
    text = client.get("/metrics").text
    assert 'fairweather_requests_total{route="/v1/restore",status="200"}' in text
    assert "fairweather_waiting 0.0" in text


def test_a_key_is_asked_for(tmp_path: Path) -> None:
    with client_of(service_in(tmp_path, api_key=KEY)) as made:
        assert made.get("/healthz").status_code == 200
        problem(made.post("/v1/restore", content=encoded()), 401)
        problem(made.get("/metrics"), 401)
        wrong = {"Authorization": f"Bearer {KEY[:-1]}0x"}
        problem(made.post("/v1/restore", content=encoded(), headers=wrong), 401)
        right = {"Authorization": f"Bearer {KEY}"}
        assert made.post("/v1/restore", content=encoded(), headers=right).status_code == 200


def test_a_full_queue_and_a_closed_service(tmp_path: Path) -> None:
    service = service_in(tmp_path, queue=0)
    with client_of(service) as made:
        answer = made.post("/v1/restore", content=encoded())
        problem(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1
        for owner, name, value, said in (
            (service, "is_ready", False, "loading its weights"),
            (service.studio, "is_lost", True, "no worker process"),
            (service, "is_draining", True, "about to stop"),
        ):
            usual = getattr(owner, name)
            setattr(owner, name, value)
            for answer in (made.get("/readyz"), made.post("/v1/restore", content=encoded())):
                assert said in problem(answer, 503)
                assert int(answer.headers["retry-after"]) >= 1
            setattr(owner, name, usual)
        service.is_draining = True
        problem(made.post("/v1/jobs", content=encoded()), 503)
    with client_of(service_in(tmp_path, uploads_per_client=0)) as made:
        problem(made.post("/v1/restore", content=encoded()), 429)


def test_work_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with client_of(service_in(tmp_path, seconds=0.001)) as made:
        big = encoded(pixels=np.ascontiguousarray(data.astronaut()))
        detail = problem(made.post("/v1/restore?levels=1", content=big), 422)
    assert "/v1/jobs" in detail


def test_folders_of_killed_services_are_removed(tmp_path: Path) -> None:
    with private_folder(tmp_path) as held:
        left = tmp_path / "fairweather-serve-left"
        left.mkdir()
        (left / "lock").touch()
        (left / "photo.png").touch()
        with private_folder(tmp_path) as other:
            assert {path.name for path in tmp_path.iterdir()} == {held.name, other.name}
            assert other.stat().st_mode & 0o77 == 0
        assert not other.exists()


@pytest.mark.parametrize("text", ["short", "", "é" * 40])
def test_a_poor_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text, "utf-8")
    result = CliRunner().invoke(cli.app, ["serve", "--api-key-file", str(tmp_path / "key")])
    assert isinstance(result.exception, OptionError)
    assert "at least 16 plain characters" in str(result.exception)


def test_the_folder_for_temporary_files_is_made_or_told(tmp_path: Path) -> None:
    with private_folder(tmp_path / "a" / "b") as folder:
        assert folder.parent == tmp_path / "a" / "b"
    assert not folder.exists()
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match=r"file' takes no temporary files.*--folder or TMPDIR"):
        private_folder(tmp_path / "file").__enter__()
