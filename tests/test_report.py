"""The folder of a report: what it holds, what it replaces, what an interrupt leaves."""

import csv
import html.parser
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_sets import degrade, save, scene, write_set, write_weights

from fairweather.errors import DataError
from fairweather.evaluation import (
    PROTOCOLS,
    Evaluation,
    Images,
    ReportWriter,
    Row,
    SetResult,
    TestSet,
    evaluate,
    evaluate_photos,
    evaluate_results,
    find_photos,
    find_test_sets,
    match_results,
)
from fairweather.evaluation.report import writer as room
from fairweather.evaluation.report.page import render_card

Make = Callable[..., Evaluation]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "mine.safetensors", strength=0.3)


@pytest.fixture
def make(tmp_path: Path, weights: Path) -> Make:
    """Writes a report of two sets."""
    write_set(tmp_path / "sets" / "rain" / "Rain100L")
    write_set(tmp_path / "sets" / "rain" / "<b>ü &", count=2)

    def make(folder: Path, *more: Path, protocol: str = "plain") -> Evaluation:
        sets = find_test_sets(tmp_path / "sets")
        with ReportWriter(folder, images=5, overwrite=True) as writer:
            done = evaluate(
                sets,
                weights=[weights, *more],
                protocol=protocol,
                device="cpu",
                on_image=writer.add,
            )
            assert writer.finish(done) == folder / "report.html"
        return done

    return make


class Links(html.parser.HTMLParser):
    """Gathers what a page refers to, and checks that its elements are closed."""

    VOID = ("meta", "link", "img", "input", "br", "rect")

    def __init__(self, page: Path):
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.views = 0
        self.feed(page.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        self.views += ("class", "after") in attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_a_report_is_complete_and_asks_for_nothing(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    done = make(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "figures", "report.html", "results.csv", "results.json",
    ]  # fmt: skip
    page = (folder / "report.html").read_text(encoding="utf-8")
    links = Links(folder / "report.html")
    assert links.views == 5
    assert all(
        link.startswith(("data:image/jpeg;base64,", "#image-", "data:,")) for link in links.links
    )
    assert not re.search(r"https?://|@import|url\(", page)
    assert "&lt;b&gt;ü &amp;" in page
    assert "<b>ü" not in page
    for words in (
        "scored under the protocol 'plain'",
        "Restormer",
        "not comparable: ours is the mean of 3 images, theirs of 100",
        "trained on noise, SHA-256 " + done.weights[0].sha256,
        "scikit-image 0.",
        "window Gaussian 11, σ 1.5",
        "merged without a seam",
        "least gain first",
        "hurt most: 24 px from row 0",
    ):
        assert words in page, words
    tree = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert [one["count"] for one in tree["sets"]] == [2, 3]
    with (folder / "results.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 10


def test_figures_are_the_best_and_the_worst(make: Make, tmp_path: Path) -> None:
    done = make(tmp_path / "report")
    figures = tmp_path / "report" / "figures"
    kinds = ("worst", "best", "helped_most", "hurt_most", "gain")
    names = {f"{one}-{kind}.png" for one in ("Rain100L", "_b_ü_") for kind in kinds}
    assert {path.name for path in figures.iterdir()} == names
    result = done.sets[1]
    assert result.name == "Rain100L"
    gains = [row.gain_db("mine") for row in result.rows]
    for kind, pick in (("worst", np.argmin), ("best", np.argmax)):
        number = int(pick(gains)) + 1
        with Image.open(figures / f"Rain100L-{kind}.png") as image:
            panel = np.asarray(image)[:, :32]
        degraded = degrade(scene(number), seed=number, amplitude=10 * number)
        np.testing.assert_array_equal(panel, degraded)


def test_weights_are_compared_on_one_page(make: Make, tmp_path: Path) -> None:
    other = write_weights(tmp_path / "other.safetensors", strength=0.6, seed=1)
    make(tmp_path / "report", other)
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count('data-side="before"') == page.count('data-side="after"') == 5
    assert page.count("</figure>") == 4
    names = {path.name for path in (tmp_path / "report" / "figures").iterdir()}
    assert {"Rain100L-mine-gain.png", "Rain100L-other-gain.png"} < names


def test_results_and_photographs_have_reports_too(tmp_path: Path, weights: Path) -> None:
    write_set(tmp_path / "set")
    results = match_results(tmp_path / "set" / "input", tmp_path / "set" / "target")
    with ReportWriter(tmp_path / "a", images=3) as writer:
        writer.finish(evaluate_results(results, protocol="agan", on_image=writer.add))
    page = (tmp_path / "a" / "report.html").read_text(encoding="utf-8")
    assert "lowest PSNR first" in page
    assert "the images were restored elsewhere" in page
    assert "<h2>Gain</h2>" not in page
    Links(tmp_path / "a" / "report.html")
    assert {path.name for path in (tmp_path / "a" / "figures").iterdir()} == {
        "input-best.png", "input-worst.png",
    }  # fmt: skip
    with ReportWriter(tmp_path / "b", images=3) as writer:
        photos = find_photos(tmp_path / "set" / "input")
        writer.finish(evaluate_photos(photos, weights=[weights], device="cpu", on_image=writer.add))
    page = (tmp_path / "b" / "report.html").read_text(encoding="utf-8")
    assert "nothing here measures fidelity" in page
    assert 'data-first="most"' in page
    assert ">PSNR" not in page
    assert "<h2>Gain</h2>" not in page
    Links(tmp_path / "b" / "report.html")
    assert json.loads((tmp_path / "b" / "results.json").read_text())["protocol"] is None


def test_faults_and_infinity_are_on_the_page(make: Make, tmp_path: Path) -> None:
    save(tmp_path / "sets" / "rain" / "Rain100L" / "input" / "lone.png", scene(1))
    inputs = tmp_path / "sets" / "rain" / "Rain100L" / "input"
    save(inputs / "2.png", scene(2))
    same = write_weights(tmp_path / "same.safetensors")
    make(tmp_path / "report", same)
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "<h2>Not evaluated</h2>" in page
    assert "lone" in page
    assert "∞" in page
    assert 'class="note">of 2</span>' in page
    assert 'data-value="Infinity"' in page


def test_an_older_report_is_replaced_and_nothing_else(make: Make, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    make(folder)
    (folder / "figures" / "paper.pdf").touch()
    (folder / "figures" / "old-best.png").touch()
    before = (folder / "report.html").read_bytes()
    with pytest.raises(DataError, match=r"report\.html' exists already; .* --overwrite"):
        ReportWriter(folder, images=1)
    assert (folder / "report.html").read_bytes() == before
    make(folder, protocol="agan")
    assert (folder / "report.html").read_bytes() != before
    assert (folder / "figures" / "paper.pdf").exists()
    assert not (folder / "figures" / "old-best.png").exists()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"holds 'notes.txt', which is no part of a report"):
        ReportWriter(folder, images=1)


@pytest.mark.parametrize("name", ["results.json", "report.html", "figures"])
def test_what_only_looks_like_a_report_is_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("of another program")
    with pytest.raises(DataError, match=f"holds '{name}'"):
        ReportWriter(tmp_path / "mine", images=1)
    with pytest.raises(DataError, match="is a file"):
        ReportWriter(tmp_path / "mine" / name, images=1)
    assert (tmp_path / "mine" / name).read_text() == "of another program"


def test_an_interrupt_leaves_no_half_of_a_report(make: Make, tmp_path: Path, weights: Path) -> None:
    def interrupted(folder: Path) -> None:
        sets = find_test_sets(tmp_path / "sets")
        writer = ReportWriter(folder, images=5, overwrite=True)

        def stop(*given) -> None:
            writer.add(*given)
            if writer.count == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt), writer:
            evaluate(sets, weights=[weights], protocol="plain", device="cpu", on_image=stop)

    interrupted(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    make(tmp_path / "old")
    files = {p: p.read_bytes() for p in (tmp_path / "old").rglob("*") if p.is_file()}
    interrupted(tmp_path / "old")
    assert {p: p.read_bytes() for p in (tmp_path / "old").rglob("*") if p.is_file()} == files
    assert not (tmp_path / "old" / room.UNFINISHED).exists()
    (tmp_path / "killed" / room.UNFINISHED / "cards").mkdir(parents=True)
    (tmp_path / "killed" / room.UNFINISHED / "cards" / "1.html").write_text("half")
    make(tmp_path / "killed")
    assert "half" not in (tmp_path / "killed" / "report.html").read_text(encoding="utf-8")


def test_a_full_disk_is_one_line(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Path.open

    def full(path: Path, mode: str = "r", **options: Any) -> Any:
        if mode == "w":
            raise OSError(28, "No space left on device")
        return opened(path, mode, **options)

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match=r"report: cannot be written: No space left on device"):
        make(tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("images", [1, 400, 50_000])
def test_pictures_fit_into_the_page(tmp_path: Path, images: int) -> None:
    """Whatever they show; below 96 px they would show nothing."""
    noise = np.random.default_rng(0).random((3, 600, 900, 3)).astype(np.float32)
    figures = {"psnr_db": 20.0, "ssim": 0.5}
    row = Row("a", 600, 900, figures, {"mine": figures})
    result = SetResult(TestSet("set", "rain", ()), [row])
    with ReportWriter(tmp_path / "report", images=images) as writer:
        whole = Evaluation(PROTOCOLS["plain"], "ours", sets=[result])
        writer.add(whole, result, row, Images(noise[0], {"mine": noise[1]}, noise[2]))
        card = (writer.work / "cards" / "00000000.html").read_text(encoding="utf-8")
    assert len(card) < max(room.PAGE_BYTES / images + 5_000, 45_000)
    assert ("helped" in card) is (images < 800)
    width = int(re.findall(r'class="after"[^>]* width="(\d+)"', card)[0])
    assert 96 <= width <= 800


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            {"psnr_db": 20, "ssim": 0.5},
            {"psnr_db": 26, "ssim": 0.75},
            "input 20.00 dB / 0.5000; &lt;mine&gt; 26.00 dB / 0.7500"
            ' (<span class="better">+6.00</span>&nbsp;dB)',
        ),
        (
            {"psnr_db": 20, "ssim": 0.5},
            {"psnr_db": 19, "ssim": 0.5},
            "input 20.00 dB / 0.5000; &lt;mine&gt; 19.00 dB / 0.5000"
            ' (<span class="worse">-1.00</span>&nbsp;dB)',
        ),
        (None, {"psnr_db": 20.001, "ssim": 0.5}, "&lt;mine&gt; 20.00 dB / 0.5000"),
        (
            {"psnr_db": 20, "ssim": 0.5},
            {"psnr_db": 20.001, "ssim": 0.5},
            "input 20.00 dB / 0.5000; &lt;mine&gt; 20.00 dB / 0.5000 (0.00&nbsp;dB)",
        ),
        (
            {"blur": 0.25},
            {"blur": 0.125, "change_levels": 2},
            "input: blur 0.250; &lt;mine&gt;: blur 0.125, change 2.00 of 255",
        ),
    ],
)
def test_a_card_names_the_figures_of_its_image(before, after, line: str) -> None:
    picture = np.zeros((8, 8, 3), np.float32)
    card = render_card(
        Row("a", 8, 8, before, {"<mine>": after}),
        Images(picture, {"<mine>": picture}, None),
        crops=[],
        number=3,
        title="set: <a>",
        rank=0.5,
        budget_bytes=1e6,
    )
    assert f"<p>{line}</p>" in card
    assert "<h3>set: &lt;a&gt;</h3>" in card
    assert 'id="image-3" data-index="3" data-rank="0.500000"' in card
    assert "<mine>" not in card
