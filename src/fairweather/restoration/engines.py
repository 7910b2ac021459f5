"""What runs the network: one callable for each runtime, tiles in and tiles out."""

from typing import Any, Protocol

import numpy as np
import torch

from fairweather.hardware import check_precision, host_budget_bytes, lowered, pick_device
from fairweather.models import AST, ASTConfig, pad_to_multiple


class Engine(Protocol):
    """What all engines have in common.

    Attributes:
        device: where the network runs.
        config: the network's config.
    """

    device: torch.device
    config: ASTConfig

    def __call__(self, tiles: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) float32 in [0, 1] → the same, not clipped; any H and W."""
        ...

    def free_bytes(self) -> int:
        """How much memory a tile may take."""
        ...

    def release(self) -> None:
        """Gives memory that is kept for later back, after an allocation failed."""
        ...


class TorchEngine:
    """PyTorch on one device, eager or compiled.

    Attributes:
        device: where the network runs.
        config: the network's config.
    """

    def __init__(
        self,
        model: AST,
        *,
        device: str = "auto",
        precision: str = "fp32",
        compiles: bool = False,
    ):
        """Moves the model to the device.

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
        self.precision = precision
        self.config = model.config
        self._model = model.eval().to(self.device)
        self._compiled: Any = torch.compile(self._model, dynamic=True) if compiles else None

    def __call__(self, tiles: np.ndarray, context: torch.Tensor | None = None) -> np.ndarray:
        """(B, H, W, 3) float32 in [0, 1] → the same, not clipped.

        Args:
            tiles: whole images, or parts of one.
            context: what `look` said of the one that they are parts of.
        """
        with torch.inference_mode(), lowered(self.device, self.precision):
            restored = self._restore(self._batch(tiles), context)
            return restored.permute(0, 2, 3, 1).float().cpu().numpy()

    def look(self, image: np.ndarray) -> torch.Tensor:
        """What `AST.look` says of (B, H, W, 3) float32 in [0, 1]."""
        with torch.inference_mode(), lowered(self.device, self.precision):
            return self._model.look(self._batch(image))

    def _batch(self, tiles: np.ndarray) -> torch.Tensor:
        batch = torch.from_numpy(np.ascontiguousarray(tiles)).to(self.device)
        return batch.permute(0, 3, 1, 2)

    def _restore(self, batch: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        if self._compiled is None:
            return self._model(batch, context)
        height, width = batch.shape[-2:]
        # Padded outside of the graph, so that fewer sizes are compiled anew.
        padded = pad_to_multiple(batch, self.config.size_multiple)
        if context is None and self.config.global_context and padded.shape != batch.shape:
            context = self._model.look(batch)  # which leaves the padding out
        return self._compiled(padded, context)[..., :height, :width]

    def free_bytes(self) -> int:
        """How much memory a tile may take: a share of what the device has."""
        if self.device.type == "cuda":
            return int(0.6 * torch.cuda.mem_get_info(self.device)[0])
        if self.device.type == "xpu":
            return int(0.6 * torch.xpu.get_device_properties(self.device).total_memory)
        if self.device.type == "mps":
            return int(0.5 * torch.mps.recommended_max_memory())
        return host_budget_bytes()

    def release(self) -> None:
        """Gives cached device memory back, after an allocation failed."""
        if self.device.type in ("cuda", "xpu", "mps"):
            getattr(torch, self.device.type).empty_cache()


def activation_bytes_per_px(config: ASTConfig) -> int:
    """Peak memory of a forward pass for each pixel of a tile, float32 [bytes], with a margin.

    The last decoder stage decides: its logits, their softmax, their ReLU² and the two fused are
    alive at once, beside queries, keys and values; or the feed-forward network's tensors.
    """
    channels, heads = config.channels[-1], config.heads[-1]
    attention = 4 * heads * config.window**2 + 9 * channels
    feed_forward = (4 * config.mlp_ratio + 3) * channels
    skips = 2 * config.embed_dim
    return int(1.3 * 4 * (max(attention, feed_forward) + skips + 12))
