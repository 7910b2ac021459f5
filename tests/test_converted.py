"""What is converted for another runtime is kept whole or not at all."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import random_model

from fairweather.models import AST, ASTConfig
from fairweather.restoration import converted, load_converted


@pytest.fixture
def model() -> AST:
    return random_model()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where converted models are kept during a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return converted.cache_folder()


class Written:
    """A graph that is read without a runtime, and that a broken file fails."""

    def __init__(self, path: Path):
        assert path.read_bytes().endswith(b"whole")


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was converted, in place of which a few bytes are written."""
    done: list[str] = []

    class Message:
        def __init__(self, graph: Any):
            done.append(type(graph).__name__)

        def SerializeToString(self) -> bytes:  # noqa: N802
            return b"a graph, whole"

    monkeypatch.setattr(converted, "to_onnx", Message)
    return done


def judging() -> AST:
    return random_model(global_context=True)


def test_a_model_is_converted_once(folder: Path, conversions: list[str]) -> None:
    for _ in range(2):
        load_converted(judging(), Written)
    assert conversions == ["Portable", "PortableLook"]
    (entry,) = folder.iterdir()
    assert sorted(path.name for path in entry.iterdir()) == ["model.look.onnx", "model.onnx"]


def test_what_decides_the_content_decides_the_entry(
    model: AST, folder: Path, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    load_converted(model, Written)
    with torch.no_grad():
        model.output_conv.weight[0, 0, 0, 0] += 1e-6
    load_converted(model, Written)
    other = AST(ASTConfig(depths=(1, 1, 1), heads=(1, 1, 1), embed_dim=8))
    load_converted(other, Written)
    monkeypatch.setattr(converted, "version", lambda package: "99")
    load_converted(other, Written)
    assert conversions == ["Portable"] * 4
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("fault", ["truncated", "missing"])
def test_a_broken_entry_is_made_again(
    fault: str, folder: Path, conversions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    load_converted(judging(), Written)
    look = next(folder.iterdir()) / "model.look.onnx"
    look.write_bytes(b"a gra") if fault == "truncated" else look.unlink()
    with caplog.at_level(logging.WARNING):
        load_converted(judging(), Written)
    assert "cannot be read, so it is made again" in caplog.text
    load_converted(judging(), Written)
    assert conversions == ["Portable", "PortableLook"] * 2
    assert len(list(folder.iterdir())) == 1


def test_a_folder_that_cannot_be_written_to(
    model: AST,
    tmp_path: Path,
    folder: Path,
    conversions: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder.parent.mkdir()
    folder.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        load_converted(model, Written)
    assert conversions == ["Portable"]
    assert "cannot be kept" in caplog.text
    assert "XDG_CACHE_HOME" in caplog.text


PROCESS = """
import sys, time
from pathlib import Path
import torch
from fairweather.models import AST, ASTConfig
from fairweather.restoration import converted

class Message:
    def __init__(self, graph):
        time.sleep(0.2)
    def SerializeToString(self):
        return bytes(range(250)) * 10_000

class Read:
    def __init__(self, path):
        assert path.read_bytes() == bytes(range(250)) * 10_000

converted.to_onnx = Message
torch.manual_seed(0)
model = AST(ASTConfig(embed_dim=4, depths=(1, 1, 1), heads=(1, 1, 1), window=2))
print("ready", flush=True)
sys.stdin.readline()
for _ in range(2):
    converted.load_converted(model, Read)
"""


@pytest.mark.slow
def test_two_processes_at_once(tmp_path: Path, folder: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    results = [worker.communicate("\n", timeout=60) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], results
    (entry,) = folder.iterdir()
    assert [path.name for path in entry.iterdir()] == ["model.onnx"]
