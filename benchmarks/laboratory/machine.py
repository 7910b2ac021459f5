"""What a benchmark ran on, and with what."""

import contextlib
import datetime
import importlib.metadata
import os
import platform
from typing import Any

import psutil
import torch

from fairweather.hardware import cpu_name, physical_memory_bytes

FORMAT = "fairweather speed 1"
PACKAGES = ("fairweather", "torch", "numpy", "openvino", "onnxruntime", "triton")


def describe_machine(device: str) -> dict[str, Any]:
    """Return processor, cores, memory and system, and how busy it is now.

    Args:
        device: where the networks run, as torch names it.
    """
    on_gpu = torch.device(device).type == "cuda"
    return {
        "processor": cpu_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "memory_bytes": physical_memory_bytes(),
        "gpu": torch.cuda.get_device_name(device) if on_gpu else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": [round(load, 1) for load in os.getloadavg()],
    }


def installed_versions() -> dict[str, str]:
    """Return the versions of what computes, as far as it is installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def describe_document(kind: str, setting: dict[str, Any], *, device: str) -> dict[str, Any]:
    """Return the head of a result: what it is of, when, on what and with what."""
    return {
        "format": FORMAT,
        "kind": kind,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": "",
        "machine": describe_machine(device),
        "versions": installed_versions(),
        "setting": setting,
    }


def memory_of(process: psutil.Process) -> int:
    """Return the memory of a process and all that it started, shared pages counted once [bytes]."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.Error):
            total += one.memory_full_info().pss
    return total
