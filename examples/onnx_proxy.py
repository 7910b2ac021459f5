"""Restore a photograph with an ONNX file of weights that have `proxy_px`, by itself.

python onnx_proxy.py shadow.onnx shady.jpg restored.png gives the pixels of `fairweather.Restorer`
for `fairweather export shadow shadow.onnx --to onnx`: a small version is restored, and local affine
colour models hand its change on to the photograph, if it is large enough to be certain.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

FLAT, BLANK, DARKEST, LEAST_CHANGE, DOUBT = 1e-4, 1e-6, 0.02, 0.15, 0.05


def load(path):
    """Return what runs a file on (H, W, 3), and the config of its network."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(image, **more):
        return session.run(None, {"image": image.transpose(2, 0, 1)[None].copy(), **more})[0]

    return run, json.loads(session.get_modelmeta().custom_metadata_map["config"])


def mean(planes, radius):
    """Return the mean of the window around each pixel, the border repeated outwards."""
    for axis in (0, 1):
        widths = [(radius, radius) if axis == other else (0, 0) for other in range(planes.ndim)]
        padded = np.pad(planes, widths, mode="edge")
        planes = np.lib.stride_tricks.sliding_window_view(padded, 2 * radius + 1, axis).mean(-1)
    return planes


def covariance(first, second, radius):
    """Return the covariances of the channels in small windows, (h, w, 3, 3)."""
    product = mean(first[..., :, None] * second[..., None, :], radius)
    return product - mean(first, radius)[..., :, None] * mean(second, radius)[..., None, :]


def fit(proxy, change, radius):
    """Return affine models of the change, (h, w, 4, 3): a matrix and an offset for each pixel."""
    colours, wanted = proxy.astype("float64"), change.astype("float64")
    far = max(radius, 8)
    wide = mean(colours * wanted, far) - mean(colours, far) * mean(wanted, far)
    contrast = wide / (mean(colours**2, far) - mean(colours, far) ** 2 + BLANK)
    spread = covariance(colours, colours, radius) + FLAT * np.eye(3)
    shared = covariance(colours, wanted, radius) + FLAT * contrast[..., None] * np.eye(3)
    matrix = np.linalg.solve(spread, shared)
    offset = mean(wanted, radius)[..., None, :] - mean(colours, radius)[..., None, :] @ matrix
    return mean(np.concatenate((matrix, offset), axis=-2), radius).astype("float32")


def enlarge(maps, length, axis):
    """Scale an axis up to a length, linearly between the middles of the pixels."""
    before = maps.shape[axis]
    place = np.clip((np.arange(length) + 0.5) * before / length - 0.5, 0, before - 1)
    first = place.astype(int)
    share = np.expand_dims((place - first).astype("float32"), [*range(axis), *range(axis + 1, 4)])
    low, high = (np.take(maps, each, axis) for each in (first, np.minimum(first + 1, before - 1)))
    return low + share * (high - low)


def restore(path, photo):
    """Restore a Pillow image; return (H, W, 3) float32 in [0, 1]."""
    (network, config), (look, _) = load(path), load(Path(path).with_suffix(".look.onnx"))
    colours, scale = np.float32(photo) / 255, min(1, config["proxy_px"] / max(photo.size))
    size = [max(1, round(side * scale)) for side in photo.size]
    small = photo.resize(size, Image.Resampling.BICUBIC, reducing_gap=3)
    proxy = np.asarray(small, dtype="float32") / 255
    restored = network(proxy, context=look(proxy))[0].transpose(1, 2, 0)
    change = restored.clip(0, 1) - proxy
    changed = np.sqrt(np.square(np.log((proxy + change + DARKEST) / (proxy + DARKEST))).mean())
    change *= np.clip((changed - (config["proxy_least_change"] or LEAST_CHANGE)) / DOUBT, 0, 1)
    if scale == 1 and config["proxy_radius_px"] is None:
        return np.clip(colours + change, 0, 1)
    models = fit(proxy, change, config["proxy_radius_px"] or 2)
    models = enlarge(enlarge(models, photo.height, 0), photo.width, 1)
    added = (colours[..., None, :] @ models[..., :3, :])[..., 0, :] + models[..., 3, :]
    return np.clip(colours + added.clip(change.min((0, 1)), change.max((0, 1))), 0, 1)


if __name__ == "__main__":
    weights_file, source, target = sys.argv[1:] if len(sys.argv) == 4 else sys.exit(__doc__)
    pixels = restore(weights_file, ImageOps.exif_transpose(Image.open(source)).convert("RGB"))
    Image.fromarray(np.rint(pixels * 255).astype("uint8")).save(target)
