"""The page of speed and memory: from JSON files and nothing else."""

import json
from pathlib import Path

import pytest
from command import Run
from speed_example import EXAMPLE

from fairweather.errors import DataError
from laboratory.goals import goal_lines
from speed_page import PAGE, write_speed_page


def test_the_page(run_script: Run, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps(EXAMPLE), encoding="utf-8")
    other = json.loads(json.dumps(EXAMPLE))
    other["machine"]["gpu"], other["setting"]["device"] = "H", "cuda"
    (tmp_path / "a.json").write_text(json.dumps(other), encoding="utf-8")
    paths = [path, tmp_path / "a.json"]
    done = run_script("benchmarks/speed_page.py", *paths, "-o", tmp_path / "page.md")
    assert (done.status, done.err) == (0, "")
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "not measured" not in page
    assert page.index("with ast_t, 720×1280, H\n") < page.index("with ast_t, 720×1280, A\n")
    assert "Machine: H; A, 2 cores, B, 1 GiB, Linux; Python 3.11, torch 2." in page
    assert "| 720×1280 | 10 times the speed of official, as shipped | torch | 12.00 |" in page
    assert "| torch | 7.00 | missed | b.json |" in page
    assert page.count("| torch | 12.00 | reached | b.json |") == 1
    assert "The official code computes 1280×1280. Its difference is measured at 256×256." in page
    assert "Failed: onnxruntime: ended." in page
    write_speed_page(paths[::-1], tmp_path / "again.md")
    assert (tmp_path / "again.md").read_text(encoding="utf-8") == page


def test_goals_count_only_what_agrees() -> None:
    tree = json.loads(json.dumps(EXAMPLE))
    tree["runs"][0]["contestants"][0]["largest_difference"] = 2e-4
    assert goal_lines({"a.json": tree}) == []
    assert len(goal_lines({"a.json": EXAMPLE})) == 4


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content, message in (
        (None, "cannot be read as JSON"),
        ("{", "cannot be read as JSON"),
        ('{"sets": []}', "was not written by"),
    ):
        if content is not None:
            path.write_text(content)
        with pytest.raises(DataError, match=message):
            write_speed_page([path], tmp_path / "page.md")
    path.write_text(json.dumps(EXAMPLE), encoding="utf-8")
    with pytest.raises(DataError, match="cannot be written"):
        write_speed_page([path], tmp_path / "none" / "page.md")


def test_the_page_in_docs_is_what_the_committed_results_give(tmp_path: Path) -> None:
    results = sorted(PAGE.with_suffix("").glob("*.json"))
    assert results
    write_speed_page(results, tmp_path / "speed.md")
    again = (tmp_path / "speed.md").read_text("utf-8")
    assert again == PAGE.read_text("utf-8"), "run `python benchmarks/speed_page.py`"
