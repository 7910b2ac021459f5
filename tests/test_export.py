"""The model in ONNX Runtime, OpenVINO and torch.export, each alone with its file."""

import functools
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch
from command import Run
from parity import random_model
from typer.testing import CliRunner

import fairweather as fw
from fairweather import cli, models
from fairweather.data import degrade_pixels
from fairweather.errors import ExportError, MissingExtraError, OptionError
from fairweather.export import (
    Exported,
    export_onnx,
    export_openvino,
    export_torch,
    graphs,
    verify_export,
)
from fairweather.models import ASTConfig

# Of one pixel, of one window, shorter than the padding, a batch; beside those that export verifies.
SIZES = ((1, 1, 1), (2, 8, 8), (1, 3, 50), (3, 41, 29))
# Each format with another variant, since each export takes its time.
VARIANTS: dict[str, dict[str, Any]] = {
    ".onnx": {"global_context": True, "fold": 2},
    ".xml": {"feed_forward": "leff", "branches": "dense", "encoder_attention": True},
    ".pt2": {
        **{"feed_forward": "mlp", "branches": "sparse", "global_context": True, "proxy_px": 32},
        **{"depths": (1, 1, 1)},
    },
}
WRITERS = {".onnx": export_onnx, ".xml": export_openvino, ".pt2": export_torch}
NEEDS = {".onnx": ("onnx", "onnxscript", "onnxruntime"), ".xml": ("onnxscript", "openvino")}

# PyTorch's and OpenVINO's own, while they load.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


# As few blocks as there can be, where it matters only that a file is written.
one_block_each = functools.partial(random_model, depths=(1, 1, 1), heads=(1, 1, 1))


def need(suffix: str) -> None:
    for module in NEEDS.get(suffix, ()):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"NOT TESTED: export to {suffix}, because {module} is not installed")


@pytest.fixture(scope="module")
def written(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], tuple[models.AST, Exported]]:
    """A model and its export, of each format once."""

    @functools.cache
    def write(suffix: str) -> tuple[models.AST, Exported]:
        need(suffix)
        model, path = random_model(**VARIANTS[suffix]), tmp_path_factory.mktemp("export") / "model"
        about = {"task": "rain", "licence": "Apache-2.0"}
        return model, WRITERS[suffix](model, path.with_suffix(suffix), metadata=about)

    return write


def run_alone(path: Path) -> Callable[..., np.ndarray]:
    """The file in the runtime of its format, without fairweather."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda **inputs: session.run(None, inputs)[0]
    if path.suffix == ".xml":
        import openvino

        compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda **inputs: compiled(inputs)[0]
    module = torch.export.load(path).module()
    return lambda **inputs: module(*map(torch.from_numpy, inputs.values())).detach().numpy()


def check_file(model: models.AST, path: Path) -> None:
    run, generator = run_alone(path), np.random.default_rng(5)
    tells = model.config.global_context
    look = run_alone(path.with_name(f"{path.stem}.look{path.suffix}")) if tells else None
    for batch, height, width in SIZES:
        image = generator.random((batch, 3, height, width), dtype=np.float32)
        with torch.no_grad():
            free = model(torch.from_numpy(image)).numpy()
        expected = free.clip(0, 1)
        inputs = {"image": image} | ({"context": look(image=image)} if look else {})
        np.testing.assert_allclose(run(**inputs), expected, atol=1e-5)
        if look:
            with torch.no_grad():
                mean = torch.from_numpy(inputs["context"]).mean((1, 2), keepdim=True) * 2
                told = model(torch.from_numpy(image), mean).clamp(0, 1).numpy()
            inputs["context"] = mean.numpy()
            np.testing.assert_allclose(run(**inputs), told, atol=1e-5)
        if image.size > 1000:  # the comparison must mean something
            assert 0 < np.mean(free != expected) < 0.5
            assert np.abs(expected - image).mean() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_alone_gives_what_the_model_gives(
    suffix: str, written: Callable[[str], tuple[models.AST, Exported]]
) -> None:
    model, exported = written(suffix)
    path, folder = exported.path, exported.path.parent
    assert path.name == f"model{suffix}"
    assert set(exported.differences) == {(64, 64), (200, 336), (121, 83)}
    assert max(exported.differences.values()) < 1e-5
    assert exported.bytes == sum(file.stat().st_size for file in folder.iterdir())
    check_file(model, path)
    about = metadata_of(path)
    assert (about["task"], about["licence"], about["architecture"]) == ("rain", "Apache-2.0", "ast")
    assert ASTConfig(**json.loads(about["config"])) == model.config
    assert about["input"].startswith("image: (B, 3, H, W) float32, RGB in [0, 1]")
    assert about["multiple_px"] == str(model.config.size_multiple)
    if model.config.global_context:
        assert about["context"].startswith("what model.look")
        look = metadata_of(path.with_name(f"model.look{suffix}"))
        assert int(look["place_px"]) * model.config.window == model.config.size_multiple
        assert f"model.look{suffix}" in exported.notes[0]
        assert "context" in exported.notes[0]
    if model.config.proxy_px:
        assert "scaled down to 32 px" in about["proxy"]
        assert "handing its change on" in exported.notes[1]
    for file in folder.iterdir():
        assert str(Path(models.__file__).parent).encode() not in file.read_bytes()
    with pytest.raises(ExportError, match="exists already"):
        WRITERS[suffix](model, path)
    if suffix == ".onnx":
        check_onnx(path)


@pytest.mark.slow
def test_one_onnx_file_of_the_bundled_weights_serves_two_runtimes_at_any_size(
    tmp_path: Path,
) -> None:
    need(".onnx")
    need(".xml")
    import openvino

    model, path = fw.load_model("rain"), tmp_path / "rain.onnx"
    export_onnx(model, path)
    compiled = openvino.compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    runtimes = (run_alone(path), lambda image: compiled({"image": image})["restored"])
    photo = skimage.data.rocket()
    for height, width in ((64, 64), (200, 336), (321, 643)):
        image = np.float32(photo[None, :height, :width].transpose(0, 3, 1, 2) / 255)
        with torch.inference_mode():
            expected = model(torch.from_numpy(image)).clamp(0, 1).numpy()
        for run in runtimes:
            np.testing.assert_allclose(run(image=image), expected, atol=1e-4)


def test_a_file_that_looks_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.look.pt2").write_bytes(b"old")
    with pytest.raises(ExportError, match=r"model\.look\.pt2' exists already"):
        export_torch(one_block_each(global_context=True), tmp_path / "model.pt2")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def check_onnx(path: Path) -> None:
    """What programs expect that read no more than standard ONNX."""
    import onnx

    message = onnx.load(path)
    assert [(entry.domain, entry.version) for entry in message.opset_import] == [("", 20)]
    assert message.ir_version == 9
    assert {node.domain for node in message.graph.node} == {""}
    assert len(message.functions) == 0
    (image, context), (restored,) = message.graph.input, message.graph.output
    rows = [axis.dim_param for axis in context.type.tensor_type.shape.dim]
    assert (context.name, rows[:3]) == ("context", ["batch", "rows", "columns"])
    for value, name in ((image, "image"), (restored, "restored")):
        shape = [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        assert (value.name, shape) == (name, ["batch", 3, "height", "width"])
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def metadata_of(path: Path) -> dict[str, str]:
    if path.suffix == ".onnx":
        import onnx

        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if path.suffix == ".xml":
        import openvino

        about = openvino.Core().read_model(path).get_rt_info()["fairweather"]
        return {key: value.value for key, value in about.items()}
    extra = {"fairweather.json": ""}
    torch.export.load(path, extra_files=extra)
    return json.loads(extra["fairweather.json"])


def test_a_file_that_does_not_run_at_every_size_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one size only, as an exporter may make it that took the example's for the only one."""

    def capture_one_size(clipped: torch.nn.Module) -> Any:
        return torch.export.export(clipped, (torch.zeros(2, 3, 64, 64),))

    monkeypatch.setattr(graphs, "capture", capture_one_size)
    (tmp_path / "model.pt2").write_bytes(b"old")
    with pytest.raises(ExportError, match="fails at 200×336, so nothing was written"):
        export_torch(one_block_each(), tmp_path / "model.pt2", overwrite=True)
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_bytes() == b"old"


def test_verification_refuses_numbers_that_are_none_and_other_shapes() -> None:
    images = {(4, 4): np.zeros((1, 3, 4, 4), np.float32)}

    def verify(exported: Callable[[np.ndarray], np.ndarray]) -> Any:
        return verify_export(exported, lambda image: image, images=images, tolerance=1e-4)

    assert verify(lambda image: image + np.float32(5e-5)) == {(4, 4): pytest.approx(5e-5)}
    with pytest.raises(ExportError, match=r"2\.0e-04 away from the original at 4×4"):
        verify(lambda image: image + np.float32(2e-4))
    with pytest.raises(ExportError, match="nan away"):
        verify(lambda image: image * np.nan)
    with pytest.raises(ExportError, match=r"\(1, 3, 4, 2\) instead of \(1, 3, 4, 4\)"):
        verify(lambda image: image[..., :2])


@pytest.mark.parametrize(("suffix", "writer"), WRITERS.items())
def test_names_that_cannot_be_are_refused_at_once(
    suffix: str, writer: Callable[..., Exported], tmp_path: Path
) -> None:
    need(suffix)
    with pytest.raises(OptionError, match=f"ends in {suffix}"):
        writer(random_model(), tmp_path / "model.bmp")
    (tmp_path / f"folder{suffix}").mkdir()
    with pytest.raises(ExportError, match="is a folder"):
        writer(random_model(), tmp_path / f"folder{suffix}", overwrite=True)


def test_weights_of_another_openvino_model_are_not_replaced(tmp_path: Path) -> None:
    need(".xml")
    (tmp_path / "model.bin").write_bytes(b"old")
    with pytest.raises(ExportError, match=r"model\.bin' exists already"):
        export_openvino(random_model(), tmp_path / "model.xml")
    assert (tmp_path / "model.bin").read_bytes() == b"old"


@pytest.mark.parametrize(
    ("missing", "writer", "suffix"),
    [("onnxruntime", export_onnx, ".onnx"), ("openvino", export_openvino, ".xml")],
)
def test_a_missing_extra_says_what_installs_it(
    missing: str,
    writer: Callable[..., Exported],
    suffix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need(".onnx")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fairweather\[export\]'"):
        writer(random_model(), tmp_path / f"model{suffix}")


@pytest.mark.slow
def test_the_command_writes_compares_and_says_so(tmp_path: Path) -> None:
    models.save_model(one_block_each(), tmp_path / "mine.safetensors", metadata={"task": "snow"})
    words = ["export", str(tmp_path / "mine.safetensors"), str(tmp_path / "mine.pt2")]
    done = CliRunner().invoke(cli.app, [*words, "--to", "torch"])
    assert done.exit_code == 0, done.output
    assert "mine.pt2" in done.output
    assert re.search(r"largest difference: (0\.0e\+00|\d\.\de-0[5-9]) at 64×64", done.output)
    assert metadata_of(tmp_path / "mine.pt2")["task"] == "snow"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["rain", "a.onnx", "--to", "torch"], 2, "ends in .pt2"),
        (["rain", "a.onnx", "--to", "onnx", "--size", "64x64"], 2, "only litert"),
        (["rain", "a.tflite", "--to", "litert", "--size", "64"], 2, "256x384"),
        (["rain", "here.pt2", "--to", "torch"], 1, "exists already"),
        (["nowhere.pth", "a.pt2", "--to", "torch"], 1, "is no file"),
        (["rain", "no/folder/a.pt2", "--to", "torch"], 1, "cannot be written"),
    ],
)
def test_wrong_calls_are_refused(
    words: list[str], status: int, message: str, here: Path, run: Run
) -> None:
    (here / "here.pt2").touch()
    done = run("export", *words)
    assert done.status == status, done.err
    assert message in " ".join(done.err.replace("│", " ").split())
    assert [file.name for file in here.iterdir()] == ["here.pt2"]


@pytest.mark.slow
@pytest.mark.parametrize("global_context", [False, True])
def test_the_example_gives_the_pixels_of_a_restorer(
    global_context: bool,
    written: Callable[[str], tuple[models.AST, Exported]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need(".onnx")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import onnx_tiles

    if global_context:
        model, exported = written(".onnx")
    else:
        model = one_block_each()
        exported = export_onnx(model, tmp_path / "model.onnx")
    photo = np.float32(skimage.data.astronaut()[:150, :117] / 255)
    side = 4 * model.config.size_multiple
    expected = fw.Restorer(model, device="cpu", tile=side)(photo)
    found = onnx_tiles.restore(exported.path, photo, side)
    assert -10 * np.log10(np.square(found - expected).mean()) > 60
    assert np.abs(expected - photo).mean() > 0.01
    PIL.Image.fromarray(skimage.data.astronaut()[:40, :50]).save(tmp_path / "photo.png")
    example = Path(onnx_tiles.__file__)
    names = [tmp_path / name for name in ("photo.png", "out.png")]
    subprocess.run([sys.executable, example, exported.path, *names], check=True)
    small = fw.Restorer(model, device="cpu")(PIL.Image.open(tmp_path / "photo.png"))
    with PIL.Image.open(tmp_path / "out.png") as written:
        assert np.abs(np.asarray(written).astype(int) - np.asarray(small)).max() <= 1
    assert len(example.read_text("utf-8").splitlines()) <= 80


@pytest.mark.slow
@pytest.mark.parametrize(("radius_px", "least_change"), [(None, None), (12, None), (None, 0.05)])
def test_the_example_of_a_proxy_gives_the_pixels_of_a_restorer(
    radius_px: int | None,
    least_change: float | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need(".onnx")
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import onnx_proxy

    model = one_block_each(
        proxy_px=96,
        proxy_radius_px=radius_px,
        proxy_least_change=least_change,
        global_context=True,
    )
    export_onnx(model, tmp_path / "model.onnx")
    photo = degrade_pixels(skimage.data.coffee()[:201, :302], task="shadow", seed=1)
    expected = fw.Restorer(model, device="cpu")(photo / np.float32(255))
    found = onnx_proxy.restore(tmp_path / "model.onnx", PIL.Image.fromarray(photo))
    assert -10 * np.log10(np.square(found - expected).mean()) > 60
    assert np.abs(expected - photo / 255).mean() > 0.03
    assert len(Path(onnx_proxy.__file__).read_text("utf-8").splitlines()) <= 90
