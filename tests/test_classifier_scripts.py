"""The scripts that trained the bundled classifier and that measure it."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from command import Run
from PIL import Image

from classifier_confusion import confuse
from fairweather.models import (
    CLASSES,
    DegradationClassifier,
    list_weights,
    load_classifier,
    save_classifier,
)
from fairweather.restoration import classifier_views

NAMES = ("astronaut", "chelsea", "coffee", "rocket")
PHOTO = np.ascontiguousarray(skimage.data.astronaut()[20:76, 180:240])
TRAIN = "scripts/train_classifier.py"
FLOORS = {"dev, clean": 0.6, "dev, degraded": 0.6, "real, degraded": 0.3}


def test_a_training_of_three_steps(run_script: Run, tmp_path: Path) -> None:
    clean = tmp_path / "data" / "clean"
    clean.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        photo = getattr(skimage.data, name)()[40:140, 100:250]
        Image.fromarray(photo).save(clean / f"{number}.png")
    for side in ("input", "target"):
        folder = tmp_path / "data" / "pairs" / "rain" / "Rain13K-sample" / side
        folder.mkdir(parents=True)
        Image.fromarray(PHOTO).save(folder / "a.png")
    results = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for target in results:
        done = run_script(
            TRAIN, "--data", tmp_path / "data", "-o", target,
            "--steps", 3, "--workers", 0, "--seed", 4,
        )  # fmt: skip
        assert (done.status, done.err) == (0, "")
        assert "of step 3, with" in done.out
    net, metadata = load_classifier(results[0])
    assert metadata["seed"] == "4"
    assert (
        metadata["training_data"]
        == "synthetic degradation on 3 clean photographs, and 1 real pairs"
    )
    assert net(classifier_views(PHOTO)).shape == (1, len(CLASSES))
    again = load_classifier(results[1])[0].state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in net.state_dict().items())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.safetensors", "b.safetensors", "data",
    ]  # fmt: skip


def test_gains_are_measured_and_written_into_the_classifier(
    run_script: Run, tmp_path: Path
) -> None:
    clean = tmp_path / "data" / "clean"
    clean.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        photo = getattr(skimage.data, name)()[40:140, 100:250]
        Image.fromarray(photo).save(clean / f"{number}.png")
    weights = tmp_path / "net.safetensors"
    save_classifier(
        DegradationClassifier(), weights, metadata={"threshold": "0.6", "seed": "3", "note": "kept"}
    )
    done = run_script("scripts/classifier_gains.py", weights, "--data", tmp_path / "data")
    assert (done.status, done.err) == (0, "")
    assert len(done.out.splitlines()) == 2 + len(CLASSES)
    net, metadata = load_classifier(weights)
    gains = json.loads(metadata["gains"])
    assert set(gains) == set(list_weights())
    assert all(tuple(row) == CLASSES for row in gains.values())
    assert gains["rain"]["rain"] > 1
    assert all(-3 <= gain <= 3 for row in gains.values() for gain in row.values())
    assert all(row["clean"] <= 0 for row in gains.values())
    assert metadata["note"] == "kept"
    assert net(classifier_views(PHOTO)).shape == (1, len(CLASSES))


def test_what_restoring_in_turn_gains(run_script: Run, tmp_path: Path) -> None:
    (tmp_path / "clean").mkdir()
    for number, name in enumerate(NAMES[:2]):
        photo = getattr(skimage.data, name)()[40:140, 100:250]
        Image.fromarray(photo).save(tmp_path / "clean" / f"{number}.png")
    done = run_script("scripts/classifier_in_turn.py", "--data", tmp_path)
    assert (done.status, done.err) == (0, "")
    rows = [line.strip("| ").split(" | ") for line in done.out.splitlines()[2:]]
    assert {row[0] for row in rows[: len(CLASSES)]} == set(CLASSES)
    assert rows[len(CLASSES)][0] == "haze and rain"
    for _, number, once, first, twice, second in rows:
        assert int(number) == 1
        assert int(twice) <= int(once) <= 1
        assert int(once) or float(first) == 0
        assert int(twice) or float(second) == 0
    assert sum(int(row[2]) for row in rows) >= 4


def test_a_training_that_cannot_begin(run_script: Run, tmp_path: Path) -> None:
    target = tmp_path / "a.safetensors"
    assert run_script(TRAIN, "--data", tmp_path, "-o", target).status == 1
    assert run_script(TRAIN, "--data", tmp_path, "-o", tmp_path / "a.pth").status == 2
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_confusions(run_script: Run, tmp_path: Path) -> None:
    weights = tmp_path / "net.safetensors"
    gains = json.dumps({"rain": {name: float(name == "rain") for name in CLASSES}})
    told = {"threshold": "0.6", "gains": gains}
    save_classifier(DegradationClassifier(), weights, metadata=told)
    call = ("scripts/classifier_confusion.py", "--weights", weights, "--data")
    for folder in ("dev/clean/Kodak24", "real/rain", "dev/pairs/rain/Rain100L/input"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(PHOTO).save(tmp_path / folder / "a.png")
    (tmp_path / "dev/pairs/rain/Rain100L/target").mkdir()
    Image.fromarray(PHOTO).save(tmp_path / "dev/pairs/rain/Rain100L/target/a.png")
    rows = json.loads(run_script(*call, tmp_path, "--json").out)
    assert [(row["name"], row["degradation"]) for row in rows] == [
        ("dev/clean/Kodak24", "clean"),
        ("dev/clean/Kodak24, synthetic snow", "snow"),
        ("dev/pairs/rain/Rain100L", "rain"),
        ("dev/pairs/rain/Rain100L, clean sides", "clean"),
        ("real/rain", "rain"),
    ]
    assert [sum(row["found"].values()) for row in rows] == [1] * 5
    table = run_script(*call, tmp_path).out
    assert len(table.splitlines()) == 2 + 5
    done = run_script(*call, tmp_path / "none")
    assert (done.status, done.out) == (1, "")


@pytest.mark.slow
def test_photographs_of_the_dev_sets(data: Path) -> None:
    """Figures of docs/auto.md; the floors lie well below."""
    right, images = Counter[str](), Counter[str]()
    for row in confuse(data):
        kind = row.name.partition("/")[0] + (
            ", clean" if row.degradation == "clean" else ", degraded"
        )
        right[kind] += row.found[row.degradation]
        images[kind] += row.images
    shares = {kind: right[kind] / images[kind] for kind in images}
    print(f"\n{ {kind: round(share, 3) for kind, share in shares.items()} }")
    for kind, floor in FLOORS.items():
        assert shares[kind] >= floor, kind
