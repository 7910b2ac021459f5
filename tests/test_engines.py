"""Every engine gives the pixels of PyTorch; what is converted is kept whole or not at all."""

import json
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
    Engine,
    Restorer,
    conversions,
    create_engine,
    engine_choice,
    engines,
    list_engines,
    pick_engine,
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
    monkeypatch.setattr(conversions, "conversions_folder", lambda: tmp_path / "engines")
    return tmp_path / "engines"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same for tests that may find what others converted."""
    path = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conversions, "conversions_folder", lambda: path)
        yield path


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random((*shape, 3), dtype=np.float32)


def check(engine: Engine, model: AST, sizes: tuple[tuple[int, ...], ...] = SIZES) -> None:
    reference = create_engine("torch", model, device="cpu")
    for size in sizes:
        tiles = noise(*size)
        expected = reference(tiles)
        for _ in range(3):  # OpenVINO goes over to a graph for one shape
            found = engine(tiles)
            assert (found.dtype, found.shape) == (np.float32, tiles.shape)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert np.abs(expected - tiles).max() > 0.1


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
    assert len(list(shared.glob("onnx-*"))) in (1, 2)  # both run the same graph


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


def test_auto_takes_what_was_measured_fastest(model: AST, monkeypatch: pytest.MonkeyPatch) -> None:
    assert pick_engine("auto", device="cpu") == "torch"
    assert isinstance(create_engine("auto", model, device="cpu"), engines.TorchEngine)
    monkeypatch.setitem(engine_choice.FASTEST, "cpu", ("openvino", "onnxruntime", "torch"))
    monkeypatch.setattr(
        engine_choice, "missing_packages", lambda name: ("x",) if name == "openvino" else ()
    )
    assert pick_engine("auto", device="cpu") == "onnxruntime"


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


class Writer:
    """Writes two small files instead of a converted model, and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "model.xml").write_text("graph")
        (folder / "model.bin").write_bytes(bytes(range(200)))


def convert(model: AST, writer: Writer) -> str:
    with conversions.converted(model, kind="onnx", packages=("numpy",), write=writer) as entry:
        assert (entry / "model.xml").read_text() == "graph"
        assert (entry / "model.bin").read_bytes() == bytes(range(200))
        return entry.name


def test_a_model_is_converted_once(model: AST, folder: Path) -> None:
    writer = Writer()
    name = convert(model, writer)
    assert convert(model, writer) == name
    assert writer.calls == 1
    assert [path.name for path in folder.iterdir()] == [name]


def test_what_decides_the_content_decides_the_entry(
    model: AST, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer()
    names = {convert(model, writer)}
    with torch.no_grad():
        model.output_conv.weight[0, 0, 0, 0] += 1e-6
    names.add(convert(model, writer))
    names.add(convert(AST(ASTConfig(depths=(1, 1, 1), heads=(1, 1, 1), embed_dim=8)), writer))
    monkeypatch.setattr(conversions, "version", lambda package: "99")
    names.add(convert(model, writer))
    assert len(names) == writer.calls == 4


def test_what_was_not_used_for_months_makes_room(model: AST, folder: Path) -> None:
    writer = Writer()
    old, used, left = convert(model, writer), "onnx-used", ".onnx-of-a-killed-process"
    for name in (used, left):
        (folder / name).mkdir()
    for name in (old, left):
        os.utime(folder / name, (0, 0))
    with torch.no_grad():
        model.output_conv.weight += 1
    new = convert(model, writer)
    assert {path.name for path in folder.iterdir()} == {new, used}
    os.utime(folder / new, (0, 0))
    convert(model, writer)  # a use counts
    with torch.no_grad():
        model.output_conv.weight += 1
    convert(model, writer)
    assert new in {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("fault", ["truncated", "changed", "missing", "more", "no checksums"])
def test_a_broken_entry_is_made_anew(fault: str, model: AST, folder: Path) -> None:
    writer = Writer()
    entry = folder / convert(model, writer)
    binary = entry / "model.bin"
    if fault == "truncated":
        binary.write_bytes(binary.read_bytes()[:100])
    elif fault == "changed":
        binary.write_bytes(bytes(200))
    elif fault == "missing":
        binary.unlink()
    elif fault == "more":
        (entry / "more").touch()
    else:
        (entry / "checksums.json").unlink()
    convert(model, writer)
    convert(model, writer)
    assert writer.calls == 2
    assert [path.name for path in folder.iterdir()] == [entry.name]


def test_whoever_comes_second_takes_what_is_there(model: AST, folder: Path) -> None:
    class Overtaken(Writer):
        def __call__(self, folder: Path) -> None:
            if self.calls == 0:
                self.calls = 1
                convert(model, first)
            super().__call__(folder)

    first, second = Writer(), Overtaken()
    convert(model, second)
    assert first.calls == 1
    assert len(list(folder.iterdir())) == 1
    assert json.loads((next(folder.iterdir()) / "checksums.json").read_text())


def test_a_folder_that_cannot_be_written_to(
    model: AST, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.write_text("a file where the folder should be")
    writer = Writer()
    with caplog.at_level(logging.WARNING):
        convert(model, writer)
    assert writer.calls == 1
    assert "cannot be kept" in caplog.text
    assert "XDG_CACHE_HOME" in caplog.text


PROCESS = """
import sys, time, torch
from pathlib import Path
from fairweather.models import AST, ASTConfig
from fairweather.restoration import conversions

conversions.conversions_folder = lambda: Path(sys.argv[1])
torch.manual_seed(0)
model = AST(ASTConfig(embed_dim=4, depths=(1, 1, 1), heads=(1, 1, 1), window=2))

def write(folder):
    for part in range(20):
        (folder / f"part{part}").write_bytes(bytes([part]) * 100_000)
        time.sleep(0.01)

print("ready", flush=True)
sys.stdin.readline()
with conversions.converted(model, kind="onnx", packages=(), write=write) as entry:
    assert all((entry / f"part{part}").read_bytes() == bytes([part]) * 100_000
               for part in range(20))
    print(entry)
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(tmp_path / "engines")],
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
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    results = [worker.communicate(timeout=60) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], results
    assert results[0][0] == results[1][0]  # both read the one entry
    assert [path.name for path in (tmp_path / "engines").iterdir()] == [
        Path(results[0][0].strip()).name
    ]
