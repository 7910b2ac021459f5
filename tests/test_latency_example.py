"""examples/latency.py, on a frame so small that only its table matters."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from parity import random_model

from fairweather.hardware import usable_cores
from fairweather.models import Network, save_model
from fairweather.restoration import list_engines

EXAMPLE = Path(__file__).parents[1] / "examples" / "latency.py"


def rows_of(model: Network, folder: Path, *words: str) -> list[tuple[str, int, str]]:
    weights, target = folder / "tiny.safetensors", folder / "latency.json"
    save_model(model, weights)
    command = [sys.executable, EXAMPLE, weights, "--size", "64x48", "--frames", "3", *words]
    done = subprocess.run([*command, "--json", target], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = json.loads(target.read_text("utf-8"))
    assert said["size"] == "64x48"
    table = [line.split()[0] for line in done.stdout.splitlines()[3:]]
    assert table == [row["engine"] for row in said["rows"]]
    assert all(0 < row["median_ms"] <= row["p95_ms"] for row in said["rows"])
    return [(row["engine"], row["threads"], row["stage"]) for row in said["rows"]]


def expected(engines: tuple[str, ...], *stages: str) -> list[tuple[str, int, str]]:
    threads = sorted({1, usable_cores()})
    return list(itertools.product(engines, threads, stages))


@pytest.mark.slow
def test_every_stage_of_every_engine_is_timed(tmp_path: Path) -> None:
    installed = {engine.name for engine in list_engines() if engine.installed}
    engines = tuple(name for name in ("torch", "openvino", "onnxruntime") if name in installed)
    found = rows_of(random_model(depths=(1, 1, 1), heads=(1, 1, 1)), tmp_path)
    assert found == expected(engines, "to tensor", "network", "back", "Restorer")


@pytest.mark.slow
def test_weights_with_a_proxy_are_timed_as_a_whole(tmp_path: Path) -> None:
    model = random_model(depths=(1, 1, 1), heads=(1, 1, 1), proxy_px=96)
    found = rows_of(model, tmp_path, "--engine", "torch")
    assert found == expected(("torch",), "Restorer")
