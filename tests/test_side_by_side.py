from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairweather.data import find_layout_pairs, unpack_side_by_side
from fairweather.errors import DataError, OptionError


def side_by_side(path: Path, *, rainy: str) -> tuple[np.ndarray, np.ndarray]:
    """A file of a smooth half and a streaky one; returns degraded and clean."""
    clean = np.full((6, 8, 3), 90, np.uint8)
    degraded = clean.copy()
    degraded[:, ::3] = 200
    halves = (degraded, clean) if rainy == "left" else (clean, degraded)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(halves, axis=1)).save(path)
    return degraded, clean


@pytest.mark.parametrize("rainy", ["left", "right"])
@pytest.mark.parametrize("told", [True, False])
def test_side_by_side_is_taken_apart(tmp_path: Path, rainy: str, told: bool) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    for number in (1, 2, 10):
        images = side_by_side(root / f"train/{number}.png", rainy=rainy)
    with pytest.raises(DataError, match=r"side by side .*`fairweather data unpack`"):
        find_layout_pairs(root, "rain800")
    degraded = {"left": "left", "right": "right"}[rainy] if told else None
    assert unpack_side_by_side(root, out, layout="rain800", degraded=degraded).new == 3
    pairs = find_layout_pairs(out, "rain800")
    assert [pair.degraded.stem for pair in pairs] == ["1", "2", "10"]
    for side, path in zip(images, (pairs[0].degraded, pairs[0].clean), strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), side)
    assert len(find_layout_pairs(out / "train", "folders", split="all")) == 3
    again = unpack_side_by_side(root, out, layout="rain800", degraded=degraded)
    assert (again.new, again.kept, again.faults) == (0, 3, ())
    other = "left" if rainy == "right" else "right"
    with pytest.raises(DataError, match=f"holds pairs with degraded {rainy}, not {other}"):
        unpack_side_by_side(root, out, layout="rain800", degraded=other)


def test_a_file_that_cannot_be_taken_apart_does_not_stop_the_rest(tmp_path: Path) -> None:
    for number in range(3):
        side_by_side(tmp_path / f"train/{number}.png", rainy="left")
    Image.new("RGB", (5, 2)).save(tmp_path / "train/1.png")
    made = unpack_side_by_side(tmp_path, tmp_path / "out", layout="rain800")
    assert (made.new, made.kept) == (2, 0)
    assert len(made.faults) == 1
    assert "1.png: is 5 px wide" in made.faults[0]


def test_the_three_densities_of_did_mdn(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    for density in ("Heavy", "Medium", "Light"):
        file = root / f"DID-MDN-training/Rain_{density}/train2018new/1.jpg"
        side_by_side(file, rainy="left")
    assert unpack_side_by_side(root, out, layout="did-mdn").new == 3
    assert len(find_layout_pairs(out, "did-mdn")) == 3


def test_halves_that_cannot_be_told_are_asked_for(tmp_path: Path) -> None:
    for number in range(4):
        side_by_side(tmp_path / f"train/{number}.png", rainy="left" if number % 2 else "right")
    with pytest.raises(DataError, match=r"in 2, which does not tell .* left or right"):
        unpack_side_by_side(tmp_path, tmp_path / "out", layout="rain800")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_taken_apart(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="no images side by side"):
        unpack_side_by_side(tmp_path, tmp_path / "out", layout="agan")
    with pytest.raises(DataError, match=r"expected: train(.*\n)*.*found: +nothing"):
        unpack_side_by_side(tmp_path, tmp_path / "out", layout="rain800")
    (tmp_path / "train").mkdir()
    Image.new("RGB", (5, 2)).save(tmp_path / "train/1.png")
    with pytest.raises(DataError, match=r"1\.png: is 5 px wide"):
        unpack_side_by_side(tmp_path, tmp_path / "out", layout="rain800", degraded="left")
