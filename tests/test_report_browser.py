"""The report in Chromium: sliders move, tables sort, and no request leaves the machine."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_sets import save, scene, write_set, write_weights

from fairweather.evaluation import (
    ReportWriter,
    evaluate,
    evaluate_photos,
    find_photos,
    find_test_sets,
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
CHROMIUM = next((found for name in NAMES if (found := shutil.which(name))), None)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two weights, two sets, names that HTML must not mistake, an infinite PSNR and a fault."""
    root = tmp_path_factory.mktemp("report")
    write_set(root / "sets" / "rain" / "Rain100L", count=11)
    write_set(root / "sets" / "rain" / "a <b> & 'c' with a name that goes on and on", count=2)
    save(root / "sets" / "rain" / "Rain100L" / "input" / "3.png", scene(3))
    save(root / "sets" / "rain" / "Rain100L" / "input" / "lone.png", scene(3))
    weights = [
        write_weights(root / 'one "quoted".safetensors'),
        write_weights(root / "two.safetensors", strength=0.3),
    ]
    sets = find_test_sets(root / "sets")
    with ReportWriter(root / "out", images=13) as writer:
        done = evaluate(sets, weights=weights, protocol="plain", device="cpu", on_image=writer.add)
        return writer.finish(done)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(f"no Chromium on this machine: none of {', '.join(NAMES)} is on the PATH")
    api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'"
    )
    with api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


class Watched:
    """A page that may ask for nothing but files; its requests and complaints are gathered."""

    def __init__(self, browser: Any, path: Path, **options: Any):
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.context = browser.new_context(**options)
        self.context.route("**/*", self.decide)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri())

    def decide(self, route: Any) -> None:
        local = route.request.url.startswith(("file:", "data:"))
        (route.continue_ if local else route.abort)()

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []
        assert [url for url in self.requests if not url.startswith(("file:", "data:"))] == []


@pytest.fixture
def watched(browser: Any, report: Path) -> Iterator[Any]:
    watched = Watched(browser, report, viewport={"width": 1280, "height": 900})
    yield watched.page
    watched.close()


def clip(card: Any) -> str:
    return card.locator(".slider .after").evaluate("one => getComputedStyle(one).clipPath")


def texts(page: Any, selector: str) -> list[str]:
    return page.locator(selector).all_text_contents()


def test_no_request_leaves_the_machine(browser: Any, report: Path) -> None:
    watched = Watched(browser, report)
    widths = watched.page.locator("img").evaluate_all(
        "all => Promise.all(all.map(one => {"
        " one.loading = 'eager'; return one.decode().then(() => one.naturalWidth); }))"
    )
    crops = 2 * 13  # five panels of 24 px and four gaps of 4 px
    assert sorted(widths) == [32] * 5 * 13 + [5 * 24 + 4 * 4] * crops
    watched.page.locator("button").evaluate_all("all => all.forEach(one => one.click())")
    assert [url for url in watched.requests if not url.startswith("data:")] == [report.as_uri()]
    watched.close()


def test_sliders_move_by_keyboard_and_mouse(watched: Any) -> None:
    card, other = watched.locator(".card").nth(0), watched.locator(".card").nth(1)
    assert clip(card) == "inset(0px 0px 0px 50%)"
    slider = card.locator(".slider input")
    slider.focus()
    for _ in range(4):
        watched.keyboard.press("ArrowRight")
    assert clip(card) == "inset(0px 0px 0px 52%)"
    watched.keyboard.press("Home")
    assert clip(card) == "inset(0px 0px 0px 0%)"
    box = slider.bounding_box()
    watched.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    watched.mouse.down()
    watched.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + box["height"] / 2, steps=5)
    watched.mouse.up()
    assert 75 < float(clip(card).split()[-1].rstrip("%)")) < 85
    assert clip(other) == "inset(0px 0px 0px 50%)"


def test_headings_sort_up_and_down(watched: Any) -> None:
    table = "table.sortable tbody tr"

    def column(place: int) -> list[str]:
        return texts(watched, f"{table} td:nth-child({place})")

    heads = texts(watched, "table.sortable th")
    assert heads[:4] == ["test set", "image", "model", "size"]
    listed = column(2)
    assert len(listed) == 26
    watched.get_by_role("button", name="image", exact=True).click()
    assert [int(name) for name in column(2)] == sorted(int(name) for name in listed)  # 2 before 10
    head = watched.locator("table.sortable th").nth(1)
    assert head.get_attribute("aria-sort") == "ascending"
    watched.get_by_role("button", name="image", exact=True).click()
    assert head.get_attribute("aria-sort") == "descending"
    assert [int(name) for name in column(2)] == sorted((int(n) for n in listed), reverse=True)

    psnr = heads.index("PSNR [dB]") + 1
    watched.get_by_role("button", name="PSNR [dB]", exact=True).click()
    assert head.get_attribute("aria-sort") is None
    rising = [float("inf") if text == "∞" else float(text) for text in column(psnr)]
    assert rising == sorted(rising)
    assert rising[-1] == float("inf")
    gain = heads.index("gain [dB]") + 1
    for direction in (1, -1):
        watched.get_by_role("button", name="gain [dB]", exact=True).click()
        shown = column(gain)
        assert shown[-2:] == ["–", "–"]  # not known, whatever the order
        known = [direction * float(text) for text in shown[:-2]]
        assert known == sorted(known)


def test_pictures_are_ordered(watched: Any) -> None:
    def ranks() -> list[str]:
        return watched.locator(".card").evaluate_all("all => all.map(one => one.dataset.rank)")

    least = ranks()
    assert least[-1] == ""
    assert least[:-1] == sorted(least[:-1], key=float)
    assert watched.get_by_role("button", name="least gain first").get_attribute("aria-pressed") == (
        "true"
    )
    watched.get_by_role("button", name="most gain first").click()
    most = ranks()
    assert most[-1] == ""
    assert most[:-1] == sorted(least[:-1], key=float, reverse=True)
    watched.get_by_role("button", name="as listed").click()
    ids = watched.locator(".card").evaluate_all("all => all.map(one => one.id)")
    assert ids == [f"image-{number}" for number in range(13)]


def test_views_swap_the_picture_of_their_side(watched: Any) -> None:
    card = watched.locator(".card").nth(0)
    left, right = (card.locator(f".slider .{side}") for side in ("before", "after"))
    before = left.get_attribute("src"), right.get_attribute("src")
    seen = set()
    for name in ("two", "clean", "error", 'one "quoted"'):
        button = card.locator('[data-side="after"]').get_by_role("button", name=name, exact=True)
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert card.locator('[data-side="after"] [aria-pressed="true"]').count() == 1
        assert card.locator(".right").text_content() == name
        assert right.evaluate("one => one.decode().then(() => one.naturalWidth)") == 32
        seen.add(right.get_attribute("src"))
    assert len(seen) == 4
    assert (left.get_attribute("src"), right.get_attribute("src")) == before
    card.locator('[data-side="before"]').get_by_role("button", name="two", exact=True).click()
    assert left.get_attribute("src") in seen
    assert card.locator(".left").text_content() == "two"


def test_a_name_leads_to_its_picture(watched: Any) -> None:
    watched.get_by_role("link", name="11", exact=True).first.click()
    card = watched.locator(".card:target")
    assert card.locator("h3").text_content() == "Rain100L: 11"
    card.locator("summary").click()
    card.locator("details img").first.wait_for(state="visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_screen_needs_no_sideways_scrolling(
    browser: Any, report: Path, scheme: str
) -> None:
    watched = Watched(browser, report, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= 390
    ink, paper = watched.page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.querySelector("
        "'table.sortable thead')).backgroundColor]"
    )
    assert ink == ("rgb(255, 255, 255)" if scheme == "dark" else "rgb(0, 0, 0)")
    assert ink != paper
    watched.close()


def test_photographs_have_sliders_too(browser: Any, report: Path, tmp_path: Path) -> None:
    root = report.parents[1]
    photos = find_photos(root / "sets" / "rain" / "Rain100L" / "input")
    with ReportWriter(tmp_path / "photos", images=12) as writer:
        page = writer.finish(
            evaluate_photos(
                photos, weights=[root / "two.safetensors"], device="cpu", on_image=writer.add
            )
        )
    watched = Watched(browser, page)
    ranks = watched.page.locator(".card").evaluate_all("all => all.map(one => +one.dataset.rank)")
    assert ranks == sorted(ranks, reverse=True)
    assert "nothing here measures fidelity" in watched.page.locator(".warning").text_content()
    card = watched.page.locator(".card").nth(0)
    card.get_by_role("button", name="change", exact=True).click()
    assert card.locator(".right").text_content() == "change"
    watched.page.get_by_role("button", name="blur", exact=True).click()
    watched.close()
