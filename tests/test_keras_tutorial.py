"""The tutorial in docs/keras.md, run as it stands; `test_keras_backends.py` runs this."""

import re
from pathlib import Path

import numpy as np
import pytest
from parity import random_model
from PIL import Image
from tiny_runs import write_images
from tiny_sets import FEWEST_OPERATIONS

from fairweather.models import save_model

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

# Its network and its numbers, made small.
SMALLER = {
    'load_model("rain")': 'load_model("tiny.safetensors")',
    "batches=400": "batches=2",
    "steps=400": "steps=2",
    "warmup_steps=20": "warmup_steps=1",
    "epochs=4": "epochs=2",
    "steps_per_epoch=100": "steps_per_epoch=1",
    "stages.0.crop_px=128": "stages.0.crop_px=32",
    "(256, 256)": "(32, 48)",
    ":256, :256": ":32, :48",
}


def check_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "data", clean=0, pairs=4)
    (tmp_path / "data" / "pairs").rename(tmp_path / "pairs")
    save_model(random_model(FEWEST_OPERATIONS), tmp_path / "tiny.safetensors")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.jpg")
    text = (ROOT / "docs" / "keras.md").read_text("utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    for number, smaller in SMALLER.items():
        assert number in code
        code = code.replace(number, smaller)
    names: dict[str, object] = {}
    exec(compile(code, "docs/keras.md", "exec"), names)
    with Image.open("restored.png") as restored:
        assert restored.size == (56, 40)
    served, tile = (np.asarray(names[name]) for name in ("restored", "tile"))
    assert (served.shape, tile.shape) == ((1, 40, 56, 3), (1, 32, 48, 3))
    assert 0 <= served.min() < served.max() <= 1
    assert len(Path("log.csv").read_text().splitlines()) == 3
