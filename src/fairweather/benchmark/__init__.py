"""Speed and memory, measured in turns in one run: engines, training, loading; the official code."""

from fairweather.benchmark.data import DataBenchmark, benchmark_data
from fairweather.benchmark.machine import FORMAT
from fairweather.benchmark.official import REPOSITORY as OFFICIAL_REPOSITORY
from fairweather.benchmark.restoring import benchmark_restore
from fairweather.benchmark.setting import Setting
from fairweather.benchmark.speed_page import write_speed_page
from fairweather.benchmark.training import benchmark_training

__all__ = [
    "FORMAT",
    "OFFICIAL_REPOSITORY",
    "DataBenchmark",
    "Setting",
    "benchmark_data",
    "benchmark_restore",
    "benchmark_training",
    "write_speed_page",
]
