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
    assert document["kernels_agree"]
    assert {(row["operation"], row["precision"]) for row in document["comparison"]} == {
        (operation, precision)
        for operation in ("window_attention", "gated_depthwise")
        for precision in ("fp32", "bf16")
    }
    for row in document["comparison"]:
        worst = max(row["plain_errors"])
        assert row["kernel_errors"] == row["plain_errors"]
        assert 0 < worst < (1e-4 if row["precision"] == "fp32" else 0.1)
    assert [(row["what"], row["who"], row["precision"]) for row in document["times"]] == [
        (what, "plain", precision)
        for what in ("restore", "train")
        for precision in ("fp32", "bf16")
    ]
    assert all(row["ms_per_image"] > 0 for row in document["times"])


def test_a_kernel_that_differs_is_written_down(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation, args, options = script.call_of(
        script.FeatureRefinement(8, 8), dtype=torch.float32, device="cpu"
    )
    kernel = script.cuda.KERNELS[operation.name]
    wrong = kernel._replace(run=lambda *given: 1.1 * operation.formula(*given))
    row = script.compare(operation, wrong, args, options, device="cuda")
    assert row["agrees"] is False
    assert max(row["kernel_errors"]) > 0.05 > max(row["plain_errors"])
    failing = kernel._replace(run=lambda *given: 1 / 0)
    row = script.compare(operation, failing, args, options, device="cuda")
    assert row == {"agrees": False, "fault": "ZeroDivisionError: division by zero"}
