"""What this machine computes with: devices, precisions, memory and its allocator.

Light commands import this module too, so PyTorch, which takes a second, is imported where it is
needed. psutil knows the machine but not the limits of a container: those are read from the control
groups of this process.
"""

import ctypes
import logging
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from fairweather.errors import OptionError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

DEVICES = ("cuda", "xpu", "mps", "cpu")  # in the order in which `auto` looks; ROCm is cuda to torch
PRECISIONS = ("fp32", "bf16", "fp16")
CPU_BUDGET_BYTES = 1 << 30
# In the messages of PyTorch, oneDNN, ONNX Runtime and OpenVINO.
OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|failed to allocate memory|bad_alloc"
    r"|could not create a (primitive(?! descriptor)|memory)"
)

_CPU_INFO = Path("/proc/cpuinfo")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def check_precision(precision: str) -> None:
    """Refuse a precision that PyTorch is not asked for here.

    Raises:
        OptionError: `precision` is none of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r}: is none of {', '.join(PRECISIONS)}")


def dtype_of(precision: str) -> "torch.dtype":
    """Return PyTorch's type for one of `PRECISIONS`."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def lowered(device: "torch.device | str", precision: str) -> "torch.autocast":
    """Autocast to one of `PRECISIONS` on a device; `fp32` changes nothing."""
    import torch

    kind = torch.device(device).type
    return torch.autocast(kind, dtype_of(precision), enabled=precision != "fp32")


def pick_device(device: str) -> "torch.device":
    """Return the device of that name; for `auto`, the fastest kind that this machine has.

    Raises:
        OptionError: PyTorch knows no such device, or this machine has none.
    """
    import torch

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
    """Tell whether PyTorch can compute on a kind of device here."""
    import torch

    if kind == "cpu":
        return True
    module = getattr(torch, kind, None)
    return module is not None and module.is_available()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of any engine says that the device or the host is out of memory."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    message = str(error).lower()  # ONNX Runtime's errors are of no common kind
    return OUT_OF_MEMORY.search(message) is not None


def host_budget_bytes() -> int:
    """Return how much main memory a batch of tiles may take: at most 1 GiB, and a fair share."""
    return min(CPU_BUDGET_BYTES, physical_memory_bytes() // 4, available_memory_bytes() // 2)


def physical_memory_bytes() -> int:
    """Return the main memory of this machine, or of this container where that is less."""
    return min([psutil.virtual_memory().total, *_memory_limits()])


def available_memory_bytes() -> int:
    """Return how much main memory this process may still take without swapping."""
    held = psutil.Process().memory_info().rss
    left = [limit - held for limit in _memory_limits()]
    return max(0, min([psutil.virtual_memory().available, *left]))


def cpu_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Tell glibc to reuse large freed tensors instead of returning them to the kernel.

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


def _memory_limits() -> Iterator[int]:
    """Yield the limit of each control group that this process is in.

    A container often sees its own group as the root, and its path as the host does: folders that
    are not there are passed over, as are files that set no limit (`max`).
    """
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        # Version 2 names no controllers.
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        root = _CGROUPS / "memory" if controllers else _CGROUPS
        inner = root / group.lstrip("/")
        for folder in (inner, *inner.parents[: len(inner.relative_to(root).parts)]):
            try:
                limit = (folder / name).read_text(encoding="ascii").strip()
            except OSError:
                continue
            if limit.isdecimal():
                yield int(limit)
