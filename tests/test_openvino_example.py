"""examples/openvino_restore.cpp, compiled as examples/CMakeLists.txt says."""

import functools
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
from parity import random_model

import fairweather as fw
from fairweather.export import export_openvino

EXAMPLES = Path(__file__).parents[1] / "examples"
one_block_each = functools.partial(random_model, depths=(1, 1, 1), heads=(1, 1, 1))

pytestmark = [
    pytest.mark.slow,
    # PyTorch's and OpenVINO's own, while they load.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_what_compiles()
    build = tmp_path_factory.mktemp("build")
    configure = ["cmake", "-S", EXAMPLES, "-B", build, f"-DPython3_EXECUTABLE={sys.executable}"]
    for command in (configure, ["cmake", "--build", build, "--config", "Release"]):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return build / "openvino_restore"


def need_what_compiles() -> None:
    for module in ("onnxscript", "openvino"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"NOT TESTED: the example in C++, because {module} is not installed")
    found = importlib.util.find_spec("openvino")
    assert found is not None
    assert found.origin is not None
    if not (Path(found.origin).parent / "include/openvino/openvino.hpp").is_file():
        pytest.skip("NOT TESTED: the example in C++, because openvino came without its headers")
    if shutil.which("cmake") is None or not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("NOT TESTED: the example in C++, because there is no compiler or no CMake")
    if sys.platform == "win32":
        pytest.skip("NOT TESTED: the example in C++, because this test is for Linux and macOS")


def restored_by(program: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *words], capture_output=True, text=True)


@pytest.mark.parametrize("global_context", [False, True])
def test_frames_are_those_of_a_restorer(
    global_context: bool, program: Path, exported: Path, tmp_path: Path
) -> None:
    model = one_block_each(global_context=global_context)
    if global_context:
        export_openvino(model, exported := tmp_path / "model.xml")
    frames = [skimage.data.astronaut()[:96, :128], skimage.data.coffee()[50:133, 60:181]]
    with (tmp_path / "frames.ppm").open("wb") as file:
        for frame in frames:
            PIL.Image.fromarray(frame).save(file, "ppm")
    done = restored_by(program, exported, tmp_path / "frames.ppm", tmp_path / "out.ppm", "1")
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stderr.splitlines()] == ["128x96:", "121x83:"]

    restorer = fw.Restorer(model, device="cpu", tile=None, levels=0)
    with (tmp_path / "out.ppm").open("rb") as file:
        for frame in frames:
            expected = restorer(frame).astype(int)
            found = next_frame(file.read(len(b"P6\n000 00\n255\n") + frame.size), frame.shape)
            assert np.abs(found - expected).max() <= 1
            squared = np.square(found - expected).mean()
            assert 20 * np.log10(255) - 10 * np.log10(max(squared, 1e-9)) >= 55
            assert np.abs(expected - frame).mean() > 1
        assert file.read() == b""


def next_frame(ppm: bytes, shape: tuple[int, ...]) -> np.ndarray:
    magic, size, most, pixels = ppm.split(b"\n", 3)
    assert (magic, size.split(), most) == (b"P6", [b"%d" % shape[1], b"%d" % shape[0]], b"255")
    return np.frombuffer(pixels, np.uint8).reshape(shape).astype(int)


def test_weights_with_a_proxy_are_refused(program: Path, tmp_path: Path) -> None:
    export_openvino(one_block_each(proxy_px=96), tmp_path / "model.xml")
    PIL.Image.fromarray(skimage.data.astronaut()[:96, :128]).save(tmp_path / "in.ppm")
    done = restored_by(
        program, tmp_path / "model.xml", tmp_path / "in.ppm", tmp_path / "out.ppm", "1"
    )
    assert done.returncode == 1
    assert "model.xml alone cannot restore a frame" in done.stderr
    assert "scaled down to 96 px" in done.stderr


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P5\n2 2\n255\n1234", "does not begin with P6"),
        (b"P6\n2 2\n65535\n" + b"1" * 24, "a side is longer than 16384"),
        (b"P6\n# a comment\n2 2\n255\n12345", "the last frame is cut off"),
        (b"P6\n-2 2\n255\n12345", "header is damaged"),
    ],
)
def test_a_damaged_frame_is_named(
    content: bytes, message: str, program: Path, exported: Path, tmp_path: Path
) -> None:
    (tmp_path / "in.ppm").write_bytes(content)
    done = restored_by(program, exported, tmp_path / "in.ppm", tmp_path / "out.ppm")
    assert done.returncode == 1
    assert done.stderr.startswith("openvino_restore: ")
    assert message in done.stderr


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "model.xml"
    export_openvino(one_block_each(), path)
    return path


def test_a_wrong_call_is_refused(program: Path) -> None:
    done = restored_by(program)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: openvino_restore")
