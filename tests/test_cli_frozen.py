"""The command line that scripts call; a change here is a change for them."""

import re
import subprocess
import sys
from typing import Any

import typer

from fairweather import cli
from fairweather.data import DEGRADATIONS
from fairweather.imaging import DEFAULT_MAX_PIXELS

COMMANDS = {
    "": {"--version"},
    "restore": {
        "[inputs …]", "-o", "--out", "--task", "--weights", "--device", "--engine", "--precision",
        "--threads", "--tile", "--levels", "--fast", "--finish", "--strength", "--self-ensemble",
        "--compare", "--overwrite", "--skip-existing", "--format", "--quality", "--lossless",
        "--chroma", "--max-pixels", "--truncated", "--codec", "--crf", "--interlaced", "--calm",
        "--hardware", "--rawvideo", "--json", "--sample",
    },
    "serve": {
        "--host", "--port", "--api-key-file", "--allow-origin", "--page", "--no-page", "--device",
        "--engine", "--precision", "--threads", "--queue", "--max-upload-mib", "--max-pixels",
        "--max-seconds", "--folder", "--ray", "--replicas",
    },
    "bulk": {
        "[sources …]", "-o", "--out", "--task", "--strength", "--levels", "--format", "--quality",
        "--ray", "--workers", "--cpus", "--gpus", "--device", "--engine", "--precision",
        "--max-pixels", "--retry-failed", "--overwrite", "--json",
    },
    "models": set(),
    "models list": {"--json"},
    "models info": {"weights", "--json"},
    "models convert": {"source", "target", "--to", "--bottleneck-shift", "--overwrite"},
    "models precision": {"weights", "data", "--degradation", "--precision", "--json"},
    "benchmark": {"--weights", "--size", "--threads", "--device", "--json"},
    "evaluate": {
        "data", "--weights", "--protocol", "--layout", "--split", "--degradation", "--inference",
        "--self-ensemble", "--device", "--restored", "--clean", "--degraded", "--photos", "--masks",
        "-o", "--out", "--overwrite", "--json", "--list-protocols",
    },
    "export": {
        "weights", "target", "--to", "--size", "--int8", "--largest-loss", "--overwrite",
    },
    "data": set(),
    "data degrade": {"source", "-o", "--out", "--task", "--seed"},
    "data layouts": {"name"},
    "data pack": {"folder", "-o", "--out", "--shard-mb", "--overwrite"},
    "data check": {"folder", "--layout", "--split", "--test-split", "--quick", "--json"},
    "tune": {
        "recipe", "[overrides …]", "--data", "-o", "--out", "--trials", "--search", "--workers",
        "--cache", "--unchecked", "--allow-code",
    },
    "data unpack": {"source", "-o", "--out", "--layout", "--split", "--degraded"},
    "train": {
        "recipe", "[overrides …]", "--data", "-o", "--out", "--weights", "--framework", "--devices",
        "--workers", "--cache", "--unchecked", "--allow-code", "--fresh", "--dry-run", "--list",
        "--schema",
    },
}  # fmt: skip
HEAVY = {
    "torch", "numpy", "scipy", "skimage", "PIL", "tifffile", "safetensors", "huggingface_hub",
    "yaml", "lightning", "matplotlib", "keras", "openvino",
}  # fmt: skip
TASKS = ("rain", "raindrops", "haze", "snow", "shadows", "moiré")


def test_the_frozen_command_line() -> None:
    """Scripts call these; a change here is a change for them, so it goes into the changelog."""
    found: dict[str, set[str]] = {}

    def walk(command: Any, name: str) -> None:
        words = set()
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                many = parameter.nargs == -1
                words.add(f"[{parameter.name} …]" if many else str(parameter.name))
            else:
                words |= {*parameter.opts, *parameter.secondary_opts}
        found[name] = words - {"--install-completion", "--show-completion"}
        for inner in getattr(command, "commands", {}).values():
            walk(inner, f"{name} {inner.name}".strip())

    walk(typer.main.get_command(cli.app), "")
    assert found == COMMANDS


def test_version_help_and_refusals_load_nothing_heavy() -> None:
    """They come at once; pydantic is not among the heavy, since typer itself imports it."""
    calls = [["--version"], *([*name.split(), "--help"] for name in COMMANDS)]
    calls += [[*name.split(), "--wrong"] for name in COMMANDS]
    code = f"""
import sys
from fairweather.cli import main
for call in {calls}:
    sys.argv = ["fairweather", *call]
    try:
        main()
    except SystemExit as stop:
        assert stop.code == (2 if call[-1] == "--wrong" else 0), call
print(*{{name.split(".")[0] for name in sys.modules}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("No such option: --wrong") == len(COMMANDS)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "typer" in loaded
    assert loaded & HEAVY == set()


def test_python_m_fairweather_is_the_command() -> None:
    command = [sys.executable, "-m", "fairweather", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(task in done.stdout for task in TASKS)


def test_help_names_every_degradation_that_can_be_made() -> None:
    (option,) = (
        parameter
        for parameter in typer.main.get_command(cli.app).commands["data"].commands["degrade"].params
        if parameter.name == "task"
    )
    assert set(re.findall(r"\w+", option.help)) >= set(DEGRADATIONS)


def test_help_says_how_many_pixels_are_refused() -> None:
    (option,) = (
        parameter
        for parameter in typer.main.get_command(cli.app).commands["restore"].params
        if parameter.name == "max_pixels"
    )
    assert option.show_default == f"{DEFAULT_MAX_PIXELS // 1_000_000} million"
