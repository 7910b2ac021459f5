"""What runs the network: an engine for each runtime, tiles in and tiles out."""

from typing import Any, Protocol

import numpy as np
import torch

from fairweather.hardware import (
    check_precision,
    host_budget_bytes,
    lowered,
    pick_device,
    warn_of_slow,
)
from fairweather.models import (
    AST,
    ASTConfig,
    Config,
    Network,
    multiplies_in_bf16,
    multiply_in_bf16,
    pad_to_multiple,
)

Context = np.ndarray | None


class Engine(Protocol):
    """What all engines have in common.

    Attributes:
        device: where the network runs.
        config: the network's config, which also says whether it has a global context.
        bytes_per_px: memory that restoring takes for each pixel, with a margin.
    """

    device: torch.device
    config: Config
    bytes_per_px: int

    def __call__(self, tiles: np.ndarray, context: Context = None) -> np.ndarray:
        """Restore (B, H, W, 3) float32 in [0, 1] of any H and W; the result is not clipped.

        Args:
            tiles: whole images, or parts of one.
            context: what is known of the one that they are parts of, (B or 1, rows, columns, C),
                of which the network takes the mean; None where the tiles are whole images. Only
                read by a network with a global context.
        """
        ...

    def look(self, image: np.ndarray) -> np.ndarray:
        """Return what each place of (B, H, W, 3) says to a network with a global context.

        Returns:
            (B, rows, columns, C) float32, a place for each `place_px` pixels; the mean over the
            places of a whole image is its context.
        """
        ...

    def at_once(self) -> int:
        """Return how many threads should call it at the same time."""
        ...

    def free_bytes(self) -> int:
        """Return how much memory the tiles may take that it computes at the same time."""
        ...

    def release(self) -> None:
        """Give memory back that is kept for later, after an allocation failed."""
        ...


class TorchEngine:
    """An `Engine` of PyTorch on one device, eager or compiled."""

    def __init__(
        self,
        model: Network,
        *,
        device: str = "auto",
        precision: str = "fp32",
        compiles: bool = False,
    ):
        """Move the model to the device.

        Args:
            model: the network; it is put into evaluation mode.
            device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`, `xpu` …
            precision: `fp32`, `bf16` or `fp16`; the image itself is always added in fp32.
            compiles: whether torch.compile compiles the network, for minutes, with the first tile
                and again for another batch or a far larger tile.

        Raises:
            OptionError: if the device or precision does not exist here.
        """
        check_precision(precision)
        self.device = pick_device(device)
        if self.device.type == "cpu":
            warn_of_slow(precision)
        self.precision = precision
        self.config = model.config
        in_bf16 = precision == "bf16" and isinstance(model, AST) and multiplies_in_bf16()
        in_strips = self.device.type == "cpu" and not compiles and (precision == "fp32" or in_bf16)
        self.bytes_per_px = activation_bytes_per_px(model.config, in_strips=in_strips)
        model = model.eval()
        self._model = (multiply_in_bf16(model) if in_strips and in_bf16 else model).to(self.device)
        self._compiled: Any = torch.compile(self._model, dynamic=True) if compiles else None

    def __call__(self, tiles: np.ndarray, context: Context = None) -> np.ndarray:
        """Restore tiles; see `Engine`."""
        with torch.inference_mode(), lowered(self.device, self.precision):
            said = None
            if context is not None:
                said = torch.from_numpy(context).to(self.device).mean((1, 2), keepdim=True)
            restored = self._restore(self._batch(tiles), said)
            return restored.permute(0, 2, 3, 1).float().cpu().numpy()

    def look(self, image: np.ndarray) -> np.ndarray:
        """Return what each place says; see `Engine`."""
        with torch.inference_mode(), lowered(self.device, self.precision):
            return self._model.look_around(self._batch(image)).float().cpu().numpy()

    def _batch(self, tiles: np.ndarray) -> torch.Tensor:
        batch = torch.from_numpy(np.ascontiguousarray(tiles)).to(self.device)
        return batch.permute(0, 3, 1, 2)

    def _restore(self, batch: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        if self._compiled is None:
            return self._model(batch, context)
        if context is None and self.config.global_context:
            context = self._model.look(batch)  # so that one graph serves whole images and tiles
        height, width = batch.shape[-2:]
        # Padded outside of the graph, so that fewer sizes are compiled anew.
        padded = pad_to_multiple(batch, self.config.size_multiple)
        return self._compiled(padded, context)[..., :height, :width]

    def at_once(self) -> int:
        """Return how many threads should call it: on a CPU as many as PyTorch has."""
        by_tiles = self.device.type == "cpu" and self._compiled is None
        return torch.get_num_threads() if by_tiles else 1

    def free_bytes(self) -> int:
        """Return how much memory tiles may take: a share of what the device has."""
        if self.device.type == "cuda":
            return int(0.6 * torch.cuda.mem_get_info(self.device)[0])
        if self.device.type == "xpu":
            return int(0.6 * torch.xpu.get_device_properties(self.device).total_memory)
        if self.device.type == "mps":
            return int(0.5 * torch.mps.recommended_max_memory())
        return host_budget_bytes(tiles=self.at_once())

    def release(self) -> None:
        """Give cached device memory back, after an allocation failed."""
        if self.device.type in ("cuda", "xpu", "mps"):
            getattr(torch, self.device.type).empty_cache()


def activation_bytes_per_px(config: Config, *, in_strips: bool = False) -> int:
    """Return the peak memory of a forward pass for each pixel of a tile, with a margin [bytes].

    The last decoder stage decides: its logits, their softmax, their ReLU² and the two fused are
    alive at once, beside queries, keys and values; or the feed-forward network's tensors. On a CPU
    blocks with an FRFN run in strips, so that only their input and output are of full size.
    """
    channels, heads = config.channels[-1], config.heads[-1]
    if not isinstance(config, ASTConfig):
        # The decoder's features and values, and the skip; otherwise its feed-forward network's.
        inner = 0 if in_strips else (3 * config.mlp_ratio + 2) * channels
        return int(1.3 * 4 * (3 * channels + config.embed_dim + inner + 12))
    if in_strips and config.feed_forward == "frfn" and torch.backends.mkldnn.is_available():
        return int(1.3 * 4 * ((2 * channels + 2 * config.embed_dim) / config.fold**2 + 12))
    attention = 4 * heads * config.window**2 + 9 * channels
    feed_forward = (4 * config.mlp_ratio + 3) * channels
    skips = 2 * config.embed_dim
    return int(1.3 * 4 * ((max(attention, feed_forward) + skips) / config.fold**2 + 12))
