"""The script that reads depth from RESIDE's rooms and puts new haze into them."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from command import Run
from PIL import Image

from fairweather.data import find_layout_pairs
from room_haze import depth_of

CLEAN = skimage.data.coffee()[40:140, 100:260]
DEPTH = np.linspace(0.5, 1.5, 160)[None].repeat(100, 0)  # its mean is 1


def hazy(*, density: float, airlight: float) -> np.ndarray:
    transmission = np.exp(-density * DEPTH)[..., None]
    haze = CLEAN * transmission + 255 * airlight * (1 - transmission)
    return haze.round().astype(np.uint8)


@pytest.mark.parametrize(("density", "airlight"), [(0.4, 1.0), (1.2, 0.8)])
def test_depth_is_read_from_a_hazy_and_a_clear_room(density: float, airlight: float) -> None:
    found = depth_of(hazy(density=density, airlight=airlight) / 255, CLEAN / 255)
    told = np.abs(CLEAN / 255 - airlight).min(-1) > 0.1  # what is as bright as the haze tells none
    assert told.mean() > 0.3
    assert np.median(np.abs(found / DEPTH - 1)[told]) < 0.05


def test_every_room_gets_new_haze_and_the_files_are_the_same_again(
    run_script: Run, tmp_path: Path
) -> None:
    train, more = tmp_path / "train", tmp_path / "more"
    rooms = train / "pairs" / "haze" / "SOTS-indoor"
    further = more / "haze" / "SOTS-indoor-more" / "input"
    for folder in (train / "clean" / "A", more / "clean" / "B", rooms / "clear", rooms / "hazy"):
        folder.mkdir(parents=True)
    further.mkdir(parents=True)
    Image.fromarray(skimage.data.chelsea()[:90, :120]).save(train / "clean" / "A" / "a.png")
    Image.fromarray(CLEAN).save(rooms / "clear" / "1400.png")
    Image.fromarray(hazy(density=0.6, airlight=1.0)).save(rooms / "hazy" / "1400_02.png")
    Image.fromarray(hazy(density=0.9, airlight=1.0)).save(further / "1400_05.png")

    written = []
    for name in ("one", "other"):
        out = tmp_path / name
        done = run_script(
            "scripts/room_haze.py", train, more, out, "--hazes", 3, "--skies", 2
        )  # fmt: skip
        assert (done.status, done.err) == (0, "")
        laid_out = out / "pairs" / "haze" / "SOTS-indoor"
        pairs = find_layout_pairs(laid_out, layout="sots", split="all")
        assert len(pairs) == 2 + 3
        assert {pair.clean.resolve() for pair in pairs} == {rooms / "clear" / "1400.png"}
        assert sorted(path.name for path in (out / "clean").iterdir()) == ["A", "B", "skies"]
        written.append([path.read_bytes() for path in sorted((laid_out / "hazy").iterdir())])
    assert written[0] == written[1]
