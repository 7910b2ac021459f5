"""One fault planted among good pairs is found, named and measured, and nothing else is."""

import dataclasses
import io
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scenes import SIZE, SOURCES, scene
from tiny_images import pairs_in, save, save_pair

from fairweather.data import DEGRADATIONS, Finding, Pair, check_pairs, degrade_pixels
from fairweather.data.check import QUICK_OFFSETS, QUICK_PAIRS
from fairweather.errors import ImageError
from fairweather.imaging import read_image

FEW = ("00", "03", "04", "05", "07", "08")


def make_good(folder: Path, *, task: str) -> Path:
    for number in range(len(SOURCES)):
        clean = scene(number)
        save_pair(folder, f"{number:02}", degrade_pixels(clean, task=task, seed=number + 1), clean)
    return folder


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_good(tmp_path_factory.mktemp("good"), task="snow")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A few good pairs to spoil: each of them takes a tenth of a second to check."""
    for side in ("input", "target"):
        (tmp_path / "set" / side).mkdir(parents=True)
        for name in FEW:
            shutil.copy(good / side / f"{name}.png", tmp_path / "set" / side)
    return tmp_path / "set"


def pixels_of(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [finding.message for finding in findings]
    return findings[0]


# Snow has a test of its own; motion displaces the edges of a photograph.
@pytest.mark.parametrize("task", sorted(DEGRADATIONS.keys() - {"snow", "motion_blur"}))
def test_good_pairs_have_no_findings(task: str, tmp_path: Path) -> None:
    assert check_pairs(pairs_in(make_good(tmp_path, task=task))) == []


def test_heavy_snow_has_no_findings_and_every_pair_is_counted(good: Path) -> None:
    seen: list[tuple[int, int]] = []
    counted = check_pairs(pairs_in(good), on_pair=lambda done, total: seen.append((done, total)))
    assert counted == []
    assert seen == [(done, 12) for done in range(1, 13)]


@pytest.mark.parametrize("side", ["input", "target"])
def test_a_cut_off_file(folder: Path, side: str) -> None:
    path = folder / side / "05.png"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ImageError) as caught:
        read_image(path)
    finding = only(check_pairs(pairs_in(folder)))
    assert finding == Finding("error", "unreadable", (path,), str(caught.value))


def test_a_broken_clean_image_of_many_is_told_once(folder: Path) -> None:
    broken = folder / "target/05.png"
    broken.write_bytes(b"no image")
    pairs = [Pair(folder / f"input/{name}.png", broken) for name in FEW]
    assert only(check_pairs(pairs)).files == (broken,)


def spoil(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> tuple[Path, Path]:
    paths = folder / "input/05.png", folder / "target/05.png"
    save(paths[0], change(pixels_of(paths[0])))
    return paths


def test_another_size(folder: Path) -> None:
    files = spoil(folder, lambda image: image[:-7])
    finding = only(check_pairs(pairs_in(folder)))
    assert (finding.severity, finding.kind, finding.files) == ("error", "size", files)
    assert "'input/05.png': degraded is 193×240 but clean is 200×240; crop" in finding.message


@pytest.mark.parametrize(("turns", "how"), [(1, "counter-clockwise"), (-1, "90° clockwise")])
def test_a_quarter_turn(folder: Path, turns: int, how: str) -> None:
    files = spoil(folder, lambda image: np.rot90(image, turns))
    finding = only(check_pairs(pairs_in(folder)))
    assert (finding.severity, finding.kind, finding.files) == ("error", "size", files)
    assert "240×200 but clean is 200×240; is one of them rotated?" in finding.message
    assert how in finding.message


@pytest.mark.parametrize(
    ("view", "how"),
    [
        ((slice(None), slice(None, None, -1)), "mirrored left to right"),
        ((slice(None, None, -1), slice(None)), "mirrored top to bottom"),
        ((slice(None, None, -1), slice(None, None, -1)), "turned by 180°"),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_mirrored_and_half_turned(
    folder: Path, view: tuple[slice, slice], how: str, quick: bool
) -> None:
    files = spoil(folder, lambda image: image[view])
    finding = only(check_pairs(pairs_in(folder), quick=quick))
    assert (finding.severity, finding.kind, finding.files) == ("error", "orientation", files)
    assert f"'input/05.png': degraded is {how} against clean" in finding.message


@pytest.mark.parametrize("halves", [(7, 0), (0, 7), (2, 5), (3, 30)])
def test_a_shift_is_measured(folder: Path, halves: tuple[int, int]) -> None:
    down, right = (min(half, 8) for half in halves)
    shifted = scene(0, down=down, right=right)
    files = folder / "input/00.png", folder / "target/00.png"
    save(files[0], degrade_pixels(shifted, task="snow", seed=1))
    finding = only(check_pairs(pairs_in(folder)))
    assert only(check_pairs(pairs_in(folder), quick=True)) == finding
    assert (finding.severity, finding.kind, finding.files) == ("error", "offset", files)
    found = re.search(r"'input/00\.png'.* ([\d.]+) px (left|right) and ([\d.]+) px (up|down)",
                      finding.message)  # fmt: skip
    assert found
    assert float(found[1]) == pytest.approx(right / 2, abs=0.3)
    assert float(found[3]) == pytest.approx(down / 2, abs=0.3)
    assert right == 0 or found[2] == "left"
    assert down == 0 or found[4] == "up"


def test_half_a_pixel_is_no_finding(folder: Path) -> None:
    shifted = scene(0, down=1)
    save(folder / "input/00.png", degrade_pixels(shifted, task="snow", seed=1))
    assert check_pairs(pairs_in(folder)) == []


def test_the_same_image_on_both_sides(folder: Path) -> None:
    shutil.copy(folder / "target/05.png", folder / "input/05.png")
    finding = only(check_pairs(pairs_in(folder)))
    assert (finding.severity, finding.kind) == ("error", "identical")
    assert finding.files == (folder / "input/05.png", folder / "target/05.png")
    assert "'input/05.png'" in finding.message


def test_a_swapped_pair(good: Path, tmp_path: Path) -> None:
    """One of twelve, since fewer would not tell that the others are right."""
    folder = Path(shutil.copytree(good, tmp_path / "set"))
    for path in (folder / "input").iterdir():  # a veil over the snow
        share = 0.3 if path.stem == "05" else 0.15
        save(path, (pixels_of(path) * (1 - share) + 255 * share).astype(np.uint8))
    assert not check_pairs(pairs_in(folder))
    files = folder / "input/05.png", folder / "target/05.png"
    degraded, clean = (pixels_of(path) for path in files)
    save_pair(folder, "05", clean, degraded)
    finding = only(check_pairs(pairs_in(folder)))
    assert (finding.severity, finding.kind, finding.files) == ("warning", "swapped", files)
    found = re.search(r"'input/05\.png': degraded is ([\d.]+) levels less veiled", finding.message)
    assert found
    change = degraded.min(-1).mean() - clean.min(-1).mean()
    assert float(found[1]) == pytest.approx(change, abs=0.06)


def test_two_exchanged_partners(folder: Path) -> None:
    one, other = folder / "input/04.png", folder / "input/08.png"
    swap = pixels_of(one), pixels_of(other)
    save(one, swap[1])
    save(other, swap[0])
    first, second = check_pairs(pairs_in(folder))
    assert (first.severity, first.kind) == ("error", "partner")
    assert first.files == (one, folder / "target/04.png", folder / "target/08.png")
    assert second.files == (other, folder / "target/08.png", folder / "target/04.png")
    assert "'input/04.png': degraded shows the scene of 'target/08.png'" in first.message


def compressed(pixels: np.ndarray, *, scale: float, quality: int) -> np.ndarray:
    """Made smaller and saved as JPEG, as a copy that went through the web."""
    image = Image.fromarray(pixels)
    image = image.resize((int(image.width * scale), int(image.height * scale)))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@pytest.mark.parametrize(("scale", "quality"), [(1.0, 30), (0.5, 80), (1.3, 60)])
def test_a_scene_twice(folder: Path, scale: float, quality: int) -> None:
    copy = compressed(pixels_of(folder / "target/05.png"), scale=scale, quality=quality)
    save_pair(folder, "12", degrade_pixels(copy, task="snow", seed=99), copy)
    finding = only(check_pairs(pairs_in(folder)))
    assert (finding.severity, finding.kind) == ("warning", "duplicate")
    assert finding.files == (folder / "target/05.png", folder / "target/12.png")
    assert "'target/05.png', 'target/12.png' show the same scene" in finding.message


def test_a_pair_twice(folder: Path) -> None:
    for side in ("input", "target"):
        shutil.copy(folder / side / "05.png", folder / side / "12.png")
    finding = only(check_pairs(pairs_in(folder)))
    assert (finding.severity, finding.kind) == ("warning", "duplicate")
    assert finding.files == (folder / "input/05.png", folder / "input/12.png")
    assert "are the same pair" in finding.message


@pytest.mark.parametrize("copied", [False, True])
def test_many_degraded_images_of_one_clean_are_no_duplicates(folder: Path, copied: bool) -> None:
    clean, pairs = folder / "target/05.png", pairs_in(folder)
    for seed in range(4):
        degraded = degrade_pixels(pixels_of(clean), task="snow", seed=50 + seed)
        pair = save_pair(folder, f"05_{seed}", degraded, pixels_of(clean))
        pairs.append(pair if copied else Pair(pair.degraded, clean))
    assert check_pairs(pairs) == []


def test_two_nearly_empty_pages_are_not_one_scene(tmp_path: Path) -> None:
    """Their hashes differ in a few bits; what is on the pages decides."""
    pairs = []
    for top, left in ((10, 12), (150, 180)):
        page = np.full((*SIZE, 3), 230, np.uint8)
        page[top : top + 40, left : left + 48] = scene(0)[60:100, 60:108]
        path = save(tmp_path / f"page_{top}.png", page)
        pairs.append(Pair(path, path))
    assert check_pairs(pairs) == []


@pytest.mark.parametrize(("scale", "quality"), [(1.0, 95), (0.6, 50)])
def test_a_leak_into_the_test_set(folder: Path, scale: float, quality: int) -> None:
    pairs = pairs_in(folder)
    copy = compressed(pixels_of(folder / "target/05.png"), scale=scale, quality=quality)
    other = scene(8)[::-1]
    tests = [
        save_pair(folder / "test", "leaked", degrade_pixels(copy, task="haze", seed=5), copy),
        save_pair(folder / "test", "fresh", degrade_pixels(other, task="haze", seed=6), other),
    ]
    finding = only(check_pairs(pairs, test_pairs=tests))
    assert (finding.severity, finding.kind) == ("error", "leak")
    assert finding.files == (tests[0].clean, folder / "target/05.png")
    assert "'target/leaked.png' shows the scene of 'target/05.png'" in finding.message
    assert only(check_pairs(pairs, test_pairs=pairs[3:4])).kind == "leak"  # the very file


def test_an_image_without_light(folder: Path) -> None:
    clean = (scene(5) * 0.04).astype(np.uint8)
    pair = save_pair(folder, "05", scene(5), clean)
    finding = only([f for f in check_pairs(pairs_in(folder)) if f.kind != "swapped"])
    assert (finding.severity, finding.kind, finding.files) == ("warning", "exposure", (pair.clean,))
    assert re.search(r"'target/05\.png' is nearly black: 99 % of it is under \d+", finding.message)


@pytest.mark.parametrize(
    ("value", "words"), [(3, "is nearly black"), (245, "is nearly white"), (None, "is clipped: 6")]
)
def test_exposures_of_photographs_alone(folder: Path, value: int | None, words: str) -> None:
    pixels = np.full((*SIZE, 3), value or 255, np.uint8)
    if value is None:
        pixels[:80] = scene(0)[:80] // 2 + 20  # 60 % stays pure white
    path = save(folder / "lone.png", pixels)
    finding = only(check_pairs([Pair(path, path)]))
    assert (finding.kind, finding.files) == ("exposure", (path,))
    assert words in finding.message


def test_another_depth_and_mode(folder: Path) -> None:
    deep = folder / "input/05.tif"
    tifffile.imwrite(deep, pixels_of(folder / "input/05.png").astype(np.uint16) * 257,
                     photometric="rgb")  # fmt: skip
    (folder / "input/05.png").unlink()
    grey = folder / "target/07.png"
    Image.open(grey).convert("L").save(grey)
    first, second = check_pairs(pairs_in(folder))
    assert (first.severity, first.kind, first.files[0]) == ("warning", "mode", deep)
    assert "'input/05.tif': degraded has 16 bits but clean has 8 bits;" in first.message
    assert (second.kind, second.files[1]) == ("mode", grey)
    assert "'input/07.png': degraded is in colour but clean is grey;" in second.message


def test_photographs_without_a_partner(folder: Path) -> None:
    photos = [pair.clean for pair in pairs_in(folder)]
    pairs = [Pair(path, path) for path in photos]
    assert check_pairs(pairs) == []
    photos[3].write_bytes(b"no image")
    assert only(check_pairs(pairs)).files == (photos[3],)


def test_quick_looks_at_two_hundred(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    paths = [save(tmp_path / f"{number:03}.png", random.integers(0, 255, (24, 24, 3), np.uint8))
             for number in range(450)]  # fmt: skip
    for path in paths:
        path.touch()
    paths[0].write_bytes(b"no image")
    pairs = [Pair(path, path) for path in paths]
    seen: list[tuple[int, int]] = []
    first = check_pairs(pairs, quick=True, on_pair=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (QUICK_PAIRS, QUICK_PAIRS)
    assert [finding.files for finding in first] == [(paths[0],)]
    assert check_pairs(pairs, quick=True) == first


@pytest.mark.slow
def test_quick_measures_some_offsets_spread_evenly(tmp_path: Path) -> None:
    """Of 60 pairs, all of which are shifted."""
    for number in range(60):
        save(tmp_path / f"target/{number:02}.png", scene(number % 4))
        save(tmp_path / f"input/{number:02}.png", scene(number % 4, right=4) // 2)
    found = [f for f in check_pairs(pairs_in(tmp_path), quick=True) if f.kind == "offset"]
    numbers = [int(finding.files[0].stem) for finding in found]
    assert len(numbers) == QUICK_OFFSETS
    assert (numbers[0], numbers[-1]) == (0, 59)
    assert set(np.diff(numbers)) == {2, 3}


def test_a_finding_is_frozen() -> None:
    finding = Finding("error", "size", (), "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        finding.kind = "leak"  # pyright: ignore[reportAttributeAccessIssue]
