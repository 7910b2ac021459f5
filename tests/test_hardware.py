import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from fairweather import hardware
from fairweather.errors import OptionError

GIB = 1 << 30
Cgroups = Callable[..., None]


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cgroups:
    """Lays out the control groups of this process, and nothing above them."""

    def lay_out(own: str, **files: str) -> None:
        (tmp_path / "cgroup").write_text(own)
        for name, text in files.items():
            file = tmp_path / "fs" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    monkeypatch.setattr(hardware, "_OWN_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "_CGROUPS", tmp_path / "fs")
    lay_out("")
    return lay_out


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 64 GiB, 32 of them free; this process holds one."""
    memory = type("Memory", (), {"total": 64 * GIB, "available": 32 * GIB})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    info = type("Info", (), {"rss": GIB})
    process = type("Process", (), {"memory_info": lambda self: info})
    monkeypatch.setattr(psutil, "Process", process)


def test_commands_can_ask_for_names_without_torch() -> None:
    code = (
        "import sys, types; package = types.ModuleType('fairweather')\n"
        f"package.__path__ = [{str(Path(hardware.__file__).parent)!r}]\n"
        "sys.modules['fairweather'] = package\n"
        "from fairweather import hardware\n"
        "hardware.check_precision('bf16')\n"
        "hardware.physical_memory_bytes()\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("precision", hardware.PRECISIONS)
def test_every_precision_has_a_type_and_is_computed_in(precision: str) -> None:
    hardware.check_precision(precision)
    expected = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert hardware.dtype_of(precision) == expected
    with hardware.lowered("cpu", precision):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected


def test_other_precisions_and_devices_are_wrong_calls() -> None:
    with pytest.raises(OptionError, match="precision 'fp8': is none of fp32, bf16, fp16"):
        hardware.check_precision("fp8")
    with pytest.raises(OptionError, match="device 'toaster': is none of auto, cuda"):
        hardware.pick_device("toaster")
    assert hardware.pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "says_so"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("no 8 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 8 GB)"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("shape mismatch"), False),
        (KeyError("memory"), False),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("could not create a memory object"), True),
        (RuntimeError("could not create a primitive descriptor for the forward pass"), False),
    ],
)
def test_out_of_memory_is_told_from_other_errors(error: Exception, *, says_so: bool) -> None:
    assert hardware.is_out_of_memory(error) is says_so


def test_facts_are_those_of_psutil_where_nothing_limits(cgroups: Cgroups, large: None) -> None:
    assert hardware.physical_memory_bytes() == 64 * GIB
    assert hardware.available_memory_bytes() == 32 * GIB
    assert hardware.host_budget_bytes() == GIB


def test_the_limits_of_a_container_count(cgroups: Cgroups, large: None) -> None:
    cgroups("0::/\n", **{"memory.max": f"{3 * GIB}\n"})
    assert hardware.physical_memory_bytes() == 3 * GIB
    assert hardware.available_memory_bytes() == 2 * GIB  # of which this process holds one
    assert hardware.host_budget_bytes() == 3 * GIB // 4


def test_the_smallest_limit_on_the_way_up_counts(cgroups: Cgroups, large: None) -> None:
    cgroups(
        "0::/a/b/gone\n",
        **{"a/memory.max": f"{8 * GIB}", "a/b/memory.max": "max", "memory.max": f"{9 * GIB}"},
    )
    assert hardware.physical_memory_bytes() == 8 * GIB


def test_the_first_version_of_control_groups(cgroups: Cgroups, large: None) -> None:
    cgroups(
        "5:cpu,cpuacct:/box\n4:memory:/box\n3:cpuset:/\n",
        **{"memory/box/memory.limit_in_bytes": f"{2 * GIB}"},
        **{"memory/memory.limit_in_bytes": "9223372036854771712"},
    )
    assert hardware.physical_memory_bytes() == 2 * GIB


def test_the_processor_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(hardware, "_CPU_INFO", info)
    assert hardware.cpu_name()  # what the platform says
    info.write_text("processor\t: 0\nmodel name\t: Fair CPU @ 3 GHz\nmodel name\t: other\n")
    assert hardware.cpu_name() == "Fair CPU @ 3 GHz"


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "10000 100000"}, 1),
        ({"box/cpu.max": "max 100000", "cpu.max": "400000 100000"}, 4),
    ],
)
def test_a_containers_share_of_the_cores_counts(
    cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    process = type("Process", (), {"cpu_affinity": lambda self: [*range(8)]})
    monkeypatch.setattr(psutil, "Process", process)
    cgroups("0::/box\n", **files)
    assert hardware.usable_cores() == cores


def test_so_does_that_of_the_first_version_of_control_groups(
    cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = type("Process", (), {"cpu_affinity": lambda self: [*range(8)]})
    monkeypatch.setattr(psutil, "Process", process)
    periods = {"cpu/cpu.cfs_period_us": "100000", "cpu/box/cpu.cfs_period_us": "100000"}
    own = "5:cpu,cpuacct:/box\n4:memory:/\n"
    cgroups(own, **periods, **{"cpu/box/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_quota_us": "200000"})
    assert hardware.usable_cores() == 2


def test_threads_are_set_unless_the_environment_does(
    cgroups: Cgroups, monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> None:
    threads(3)
    cgroups("0::/\n", **{"cpu.max": "100000 100000"})
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    hardware.use_threads()
    assert torch.get_num_threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    hardware.use_threads()
    assert torch.get_num_threads() == 1
    hardware.use_threads(2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order_and_items_are_read_as_they_are_needed(
    threads: Callable[[int], None], workers: int
) -> None:
    threads(6)
    read: list[int] = []
    computing: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            read.append(number)
            yield number

    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3))
        computing.append(torch.get_num_threads())
        return -number

    results = hardware.map_in_threads(work, items(), workers=workers)
    assert [next(results) for _ in range(4)] == [0, -1, -2, -3]
    assert len(read) <= 4 + (2 * workers if workers > 1 else 0)
    assert [*results] == [-number for number in range(4, 20)]
    assert set(computing) == {6 // workers}
    assert torch.get_num_threads() == 6


def test_an_error_of_one_thread_ends_all(threads: Callable[[int], None]) -> None:
    threads(2)
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise KeyError("the third")
        return number

    with pytest.raises(KeyError, match="the third"):
        list(hardware.map_in_threads(work, range(1000), workers=2))
    assert max(begun) < 10
    assert torch.get_num_threads() == 2


def test_a_long_piece_of_work_keeps_no_thread_waiting() -> None:
    others_done = threading.Event()
    done: list[int] = []

    def work(number: int) -> int:
        if number == 0:
            assert others_done.wait(30)  # all the others are done meanwhile
        else:
            done.append(number)
            if len(done) == 19:
                others_done.set()
        return number

    results = list(hardware.map_in_threads(work, range(20), workers=2, ordered=False))
    assert sorted(results) == list(range(20))
    assert results.index(0) > 10


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("flags : avx2 avx512bw", ["bf16", "fp16"]),
        ("flags : avx2 avx512_bf16", ["fp16"]),
        ("Features : fphp asimdhp bf16", []),
        ("", []),  # no Linux
    ],
)
def test_a_precision_without_instructions_is_told_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    flags: str,
    said: list[str],
) -> None:
    (tmp_path / "cpuinfo").write_text(flags)
    monkeypatch.setattr(hardware, "_CPU_INFO", tmp_path / "cpuinfo")
    hardware.warn_of_slow.cache_clear()
    for precision in (*hardware.PRECISIONS, *hardware.PRECISIONS):
        hardware.warn_of_slow(precision)
    assert [record.args for record in caplog.records] == [(precision,) for precision in said]
    hardware.warn_of_slow.cache_clear()
