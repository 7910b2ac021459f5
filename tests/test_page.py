"""The page in a real browser: the command's file, nothing from elsewhere, usable by everyone."""

import io
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image
from skimage import data
from typer.testing import CliRunner

pytest.importorskip("gradio", reason="NOT TESTED: the page, because the extra serve is missing")

import httpx
from served import Served, find_browser, serving

from fairweather import cli

BROWSER = find_browser()
pytestmark = pytest.mark.skipif(BROWSER is None, reason="NOT TESTED: the page, without a Chromium")
PHONE: Any = {"width": 390, "height": 844}
DESKTOP: Any = {"width": 1280, "height": 900}
SECONDS = 60_000


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    with serving(folder, "--max-upload-mib", "1", "--max-pixels", "400000") as made:
        yield made
        lines = made.lines
    assert not [line for line in lines if "unexpected" in line or line["level"] == "error"]


@pytest.fixture
def page(served: Served) -> Iterator[Any]:
    """A page whose requests are noted."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        page = browser.new_page(viewport=DESKTOP)
        hosts: set[str] = set()
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(served.url)
        page.get_by_role("button", name="Restore", exact=True).wait_for()
        yield page
        browser.close()
        assert hosts <= {urlsplit(served.url).netloc, ""}  # the last is what a page makes itself


def encoded(form: str = "JPEG") -> bytes:
    file = io.BytesIO()
    photo = Image.fromarray(np.ascontiguousarray(data.astronaut()[20:180, 180:340]))
    photo.save(file, form, comment=b"a comment") if form == "JPEG" else photo.save(file, form)
    return file.getvalue()


def by_pillow(photo: Image.Image) -> bytes:
    file = io.BytesIO()
    photo.save(file, "PNG")
    return file.getvalue()


def upload(page: Any, name: str, content: bytes) -> None:
    kinds = {".jpg": "image/jpeg", ".tif": "image/tiff", ".txt": "text/plain"}
    kind = kinds.get(Path(name).suffix, "image/png")
    page.locator("input[type=file]").first.set_input_files(
        {"name": name, "mimeType": kind, "buffer": content}
    )


def choose(page: Any, what: str) -> None:
    page.get_by_label("What spoils it").first.click()
    page.get_by_role("option", name=what, exact=True).click()


def restore(page: Any, strength: str = "100%") -> bytes:
    """Press the button, and return the file that can be downloaded then."""
    page.get_by_role("button", name="Restore", exact=True).click()
    told = page.locator("#found").get_by_text(f"at {strength} strength")
    told.wait_for(timeout=SECONDS)
    with page.expect_download() as waiting:
        page.get_by_text("Download the result").click()
    assert waiting.value.suggested_filename.startswith("my photo.restored.")
    return Path(waiting.value.path()).read_bytes()


def by_command(folder: Path, name: str, content: bytes, *options: str) -> bytes:
    (folder / name).write_bytes(content)
    target = folder / f"out{Path(name).suffix}"
    arguments = ["restore", str(folder / name), "-o", str(target), "--overwrite", *options]
    result = CliRunner().invoke(cli.app, [*arguments, "--device", "cpu"])
    assert result.exit_code == 0, result.output
    return target.read_bytes()


@pytest.mark.slow
def test_a_photograph_is_restored_as_by_the_command(page: Any, tmp_path: Path) -> None:
    content = encoded()
    upload(page, "my photo.jpg", content)
    choose(page, "Rain")
    assert restore(page) == by_command(tmp_path, "my photo.jpg", content)

    slider = page.locator(".slider-wrap").first
    assert slider.is_visible()
    images = page.locator(".slider-wrap img")
    assert images.count() == 2
    assert images.first.evaluate("image => image.naturalWidth") == 160  # at full resolution
    box = slider.bounding_box()
    middle = box["y"] + box["height"] / 2
    clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": box["height"]}
    before = page.screenshot(clip=clip)
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 20, middle, steps=5)
    page.mouse.up()
    assert page.screenshot(clip=clip) != before

    page.get_by_label("number input for Strength").first.fill("0.5")
    page.keyboard.press("Tab")
    half = restore(page, "50%")
    assert half == by_command(tmp_path, "my photo.jpg", content, "--strength", "0.5")


@pytest.mark.slow
def test_what_cannot_be_restored_is_told(page: Any) -> None:
    upload(page, "broken.png", encoded("PNG")[:900])
    page.get_by_role("button", name="Restore", exact=True).click()
    page.get_by_text(re.compile("damaged|cut off|cannot be read")).first.wait_for(timeout=SECONDS)
    page.reload()
    page.get_by_role("button", name="Restore", exact=True).wait_for()
    upload(page, "large.png", by_pillow(Image.new("RGB", (700, 700))))
    page.get_by_role("button", name="Restore", exact=True).click()
    page.get_by_text(re.compile("more than the 400,000")).first.wait_for(timeout=SECONDS)
    for name, content, told in (
        ("notes.txt", b"This is a letter.", "Invalid file type"),
        ("letter.png", b"This is a letter.", "is not an image"),
        ("heavy.png", bytes(1_100_000), "maximum allowed size"),
    ):
        page.reload()
        page.get_by_role("button", name="Restore", exact=True).wait_for()
        upload(page, name, content)
        if name == "letter.png":
            page.get_by_role("button", name="Restore", exact=True).click()
        page.get_by_text(told).first.wait_for(timeout=SECONDS)


@pytest.mark.slow
def test_an_example_is_restored_and_gives_way_to_another(page: Any) -> None:
    page.get_by_text("appears here").first.wait_for()
    page.locator("table img").first.click()
    page.locator(".image-frame img").first.wait_for()
    assert page.get_by_label("What spoils it").first.input_value() == "Rain"
    page.get_by_role("button", name="Restore", exact=True).click()
    page.locator("#found").get_by_text("at 100% strength").wait_for(timeout=SECONDS)
    page.locator("table img").last.click()
    page.get_by_text("appears here").first.wait_for()
    assert not page.get_by_text("Download the result").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everyone_can_use_it(page: Any, size: dict[str, int], scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(size)
    page.reload()
    page.get_by_role("button", name="Restore", exact=True).wait_for()
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= size["width"]  # nothing to scroll sideways
    found = Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    told = [(one["id"], [node["html"][:160] for node in one["nodes"]]) for one in serious]
    assert not told, told


@pytest.mark.slow
def test_several_files_become_a_zip(page: Any) -> None:
    import zipfile

    page.get_by_role("tab", name="Several files").click()
    files = [
        {"name": name, "mimeType": "image/jpeg", "buffer": content}
        for name, content in (("a.jpg", encoded()), ("b.jpg", b"no image"))
    ]
    page.locator(
        "input[type=file]:visible, .tabitem:visible input[type=file]"
    ).last.set_input_files(files)
    page.locator(".file-preview").wait_for()
    page.get_by_role("button", name="Restore all").click()
    page.get_by_text(re.compile("is not an image")).first.wait_for(timeout=SECONDS)
    with page.expect_download() as waiting:
        page.get_by_text("Download all as a zip").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert archive.namelist() == ["a.restored.jpg"]


def test_gradio_gives_no_other_file_and_fetches_nothing(tmp_path: Path) -> None:
    """What the page's own framework would do for anyone who asks."""
    secret = tmp_path / "secret.txt"
    secret.write_text("nobody's business")
    place = tmp_path / "service"
    place.mkdir()
    with serving(place) as served:
        ask_for(served, secret)
        assert httpx.head(f"{served.url}/healthz").status_code == 200  # not the page
        assert httpx.post(f"{served.url}/metrics").status_code == 405


def ask_for(served: Served, secret: Path) -> None:
    """Try to have a file, or what lies elsewhere, by what Gradio offers."""
    api = f"{served.url}/gradio_api"
    for place in (f"file={secret}", "file=http://example.org/a.png", "deep_link", "info"):
        answer = httpx.get(f"{api}/{place}", params={"session_hash": "s"})
        assert "nobody's business" not in answer.text
        assert (answer.status_code == 200) == (place == "info")
    for name in ("run/predict", "call/predict", "process_recording", "component_server"):
        assert httpx.post(f"{api}/{name}", json={}).status_code == 403
    config = httpx.get(f"{served.url}/config").json()
    index = next(one["id"] for one in config["dependencies"] if len(one["inputs"]) == 3)
    for path in (str(secret), "http://127.0.0.1:1/a.png"):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        call = {"data": [file, "rain", 1], "fn_index": index, "session_hash": "s"}
        assert httpx.post(f"{api}/queue/join", json=call).status_code == 200
        with httpx.stream("GET", f"{api}/queue/data?session_hash=s", timeout=30) as events:
            told = "".join(text for text in events.iter_text())
        assert '"success":false' in told
        assert str(served.folder) not in told.replace(path, "")
        (folder,) = served.folder.glob("fairweather-serve-*")
        assert not list(folder.rglob("secret.txt"))
