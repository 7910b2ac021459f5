"""`fairweather data`, as a shell calls it."""

import json
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from command import Run
from PIL import Image


@pytest.fixture
def run(run: Run) -> Run:
    """Runs `fairweather data`."""
    return lambda *words: run("data", *words)


def test_layouts_are_listed_and_described(run: Run) -> None:
    assert "agan" in run("layouts").out.split()
    described = run("layouts", "agan")
    assert described.status == 0
    assert "test_a" in described.out


def test_check_names_what_is_wrong_and_has_status_1(run: Run, tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    clean.mkdir()
    for name, top in (("a", 0), ("b", 150)):
        Image.fromarray(skimage.data.astronaut()[top : top + 120, :200]).save(clean / f"{name}.png")
    pairs = tmp_path / "pairs"
    made = run("degrade", clean, "-o", pairs, "--task", "rain")
    assert (made.status, made.out.startswith("2 pairs in ")) == (0, True)
    sound = run("check", pairs)
    assert (sound.status, sound.out) == (0, "2 pairs, 0 errors, 0 warnings\n")
    degraded = pairs / "input" / "b.png"
    with Image.open(degraded) as image:
        turned = image.transpose(Image.Transpose.ROTATE_180)
    turned.save(degraded)
    checked = run("check", pairs, "--json")
    assert checked.status == 1
    found = json.loads(checked.out)
    assert found["pairs"] == 2
    assert [finding["kind"] for finding in found["findings"]] == ["orientation"]
    assert "b.png" in found["findings"][0]["message"]


def test_unpack_takes_halves_apart(run: Run, tmp_path: Path) -> None:
    clean = skimage.data.astronaut()[:60, :80]
    folder = tmp_path / "set" / "DID-MDN-test"
    folder.mkdir(parents=True)
    Image.fromarray(np.hstack([clean // 2, clean])).save(folder / "1.png")
    words = ("unpack", tmp_path / "set", "-o", tmp_path / "out", "--layout", "did-mdn")
    done = run(*words, "--split", "test", "--degraded", "left")
    assert (done.status, done.out.split()[:2]) == (0, ["1", "pair"])
    for side, expected in (("input", clean // 2), ("target", clean)):
        with Image.open(tmp_path / "out/test" / side / "DID-MDN-test/1.png") as image:
            assert np.array_equal(np.asarray(image), expected)
    assert run(*words, "--split", "test", "--degraded", "up").status == 2
