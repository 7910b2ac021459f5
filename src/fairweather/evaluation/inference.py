"""The ways in which a model is run for a figure: the official ones, and ours."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fairweather.errors import FairweatherError, OptionError
from fairweather.evaluation.protocols import INFERENCES
from fairweather.hardware import is_out_of_memory, pick_device
from fairweather.models import AST, load_model
from fairweather.restoration import (
    Restorer,
    restore_equal_tiles,
    restore_square_padded,
    self_ensemble,
)

Run = Callable[[np.ndarray], np.ndarray]

OFFICIAL: dict[str, Callable[[torch.nn.Module, Tensor], Tensor]] = {
    "square_pad_128": lambda model, image: restore_square_padded(model, image, multiple=128),
    "tiles_384_80": lambda model, image: restore_equal_tiles(
        model, image, tile_px=384, overlap_px=80
    ),
    "tiles_1152_384": lambda model, image: restore_equal_tiles(
        model, image, tile_px=1152, overlap_px=384
    ),
}


def build_run(
    weights: str | Path | AST,
    *,
    inference: str = "ours",
    device: str = "auto",
    ensemble: bool = False,
) -> Run:
    """Return a function that restores one image.

    Args:
        weights: a bundled name, a file, or a model in evaluation mode.
        inference: one of `INFERENCES`.
        device: as for `Restorer`.
        ensemble: average over the eight flips and quarter turns.

    Returns:
        (H, W, 3) float32 in [0, 1] → the same, clipped.

    Raises:
        OptionError: for another inference, or a device that is not here.
        CheckpointError: if the weights cannot be loaded.
    """
    if inference not in INFERENCES:
        raise OptionError(f"inference {inference!r}: is none of {', '.join(INFERENCES)}")
    model = weights if isinstance(weights, AST) else load_model(weights)
    if inference in ("ours", "whole"):
        tile = "auto" if inference == "ours" else None
        restorer = Restorer(model, device=device, tile=tile, self_ensemble=ensemble)
        return lambda image: _in_memory(restorer.restore_pixels, image, inference=inference)
    place = pick_device(device)
    model = model.to(place)
    official = OFFICIAL[inference]

    def forward(images: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(place)
        with torch.inference_mode():
            return official(model, batch).permute(0, 2, 3, 1).cpu().numpy()

    def restore(image: np.ndarray) -> np.ndarray:
        batch = image[np.newaxis]
        restored = self_ensemble(forward, batch) if ensemble else forward(batch)
        return restored[0].clip(0, 1)

    return lambda image: _in_memory(restore, image, inference=inference)


def _in_memory(run: Run, image: np.ndarray, *, inference: str) -> np.ndarray:
    """Run, and name the way out where an image does not fit into the memory.

    Raises:
        FairweatherError: if memory runs out.
    """
    try:
        return run(image)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        height, width = image.shape[:2]
        raise FairweatherError(
            f"{height}×{width} px do not fit into memory as '{inference}'; use --inference ours"
            " or --device cpu"
        ) from error
