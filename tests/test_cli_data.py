"""`fairweather data`, as people call it."""

import json
from pathlib import Path

import numpy as np
import skimage.data
from PIL import Image
from typer.testing import CliRunner, Result

from fairweather.cli import app


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, words)])


def test_layouts_are_listed_and_described() -> None:
    assert "agan" in run("layouts").stdout.split()
    described = run("layouts", "agan")
    assert described.exit_code == 0
    assert "test_a" in described.stdout


def test_check_names_what_is_wrong_and_has_status_1(tmp_path: Path) -> None:
    clean = tmp_path / "clean"
    clean.mkdir()
    for name, top in (("a", 0), ("b", 150)):
        Image.fromarray(skimage.data.astronaut()[top : top + 120, :200]).save(clean / f"{name}.png")
    pairs = tmp_path / "pairs"
    made = run("degrade", clean, "-o", pairs, "--task", "rain")
    assert (made.exit_code, made.stdout.startswith("2 pairs in ")) == (0, True)
    sound = run("check", pairs)
    assert (sound.exit_code, sound.stdout) == (0, "2 pairs, 0 errors, 0 warnings\n")
    degraded = pairs / "input" / "b.png"
    with Image.open(degraded) as image:
        turned = image.transpose(Image.Transpose.ROTATE_180)
    turned.save(degraded)
    checked = run("check", pairs, "--json")
    assert checked.exit_code == 1
    found = json.loads(checked.stdout)
    assert found["pairs"] == 2
    assert [finding["kind"] for finding in found["findings"]] == ["orientation"]
    assert "b.png" in found["findings"][0]["message"]


def test_unpack_takes_halves_apart(tmp_path: Path) -> None:
    clean = skimage.data.astronaut()[:60, :80]
    folder = tmp_path / "set" / "DID-MDN-test"
    folder.mkdir(parents=True)
    Image.fromarray(np.hstack([clean // 2, clean])).save(folder / "1.png")
    words = ("unpack", tmp_path / "set", "-o", tmp_path / "out", "--layout", "did-mdn")
    done = run(*words, "--split", "test", "--degraded", "left")
    assert (done.exit_code, done.stdout.split()[:2]) == (0, ["1", "pairs"])
    for side, expected in (("input", clean // 2), ("target", clean)):
        with Image.open(tmp_path / "out/test" / side / "DID-MDN-test/1.png") as image:
            assert np.array_equal(np.asarray(image), expected)
    assert run(*words, "--split", "test", "--degraded", "up").exit_code == 2
