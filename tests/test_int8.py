"""8 bits in OpenVINO: calibrated on pairs, measured on others, refused if they lose too much."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from click.testing import Result
from parity import random_model
from typer.testing import CliRunner

from fairweather import cli
from fairweather.data import degrade_pixels
from fairweather.errors import DataError, ExportError
from fairweather.export import Quantized, export_openvino_int8, int8
from fairweather.imaging import Photo, write_image
from fairweather.models import AST, save_model

NEEDS = ("nncf", "onnxscript", "openvino")
MISSING = [name for name in NEEDS if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"NOT TESTED: 8 bits, without {MISSING}"),
    # PyTorch's, OpenVINO's and NNCF's own, while they load.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pairs, of which the third and the fifth calibrate with the first."""
    folder, photo = tmp_path_factory.mktemp("pairs"), skimage.data.astronaut()
    for number in range(5):
        clean = np.ascontiguousarray(photo[:, 50 * number : 50 * number + 270])
        rainy = degrade_pixels(clean, task="rain", seed=number)
        for side, pixels in (("input", rainy), ("target", clean)):
            (folder / side).mkdir(exist_ok=True)
            write_image(folder / side / f"{number}.png", Photo(pixels))
    return folder


def pairs_of(folder: Path) -> list[tuple[Path, Path]]:
    return [(path, folder / "target" / path.name) for path in sorted((folder / "input").iterdir())]


def a_model() -> AST:
    return random_model(std=0.05, depths=(1, 1, 1))


@pytest.fixture(scope="module")
def command(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Quantized]:
    """How the command ends that writes a model in 8 bits, and what its function returns."""
    place, returned = tmp_path_factory.mktemp("command"), []

    def keep(*arguments: Any, **options: Any) -> Quantized:
        returned.append(export_openvino_int8(*arguments, **options))
        return returned[-1]

    save_model(a_model(), place / "small.safetensors")
    call = ["export", str(place / "small.safetensors"), str(place / "small.xml")]
    call += ["--to", "openvino", "--int8", str(folder), "--largest-loss", "1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairweather.export.export_openvino_int8", keep)
        done = CliRunner().invoke(cli.app, call)
    assert done.exit_code == 0, done.output
    return done, returned[0]


@pytest.mark.slow
def test_eight_bits_of_any_size_are_measured(command: tuple[Result, Quantized]) -> None:
    import openvino

    model, done = a_model(), command[1]
    assert isinstance(done, Quantized)
    assert done.pairs == 2
    assert {"fp32", "int8"} <= set(done.variants)
    assert abs(done.loss_db()) < 1
    assert done.variants["fp32"].times_as_fast == 1
    network = openvino.Core().read_model(done.path)
    assert network.get_rt_info(["fairweather", "precision"]).astype(str) == "int8"
    assert any(op.get_type_name() == "FakeQuantize" for op in network.get_ops())
    run = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for shape in ((1, 3, 41, 29), (2, 3, 64, 96)):
        image = np.random.default_rng(1).random(shape, dtype=np.float32)
        with torch.no_grad():
            exact = model(torch.from_numpy(image)).clamp(0, 1).numpy()
        found = run({0: image})[0]
        assert found.shape == exact.shape
        assert 1e-5 < np.abs(found - exact).mean() < 0.05


@pytest.mark.slow
def test_what_loses_too_much_is_not_written(
    folder: Path,
    tmp_path: Path,
    command: tuple[Result, Quantized],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the network of the command in place of both, which it would take long to make again."""
    path = command[1].path
    monkeypatch.setattr(int8, "to_openvino", lambda core, graph: core.read_model(path))
    monkeypatch.setattr(int8, "quantize", lambda nncf, network, images: network.clone())
    with pytest.raises(ExportError, match=r"8 bits lose .* where -50 are allowed"):
        export_openvino_int8(
            a_model(), tmp_path / "small.xml", pairs=pairs_of(folder), largest_loss_db=-50
        )
    assert list(tmp_path.iterdir()) == []


def test_too_few_and_too_small_pairs(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "small.xml"
    with pytest.raises(DataError, match="on four pairs or more, not 3"):
        export_openvino_int8(a_model(), path, pairs=pairs_of(folder)[:3])
    write_image(tmp_path / "small.png", Photo(np.zeros((256, 255, 3), np.uint8)))
    with pytest.raises(DataError, match=r"small\.png: is 256×255; calibration needs 256 px"):
        export_openvino_int8(a_model(), path, pairs=[(tmp_path / "small.png",) * 2] * 4)


@pytest.mark.slow
def test_the_command_says_what_8_bits_cost(command: tuple[Result, Quantized]) -> None:
    printed, done = command
    assert "2 pairs that did not calibrate it" in printed.stdout
    assert "times as fast as fp32" in printed.stdout
    assert done.path.with_suffix(".bin").exists()


def test_only_openvino_is_written_in_8_bits(folder: Path, tmp_path: Path) -> None:
    call = ["export", "rain", str(tmp_path / "small.onnx"), "--int8", str(folder)]
    other = CliRunner().invoke(cli.app, [*call, "--to", "onnx"])
    assert other.exit_code == 2
    assert "openvino" in other.output
    assert not (tmp_path / "small.onnx").exists()
