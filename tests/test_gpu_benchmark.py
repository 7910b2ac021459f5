"""benchmarks/gpu.py: its trial on a CPU, and what it says without a GPU."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from typer.testing import CliRunner

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_without_a_gpu_it_says_so_in_one_line(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = CliRunner().invoke(script.app, ["--folder", str(tmp_path)])
    assert done.exit_code == 1
    assert done.output.startswith("no NVIDIA GPU here")
    assert done.output.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_trial_on_a_cpu_compares_and_times_the_plain_parts(
    script: ModuleType, tmp_path: Path
) -> None:
    done = CliRunner().invoke(script.app, ["--device", "cpu", "--folder", str(tmp_path)])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "gpu-cpu-trial.json").read_text("utf-8"))
    assert document["capability"] is None
    assert document["comparison"] == []
    assert not document["kernels_agree"]
    assert [(row["what"], row["who"], row["precision"]) for row in document["times"]] == [
        (what, "plain", precision)
        for what in ("restore", "train")
        for precision in ("fp32", "bf16")
    ]
    assert all(row["ms_per_image"] > 0 for row in document["times"])


def test_kernels_are_timed_only_where_they_agree(
    script: ModuleType,
) -> None:
    for agree in (False, True):
        works = script.list_works({"kernels_agree": agree}, official=None, device="cuda")
        assert ("kernels" in {work.who for work in works}) is agree
        assert [work.who for work in works[-2:]] == ["compiled", "compiled"]
