"""What this machine computes with: devices, precisions, threads, memory and its allocator.

Light commands import this module too, so PyTorch, which takes a second, is imported where it is
needed. psutil knows the machine but not the limits of a container: those are read from the control
groups of this process.
"""

import ctypes
import functools
import logging
import math
import os
import platform
import re
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import psutil

from fairweather.errors import OptionError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
Item = TypeVar("Item")
Result = TypeVar("Result")

DEVICES = ("cuda", "xpu", "mps", "cpu")  # in the order in which `auto` looks; ROCm is cuda to torch
PRECISIONS = ("fp32", "bf16", "fp16")
FEW_CORES = 8  # up to which threads that allocate do not wait for each other noticeably
CPU_BUDGET_BYTES = 1 << 30
# In the messages of PyTorch, oneDNN, ONNX Runtime and OpenVINO.
OUT_OF_MEMORY = re.compile(
    r"out of memory|can't allocate memory|failed to allocate memory|bad_alloc"
    r"|could not create a (primitive(?! descriptor)|memory)"
)

_pools_lock = threading.Lock()
_pools = 0

_CPU_INFO = Path("/proc/cpuinfo")
_CPU_FLAGS = {  # of x86 and of ARM
    "bf16": {"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16"},
    "fp16": {"avx512_fp16", "amx_fp16", "asimdhp"},
}
_OWN_CGROUPS = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def in_notebook() -> bool:
    """Tell whether a kernel of Jupyter runs this, whose terminal keeps all that is redrawn."""
    return "JPY_PARENT_PID" in os.environ


def shows_bars() -> bool:
    """Tell whether standard output is where a bar can be redrawn."""
    return sys.stdout.isatty() and not in_notebook()


def check_precision(precision: str) -> None:
    """Refuse a precision that PyTorch is not asked for here.

    Raises:
        OptionError: `precision` is none of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise OptionError(f"precision {precision!r}: is none of {', '.join(PRECISIONS)}")


@functools.cache
def warn_of_slow(precision: str) -> None:
    """Say once that the processor computes in one of `PRECISIONS` without instructions for it.

    Only Linux says which instructions there are; elsewhere nothing is said.
    """
    if precision not in _CPU_FLAGS:
        return
    told = set(_read(_CPU_INFO).split())
    if told and not told & _CPU_FLAGS[precision]:
        log.warning(
            "note: this processor has no instructions for %s, which is slower here than fp32;"
            " choose --precision fp32",
            precision,
        )


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


def host_budget_bytes(*, tiles: int = 1) -> int:
    """Return how much main memory some tiles may take: at most 1 GiB each, and a fair share."""
    return min(
        tiles * CPU_BUDGET_BYTES, physical_memory_bytes() // 4, available_memory_bytes() // 2
    )


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
    lines = _read(_CPU_INFO).splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may use, or its container where that is fewer."""
    allowed = (
        len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else os.cpu_count() or 1
    )
    return max(1, math.ceil(min([allowed, *_cpu_quotas()])))


def use_threads(threads: int | None = None) -> None:
    """Set how many threads PyTorch computes with: for commands to call, not for libraries.

    Args:
        threads: how many; by default as OMP_NUM_THREADS says, or one for each usable core.
    """
    import torch

    if threads is None:
        if os.environ.get("OMP_NUM_THREADS"):
            return
        threads = min(torch.get_num_threads(), usable_cores())
    torch.set_num_threads(threads)


def keep_freed_memory() -> None:
    """Tell glibc to reuse large freed tensors instead of returning them to the kernel.

    Otherwise much of the CPU time is page faults. It concerns the whole process, so it is for
    commands to call, not for libraries.
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        trim_threshold, mmap_threshold, arena_max = -1, -3, -8  # M_… of malloc.h
        libc.mallopt(mmap_threshold, 1 << 30)
        libc.mallopt(trim_threshold, (1 << 31) - 1)
        if usable_cores() <= FEW_CORES:
            libc.mallopt(arena_max, 1)  # a thread's own arena returns what is freed all the same
    except (OSError, AttributeError):
        log.debug("this libc has no mallopt")


def map_in_threads(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    *,
    workers: int,
    stop: threading.Event | None = None,
    ordered: bool = True,
    apart: bool = False,
) -> Generator[Result, None, None]:
    """Yield work(item) for each item, computed by threads that share PyTorch's threads.

    Two threads that each compute a tile are faster than one tile computed by two, which wait for
    each other in every small operation.

    Args:
        work: what to compute; PyTorch and NumPy release the interpreter's lock meanwhile.
        items: read as results are taken, a few ahead of them.
        workers: threads, of which each computes with its share of PyTorch's; 1 computes here,
            unless it is to be apart.
        stop: set as soon as no more results are wanted, for work that can end early.
        ordered: whether results come in the order of the items; otherwise as they are done, so that
            no thread waits for a longer piece of work that another one has.
        apart: whether a single worker is a thread, too, and items are read and results used while
            it computes, or waits for a GPU.
    """
    if workers <= 1 and not apart:
        yield from map(work, items)
        return
    import torch

    threads = torch.get_num_threads()
    workers = max(1, workers)
    share = max(1, threads // workers)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,))
    _count_pools(1)
    pending: list[Future[Result]] = []

    def next_result() -> Result:
        done = pending[0]
        if not ordered:
            wait(pending, return_when=FIRST_COMPLETED)
            done = next(one for one in pending if one.done())
        pending.remove(done)
        return done.result()

    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * workers:
                yield next_result()
        while pending:
            yield next_result()
    finally:
        if stop is not None:
            stop.set()
        pool.shutdown(cancel_futures=True)
        # Workers set it for new threads, and MKL's for all.
        if _count_pools(-1) == 0:
            torch.set_num_threads(threads)


def _count_pools(change: int) -> int:
    global _pools
    with _pools_lock:
        _pools += change
        return _pools


def _memory_limits() -> Iterator[int]:
    """Yield the limit of each control group that this process is in [bytes]."""
    for folder, version in _control_groups("memory"):
        limit = _read(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if limit.isdecimal():
            yield int(limit)


def _cpu_quotas() -> Iterator[float]:
    """Yield how many cores' time each control group of this process gets."""
    for folder, version in _control_groups("cpu"):
        if version == 2:
            quota, _, period = _read(folder / "cpu.max").partition(" ")
        else:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        if quota.isdecimal() and period.isdecimal():  # or else `max` or −1: no limit
            yield int(quota) / int(period)


def _control_groups(controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folder of each control group that this process is in, and its version, 1 or 2.

    A container often sees its own group as the root, and its path as the host does: some of the
    folders are not there.
    """
    for line in _read(_OWN_CGROUPS).splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS  # version 2 names none
        inner = root / group.lstrip("/")
        for folder in (inner, *inner.parents[: len(inner.relative_to(root).parts)]):
            yield folder, 1 if controllers else 2


def _read(path: Path) -> str:
    """Return the text of a file of the kernel; nothing if it is not there, as on other systems."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
