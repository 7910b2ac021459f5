"""Twelve scenes of photographs, each also seen from places half a pixel apart."""

import functools

import numpy as np
import skimage.data
from PIL import Image

SIZE = 200, 240
SOURCES: tuple[tuple[str, int, int], ...] = (
    ("astronaut", 0, 0), ("astronaut", 105, 25), ("coffee", 0, 0), ("rocket", 10, 100),
    ("chelsea", 0, 0), ("camera", 0, 0), ("camera", 105, 30), ("immunohistochemistry", 0, 0),
    ("retina", 300, 300), ("gravel", 0, 0), ("coins", 0, 0), ("brick", 0, 0),
)  # fmt: skip


@functools.cache
def fine_scene(number: int) -> np.ndarray:
    """A photograph of at least twice SIZE, with a margin of 8 px."""
    name, top, left = SOURCES[number]
    image = getattr(skimage.data, name)()
    image = np.stack([image] * 3, -1) if image.ndim == 2 else image
    need = 2 * SIZE[0] + 8, 2 * SIZE[1] + 8
    image = image[top:, left:]
    if image.shape[0] < need[0] or image.shape[1] < need[1]:
        scale = max(need[0] / image.shape[0], need[1] / image.shape[1])
        image = np.asarray(
            Image.fromarray(np.ascontiguousarray(image)).resize(
                (int(image.shape[1] * scale) + 1, int(image.shape[0] * scale) + 1)
            )
        )
    return image[: need[0], : need[1]]


@functools.cache
def scene(number: int, *, down: int = 0, right: int = 0) -> np.ndarray:
    """A scene seen from a place moved by half pixels: one over another of just 0.5 px."""
    part = fine_scene(number)[down:, right:][: 2 * SIZE[0], : 2 * SIZE[1]].astype(float)
    return part.reshape(SIZE[0], 2, SIZE[1], 2, 3).mean((1, 3)).round().astype(np.uint8)
