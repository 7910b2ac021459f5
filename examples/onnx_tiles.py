"""Restore a photograph with a file of `fairweather export … --to onnx`, in tiles, by itself.

python onnx_tiles.py rain.onnx rainy.jpg restored.png [TILE_PX] gives the pixels of
`fairweather.Restorer(levels=0)`. NAME.look.onnx, where there is one, looks at the whole photograph.
Weights with `proxy` in their metadata need more (docs/export.md).
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def load(path):
    """Return what runs a file on (H, W, 3), and the sizes in pixels that its metadata holds."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    names = [each.name for each in session.get_inputs()]

    def run(image, context=None):
        inputs = {"image": np.ascontiguousarray(image.transpose(2, 0, 1)[None]), "context": context}
        return session.run(None, {name: inputs[name] for name in names})[0][0]

    return run, {key: int(value) for key, value in about.items() if key.endswith("_px")}


def cover(size, tile, step):
    """Yield the corners of tiles; the last ones end with the padded image."""
    axes = [[*range(0, max(0, side - tile), step), max(0, side - tile)] for side in size]
    yield from ((top, left) for top in axes[0] for left in axes[1])


def look(path, padded, size, tile_px):
    """Return the mean over the places of the photograph, each seen with all that surrounds it."""
    run, px = load(path)
    place, margin = px["place_px"], px["margin_px"]
    places = {}
    for top, left in cover(padded.shape[:2], tile_px, tile_px - 2 * margin):
        said = run(padded[top : top + tile_px, left : left + tile_px])
        for row in range((margin if top else 0) // place, said.shape[0]):
            for column in range((margin if left else 0) // place, said.shape[1]):
                places[top // place + row, left // place + column] = said[row, column]
    inside = [said for at, said in places.items() if all(np.array(at) * place < size)]
    return np.mean(inside, axis=0, dtype="float64").astype("float32")[None, None, None]


def restore(path, image, tile_px=512):
    """Restore (H, W, 3) float32 in [0, 1]."""
    (run, px), size, padded = load(path), image.shape[:2], image
    multiple = px["multiple_px"]
    overlap = max(px["overlap_px"], 2 * multiple * (4 * multiple <= tile_px < 512))
    for axis, side in enumerate(size):  # at the bottom and right; by replication where it is short
        widths = np.zeros((3, 2), int)
        widths[axis, 1] = -side % multiple
        padded = np.pad(padded, widths, mode="reflect" if -side % multiple < side else "edge")
    tile = max(tile_px // multiple * multiple, 2 * overlap)
    looker = Path(path).with_suffix(".look.onnx")
    context = look(looker, padded, size, 2 * tile) if looker.exists() else None
    total, weight = np.zeros_like(padded), np.zeros_like(padded[..., :1])
    for corner in cover(padded.shape[:2], tile, tile - overlap):
        part = tuple(slice(start, start + tile) for start in corner)
        weights = np.ones((*padded[part].shape[:2], 1), "float32")
        for axis, (start, side) in enumerate(zip(corner, padded.shape[:2], strict=False)):
            place = np.arange(weights.shape[axis]) + 0.5
            before = np.where(start > 0, place, np.inf)
            behind = np.where(start + tile < side, place[::-1], np.inf)
            ramp = np.clip((np.minimum(before, behind) - overlap / 4) / (overlap / 2), 0, 1)
            weights *= np.float32(np.expand_dims(ramp * ramp * (3 - 2 * ramp), (1 - axis, 2)))
        total[part] += weights * run(padded[part], context).transpose(1, 2, 0)
        weight[part] += weights
    return (total / weight)[: size[0], : size[1]]


if __name__ == "__main__":
    weights_file, source, target, *more = sys.argv[1:] if len(sys.argv) > 3 else sys.exit(__doc__)
    upright = ImageOps.exif_transpose(Image.open(source)).convert("RGB")
    restored = restore(weights_file, np.asarray(upright, "float32") / 255, *map(int, more))
    Image.fromarray(np.rint(restored * 255).astype("uint8")).save(target)
