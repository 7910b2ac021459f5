"""Folders of small photographs."""

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

PHOTO = np.ascontiguousarray(data.astronaut()[20:60, 180:232])


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def photos(*names: str) -> None:
    touch(*names)
    for name in names:
        Image.fromarray(PHOTO).save(name)
