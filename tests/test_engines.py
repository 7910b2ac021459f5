"""Every engine gives the pixels of PyTorch; what is converted is kept whole or not at all."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import random_model

from fairweather.errors import MissingExtraError, OptionError
from fairweather.models import AST, ASTConfig, load_model
from fairweather.restoration import (
    Restorer,
    converted,
    create_engine,
    engine_choice,
    engines,
    list_engines,
)

SIZES = ((1, 41, 29), (2, 16, 40), (1, 1, 1))
CONVERTED = ("openvino", "onnxruntime")

# PyTorch's and OpenVINO's own, while they load.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def need(name: str) -> None:
    if missing := engine_choice.missing_packages(name):
        pytest.skip(f"NOT TESTED: engine {name}, because {', '.join(missing)} is not installed")


@pytest.fixture
def model() -> AST:
    return random_model()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where converted models are kept during a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return converted.cache_folder()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same for tests that may find what others converted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield converted.cache_folder()


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random((*shape, 3), dtype=np.float32)


def check(engine: engines.Engine, model: AST, sizes: tuple[tuple[int, ...], ...] = SIZES) -> None:
    reference = create_engine("torch", model, device="cpu")
    for size in sizes:
        tiles = noise(*size)
        expected = reference(tiles)
        for _ in range(3):  # OpenVINO goes over to a graph for one shape
            found = engine(tiles)
            assert (found.dtype, found.shape) == (np.float32, tiles.shape)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert np.abs(expected - tiles).max() > 0.1
        if model.config.global_context:
            check_context(engine, reference, tiles)


def check_context(engine: engines.Engine, reference: engines.Engine, tiles: np.ndarray) -> None:
    places = engine.look(tiles)
    np.testing.assert_allclose(places, reference.look(tiles), rtol=0, atol=1e-5)
    whole = places.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(engine(tiles, whole), engine(tiles), rtol=0, atol=1e-5)
    other = reference.look(noise(1, 50, 60)) * 2  # of one photograph, for a batch of its tiles
    told = engine(tiles, other)
    np.testing.assert_allclose(told, reference(tiles, other), rtol=0, atol=1e-5)
    assert np.abs(told - engine(tiles)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERTED)
def test_converted_engines_give_the_pixels_of_torch(name: str, model: AST, shared: Path) -> None:
    need(name)
    engine = create_engine(name, model)
    assert (engine.device, engine.config) == (torch.device("cpu"), model.config)
    assert engine.free_bytes() == engines.host_budget_bytes()
    check(engine, model)
    engine.release()
    check(engine, model, SIZES[:1])
    with pytest.raises(OptionError, match="no global context"):
        engine.look(noise(1, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERTED)
def test_converted_engines_look_and_are_told(name: str, shared: Path) -> None:
    need(name)
    model = random_model(global_context=True)
    with torch.no_grad():
        assert model.context is not None
        torch.nn.init.normal_(model.context.gate.weight, std=3.0)
    check(create_engine(name, model), model, SIZES[:2])


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERTED)
def test_a_restorer_with_each(name: str, model: AST, shared: Path) -> None:
    need(name)
    photo = (noise(70, 50) * 255).astype(np.uint8)
    options: dict[str, Any] = {"device": "cpu", "tile": 32, "overlap_px": 8}
    expected = Restorer(model, engine="torch", **options)(photo)
    found = Restorer(model, engine=name, **options)(photo)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.abs(found.astype(int) - photo).max() > 20


@pytest.mark.slow
def test_the_rain_weights_in_each(shared: Path) -> None:
    rain = load_model("rain")
    for name in CONVERTED:
        need(name)
        check(create_engine(name, rain), rain, ((1, 65, 131),))
    assert len(list(shared.glob("onnx-*"))) <= 3  # both run the same graph


@pytest.mark.slow
def test_the_compiled_engine_pads_and_crops(model: AST, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the graph of PyTorch's compiler but not its code, which would take minutes."""
    compile_graph = torch.compile
    monkeypatch.setattr(
        torch,
        "compile",
        lambda module, **options: compile_graph(module, backend="eager", **options),
    )
    reference = create_engine("torch", model, device="cpu")
    engine = create_engine("compiled", model, device="cpu")
    for tiles in (noise(1, 41, 29), noise(1, 35, 20)):
        np.testing.assert_allclose(engine(tiles), reference(tiles), rtol=0, atol=1e-5)


def test_the_engines_and_what_they_miss(model: AST, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["torch", "compiled", "openvino", "onnxruntime"]
    assert [entry.name for entry in list_engines()] == names
    found = engine_choice.importlib.util.find_spec
    monkeypatch.setattr(
        engine_choice.importlib.util,
        "find_spec",
        lambda name: None if name in ("openvino", "onnx") else found(name),
    )
    entries = {entry.name: entry for entry in list_engines()}
    assert entries["torch"].installed
    assert entries["openvino"].missing == ("openvino", "onnx")
    assert not entries["openvino"].installed
    with pytest.raises(
        MissingExtraError, match=r"openvino, onnx.*pip install 'fairweather\[cpu\]'"
    ):
        create_engine("openvino", model)


def test_auto_takes_what_was_measured_fastest(model: AST) -> None:
    assert isinstance(create_engine("auto", model, device="cpu"), engines.TorchEngine)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "tensorrt"}, "is none of auto, torch, compiled, openvino"),
        ({"name": "torch", "device": "abacus"}, "device 'abacus'"),
        ({"name": "openvino", "device": "cuda"}, "runs on the CPU; use engine 'torch'"),
        ({"name": "onnxruntime", "precision": "bf16"}, "has only fp32"),
        ({"name": "openvino", "precision": "fp16"}, "fp32 and bf16"),
    ],
)
def test_wrong_calls_are_refused(
    options: dict[str, Any], message: str, model: AST, folder: Path
) -> None:
    need("openvino")
    need("onnxruntime")
    with pytest.raises(OptionError, match=message):
        create_engine(options.pop("name"), model, **options)
    assert not folder.exists()  # before anything is converted


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
        converted.load_converted(judging(), Written)
    assert conversions == ["Portable", "PortableLook"]
    (entry,) = folder.iterdir()
    assert sorted(path.name for path in entry.iterdir()) == ["model.look.onnx", "model.onnx"]


def test_what_decides_the_content_decides_the_entry(
    model: AST, folder: Path, conversions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    converted.load_converted(model, Written)
    with torch.no_grad():
        model.output_conv.weight[0, 0, 0, 0] += 1e-6
    converted.load_converted(model, Written)
    other = AST(ASTConfig(depths=(1, 1, 1), heads=(1, 1, 1), embed_dim=8))
    converted.load_converted(other, Written)
    monkeypatch.setattr(converted, "version", lambda package: "99")
    converted.load_converted(other, Written)
    assert conversions == ["Portable"] * 4
    assert len(list(folder.iterdir())) == 4


@pytest.mark.parametrize("fault", ["truncated", "missing"])
def test_a_broken_entry_is_made_again(
    fault: str, folder: Path, conversions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    converted.load_converted(judging(), Written)
    look = next(folder.iterdir()) / "model.look.onnx"
    look.write_bytes(b"a gra") if fault == "truncated" else look.unlink()
    with caplog.at_level(logging.WARNING):
        converted.load_converted(judging(), Written)
    assert "cannot be read, so it is made again" in caplog.text
    converted.load_converted(judging(), Written)
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
        converted.load_converted(model, Written)
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
