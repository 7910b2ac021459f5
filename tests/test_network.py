"""The network is asked for nothing but a download: each command, engine and export is traced."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import STAGES, make_recipe, write_images
from tiny_sets import write_weights

from fairweather.training import dump_recipe

# Python's own calls, and what libraries do without Python: the second needs strace.
WATCHED = ("connect", "sendto", "sendmsg", "getaddrinfo", "gethostbyname", "gethostbyaddr")
MAIN = f"""
import sys
log = open("asked.txt", "a")
def hook(event, arguments):
    if event.startswith("socket.") and event[7:] in {WATCHED}:
        log.write(event + " " + repr(arguments) + "\\n"), log.flush()
sys.addaudithook(hook)
from fairweather.cli import main
try:
    main()
finally:
    import time
    time.sleep({{seconds}})  # some tell later, and in a thread
"""
TRACE = ("strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg")


def traced() -> list[str]:
    """The words that make a command be traced, if this machine allows it."""
    if shutil.which("strace") is None:
        return []
    tried = subprocess.run([*TRACE, "true"], capture_output=True, check=False)
    return [*TRACE, "-o", "traced.txt"] if tried.returncode == 0 else []


def asked_by(folder: Path, *arguments: object, seconds: float = 0.0, status: int = 0) -> list[str]:
    """Run a command to its end; return each host that it looked up or connected to."""
    command = [sys.executable, "-c", MAIN.format(seconds=seconds), *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "HOME")}
    done = subprocess.run(
        [*traced(), *command],
        cwd=folder,
        env={
            **environment,
            "OMP_NUM_THREADS": "1",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "HOME": str(folder),  # where OpenVINO would look for a consent
            "TF_CPP_MIN_LOG_LEVEL": "2",
        },
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == status, done.stderr
    lines = [
        line
        for name in ("asked.txt", "traced.txt")
        if (folder / name).exists()
        for line in (folder / name).read_text().splitlines()
    ]
    remote = re.compile(r"AF_INET6?\b|^socket\.")
    return [line for line in lines if remote.search(line) and "AF_UNIX" not in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, pairs and a recipe."""
    folder = tmp_path_factory.mktemp("offline")
    write_weights(folder / "mine.safetensors", strength=0.3)
    write_images(folder)
    recipe = make_recipe(stages=[{**STAGES[0], "steps": 2}])
    (folder / "tiny.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    return folder


@pytest.fixture
def here(folder: Path, tmp_path: Path) -> Path:
    """The same in a folder of a test's own."""
    return Path(shutil.copytree(folder, tmp_path / "here"))


def test_a_download_is_seen(here: Path) -> None:
    weights = f"https://weights.invalid/mine.safetensors#sha256={'0' * 64}"
    asked = asked_by(here, "models", "info", weights, status=1)
    assert "weights.invalid" in asked[0]
    assert not traced() or any("AF_INET" in line for line in asked)


WEIGHTS = ("--weights", "mine.safetensors", "--device", "cpu")
LIGHT = {
    "models": "models list",
    "restore": f"restore clean {' '.join(WEIGHTS)} --compare",
}
HEAVY = {
    "info": "models info rain",
    "auto": "restore clean --task auto --device cpu",
    "sample": "restore --sample",
    "convert": "models convert mine.safetensors mine.pth --to official",
    "degrade": "data degrade clean -o out",
    "check": "data check pairs",
    "evaluate": f"evaluate pairs {' '.join(WEIGHTS)} -o report",
    "train": "train tiny.yaml --data .",
    "tune": "tune tiny.yaml --data . --trials 1",
    "benchmark": "benchmark --weights mine.safetensors --size 32",
    "compiled": f"restore clean/0.png {' '.join(WEIGHTS)} --engine compiled",
    "onnxruntime": f"restore clean/0.png {' '.join(WEIGHTS)} --engine onnxruntime",
    "openvino": f"restore clean/0.png {' '.join(WEIGHTS)} --engine openvino",
    "to-onnx": "export mine.safetensors a.onnx --to onnx",
    "to-openvino": "export mine.safetensors a.xml --to openvino",
    "to-torch": "export mine.safetensors a.pt2 --to torch",
    "to-saved-model": "export mine.safetensors a --to saved-model",
    "to-litert": "export mine.safetensors a.tflite --to litert --size 32x32",
}


@pytest.mark.parametrize("name", LIGHT)
def test_a_command_asks_no_host(name: str, here: Path) -> None:
    assert asked_by(here, *LIGHT[name].split()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_an_engine_an_export_and_a_training_ask_no_host(name: str, here: Path) -> None:
    assert asked_by(here, *HEAVY[name].split(), seconds=3.0) == []
