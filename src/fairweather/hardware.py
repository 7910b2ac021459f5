"""What this machine computes with: devices, precisions, memory and its allocator."""

import ctypes
import logging
import os
import sys

import torch

from fairweather.errors import OptionError

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
