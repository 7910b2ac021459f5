"""Real pairs load through their layouts, and the data check says of them what is true."""

import hashlib
import subprocess
from pathlib import Path

import pytest

from fairweather.data import check_pairs, find_layout_pairs

REVIDE = "DualResidualNetworks"  # what made its images
# Folder, layout, pairs, and what is found: its kind, and the first file that it names.
SETS: list[tuple[str, str, int, list[tuple[str, str]]]] = [
    ("train/pairs/rain/Rain13K-sample", "folders", 34, [("duplicate", "005.jpg")]),
    ("train/pairs/haze/SOTS-indoor", "sots", 120, []),
    ("train/pairs/moire/UHDM-700px", "folders", 69, []),
    ("train/pairs/shadow/WaterFilling-doc", "folders", 17, [("offset", "rect_18.jpg")]),
    ("dev/pairs/rain/Rain100L", "folders", 24, []),
    ("dev/pairs/rain/Rain100H", "folders", 10, []),
    ("dev/pairs/rain/DDN-demo", "folders", 3, []),
    ("dev/pairs/rain/ICTGV-demo", "folders", 4, [("offset", "synthuni_2.png")]),  # by one pixel
    ("dev/pairs/raindrop/AGAN", "folders", 2, []),
    ("dev/pairs/haze/SOTS-indoor", "sots", 9, []),
    ("dev/pairs/haze/REVIDE", "folders", 3, [("duplicate", f"{REVIDE}_100001.jpg")]),
    ("dev/pairs/moire/UHDM-700px", "folders", 8, []),
    ("dev/pairs/shadow/ISTD-composite", "folders", 3, [("duplicate", "100-6.png")]),
    ("dev/pairs/shadow/UIUC", "folders", 2, [("offset", "p12_2.jpg")]),
]
FEW = 34  # more of a set take longer and show no more
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(("folder", "layout", "count", "expected"), SETS)
def test_a_real_set_loads_and_is_checked(
    data: Path, folder: str, layout: str, count: int, expected: list[tuple[str, str]]
) -> None:
    pairs = find_layout_pairs(data / folder, layout, split="all")
    assert len(pairs) == count
    found = check_pairs(pairs[:FEW], quick=count > FEW)
    assert [(finding.kind, finding.files[0].name) for finding in found] == expected


def test_the_hazes_of_a_room_have_one_clear_image(data: Path) -> None:
    pairs = find_layout_pairs(data / "train/pairs/haze/SOTS-indoor", "sots", split="all")
    assert all(pair.degraded.stem.startswith(f"{pair.clean.stem}_") for pair in pairs)
    assert len({pair.clean for pair in pairs}) == 40


@pytest.mark.slow
def test_train_and_dev_share_no_scene(data: Path) -> None:
    """Of the room photographs, by the check for leaks; three other rooms are in dev."""
    train, dev = (
        find_layout_pairs(data / part / "pairs/haze/SOTS-indoor", "sots", split="all")
        for part in ("train", "dev")
    )
    found = check_pairs(train[::3], test_pairs=dev, quick=True)
    assert [finding for finding in found if finding.kind == "leak"] == []


def test_no_tracked_file_is_one_of_them(data: Path) -> None:
    """They are for research: to be used, and not to be passed on."""
    if not (ROOT / ".git").exists():
        pytest.skip("NOT TESTED: that no image for research is tracked; this is no git checkout")
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    tracked = [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]
    assert tracked
    theirs = {sha256(path): path for path in data.rglob("*") if path.is_file()}
    assert theirs
    found = [f"{path} is {theirs[key]}" for path in tracked if (key := sha256(path)) in theirs]
    assert found == []


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
