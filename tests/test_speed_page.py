"""The page of speed and memory: from JSON files and nothing else."""

import json
from pathlib import Path

import pytest
from speed_example import EXAMPLE
from typer.testing import CliRunner

from fairweather.benchmark import write_speed_page
from fairweather.benchmark.targets import target_lines
from fairweather.cli import app
from fairweather.errors import DataError

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_page(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    path.write_text(json.dumps(EXAMPLE), encoding="utf-8")
    other = json.loads(json.dumps(EXAMPLE))
    other["machine"]["gpu"], other["setting"]["device"] = "H", "cuda"
    (tmp_path / "a.json").write_text(json.dumps(other), encoding="utf-8")
    paths = [path, tmp_path / "a.json"]
    done = CliRunner().invoke(
        app, ["benchmark", "speed-page", *map(str, paths), "-o", str(tmp_path / "page.md")]
    )
    assert done.exit_code == 0
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "unmeasured" not in page
    assert page.index("ast_t: a.json") < page.index("ast_t: b.json")
    assert "Machine: H; A, 2 cores, B, 1 GiB, Linux; Python 3.11, torch 2." in page
    assert "| 720×1280 | 10 times the speed of official, as shipped | torch | 12.00 |" in page
    assert "| torch | 7.00 | missed | b.json |" in page
    assert page.count("| torch | 12.00 | reached | b.json |") == 1
    assert "The official code computed 1280×1280. Its difference is at 256×256." in page
    assert "Failed: onnxruntime: ended." in page
    write_speed_page(paths[::-1], tmp_path / "again.md")
    assert (tmp_path / "again.md").read_text(encoding="utf-8") == page


def test_targets_count_only_what_agrees() -> None:
    tree = json.loads(json.dumps(EXAMPLE))
    tree["runs"][0]["contestants"][0]["largest_difference"] = 2e-4
    assert target_lines({"a.json": tree}) == []
    assert len(target_lines({"a.json": EXAMPLE})) == 4


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
    results = sorted((DOCS / "benchmarks").glob("*.json"))
    assert results
    write_speed_page(results, tmp_path / "benchmarks.md")
    committed = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert (tmp_path / "benchmarks.md").read_text(encoding="utf-8") == committed, (
        "run `fairweather benchmark speed-page docs/results/speed/*.json -o docs/results/speed.md`"
    )
