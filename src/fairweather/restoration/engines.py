"""What runs the network: one callable for each runtime, tiles in and tiles out."""

import ctypes
import logging
import os
import sys
from typing import Any, Protocol

import numpy as np
import torch

from fairweather.errors import OptionError
from fairweather.models import AST, ASTConfig, pad_to_multiple

log = logging.getLogger(__name__)

DEVICES = ("cuda", "xpu", "mps", "cpu")  # in the order in which `auto` looks; ROCm is cuda to torch
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_BUDGET_BYTES = 1 << 30
OUT_OF_MEMORY = (  # in the messages of PyTorch, ONNX Runtime and OpenVINO
    "out of memory",
    "can't allocate memory",
    "failed to allocate memory",
    "bad_alloc",
)


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


def check_precision(precision: str) -> None:
    """Refuses what PyTorch does not compute in here.

    Raises:
        OptionError: naming what it does.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r}: is none of {', '.join(PRECISIONS)}")


def lowered(device: torch.device | str, precision: str) -> torch.autocast:
    """Autocast to one of `PRECISIONS` on a device; nothing changes for `fp32`."""
    kind = torch.device(device).type
    return torch.autocast(kind, PRECISIONS[precision], enabled=precision != "fp32")


def pick_device(device: str) -> torch.device:
    """The device of that name, or the fastest kind that is here for `auto`."""
    if device == "auto":
        device = next(name for name in DEVICES if is_available(name))
    try:
        picked = torch.device(device)
    except RuntimeError as error:
        raise OptionError(f"device {device!r}: is none of auto, {', '.join(DEVICES)}") from error
    if not is_available(picked.type):
        here = ", ".join(name for name in DEVICES if is_available(name))
        raise OptionError(f"device {device!r}: this PyTorch finds none; it has {here}")
    return picked


def is_available(kind: str) -> bool:
    """Whether torch can compute on a kind of device here."""
    if kind == "cpu":
        return True
    module = getattr(torch, kind, None)
    return module is not None and module.is_available()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or the host, has no memory left."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    message = str(error).lower()  # ONNX Runtime's errors are of no common kind
    return any(words in message for words in OUT_OF_MEMORY)


def host_budget_bytes() -> int:
    """How much main memory a tile may take."""
    return min(CPU_BUDGET_BYTES, physical_memory_bytes() // 4)


def physical_memory_bytes() -> int:
    """Main memory of this machine; 4 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 4 << 30


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


def keep_freed_memory() -> None:
    """Tells glibc to reuse large freed tensors instead of returning them to the kernel.

    Otherwise much of the CPU time is page faults. It concerns the whole process, so it is for
    commands to call, not for libraries.
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold = -1, -3  # malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
    except (OSError, AttributeError):
        log.debug("this libc has no mallopt")
