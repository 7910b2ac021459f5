"""The ways in which a model is run for a figure: the official ones, and ours."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from fairweather.errors import FairweatherError, OptionError
from fairweather.evaluation.protocols import INFERENCES
from fairweather.hardware import is_out_of_memory, pick_device
from fairweather.models import Network
from fairweather.restoration import (
    Restorer,
    refuse_nonfinite_result,
    restore_equal_tiles,
    restore_square_padded,
    self_ensemble,
)

Run = Callable[[np.ndarray], np.ndarray]

OFFICIAL: dict[str, Callable[[torch.nn.Module, Tensor], Tensor]] = {
    "square_pad_128": partial(restore_square_padded, multiple=128),
    "tiles_384_80": partial(restore_equal_tiles, tile_px=384, overlap_px=80),
    "tiles_1152_384": partial(restore_equal_tiles, tile_px=1152, overlap_px=384),
    "tiles_256_200": partial(restore_equal_tiles, tile_px=256, overlap_px=200),
    "tiles_384_300": partial(restore_equal_tiles, tile_px=384, overlap_px=300),
    "tiles_400_384": partial(restore_equal_tiles, tile_px=400, overlap_px=384),
}


def build_run(
    model: Network,
    *,
    inference: str = "ours",
    device: str = "auto",
    precision: str = "fp32",
    ensemble: bool = False,
) -> Run:
    """Return a function that restores one image.

    Args:
        model: in evaluation mode.
        inference: one of `INFERENCES`.
        device: as for `Restorer`.
        precision: `fp32`; for `ours` and `whole` also what else a `Restorer` takes but `auto`.
        ensemble: average over the flips and quarter turns that the weights were trained with.

    Returns:
        (H, W, 3) float32 in [0, 1] → the same, clipped. It raises FairweatherError if memory runs
        out.

    Raises:
        OptionError: for another inference, or a device or precision that it does not have.
    """
    if inference not in INFERENCES:
        raise OptionError(f"inference {inference!r}: is none of {', '.join(INFERENCES)}")
    if inference in OFFICIAL:
        if precision != "fp32":
            raise OptionError(f"inference {inference!r}: computes in fp32; choose ours or whole")
        restore = _official_run(model, inference, device=device, ensemble=ensemble)
    else:
        tile = "auto" if inference == "ours" else None
        restorer = Restorer(
            model, device=device, precision=precision, tile=tile, self_ensemble=ensemble
        )
        restore = restorer.restore_pixels

    def run(image: np.ndarray) -> np.ndarray:
        try:
            return restore(image)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            height, width = image.shape[:2]
            raise FairweatherError(
                f"{height}×{width} px do not fit into memory as '{inference}'; use --inference ours"
                " or --device cpu"
            ) from error

    return run


def _official_run(model: Network, inference: str, *, device: str, ensemble: bool) -> Run:
    place, official = pick_device(device), OFFICIAL[inference]
    model = model.to(place)

    def forward(images: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(place)
        with torch.inference_mode():
            return official(model, batch).permute(0, 2, 3, 1).cpu().numpy()

    def restore(image: np.ndarray) -> np.ndarray:
        batch = image[np.newaxis]
        if ensemble:
            restored = self_ensemble(forward, batch, symmetries=model.config.symmetries)
        else:
            restored = forward(batch)
        refuse_nonfinite_result(restored, weights="the model")
        return restored[0].clip(0, 1)

    return restore
