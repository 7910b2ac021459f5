"""PSNR, SSIM and errors in CIELAB under a named `MetricProtocol`.

scikit-image computes them. It is imported where it is used: it brings scipy.stats, for which
restoring would wait a second.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from PIL import Image

from fairweather.errors import ImageError, OptionError
from fairweather.evaluation.protocols import PROTOCOLS, MetricProtocol, SsimVariant, SsimWindow
from fairweather.imaging import as_bytes

WINDOW_PX: dict[SsimWindow, int] = {"uniform 7": 7, "Gaussian 11, σ 1.5": 11}
SCORED_PX = 256

# Bradford's adaptation of XYZ from D65 to D50. MATLAB's srgb2lab gives CIELAB under D50, and
# scikit-image has no adaptation; under D65 the errors differ by about 2 %.
D65_TO_D50 = np.array(
    [
        [1.0478112, 0.0228866, -0.0501270],
        [0.0295424, 0.9904844, -0.0170491],
        [-0.0092345, 0.0150436, 0.7521316],
    ]
)


@dataclass(frozen=True)
class Measures:
    """The figures of one image.

    Attributes:
        psnr_db: infinite where the images are identical.
        ssim: 1 where the images are identical.
        also: what else the protocol asks for, by name; see `measure`.
    """

    psnr_db: float
    ssim: float
    also: dict[str, float] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, float]:
        """All of them by name."""
        return {"psnr_db": self.psnr_db, "ssim": self.ssim, **self.also}


def measure(
    restored: np.ndarray,
    clean: np.ndarray,
    *,
    protocol: MetricProtocol,
    mask: np.ndarray | None = None,
) -> Measures:
    """Score a restored image against the clean one.

    Floats stay unrounded unless the protocol rounds.

    Args:
        restored: (H, W, 3) RGB, uint8, or float32 in [0, 1].
        clean: of the same shape and type.
        protocol: one of `PROTOCOLS`, or your own.
        mask: (H, W) bool, True in the shadow; for protocols with "lab".

    Returns:
        PSNR and SSIM; in `also`, "rgb" gives `rgb_psnr_db` and `rgb_ssim`; "lab" gives `lab_mae`
        (what the papers on ISTD call RMSE) and `lab_rmse`, and with a mask these two, `psnr_db`
        and `ssim` with `_shadow` and `_outside` appended. As in the script that the protocol
        follows, PSNR and SSIM of a region are of whole images that are black elsewhere, while
        CIELAB errors are averaged over the region. A region without pixels is left out.

    Raises:
        ImageError: the images differ in shape or type, are of other shapes, types or ranges, or are
            smaller than the window of SSIM.
        OptionError: there is a mask that the protocol does not use.
    """
    _check_image(restored, "restored image")
    _check_image(clean, "clean image")
    if restored.shape != clean.shape or restored.dtype != clean.dtype:
        raise ImageError(
            f"the restored image is {restored.shape} {restored.dtype} but the clean one is"
            f" {clean.shape} {clean.dtype}; give both in one size and type"
        )
    a, b = (_pixels(image, protocol) for image in (restored, clean))
    also = {}
    if "rgb" in protocol.also:
        beside = measure(restored, clean, protocol=PROTOCOLS["agan"])
        also = {"rgb_psnr_db": beside.psnr_db, "rgb_ssim": beside.ssim}
    if "lab" in protocol.also:
        also |= _lab_errors(a, b, protocol)
        for region, inside in _regions(mask, restored.shape, protocol):
            figures = dict(zip(("psnr_db", "ssim"), _scores(a, b, protocol, inside), strict=True))
            figures |= _lab_errors(a, b, protocol, inside)
            also |= {f"{name}_{region}": value for name, value in figures.items()}
    elif mask is not None:
        raise OptionError(f"protocol '{protocol.name}' uses no mask; leave it out, or use 'istd'")
    psnr_db, ssim = _scores(a, b, protocol)
    return Measures(psnr_db, ssim, also)


def prepare_image(image: np.ndarray, *, protocol: MetricProtocol) -> np.ndarray:
    """Return what a protocol gives to the model of an image, degraded or clean.

    Args:
        image: (H, W, 3) uint8.
        protocol: its `model_input` says what is done.

    Returns:
        (h, w, 3) uint8; the image itself where it is used as it is.

    Raises:
        ImageError: the image is of another shape or type.
    """
    if protocol.model_input == "whole image":
        return image
    _check_image(image, "image")
    if image.dtype != np.uint8:
        raise ImageError(f"image is {image.dtype}; protocol '{protocol.name}' prepares uint8")
    height, width = image.shape[:2]
    middle = image[height // 6 : height * 5 // 6, width // 6 : width * 5 // 6]
    size = (SCORED_PX, SCORED_PX)
    return np.asarray(Image.fromarray(middle).resize(size, Image.Resampling.BILINEAR))


def measure_alone(image: np.ndarray) -> dict[str, float]:
    """Measure what can be measured of an image without a clean one.

    NIQE and BRISQUE are not here. scikit-image and torchmetrics have neither; pyiqa's weights are
    CC BY-NC-SA, piq (Apache) had its last release in July 2023 and downloads its weights when
    called, and scikit-video's is older still. (Looked up in November 2026.)

    Args:
        image: (H, W, 3) RGB, uint8, or float32 in [0, 1].

    Returns:
        `blur`: 0 sharp to 1 blurred (Crété-Roffet et al., 2007; noise counts as sharp);
        `entropy_bits`: Shannon entropy of the 8-bit luma, which haze lowers.

    Raises:
        ImageError: the image is of another shape, type or range, or smaller than 11 px.
    """
    from skimage.measure import blur_effect, shannon_entropy

    _check_image(image, "image")
    window_px = 11
    _check_size(image, window_px, "the window of the blur measure")
    return {
        "blur": float(cast("float", blur_effect(image, h_size=window_px, channel_axis=2))),
        "entropy_bits": float(shannon_entropy(_luma(as_bytes(image)).round())),
    }


def measure_cast(image: np.ndarray, reference: np.ndarray) -> float:
    """Return how far the mean colour of an image lies from that of another of its scene.

    The distance of the mean (a*, b*) in CIELAB under D65, so brightness does not count. From about
    2.3 a difference of two surfaces side by side is just noticeable (Mahy et al., 1994).

    Args:
        image: (H, W, 3) RGB, uint8, or float32 in [0, 1].
        reference: likewise, of any size.

    Raises:
        ImageError: one of them is of another shape, type or range.
    """
    from skimage.color import rgb2lab

    means = []
    for name, pixels in (("image", image), ("reference", reference)):
        _check_image(pixels, name)
        means.append(rgb2lab(pixels)[..., 1:].mean((0, 1)))
    return float(np.hypot(*(means[0] - means[1])))


def _check_image(image: np.ndarray, name: str) -> None:
    shape, dtype = image.shape, image.dtype
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or dtype not in (np.uint8, np.float32):
        raise ImageError(f"{name} is {shape} {dtype} but must be (H, W, 3), uint8 or float32")
    if dtype == np.float32 and not (image.min() >= 0 and image.max() <= 1):  # NaN too
        raise ImageError(
            f"{name} has values from {image.min():g} to {image.max():g}, outside of [0, 1]; clip"
            " it, or divide it by 255"
        )


def _check_size(image: np.ndarray, least_px: int, what: str) -> None:
    height, width = image.shape[:2]
    if min(height, width) < least_px:
        raise ImageError(f"image is {height}×{width} px; {what} needs {least_px} px a side")


def _luma(image: np.ndarray) -> np.ndarray:
    """Y of BT.601 in 16 to 235."""
    from skimage.color import rgb2ycbcr

    return rgb2ycbcr(image)[..., 0]


def _pixels(image: np.ndarray, protocol: MetricProtocol) -> np.ndarray:
    """(h, w, 3) or (h, w), what is scored: in [0, data_range], float64 if rounded, else float32."""
    if protocol.rounded:
        image = as_bytes(image)
    if protocol.colour != "rgb":
        luma = _luma(image)
        pixels = (luma.round() if protocol.colour == "luma" else luma) / 255
    elif image.dtype == np.uint8:
        pixels = image.astype(np.float64 if protocol.rounded else np.float32) / 255
    else:
        pixels = image
    if protocol.scored_at != "own size":
        pixels = _each_channel(pixels, _resized)
    return pixels * protocol.data_range


def _each_channel(pixels: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    if pixels.ndim == 2:
        return change(pixels)
    return np.stack([change(pixels[..., channel]) for channel in range(3)], axis=-1)


def _resized(plane: np.ndarray) -> np.ndarray:
    """(256, 256) as MATLAB's imresize: bicubic, antialiased, with mirrored edges, not clipped."""
    height, width = plane.shape
    edge_px = 2 * math.ceil(max(height, width, SCORED_PX) / SCORED_PX) + 1
    padded = Image.fromarray(np.pad(plane, edge_px, mode="symmetric").astype(np.float32))
    box = (edge_px, edge_px, edge_px + width, edge_px + height)
    size = (SCORED_PX, SCORED_PX)
    return np.asarray(padded.resize(size, Image.Resampling.BICUBIC, box=box), np.float64)


def _scores(
    a: np.ndarray, b: np.ndarray, protocol: MetricProtocol, inside: np.ndarray | None = None
) -> tuple[float, float]:
    """PSNR [dB] and SSIM of pixels, black outside of `inside`."""
    from skimage.metrics import peak_signal_noise_ratio

    if inside is not None:
        a, b = a * inside[..., None], b * inside[..., None]
    with np.errstate(divide="ignore"):  # identical images
        psnr_db = peak_signal_noise_ratio(b, a, data_range=protocol.data_range)
    return float(psnr_db), _ssim(a, b, protocol.ssim, data_range=protocol.data_range)


def _ssim(a: np.ndarray, b: np.ndarray, variant: SsimVariant, *, data_range: float) -> float:
    from skimage.metrics import structural_similarity

    window_px = WINDOW_PX[variant.window]
    if variant.shrunk:
        a, b = _each_channel(a, _pooled), _each_channel(b, _pooled)
    if variant.border == "replicated":
        around = [(window_px // 2,) * 2] * a.ndim
        if variant.channels == "each":
            around[2:] = [(0, 0)] * (a.ndim - 2)
        a, b = (np.pad(pixels, around, mode="edge") for pixels in (a, b))
    _check_size(a, window_px, "the window of SSIM")
    options: dict[str, Any] = {"win_size": window_px}
    if variant.window == "Gaussian 11, σ 1.5":
        options |= {"gaussian_weights": True, "sigma": 1.5}
    ssim = structural_similarity(
        a,
        b,
        data_range=data_range,
        channel_axis=2 if a.ndim == 3 and variant.channels == "each" else None,
        use_sample_covariance=variant.covariance == "sample",
        **options,
    )
    return float(cast("float", ssim))


def _pooled(plane: np.ndarray) -> np.ndarray:
    """(H, W) averaged over blocks so that the shorter side has about 256 px.

    PyTorch's pooling, as in the script followed: where blocks do not fit, they overlap.
    """
    import torch
    from torch.nn.functional import adaptive_avg_pool2d

    height, width = plane.shape
    ratio = max(1, round(min(height, width) / SCORED_PX))
    given = torch.from_numpy(np.ascontiguousarray(plane))[None]
    return adaptive_avg_pool2d(given, (height // ratio, width // ratio))[0].numpy()


def _lab_errors(
    a: np.ndarray, b: np.ndarray, protocol: MetricProtocol, inside: np.ndarray | None = None
) -> dict[str, float]:
    """Errors in CIELAB under D50, averaged over the pixels of `inside`."""
    from skimage.color import rgb2xyz, xyz2lab

    first, second = (
        xyz2lab(
            rgb2xyz(np.clip(pixels / protocol.data_range, 0, 1)) @ D65_TO_D50.T, illuminant="D50"
        )
        for pixels in (a, b)
    )
    difference = (first - second)[... if inside is None else inside]
    return {
        "lab_mae": float(np.abs(difference).sum(-1).mean()),
        "lab_rmse": float(np.sqrt(np.square(difference).sum(-1).mean())),
    }


def _regions(
    mask: np.ndarray | None, shape: tuple[int, ...], protocol: MetricProtocol
) -> Iterator[tuple[str, np.ndarray]]:
    """The shadow and the rest at the size that is scored; none without a mask or without pixels.

    A pixel that holds any shadow after bicubic resizing counts as shadow, as in MATLAB.
    """
    if mask is None:
        return
    if mask.shape != shape[:2] or mask.dtype != np.bool_:
        raise ImageError(f"the mask is {mask.shape} {mask.dtype} but must be {shape[:2]} bool")
    if protocol.scored_at != "own size":
        mask = _resized(mask.astype(np.float64)) * 255 >= 0.5  # imresize rounds uint8
    for region, inside in (("shadow", mask), ("outside", ~mask)):
        if inside.any():
            yield region, inside
