"""The site builds without a warning, its links lead somewhere, and everybody can read it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from filelock import FileLock

pytest.importorskip("zensical", reason="NOT TESTED: the site, because the extra docs is missing")

from served import find_browser

from site_reference import PACKAGE, WINGS

ROOT = Path(__file__).parents[1]
BROWSER = find_browser()
PAGES = (
    "index.html",
    "start/photographer.html",
    "guides/train.html",
    "reference/cli.html",
    "reference/python/fairweather.html",
    "results/quality.html",
)
SIZES: Any = ({"width": 1280, "height": 900}, {"width": 390, "height": 844})


def test_the_reference_knows_every_wing() -> None:
    wings = {path.parent.name for path in PACKAGE.glob("*/__init__.py")} - {"cli", "weights"}
    assert {wing.partition(".")[2] for wing in WINGS} - {""} == wings


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it, without a network, once for all workers."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if os.environ.get("PYTEST_XDIST_WORKER") else shared
    with FileLock(shared / "site.lock"):
        if not (shared / "site.log").exists():
            (shared / "site.log").write_text(build())
    assert "No issues found" in (shared / "site.log").read_text()
    return ROOT / "build" / "site"


def build() -> str:
    """What the build of the site prints."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "build_site.py")],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Links(HTMLParser):
    """The links, pictures and anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := told.get(name))}
        target = told.get("href" if tag in {"a", "link"} else "src")
        if target and tag in {"a", "link", "img", "script"} and told.get("rel") != "canonical":
            self.targets.append(target)


@pytest.mark.slow
def test_every_link_and_anchor_leads_somewhere(site: Path) -> None:
    pages = {path: Links(path.read_text("utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 60
    faults = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links start at the root of wherever the site lies
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme:
                assert parts.scheme in {"http", "https", "mailto", "data"}, (path, target)
                continue
            to = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            to = to / "index.html" if to.is_dir() else to
            known = to in pages and (not parts.fragment or parts.fragment in pages[to].anchors)
            if not known and not (to.is_file() and to.suffix != ".html"):
                faults.append(f"{path.relative_to(site)}: {target}")
    assert faults == []


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("NOT TESTED: the site in a browser, without a Chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=BROWSER, args=arguments)
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    handler = partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_no_other_host_and_is_accessible(name: str, address: str, browser: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for scheme in ("light", "dark"):
        for size in SIZES:
            context = browser.new_context(viewport=size, color_scheme=scheme)
            page = context.new_page()
            requests: list[str] = []
            page.on("request", lambda request, seen=requests: seen.append(request.url))
            page.goto(address + name)
            page.wait_for_load_state("networkidle")
            assert [url for url in requests if not url.startswith((address, "data:"))] == []
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, (name, size)
            found = Axe().run(page).response["violations"]
            serious = [
                (fault["id"], [node["html"] for node in fault["nodes"]][:3])
                for fault in found
                if fault["impact"] in {"serious", "critical"}
            ]
            assert serious == [], (name, size, scheme)
            context.close()


@pytest.mark.slow
def test_the_slider_moves_by_mouse_and_by_keyboard(address: str, browser: Any) -> None:
    page = browser.new_page(viewport=SIZES[1])
    page.goto(address + "index.html")
    slider = page.get_by_role("slider").first
    assert re.fullmatch("From “.+” to “.+”", slider.get_attribute("aria-label"))
    stage = page.locator(".compare-stage").first
    at = "element => element.style.getPropertyValue('--at')"
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert stage.evaluate(at) == "51%"
    box = slider.bounding_box()
    page.mouse.click(box["x"] + 0.1 * box["width"], box["y"] + 0.5 * box["height"])
    assert float(stage.evaluate(at).rstrip("%")) < 20
    page.close()
