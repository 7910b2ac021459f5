"""The degradation of a photograph: views, the bundled classifier, `--task auto`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from command import Run
from PIL import Image

import fairweather
from fairweather.errors import ImageError
from fairweather.imaging import read_image
from fairweather.models import (
    CLASSES,
    VIEW_PX,
    DegradationClassifier,
    list_weights,
)
from fairweather.restoration import (
    Diagnosis,
    auto,
    classifier_views,
    classify_degradation,
    diagnose,
)
from fairweather.restoration import restorer as restorer_module

PHOTO = np.ascontiguousarray(skimage.data.astronaut()[20:76, 180:240])


def gains_of(*restorable: str, harm: float = -2.0) -> dict[str, dict[str, float]]:
    """Say that each weights gain 1 dB where they belong, `weather` where none do."""
    alone = {name: {name: 1.0, "clean": harm} for name in CLASSES[1:]}
    return {
        name: {shown: alone[name].get(shown, 0.0) for shown in CLASSES} for name in restorable
    } | {"weather": {shown: 0.5 if shown != "clean" else harm for shown in CLASSES}}


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> DegradationClassifier:
    """An untrained classifier in place of the bundled one."""
    torch.manual_seed(0)
    net = DegradationClassifier().eval()
    monkeypatch.setattr(auto, "bundled_net", lambda: (net, 0.6, gains_of(*CLASSES[1:])))
    return net


@pytest.fixture
def told(
    net: DegradationClassifier, monkeypatch: pytest.MonkeyPatch
) -> dict[int, dict[str, float]]:
    """What the classifier is made to say of photographs, by the value of their first pixel."""
    answers: dict[int, dict[str, float]] = {}

    def classify(pixels: np.ndarray) -> dict[str, float]:
        found = answers.get(int(pixels[0, 0, 0]), {"clean": 1.0})
        return {name: found.get(name, 0.0) for name in CLASSES}

    monkeypatch.setattr(auto, "classify_degradation", classify)
    return answers


@pytest.mark.parametrize(
    ("size", "crops"),
    [
        ((1, 1), 1),
        ((1, 300), 3),
        ((96, 96), 1),
        ((95, 97), 2),
        ((200, 768), 9),
        ((300, 769), 18),
        ((2, 4000), 6),
        ((1500, 1000), 18),
    ],
)
def test_views_of_any_size(size: tuple[int, int], crops: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    before = pixels.copy()
    views = classifier_views(pixels)
    assert views.crops.shape == (1, crops, 3, VIEW_PX, VIEW_PX)
    assert views.whole.shape == (1, 3, VIEW_PX, VIEW_PX)
    for images in (views.crops, views.whole):
        assert images.dtype == torch.float32
        assert 0 <= images.min() <= images.max() <= 1
    again = classifier_views(pixels)
    assert torch.equal(views.crops, again.crops)
    assert torch.equal(views.whole, again.whole)
    assert np.array_equal(pixels, before)


def test_crops_reach_every_border() -> None:
    rows, columns = np.mgrid[:300, :400]
    pixels = np.stack((rows * 255 // 299, columns * 255 // 399, 0 * rows), -1).astype(np.uint8)
    crops = classifier_views(pixels).crops[0]
    assert crops[:, 0].min() == crops[:, 1].min() == 0
    assert crops[:, 0].max() == crops[:, 1].max() == 1


@pytest.mark.usefixtures("net")
def test_all_kinds_of_images_are_classified_alike() -> None:
    found = classify_degradation(PHOTO)
    assert tuple(found) == CLASSES
    assert sum(found.values()) == pytest.approx(1)
    assert found == fairweather.classify_degradation(PHOTO)
    tensor = torch.from_numpy(PHOTO).permute(2, 0, 1)
    alpha = np.dstack((PHOTO, PHOTO[..., 0]))
    same = [
        PHOTO.astype(np.uint16) * 257,
        PHOTO / 255,
        PHOTO / np.float32(255),
        tensor,
        tensor / 255,
        alpha,
        Image.fromarray(PHOTO),
        Image.fromarray(alpha),
    ]
    for image in same:
        assert classify_degradation(image) == found
    grey = PHOTO[..., 1]
    assert classify_degradation(grey) == classify_degradation(np.stack((grey,) * 3, -1))
    for wrong in (tensor[None], PHOTO.astype(np.int32), "photo.jpg", PHOTO * 2.0):
        with pytest.raises(ImageError):
            classify_degradation(wrong)


@pytest.mark.usefixtures("net")
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (17, 5), (900, 30)])
def test_the_smallest_photographs_are_classified(size: tuple[int, int]) -> None:
    found = classify_degradation(np.full((*size, 3), 90, np.uint8))
    assert sum(found.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({"rain": 0.9, "clean": 0.1}, ("rain", True, "rain")),
        ({"rain": 0.5, "clean": 0.5 - 1e-6}, ("rain", False, "rain")),
        ({"clean": 0.9, "rain": 0.1}, ("clean", True, None)),
        ({"clean": 0.8, "rain": 0.2}, ("clean", True, None)),
        ({"clean": 0.4, "rain": 0.3 + 1e-6, "haze": 0.3}, ("rain", False, "weather")),
        ({"haze": 0.4, "rain": 0.35, "clean": 0.25}, ("haze", False, "weather")),
        ({"haze": 0.35, "shadow": 0.3, "moire": 0.35 - 1e-6}, ("haze", False, None)),
        ({"snow": 0.9, "clean": 0.1}, ("snow", True, "weather")),
        ({"moire": 0.9, "clean": 0.1}, ("moire", True, None)),
    ],
)
def test_the_weights_are_taken_from_which_most_is_to_be_expected(
    found: dict[str, float], wanted: tuple[str, bool, str | None]
) -> None:
    """For haze, `haze` gains most, but harms whatever is none; nothing helps against moiré."""
    gains = {
        "rain": {"clean": -0.2, "rain": 2.0},
        "haze": {"clean": -2.0, "haze": 3.0, "rain": -3.0, "shadow": -3.0, "moire": -3.0},
        "weather": {"clean": -1.0, "rain": 1.5, "haze": 2.0, "snow": 1.0, "moire": -2.0}
        | {"shadow": -1.0},
    }
    every = {name: found.get(name, 0.0) for name in CLASSES}
    each = {name: {shown: row.get(shown, 0.0) for shown in CLASSES} for name, row in gains.items()}
    name, sure, weights = wanted
    expected = Diagnosis(name, every[name], sure, weights)
    assert diagnose(every, threshold=0.6, gains=each) == expected


def save_photos(folder: Path, *first: int) -> list[Path]:
    folder.mkdir()
    paths = []
    for value in first:
        pixels = PHOTO.copy()
        pixels[0, 0] = value
        paths.append(folder / f"{value}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


def test_auto_restores_a_folder_of_different_photographs(
    run: Run,
    told: dict[int, dict[str, float]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    only_rain = {"rain": list_weights()["rain"]}
    monkeypatch.setattr(auto, "list_weights", lambda: only_rain)
    clean, rain, shadow, unsure = save_photos(tmp_path / "in", 0, 1, 2, 3)
    told |= {0: {"clean": 1}, 1: {"rain": 0.97, "clean": 0.03}}
    told |= {2: {"shadow": 0.98, "clean": 0.02}, 3: {"moire": 0.29, "clean": 0.27, "snow": 0.21}}
    out = tmp_path / "out"
    done = run("restore", tmp_path / "in", "-o", out, "--task", "auto", "--device", "cpu")
    assert done.status == 1
    lines = done.out.splitlines()
    assert [line.split(")  ")[1] for line in lines if "→" in line] == [
        "clean, 100%", "rain, 97%", "moire, 29%",
    ]  # fmt: skip
    assert "no degradation was found" in done.out
    assert "it may be moire" in done.out
    failures = [line for line in done.err.splitlines() if line.startswith("failed: ")]
    assert len(failures) == 1
    assert failures[0].startswith(f"failed: '{shadow}': shows shadow (98%), for which no weights")
    assert "--task (" in failures[0]
    assert "--weights" in failures[0]
    assert done.err.splitlines()[-1] == "1 restored, 2 left as they were, 1 failed"
    for unchanged in (clean, unsure):
        assert (out / unchanged.name).read_bytes() == unchanged.read_bytes()
    restored = read_image(out / rain.name).pixels
    expected = fairweather.Restorer("rain", device="cpu")(read_image(rain).pixels)
    assert np.array_equal(restored, expected)
    assert not (out / shadow.name).exists()


def test_auto_in_json_with_another_format_and_a_comparison(
    run: Run, told: dict[int, dict[str, float]], tmp_path: Path
) -> None:
    (clean,) = save_photos(tmp_path / "in", 0)
    told[0] = {"clean": 0.8, "rain": 0.2}
    target = tmp_path / "clean.tif"
    call = ("restore", clean, "-o", target, "--task", "auto", "--compare", "--json")
    done = run(*call)
    assert done.status == 0
    (restored,) = json.loads(done.out)["restored"]
    assert restored["diagnosis"] == {
        "degradation": "clean", "probability": 0.8, "sure": True, "weights": None, "then": None,
    }  # fmt: skip
    assert np.array_equal(read_image(target).pixels, read_image(clean).pixels)
    assert Path(restored["compare"]).is_file()
    again = json.loads(run(*call).out)
    assert "exists already" in again["failed"][0]["reason"]
    assert run(*call, "--overwrite").status == 0


def test_auto_takes_weather_where_it_is_better(
    told: dict[int, dict[str, float]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(auto, "bundled_net", lambda: (None, 0.6, gains_of("rain")))
    restorer = fairweather.Restorer("auto", device="cpu")
    told |= {0: {"snow": 1}, 1: {"raindrop": 1}, 2: {"rain": 1}}
    for path in save_photos(tmp_path / "in", 0, 1, 2):
        done = restorer.restore_file(path, tmp_path / path.name)
        assert done.diagnosis is not None
        assert ("restored with the weights weather" in done.notes) == (path.name != "2.png")


def test_auto_restores_images_in_memory(
    told: dict[int, dict[str, float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    restorer = fairweather.Restorer("auto", device="cpu", strength=0.5)
    told |= {0: {"clean": 1}, 1: {"rain": 1}, 2: {"snow": 1}}
    photos = []
    for value in range(3):
        photos.append(PHOTO.copy())
        photos[-1][0, 0] = value
    expected = [photos[0]] + [
        fairweather.Restorer(name, device="cpu", strength=0.5)(photo)
        for name, photo in (("rain", photos[1]), ("snow", photos[2]))
    ]
    assert not np.array_equal(expected[1], photos[1])
    loads: list[Any] = []
    load = restorer_module.load_model
    monkeypatch.setattr(
        restorer_module, "load_model", lambda name: (loads.append(name), load(name))[1]
    )
    for _ in range(2):
        for photo, wanted in zip(photos, expected, strict=True):
            np.testing.assert_array_equal(restorer(photo), wanted)
    assert loads == ["rain", "snow"]  # once each
    assert restorer(photos[0]) is not photos[0]
    as_pil = restorer(Image.fromarray(photos[1]))
    np.testing.assert_array_equal(np.asarray(as_pil), expected[1])
    batch = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2)
    np.testing.assert_array_equal(restorer(batch).permute(0, 2, 3, 1).numpy(), np.stack(expected))


@pytest.fixture
def in_turn(net: DegradationClassifier, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the classifier is made to see of photographs, one after the other."""
    answers: list[str] = []

    def classify(pixels: np.ndarray) -> dict[str, float]:
        found = answers.pop(0)
        return {name: float(name == found) for name in CLASSES}

    monkeypatch.setattr(auto, "classify_degradation", classify)
    return answers


@pytest.mark.parametrize(
    ("seen", "used"),
    [
        (("rain", "snow"), ("rain", "snow")),  # no third time
        (("rain", "rain"), ("rain",)),
        (("rain", "clean"), ("rain",)),
        (("clean",), ()),
    ],
)
def test_auto_restores_two_degradations_in_turn(
    seen: tuple[str, ...], used: tuple[str, ...], in_turn: list[str], run: Run, tmp_path: Path
) -> None:
    (path,) = save_photos(tmp_path / "in", 1)
    expected = read_image(path).pixels
    for name in used:
        expected = fairweather.Restorer(name, device="cpu")(expected)
    in_turn.extend(seen)
    done = fairweather.restore(path, tmp_path / "out.png", weights="auto", device="cpu")
    np.testing.assert_array_equal(read_image(tmp_path / "out.png").pixels, expected)
    assert not in_turn
    assert done.diagnosis is not None
    assert done.diagnosis.degradation == seen[0]
    assert (done.diagnosis.then is not None) == (len(used) == 2)
    assert ("then restored with the weights snow" in done.notes) == (len(used) == 2)
    in_turn.extend(seen)
    told = run("restore", path, "-o", tmp_path / "again.png", "--task", "auto", "--device", "cpu")
    assert ("rain, 100%; then snow, 100%" in told.out) == (len(used) == 2)


def test_a_last_touch_is_given_once(in_turn: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    touches: list[str] = []

    def touch(before: np.ndarray, restored: np.ndarray, *, name: str) -> np.ndarray:
        touches.append(name)
        return before

    monkeypatch.setattr(restorer_module, "apply_finish", touch)
    restorer = fairweather.Restorer("auto", device="cpu", finish="contrast")
    in_turn.extend(("rain", "snow"))
    np.testing.assert_array_equal(restorer(PHOTO), PHOTO)
    in_turn.append("clean")  # which is left as it is
    np.testing.assert_array_equal(restorer(PHOTO), PHOTO)
    assert touches == ["contrast"]


def test_auto_in_one_line(told: dict[int, dict[str, float]], tmp_path: Path) -> None:
    told[1] = {"rain": 1}
    (path,) = save_photos(tmp_path / "in", 1)
    done = fairweather.restore(path, tmp_path / "out.png", weights="auto", device="cpu")
    assert done.diagnosis == Diagnosis("rain", 1, True, "rain")
    expected = fairweather.Restorer("rain", device="cpu")(read_image(path).pixels)
    np.testing.assert_array_equal(read_image(tmp_path / "out.png").pixels, expected)


@pytest.mark.parametrize(
    "arguments",
    [("--weights", "rain"), ("--device", "abacus"), ("--tile", "big"), ("--strength", "2")],
)
def test_a_wrong_call_of_auto(
    run: Run, told: dict[int, dict[str, float]], tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (path,) = save_photos(tmp_path / "in", 0)
    told[0] = {"rain": 1}
    done = run("restore", path, "--task", "auto", *arguments)
    assert done.status == 2
    assert [found.name for found in (tmp_path / "in").iterdir()] == ["0.png"]
