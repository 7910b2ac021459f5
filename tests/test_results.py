"""results.json and results.csv, and the small document of `--restored --json`."""

import csv
import io
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from fairweather.errors import DataError
from fairweather.evaluation import (
    PROTOCOLS,
    RESTORED,
    Evaluation,
    Item,
    Row,
    SetResult,
    TestSet,
    as_results_tree,
    as_tree,
    figure_text,
    label,
    read_results,
)
from fairweather.evaluation.results import as_table
from fairweather.evaluation.weights import WeightsFacts

MINE = WeightsFacts("mine", "mine.safetensors", False, "ab" * 32, 1000, "rain", "noise")
SET = TestSet("Rain100L", "rain", (Item("a", Path("a.png")),), benchmark="rain100l")


def row(
    name: str, before: float | None, after: float, *, column: str = "mine", **also: float
) -> Row:
    """With PSNR alone told; SSIM is a hundredth of it."""
    figures = [
        None if psnr is None else {"psnr_db": psnr, "ssim": 0.5, **also} for psnr in (before, after)
    ]
    return Row(name, 30, 40, figures[0], {column: figures[1] or {}}, {column: 0.25})


def evaluation(*rows: Row, **changes: Any) -> Evaluation:
    about = {
        "protocol": PROTOCOLS["plain"],
        "inference": "ours",
        "weights": [MINE],
        "device": "cpu",
    }
    return Evaluation(
        **(about | changes),
        sets=[SetResult(SET, list(rows), faults=["'b' of Rain100L: is damaged"])],
    )


def test_the_tree_holds_figures_means_and_where_they_are_from() -> None:
    done = evaluation(row("a", 20, 26), row("b", 30, 31))
    tree = json.loads(json.dumps(as_tree(done), allow_nan=False))
    assert tree["protocol"]["name"] == "plain"
    assert tree["protocol"]["ssim"]["window"] == "Gaussian 11, σ 1.5"
    assert tree["versions"]["torch"] == version("torch")
    assert tree["weights"][0]["sha256"] == "ab" * 32
    assert tree["faults"] == ["'b' of Rain100L: is damaged"]
    (one,) = tree["sets"]
    assert (one["name"], one["task"], one["count"]) == ("Rain100L", "rain", 2)
    assert one["mean"] == {
        "input": {"psnr_db": 25, "ssim": 0.5},
        "restored": {"mine": {"psnr_db": 28.5, "ssim": 0.5, "gain_db": 3.5}},
    }
    assert one["images"][0] == {
        "name": "a",
        "height": 30,
        "width": 40,
        "input": {"psnr_db": 20, "ssim": 0.5},
        "restored": {"mine": {"psnr_db": 26, "ssim": 0.5, "gain_db": 6, "seconds": 0.25}},
    }
    published = one["published"]
    assert (published["model"], published["psnr_db"]) == ("Restormer", 39.10)
    assert len(published["not_comparable_because"]) == 3


def test_infinity_is_null_and_counted() -> None:
    done = evaluation(row("a", 20, math.inf), row("b", math.inf, math.inf), row("c", 20, 24))
    (one,) = as_tree(done)["sets"]
    assert [image["restored"]["mine"]["psnr_db"] for image in one["images"]] == [None, None, 24]
    assert [image["restored"]["mine"]["gain_db"] for image in one["images"]] == [None, None, 4]
    assert one["mean"]["input"] == {"psnr_db": 20, "ssim": 0.5, "mean_of": {"psnr_db": 2}}
    assert one["mean"]["restored"]["mine"] == {
        "psnr_db": 24, "ssim": 0.5, "gain_db": 4, "mean_of": {"psnr_db": 1, "gain_db": 1},
    }  # fmt: skip
    json.dumps(as_tree(done), allow_nan=False)


def test_the_document_of_results() -> None:
    rows = [row(name, None, psnr, column=RESTORED) for name, psnr in (("a", 30), ("b", math.inf))]
    done = evaluation(*rows, weights=[], inference=None)
    assert as_results_tree(done) == {
        "protocol": "plain",
        "images": [
            {"name": "a", "psnr_db": 30, "ssim": 0.5},
            {"name": "b", "psnr_db": None, "ssim": 0.5},
        ],
        "mean": {"psnr_db": 30, "ssim": 0.5, "mean_of": {"psnr_db": 1}},
    }
    with_input = as_results_tree(evaluation(row("a", 20, 26, column=RESTORED), weights=[]))
    assert with_input["images"][0]["input"] == {"psnr_db": 20, "ssim": 0.5}
    assert with_input["mean"]["input"] == {"psnr_db": 20, "ssim": 0.5}
    assert with_input["mean"]["gain_db"] == 6
    assert as_results_tree(evaluation(weights=[])) == {
        "protocol": "plain",
        "images": [],
        "mean": {},
    }


def test_the_table_has_every_figure() -> None:
    done = evaluation(row('a, "b"', 20, math.inf, lab_mae=3.5), row("c", None, 24))
    lines = list(csv.DictReader(io.StringIO(as_table(done))))
    assert [(line["image"], line["weights"]) for line in lines] == [
        ('a, "b"', "input"), ('a, "b"', "mine"), ("c", "mine"),
    ]  # fmt: skip
    assert [line["psnr_db"] for line in lines] == ["20.000000", "", "24.000000"]
    assert [line["lab_mae"] for line in lines] == ["3.500000", "3.500000", ""]
    assert [line["seconds"] for line in lines] == ["", "0.250000", "0.250000"]
    assert lines[0]["set"] == "Rain100L"


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("psnr_db", 31.226, "31.23"),
        ("psnr_db", math.inf, "∞"),
        ("psnr_db", None, "∞"),
        ("ssim", 0.91236, "0.9124"),
        ("gain_db", 6.0, "+6.00"),
        ("gain_db", -0.5, "-0.50"),
        ("gain_db", -0.001, "0.00"),
        ("gain_db", math.nan, "–"),
        ("lab_mae_shadow", 7.456, "7.46"),
    ],
)
def test_figures_in_words(name: str, value: float | None, text: str) -> None:
    assert figure_text(name, value) == text


def test_lines_and_labels() -> None:
    assert label("psnr_db") == "PSNR [dB]"
    assert label("psnr_db_shadow") == "PSNR in the shadow [dB]"
    assert label("new_figure") == "new figure"
    assert label("psnr_db", unit=False) == "PSNR"
    assert figure_text("change_levels", 2, unit=True) == "2.00 of 255"
    assert figure_text("ssim", 0.5, unit=True) == "0.5000"
    assert figure_text("psnr_db", 30, unit=True, of=2) == "30.00 dB (of 2)"


def test_the_tree_is_read_back_and_so_is_an_older_one(tmp_path: Path) -> None:
    """Older files call the degradation of a set its damage."""
    tree = json.loads(json.dumps(as_tree(evaluation(row("a", 20, 26)))))
    path = tmp_path / "results.json"
    path.write_text(json.dumps(tree), encoding="utf-8")
    assert read_results(path) == tree
    old = json.loads(path.read_text(encoding="utf-8"))
    del old["sets"][0]["degradation"]
    old["sets"][0]["damage"] = "haze"
    path.write_text(json.dumps(old), encoding="utf-8")
    (one,) = read_results(path)["sets"]
    assert one["degradation"] == "haze"
    assert "damage" not in one
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match=r"results.json: is no results.json of"):
        read_results(path)


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\n=1"])
def test_no_cell_of_the_table_is_a_formula(name: str) -> None:
    row = Row(name, 8, 8, None, {name: {"psnr_db": -3.5}})
    about = TestSet(name, "", ())
    evaluation = Evaluation(PROTOCOLS["plain"], sets=[SetResult(about, [row])])
    cells = next(iter(csv.DictReader(io.StringIO(as_table(evaluation), newline=""))))
    assert [cells[key] for key in ("set", "image", "weights")] == [f"'{name}"] * 3
    assert cells["psnr_db"] == "-3.500000"
