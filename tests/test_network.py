"""The network is asked for nothing but a download: each command, engine and export is traced."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import STAGES, make_recipe, write_images
from tiny_sets import FEWEST_OPERATIONS, write_weights

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
for command in {{commands}}:
    sys.argv = ["fairweather", *command.split()]
    try:
        main()
    except SystemExit as end:
        print(command, "ended with", end.code or 0, file=sys.stderr)
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


def asked_by(folder: Path, *commands: str, seconds: float = 0.0, status: int = 0) -> list[str]:
    """Run commands in one process to their end; return each host that they asked for."""
    command = [sys.executable, "-c", MAIN.format(commands=commands, seconds=seconds)]
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
    ends = re.findall(r"ended with (\d+)$", done.stderr, re.MULTILINE)
    assert ends == [str(status)] * len(commands), done.stderr
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
    write_weights(folder / "mine.safetensors", strength=0.3, config=FEWEST_OPERATIONS)
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
    asked = asked_by(here, f"models info {weights}", status=1)
    assert "weights.invalid" in asked[0]
    assert not traced() or any("AF_INET" in line for line in asked)


WEIGHTS = "--weights mine.safetensors --device cpu"
# Not the engine `compiled`: for minutes it runs the C++ compiler, thousands of processes to trace.
HEAVY = {
    "photographs": (
        "models info rain",
        "models convert mine.safetensors mine.pth --to official",
        "restore clean --task auto --device cpu",
        "restore --sample",
        "data degrade clean -o out",
        "data check pairs",
        f"evaluate pairs {WEIGHTS} -o report",
    ),
    "trainings": ("train tiny.yaml --data .", "tune tiny.yaml --data . --trials 1"),
    "engines": (
        "benchmark --weights mine.safetensors --size 32",
        f"restore clean/0.png -o a.png {WEIGHTS} --engine onnxruntime",
        f"restore clean/0.png -o b.png {WEIGHTS} --engine openvino",
    ),
    "exports": (
        "export mine.safetensors a.onnx --to onnx",
        "export mine.safetensors a.xml --to openvino",
        "export mine.safetensors a.pt2 --to torch",
        "export mine.safetensors a --to saved-model",
        "export mine.safetensors a.tflite --to litert --size 32x32",
    ),
}


def test_commands_ask_no_host(here: Path) -> None:
    assert asked_by(here, "models list", f"restore clean {WEIGHTS} --compare") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", HEAVY)
def test_engines_exports_and_trainings_ask_no_host(name: str, here: Path) -> None:
    assert asked_by(here, *HEAVY[name], seconds=3.0) == []
