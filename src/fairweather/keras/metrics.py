"""PSNR and SSIM as Keras metrics: means over images, each clipped to [0, 1] first."""

from typing import Any

import keras

from fairweather.keras.layers import ops, register
from fairweather.keras.losses import ssim_map
from fairweather.training import HIGHEST_PSNR_DB


@register
class PSNR(keras.metrics.MeanMetricWrapper):
    """Peak signal-to-noise ratio in dB, over all channels of an image, at most 100."""

    def __init__(self, *, name: str = "psnr_db", dtype: Any = None):
        super().__init__(psnr_db, name=name, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}


@register
class SSIM(keras.metrics.MeanMetricWrapper):
    """Structural similarity (Wang et al., IEEE TIP 2004), over all channels of an image.

    Gaussian window of 11 × 11 px and σ 1.5 px; over every pixel, with reflection at the border.
    """

    def __init__(self, *, name: str = "ssim", dtype: Any = None):
        super().__init__(ssim, name=name, dtype=dtype)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype}


def psnr_db(clean: Any, restored: Any) -> Any:
    """Return the PSNR of each image of two (B, H, W, 3), (B,)."""
    clean, restored = to_tensors(clean, restored)
    error = ops.mean(ops.square(ops.clip(restored, 0, 1) - clean), axis=(1, 2, 3))
    return ops.minimum(-10 * ops.log10(error), HIGHEST_PSNR_DB)


def ssim(clean: Any, restored: Any) -> Any:
    """Return the SSIM of each image of two (B, H, W, 3), (B,)."""
    clean, restored = to_tensors(clean, restored)
    return ops.mean(ssim_map(clean, ops.clip(restored, 0, 1)), axis=(1, 2, 3))


def to_tensors(clean: Any, restored: Any) -> tuple[Any, Any]:
    """Arrays as tensors of the backend and of one dtype, for PyTorch's do not mix with NumPy's."""
    clean = ops.convert_to_tensor(clean)
    return clean, ops.cast(restored, clean.dtype)
