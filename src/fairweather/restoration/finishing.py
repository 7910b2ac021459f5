"""Touches after a restoration, all optional: a colour cast taken back, blotches smoothed, contrast.

Each is found on a small version of the photograph and handed on to its full size by local affine
colour models, as a proxy's change is, so that none needs the whole photograph as floats.
"""

from collections.abc import Callable

import numpy as np

from fairweather.imaging import as_float
from fairweather.restoration.proxy import hand_on_colours, make_proxy

SMALL_PX = 640  # longer side of the small version
LARGEST_CAST = 3.0  # shift of the mean colour that a restoration may cause, in units of CIELAB
BLOTCH_WEIGHT = 0.2  # of total variation against fidelity
SMOOTH = 0.02  # standard deviation of brightness in [0, 1] below which a region is smooth
SMOOTH_SIGMA_PX = 4.0
CLIP_LIMIT = 0.01  # of the local histograms: higher is more contrast
CONTRAST_SHARE = 0.5


def list_finishes() -> list[str]:
    """Return the names of all finishes."""
    return list(FINISHES)


def apply_finish(before: np.ndarray, restored: np.ndarray, *, name: str) -> np.ndarray:
    """Return a restored photograph with a last touch; an unchanged one stays as it is.

    Args:
        before: (H, W, 3) RGB, uint8, uint16 or floats in [0, 1].
        restored: the same, restored.
        name: one of `list_finishes`.

    Returns:
        The same size and type.
    """
    small_before, small = (
        as_float(make_proxy(pixels, longest_px=SMALL_PX)) for pixels in (before, restored)
    )
    if np.array_equal(small_before, small):
        return restored
    finished = FINISHES[name](small_before, small).clip(0, 1).astype(np.float32)
    out = np.empty_like(restored)
    hand_on_colours(restored, proxy=small, change=finished - small, out=out)
    return out


def keep_colour(before: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Take back what a restoration shifts the mean colour by, beyond `LARGEST_CAST`."""
    from skimage import color

    lab_before, lab = color.rgb2lab(before), color.rgb2lab(restored)
    shift = (lab - lab_before)[..., 1:].mean((0, 1))
    length = float(np.linalg.norm(shift))
    if length <= LARGEST_CAST:
        return restored
    lab[..., 1:] -= shift * (1 - LARGEST_CAST / length)
    return color.lab2rgb(lab)


def smooth_blotches(before: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Smooth what a restoration changes where the photograph itself is smooth."""
    from skimage import filters, restoration

    change = restored - before
    smoother = restoration.denoise_tv_chambolle(change, weight=BLOTCH_WEIGHT, channel_axis=-1)
    grey = before.mean(-1)
    mean = filters.gaussian(grey, SMOOTH_SIGMA_PX)
    variance = filters.gaussian(grey**2, SMOOTH_SIGMA_PX) - mean**2
    share = np.exp(-variance.clip(0) / SMOOTH**2)[..., None]
    return before + change + share * (smoother - change)


def raise_contrast(before: np.ndarray, restored: np.ndarray) -> np.ndarray:
    """Raise the local contrast of the brightness."""
    from skimage import color, exposure

    lab = color.rgb2lab(restored)
    lightness = lab[..., 0] / 100
    equalised = exposure.equalize_adapthist(lightness.clip(0, 1), clip_limit=CLIP_LIMIT)
    lab[..., 0] += 100 * CONTRAST_SHARE * (equalised - lightness)
    return color.lab2rgb(lab)


FINISHES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "colour": keep_colour,
    "smooth": smooth_blotches,
    "contrast": raise_contrast,
}
