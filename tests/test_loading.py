"""What is measured is what is said; how fast it is depends on the machine."""

import dataclasses
import json
from pathlib import Path

import pytest
import skimage.data
import torch
from command import Run
from PIL import Image

import loading
from fairweather.errors import DataError, OptionError
from loading import LoadingBenchmark, batches_per_s, benchmark_loading


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for number in range(7):
        Image.fromarray(skimage.data.astronaut()[: 60 + number, :80]).save(
            tmp_path / f"{number}.jpg"
        )
    return tmp_path


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_all_four_are_measured(photographs: Path, precision: str) -> None:
    before = sorted(photographs.iterdir())
    threads = torch.get_num_threads()
    rounds: list[tuple[int, int]] = []
    measured = benchmark_loading(
        photographs,
        crop_px=16,
        batch=2,
        seconds=0,
        rounds=2,
        max_images=3,
        precision=precision,
        on_round=lambda done, total: rounds.append((done, total)),
    )
    facts = dataclasses.asdict(measured)
    speeds = [facts.pop(name) for name in list(facts) if name.endswith("_crops_per_s")]
    assert len(speeds) == 4
    assert min(speeds) > 0
    assert facts == {
        "images": 3, "crop_px": 16, "batch": 2, "device": "cpu", "precision": precision,
    }  # fmt: skip
    assert rounds == [(1, 2), (2, 2)]
    assert sorted(photographs.iterdir()) == before
    assert torch.get_num_threads() == threads


def test_the_ratio() -> None:
    measured = LoadingBenchmark(1, 16, 2, "cpu", "fp32", 300.0, 30.0, 20.0, 4.0)
    assert measured.loading_to_step == 75


def test_batches_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(loading.time, "perf_counter", lambda: clock[0])

    def work() -> None:
        clock[0] += 0.25

    assert batches_per_s(work, seconds=2) == 4
    assert batches_per_s(work, seconds=0) == 4


def test_what_cannot_be_measured_is_named(photographs: Path) -> None:
    with pytest.raises(OptionError, match="precision 'int8'"):
        benchmark_loading(photographs, precision="int8")
    with pytest.raises(OptionError, match="task 'fog'"):
        benchmark_loading(photographs, task="fog")
    with pytest.raises(DataError, match="nowhere"):
        benchmark_loading(photographs / "nowhere")


def test_the_command(photographs: Path, run_script: Run) -> None:
    call = ["benchmarks/loading.py", photographs, "--crop", "16", "--batch=1", "--seconds=0"]
    done = run_script(*call, "--json")
    assert (done.status, done.err) == (0, "")
    facts = json.loads(done.out)
    assert (facts["images"], facts["crop_px"], facts["batch"]) == (7, 16, 1)
    ratio = facts["loading_crops_per_s"] / facts["step_crops_per_s"]
    assert facts["loading_to_step"] == pytest.approx(ratio)
    shown = run_script(*call)
    assert shown.status == 0
    for words in ("loading, from the cache", "training step (ast_n, fp32)", "times as fast"):
        assert words in shown.out
    assert run_script(*call, "--crop", "15").status == 2
