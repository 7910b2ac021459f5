"""Engines race in processes of their own; how fast they are depends on the machine."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import Run

from fairweather import benchmark
from fairweather.benchmark import Entry, Timing, Work, race, rank_engines, timed
from fairweather.errors import BenchmarkError, CheckpointError, OptionError
from fairweather.models import AST, ASTConfig, save_model
from fairweather.restoration import list_engines

TINY = ASTConfig(embed_dim=4, depths=(1,) * 9, heads=(1,) * 9, window=2, mlp_ratio=1)


def build(job: str) -> Work:
    """What a process is made to do: `ORDER DETAIL` fails in that order."""
    told = {"start": lambda: None, "check": lambda: None, "round": lambda: None}
    order, _, detail = job.partition(" ")
    how: dict[str, Callable[[], Any]] = {
        "dies": lambda: os._exit(9),
        "refuses": lambda: torch.device("abacus"),
        "knows": lambda: (_ for _ in ()).throw(OptionError("not that way")),
    }
    if order in told:
        told[order] = how[detail]
    told["start"]()
    memory = np.ones(40_000_000) if order == "large" else None

    def check() -> Any:
        told["check"]()
        return os.environ.get("HERE"), os.getpid(), memory is None

    return Work(round=told["round"], check=check, note=f"note of {job}")


@pytest.mark.slow  # six processes
def test_contestants_race_in_processes_of_their_own() -> None:
    turns: list[str] = []
    entries = [
        Entry("good", build, "good", environment=dict(os.environ) | {"HERE": "there"}),
        Entry("large", build, "large"),
        Entry("reference", build, "reference", races=False),
        Entry("a", build, "start refuses"),
        Entry("b", build, "round dies"),
    ]
    raced, faults = race(
        entries,
        rounds=2,
        on_turn=lambda name, done, total: turns.append(f"{name} {done}/{total}"),
    )
    assert list(raced) == ["good", "large", "reference"]
    assert [len(one.rounds) for one in raced.values()] == [2, 2, 0]
    assert [one.checked[0] for one in raced.values()] == ["there", None, None]
    assert len({one.checked[1] for one in raced.values()} | {os.getpid()}) == 4
    assert raced["good"].note == "note of good"
    assert raced["large"].loaded_bytes - raced["good"].loaded_bytes > 300e6
    for one in raced["good"].rounds:
        assert one.peak_bytes >= raced["good"].loaded_bytes
    assert faults[0].startswith("a: RuntimeError: ")
    assert faults[1] == "b: its process ended, as when the system runs out of memory"
    assert (turns[0], turns[5], turns[-1]) == ("good 0/20", "good 5/20", "b 19/20")
    assert "HERE" not in os.environ
    with pytest.raises(OptionError, match="c: not that way"):
        race([Entry("c", build, "start knows")], rounds=1, on_turn=lambda *_: None)


def test_a_round_is_timed() -> None:
    def work() -> None:
        started = time.process_time()
        while time.process_time() - started < 0.05:
            pass
        time.sleep(0.05)

    cost = timed(work)
    assert 0.05 <= cost.processor_s < cost.wall_s
    assert cost.wall_s >= 0.1
    assert cost.peak_bytes > 10_000_000


@pytest.mark.slow  # two processes
def test_engines_are_ranked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = [engine for engine in list_engines() if engine.name == "torch"]
    monkeypatch.setattr(benchmark, "list_engines", lambda: installed)  # others convert for minutes
    torch.manual_seed(1)
    weights = tmp_path / "tiny.safetensors"
    save_model(AST(TINY), weights)
    timings, faults = rank_engines(str(weights), size_px=40, threads=1, device="cpu", rounds=1)
    assert faults == []
    assert [timing.wall_s for timing in timings] == sorted(timing.wall_s for timing in timings)
    found = {(timing.engine, timing.precision): timing for timing in timings}
    assert set(found) == {("torch", "fp32"), ("torch", "bf16")}
    assert found["torch", "fp32"].largest_difference == 0
    assert found["torch", "bf16"].largest_difference <= 3
    assert all(timing.peak_bytes > 0 < timing.processor_s for timing in timings)


def test_what_cannot_be_ranked_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        rank_engines("nowhere")
    with pytest.raises(OptionError, match="abacus"):
        rank_engines(device="abacus")
    monkeypatch.setattr(benchmark, "race", lambda *_, **__: ({}, ["torch fp32: ended"]))
    with pytest.raises(BenchmarkError, match="torch fp32: ended"):
        rank_engines()


def test_the_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}
    faults: list[str] = []

    def rank(weights: str, **options: Any) -> Any:
        options.pop("on_turn")("torch fp32", 0, 1)
        seen.update(options, weights=weights)
        timings = [
            Timing("openvino", "bf16", 0.25, 0.5, 2_000_000, 0, 1),
            Timing("torch", "fp32", 0.75, 1.5, 3_000_000, 4_000_000, 0),
        ]
        return timings, faults

    monkeypatch.setattr(benchmark, "rank_engines", rank)
    done = run("benchmark", "--weights", "haze", "--size", 64, "--threads", 2, "--device", "cpu")
    assert (done.status, done.err) == (0, "")
    assert seen == {"weights": "haze", "size_px": 64, "threads": 2, "device": "cpu"}
    rows = [" ".join(line.replace("│", " ").split()) for line in done.out.splitlines()]
    assert "openvino bf16 0.250 0.500 2 MB 1 of 255" in rows
    assert "torch fp32 0.750 1.500 3 MB + 4 MB 0 of 255" in rows
    assert rows[-1] == "fastest: --engine openvino --precision bf16"
    faults.append("onnxruntime fp32: its process ended")
    failed = run("benchmark", "--json")
    assert failed.status == 1
    assert failed.err == "failed: onnxruntime fp32: its process ended\n"
    document = json.loads(failed.out)
    assert document["fastest"] == {"engine": "openvino", "precision": "bf16"}
    assert [one["wall_s"] for one in document["engines"]] == [0.25, 0.75]
    assert document["failed"] == faults
    assert (document["weights"], document["size_px"], document["threads"]) == ("rain", 512, None)
