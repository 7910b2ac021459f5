"""The bundled classifier: its file, its card, and what it sees in free photographs."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from fairweather.data import degrade_pixels
from fairweather.errors import CheckpointError
from fairweather.models import (
    CLASSES,
    CLASSIFIER_WEIGHTS,
    DegradationClassifier,
    list_weights,
    load_classifier,
    save_classifier,
)
from fairweather.restoration import classifier_views, classify_degradation

NAMES = ("astronaut", "chelsea", "coffee", "rocket")
CARD = CLASSIFIER_WEIGHTS.with_suffix(".md")
BUNDLED = pytest.mark.skipif(
    not CLASSIFIER_WEIGHTS.exists(), reason="NOT TESTED: the classifier, which is not bundled yet"
)
CLEAN_RIGHT = 4
DEGRADED_RIGHT = 24


@BUNDLED
def test_the_bundled_file() -> None:
    assert CLASSIFIER_WEIGHTS.stat().st_size < 1 << 20
    assert "degradation" not in list_weights()
    net, metadata = load_classifier()
    assert not net.training
    assert 0.3 <= float(metadata["threshold"]) <= 0.95
    assert 100_000 <= int(metadata["parameters"]) <= 300_000
    digest = hashlib.sha256(CLASSIFIER_WEIGHTS.read_bytes()).hexdigest()
    assert re.findall(r"\b[0-9a-f]{64}\b", CARD.read_text("utf-8")) == [digest]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no classifier"):
        load_classifier(list_weights()["rain"])
    with pytest.raises(CheckpointError, match="is no file"):
        load_classifier(tmp_path / "none.safetensors")
    net = DegradationClassifier()
    save_classifier(net, tmp_path / "a.safetensors", metadata={"threshold": "0.5"})
    again, metadata = load_classifier(tmp_path / "a.safetensors")
    assert metadata["threshold"] == "0.5"
    views = classifier_views(skimage.data.chelsea())
    with torch.inference_mode():
        torch.testing.assert_close(again(views), net.eval()(views))
    del net.head
    save_classifier(net, tmp_path / "b.safetensors", metadata={})
    with pytest.raises(CheckpointError, match=r"does not fit the classifier: head\.weight"):
        load_classifier(tmp_path / "b.safetensors")


@BUNDLED
def test_free_photographs_with_synthetic_degradation() -> None:
    right = Counter[str]()
    for name in NAMES:
        photo = getattr(skimage.data, name)()
        for task in CLASSES:
            for seed in (1, 2):
                view = np.ascontiguousarray(photo[:, ::-1]) if seed == 2 else photo
                image = view if task == "clean" else degrade_pixels(view, task=task, seed=seed)
                found = classify_degradation(image)
                right[task] += max(found, key=found.__getitem__) == task
    print(f"\nof 8 each: {dict(right)}")
    assert right["clean"] >= CLEAN_RIGHT
    assert right.total() - right["clean"] >= DEGRADED_RIGHT
