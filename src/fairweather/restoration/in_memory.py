"""Images in memory: PIL images, arrays and tensors ⇄ the (H, W, 3) arrays that a Restorer takes."""

import functools
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fairweather.errors import ImageError
from fairweather.imaging import upright_picture

FLOATS = (np.float16, np.float32, np.float64)
INTEGERS = (np.uint8, np.uint16)
PIL_MODES = {
    "1": "L",
    "La": "LA",
    "RGBa": "RGBA",
    **dict.fromkeys(("P", "PA", "CMYK", "YCbCr", "LAB", "HSV", "RGBX"), "RGB"),
}
# Restored as they are: 16 bits in each byte order, 32-bit integers and floats.
PIL_ARRAYS = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
KINDS = (
    "a PIL image; an array (H, W), (H, W, 3) or (H, W, 4); or a tensor (3, H, W) or (B, 3, H, W);"
    " uint8, uint16, or floats in [0, 1]"
)


class RestorePixels(Protocol):
    """What restores (H, W, 3) RGB and keeps its type."""

    def __call__(self, pixels: np.ndarray, *, grey: bool = False) -> np.ndarray: ...


def from_memory(image: Any, restore: RestorePixels) -> Any:
    """Restore an image of any supported kind, and give back the same kind.

    Raises:
        ImageError: for other shapes, types and ranges.
    """
    if isinstance(image, Image.Image):
        return restore_pil(image, restore)
    if isinstance(image, Tensor):
        return restore_tensor(image, restore)
    if isinstance(image, np.ndarray):
        return restore_array(image, restore)
    raise ImageError(f"cannot restore a {type(image).__name__}; give {KINDS}")


def restore_array(image: np.ndarray, restore: RestorePixels) -> np.ndarray:
    """Restore (H, W), (H, W, 3) or (H, W, 4): grey stays grey and alpha is kept."""
    if image.ndim == 2:
        coloured = np.stack((image,) * 3, -1)
        grey = restore_array(coloured, functools.partial(restore, grey=True))[..., 0]
        return grey.astype(image.dtype, copy=False)  # stacking makes the byte order native
    if image.ndim != 3 or image.shape[2] not in (3, 4) or 0 in image.shape:
        raise ImageError(f"cannot restore an array of shape {image.shape}; give {KINDS}")
    check_range(image)
    colours = np.ascontiguousarray(image[..., :3])
    plain = np.float32 if image.dtype == np.float16 else image.dtype.newbyteorder("=")
    colours = colours.astype(plain, copy=False)
    restored = restore(colours).astype(image.dtype, copy=False)
    if image.shape[2] == 3:
        return restored
    return np.dstack((restored, image[..., 3:])).astype(image.dtype, copy=False)


def restore_tensor(image: Tensor, restore: RestorePixels) -> Tensor:
    """Restore (3, H, W) or (B, 3, H, W), on any device."""
    if image.ndim == 4:
        if not len(image):
            raise ImageError("cannot restore a batch of no images")
        return torch.stack([restore_tensor(one, restore) for one in image])
    if image.ndim != 3 or image.shape[0] != 3:
        raise ImageError(f"cannot restore a tensor of shape {tuple(image.shape)}; give {KINDS}")
    on_host = image.detach().cpu().permute(1, 2, 0)
    as_array = (on_host.float() if image.dtype == torch.bfloat16 else on_host).numpy()
    restored = torch.from_numpy(restore_array(as_array, restore)).permute(2, 0, 1)
    return restored.to(image.device, image.dtype).contiguous()


def restore_pil(image: Image.Image, restore: RestorePixels) -> Image.Image:
    """Restore a picture of any mode, upright; palettes and CMYK come back as RGB."""
    if 0 in image.size:
        raise ImageError(f"cannot restore a picture of the shape {image.size}; give {KINDS}")
    image = upright_picture(image)
    mode = PIL_MODES.get(image.mode, image.mode)
    if mode in ("L", "RGB") and image.has_transparency_data:
        mode += "A"  # also for a transparent colour, which no restored pixel would have
    if mode not in ("L", "LA", "RGB", "RGBA", *PIL_ARRAYS):
        raise ImageError(f"cannot restore a PIL image of mode {image.mode}; convert it to RGB")
    profile_fits = image.mode not in ("CMYK", "LAB")
    if mode != image.mode:
        image = image.convert(mode)
    if mode in PIL_ARRAYS:
        restored = restore_wide(image, restore)
    elif mode == "LA":
        grey, alpha = image.split()
        colours = Image.fromarray(restore_array(np.asarray(grey), restore))
        restored = Image.merge("LA", (colours, alpha))
    else:
        restored = Image.fromarray(restore_array(np.asarray(image), restore))
    restored.info.update(image.info)
    if not profile_fits:
        restored.info.pop("icc_profile", None)
    return restored


def restore_wide(image: Image.Image, restore: RestorePixels) -> Image.Image:
    """Restore grey of 16 bits, of floats in [0, 1], or of 16 bits kept as 32-bit integers."""
    values = np.asarray(image)
    if image.mode == "I":
        low, high = int(values.min()), int(values.max())
        if low < 0 or not 255 < high <= 65535:
            raise ImageError(
                f"the values of mode I run from {low} to {high}, and what is white is not known;"
                ' convert it to "L" if that is 255, or to "I;16" if it is 65535'
            )
        values = values.astype(np.uint16)
    restored = restore_array(values, restore)
    if image.mode in ("I", "F"):
        return Image.fromarray(restored.astype(np.asarray(image).dtype))
    return Image.frombytes(image.mode, image.size, restored.tobytes())


def check_range(image: np.ndarray) -> None:
    """Refuse types and values that a model would make nonsense of."""
    kind = image.dtype.newbyteorder("=")
    if kind in INTEGERS:
        return
    if kind not in FLOATS:
        raise ImageError(f"cannot restore values of type {image.dtype}; give {KINDS}")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0 and high <= 1):  # written so that NaN is refused too
        raise ImageError(
            f"the values run from {low:g} to {high:g}, but floats must lie in [0, 1];"
            " divide by 255 if they are bytes, by 65535 if they have 16 bits, or clip them"
        )
