"""Every engine gives the pixels of PyTorch; which there are, and what they miss."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from parity import random_model

from fairweather.errors import MissingExtraError, OptionError
from fairweather.hardware import host_budget_bytes
from fairweather.models import AST
from fairweather.restoration import Restorer, create_engine, engines, list_engines
from fairweather.restoration.engines import Engine, TorchEngine

SIZES = ((1, 41, 29), (2, 16, 40), (1, 1, 1))
CONVERTED = ("openvino", "onnxruntime")

# PyTorch's and OpenVINO's own, while they load.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def need(name: str) -> None:
    if missing := {entry.name: entry.missing for entry in list_engines()}[name]:
        pytest.skip(f"NOT TESTED: engine {name}, because {', '.join(missing)} is not installed")


@pytest.fixture
def model() -> AST:
    """Of as few blocks as there can be, since each is converted for seconds."""
    return random_model(depths=(1, 1, 1))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where converted models are kept for tests that may find what others converted."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


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
        if model.config.global_context:
            check_context(engine, reference, tiles)


def check_context(engine: Engine, reference: Engine, tiles: np.ndarray) -> None:
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
    assert engine.free_bytes() == host_budget_bytes()
    check(engine, model)
    engine.release()
    check(engine, model, SIZES[:1])
    with pytest.raises(OptionError, match="no global context"):
        engine.look(noise(1, 8, 8))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERTED)
def test_converted_engines_look_and_are_told(name: str, shared: Path) -> None:
    need(name)
    model = random_model(global_context=True, depths=(1, 1, 1))
    with torch.no_grad():
        assert model.context is not None
        torch.nn.init.normal_(model.context.gate.weight, std=3.0)
    check(create_engine(name, model), model, SIZES[:2])
    assert len(list(shared.rglob("onnx-*"))) <= 2  # both run the same graphs


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
    assert len(list(shared.rglob("onnx-*"))) <= 2  # both run the same graph


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
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
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
    assert isinstance(create_engine("auto", model, device="cpu"), TorchEngine)


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
    options: dict[str, Any],
    message: str,
    model: AST,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need("openvino")
    need("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(OptionError, match=message):
        create_engine(model=model, **options)
    assert not any(tmp_path.iterdir())  # before anything is converted


def test_where_the_processor_has_no_bf16_the_plain_path_takes_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, image = random_model(), np.random.default_rng(0).random((1, 40, 48, 3), np.float32)
    plain = TorchEngine(model, device="cpu", precision="fp32")(image)
    monkeypatch.setattr(engines, "multiplies_in_bf16", lambda: False)
    monkeypatch.setattr(engines, "multiply_in_bf16", lambda model: pytest.fail("strips in bf16"))
    half = TorchEngine(model, device="cpu", precision="bf16")
    assert half.bytes_per_px > TorchEngine(model, device="cpu").bytes_per_px
    assert 0 < np.abs(half(image) - plain).max() < 0.1 * np.abs(plain - image).max()
