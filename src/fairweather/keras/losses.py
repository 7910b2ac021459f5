"""The losses of `fairweather.training` for Keras: functions of (clean, restored), in Keras' order.

Images are (B, H, W, 3), RGB in [0, 1]; `restored` may exceed it. Each loss has the value that the
PyTorch one has on the same images.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from fairweather.errors import RecipeError
from fairweather.keras.layers import ops, register
from fairweather.training import (
    CHARBONNIER_EPSILON,
    LATTICE_PX,
    LEAST_MSE,
    SSIM_SIGMA_PX,
    SSIM_WINDOW_PX,
)


@register
class Charbonnier(keras.losses.Loss):
    """Mean of √(difference² + ε²) with ε = 1e-3, the official training loss."""

    def __init__(
        self,
        *,
        name: str = "charbonnier",
        reduction: str = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return charbonnier(y_true, y_pred)


@register
class WeightedLoss(keras.losses.Loss):
    """Σ weight · loss, as a recipe gives it.

    Args:
        terms: weights by name: charbonnier, l1, mse, psnr, ssim, frequency or edge.
        name: name of the loss.
        reduction: of a batch; the terms are means already.
        dtype: what it is computed in; None takes Keras' default.

    Raises:
        RecipeError: for a term that Keras does not have.
    """

    def __init__(
        self,
        terms: Mapping[str, float],
        *,
        name: str = "loss",
        reduction: str = "sum_over_batch_size",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.terms = dict(terms)
        for term in self.terms:
            if term not in LOSSES:
                raise RecipeError(
                    f"loss term {term!r}: Keras has only {', '.join(LOSSES)}; train with PyTorch"
                )

    def call(self, y_true: Any, y_pred: Any) -> Any:
        parts = [w * ops.mean(LOSSES[term](y_true, y_pred)) for term, w in self.terms.items()]
        return sum(parts[1:], parts[0])

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "terms": self.terms}


def charbonnier(clean: Any, restored: Any) -> Any:
    """√(difference² + ε²) of each value."""
    return ops.sqrt(ops.square(restored - clean) + CHARBONNIER_EPSILON**2)


def psnr(clean: Any, restored: Any) -> Any:
    """How many dB of PSNR each image is below 40 dB, roughly; one number for each."""
    squares = ops.mean(ops.square(restored - clean), (1, 2, 3))
    return 10 / math.log(10) * ops.log1p(squares / LEAST_MSE)


def ssim_map(clean: Any, restored: Any) -> Any:
    """SSIM (Wang et al., IEEE TIP 2004) of each value, reflected at the border.

    Args:
        clean: (B, H, W, 3) in [0, 1], both sides at least 11 px.
        restored: likewise.

    Returns:
        (B, H, W, 3).
    """
    mean_x, mean_y = blur(clean), blur(restored)
    variance_x = ops.maximum(blur(ops.square(clean)) - ops.square(mean_x), 0)
    variance_y = ops.maximum(blur(ops.square(restored)) - ops.square(mean_y), 0)
    covariance = blur(clean * restored) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (ops.square(mean_x) + ops.square(mean_y) + c1) * (variance_x + variance_y + c2)
    )


def blur(images: Any) -> Any:
    """Wang's Gaussian window, 11 × 11 px and σ 1.5 px, of (B, H, W, 3), reflected at the border."""
    offsets = np.arange(SSIM_WINDOW_PX) - SSIM_WINDOW_PX // 2
    weights = np.exp(-0.5 * (offsets / SSIM_SIGMA_PX) ** 2)
    kernel = np.tile((weights / weights.sum()).reshape(-1, 1, 1, 1), (1, 1, 3, 1))
    kernel = ops.cast(kernel, images.dtype)
    border = SSIM_WINDOW_PX // 2
    images = ops.pad(images, [(0, 0), (border, border), (border, border), (0, 0)], mode="reflect")
    options = {"padding": "valid", "data_format": "channels_last"}
    images = ops.depthwise_conv(images, kernel, **options)
    return ops.depthwise_conv(images, ops.transpose(kernel, (1, 0, 2, 3)), **options)


def structural_dissimilarity(clean: Any, restored: Any) -> Any:
    """1 − SSIM of each value."""
    return 1 - ssim_map(clean, restored)


def frequency(clean: Any, restored: Any) -> Any:
    """|real| and |imaginary| part of the 2-D spectrum of the difference, orthonormal.

    As the PyTorch loss of this name, of the half of the spectrum that a real transform has.
    """
    difference = ops.transpose(restored - clean, (0, 3, 1, 2))
    height, width = ops.shape(difference)[2:]
    real, imaginary = ops.fft2((difference, ops.zeros_like(difference)))
    half = width // 2 + 1
    scale = ops.sqrt(ops.cast(height * width, difference.dtype))
    return ops.abs(ops.stack([real[..., :half], imaginary[..., :half]])) / scale


def edge(clean: Any, restored: Any) -> Any:
    """Charbonnier of the Laplacians of each value, whose border repeats the outermost pixel."""
    return charbonnier(laplacian(clean), laplacian(restored))


def laplacian(images: Any) -> Any:
    """Sum of the 4 neighbours less 4 times the pixel of (B, H, W, 3)."""
    padded = ops.concatenate([images[:, :1], images, images[:, -1:]], axis=1)
    down_and_up = padded[:, 2:] + padded[:, :-2]
    padded = ops.concatenate([images[:, :, :1], images, images[:, :, -1:]], axis=2)
    return down_and_up + padded[:, :, 2:] + padded[:, :, :-2] - 4 * images


def lattice(clean: Any, restored: Any) -> Any:
    """Root mean square of what the difference of each image repeats every 16 px."""
    rows, columns = (length // LATTICE_PX for length in clean.shape[1:3])
    difference = (restored - clean)[:, : rows * LATTICE_PX, : columns * LATTICE_PX]
    cells = ops.reshape(difference, (-1, rows, LATTICE_PX, columns, LATTICE_PX, 3))
    cell = ops.mean(cells, axis=(1, 3))
    repeated = cell - ops.mean(cell, axis=(1, 2), keepdims=True)
    squares = ops.mean(ops.square(repeated), axis=(1, 2, 3))
    return ops.sqrt(squares + CHARBONNIER_EPSILON**2)


LOSSES: dict[str, Callable[[Any, Any], Any]] = {
    "charbonnier": charbonnier,
    "l1": keras.losses.mean_absolute_error,
    "mse": keras.losses.mean_squared_error,
    "psnr": psnr,
    "ssim": structural_dissimilarity,
    "frequency": frequency,
    "edge": edge,
    "lattice": lattice,
}
