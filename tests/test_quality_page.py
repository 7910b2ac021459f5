"""The page of figures: from results.json files and nothing else."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from command import Run
from tiny_sets import write_set, write_weights

from cards import ROW, renewed_card
from fairweather.errors import DataError
from fairweather.evaluation import (
    as_tree,
    evaluate,
    evaluate_photos,
    find_degraded_set,
    find_photos,
    find_test_sets,
)
from fairweather.models import list_weights
from quality_page import PAGE, command_of, write_quality_page


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    """Of two sets, under a protocol that both have a reason against."""
    write_set(tmp_path / "rain" / "Rain100L")
    write_set(tmp_path / "rain" / "a|b", count=2)
    weights = write_weights(tmp_path / "mine.safetensors", strength=0.3)
    sets = find_test_sets(tmp_path / "rain")
    return as_tree(evaluate(sets, weights=[weights], protocol="plain", device="cpu"))


def write_page(tmp_path: Path, *trees: Any) -> str:
    paths = [tmp_path / f"{number}.json" for number in range(len(trees))]
    for path, one in zip(paths, trees, strict=True):
        path.write_text(json.dumps(one), encoding="utf-8")
    write_quality_page(paths[::-1], tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text(encoding="utf-8")
    write_quality_page(paths, tmp_path / "page.md")
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == text
    return text


def test_the_page_in_docs_is_what_the_committed_results_give(
    run_script: Run, tmp_path: Path
) -> None:
    assert list(PAGE.with_suffix("").glob("*.json"))
    done = run_script("benchmarks/quality_page.py", "-o", tmp_path / "quality.md")
    assert (done.status, done.err) == (0, "")
    again = (tmp_path / "quality.md").read_text("utf-8")
    assert again == PAGE.read_text("utf-8"), "run `python benchmarks/quality_page.py`"


def test_the_committed_results_are_complete_and_of_the_bundled_weights() -> None:
    """When weights change, evaluate them with the commands that docs/results/quality.md gives."""
    bundled = {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in list_weights().items()
    }
    found = set()
    for path in PAGE.with_suffix("").glob("*.json"):
        one = json.loads(path.read_text(encoding="utf-8"))
        assert one["faults"] == [], path
        for weights in one["weights"]:
            assert weights["sha256"] == bundled[weights["name"]], f"{path}: of other weights"
            found.add(weights["name"])
    assert found == set(bundled), "weights without figures"


@pytest.mark.parametrize("name", list_weights())
def test_the_cards_have_the_figures_of_the_committed_results(name: str) -> None:
    card = list_weights()[name].with_suffix(".md").read_text("utf-8")
    assert ROW.search(card)
    assert renewed_card(card) == card, f"run `python benchmarks/cards.py DATA {name}`"


def test_the_page_tells_figures_sources_and_how_they_were_made(
    tmp_path: Path, tree: dict[str, Any]
) -> None:
    page = write_page(tmp_path, tree)
    one = next(one for one in tree["sets"] if one["name"] == "Rain100L")
    before, after = one["mean"]["input"], one["mean"]["restored"]["mine"]
    assert "## Rain\n" in page
    figures = f"{before['psnr_db']:.2f} | {before['ssim']:.4f} |  |"
    assert f"| Rain100L | 3 | plain | ours | input | {figures}" in page
    assert (
        f"|  |  |  |  | `mine` | {after['psnr_db']:.2f} | {after['ssim']:.4f} |"
        f" {after['gain_db']:+.2f} |" in page
    )
    assert "| a\\|b | 2 |" in page
    assert "Restormer, 39.10 dB / 0.9787 (MMagic's" in page
    assert "not comparable: ours is the mean of 3 images, theirs of 100;" in page
    assert "fairweather evaluate DATA --weights mine.safetensors --protocol plain -o report" in page
    assert tree["weights"][0]["sha256"] in page
    assert tree["date"] in page
    assert f"torch {tree['versions']['torch']}" in page
    assert "- Protocol plain (fairweather's own)." in page
    assert "- `ours`: tiles on the network's own grid" in page
    assert str(tmp_path) not in page


def test_several_results_of_a_set_stand_together(tmp_path: Path, tree: dict[str, Any]) -> None:
    more = json.loads(json.dumps(tree))
    for one in more["sets"]:
        one["mean"]["restored"]["other"] = one["mean"]["restored"].pop("mine")
    other = json.loads(json.dumps(tree))
    other["protocol"]["name"] = "mine"
    for one in other["sets"]:
        if one["published"]:
            one["published"]["not_comparable_because"].append("one more")
    other["inference"], other["self_ensemble"] = "whole", True
    other["faults"] = ["one"]
    other["sets"][0]["mean"]["input"] |= {"psnr_db": None, "mean_of": {"psnr_db": 0}}
    page = write_page(tmp_path, tree, more, other)
    assert page.count("## Rain\n") == 1
    rows = [
        [cell.strip() for cell in line[1:].split("|")]
        for line in page.splitlines()
        if line.startswith("| ")
    ]
    start = rows.index(next(row for row in rows if row[:3] == ["Rain100L", "3", "mine"]))
    assert [row[:5] for row in rows[start : start + 5]] == [
        ["Rain100L", "3", "mine", "whole, self-ensemble", "input"],
        ["", "", "", "", "`mine`"],
        ["Rain100L", "3", "plain", "ours", "input"],
        ["", "", "", "", "`mine`"],
        ["", "", "", "", "`other`"],
    ]
    assert "∞ (of 0)" in page
    assert page.count("Published for Rain100L: ") == 1
    assert "Our figure under `plain` is not comparable" in page
    assert "1 could not be evaluated" in page
    assert page.count(tree["weights"][0]["sha256"]) == 1


def test_the_command_of_synthetic_degradation(tmp_path: Path) -> None:
    write_set(tmp_path, count=1)
    weights = write_weights(tmp_path / "mine.safetensors")
    for degradation in ("haze", "none"):
        photos = find_degraded_set(tmp_path / "target", degradation=degradation)
        done = evaluate([photos], weights=[weights], protocol="plain", device="cpu")
        assert command_of(as_tree(done)) == (
            "fairweather evaluate DATA/target --weights mine.safetensors --protocol plain"
            f" --degradation {degradation} -o report"
        )


def test_commands() -> None:
    weights = [{"name": "rain", "file": "rain.safetensors", "bundled": True}]
    tree = {
        "weights": weights,
        "protocol": {"name": "spad"},
        "inference": "square_pad_128",
        "self_ensemble": True,
        "sets": [{"name": "SPAD", "layout": "spad", "split": "test"}],
    }
    assert command_of(tree) == (
        "fairweather evaluate DATA/SPAD --weights rain --protocol spad --inference square_pad_128"
        " --self-ensemble --layout spad --split test -o report"
    )
    sets = [{"layout": "", "split": ""}]
    other = tree | {"weights": [], "inference": None, "self_ensemble": False, "sets": sets}
    assert command_of(other).startswith("fairweather evaluate --restored RESTORED --clean CLEAN")


def test_other_files_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path / "set", count=1)
    weights = write_weights(tmp_path / "mine.safetensors")
    photos = find_photos(tmp_path / "set" / "input")
    alone = json.dumps(as_tree(evaluate_photos(photos, weights=[weights], device="cpu")))
    path = tmp_path / "a.json"
    for content, message in (
        (None, "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ("[]", "is no results.json"),
        ('{"sets": []}', "is no results.json"),
        (alone, "of photographs without clean versions"),
    ):
        if content is not None:
            path.write_text(content)
        with pytest.raises(DataError, match=message):
            write_quality_page([path], tmp_path / "page.md")
    assert not (tmp_path / "page.md").exists()
