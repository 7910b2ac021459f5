"""Keras on every backend, each in a process of its own; and without Keras.

Keras has one backend in a process, which takes seconds to import. So what has to hold on a backend
is written as functions `check_…` in the files that `CHECKS` names, and the test here runs them in
one pytest process for each backend (`-s` shows the figures). By hand:

    KERAS_BACKEND=jax python -m pytest -o python_functions=check_ tests/test_keras_model.py
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
# Files are the same on every backend, and PyTorch is the fastest to check that on.
LAYOUTS = "test_keras_convert.py::check_there_and_back_gives_identical_tensors"
A_RUN = "test_keras_fit.py::check_the_run_folder"
# TensorFlow traces a graph for each step and network, so only what its own parts decide.
RUNS_OF_TENSORFLOW = tuple(
    f"test_keras_fit.py::check_{name}"
    for name in ("data_for_fit", "a_run_of_keras_is_a_run_of_pytorch", "a_stopped_run_goes_on")
)
ON_ALL = ("test_keras_model.py", "test_keras_losses.py")
# Backend and files; several processes for TensorFlow, which takes longest.
CHECKS = {
    "tensorflow": ("tensorflow", (*ON_ALL, LAYOUTS)),
    "tensorflow-training": ("tensorflow", RUNS_OF_TENSORFLOW),
    "tensorflow-deployed": ("tensorflow", ("test_keras_export.py", "test_keras_tutorial.py")),
    "jax": ("jax", (*ON_ALL, A_RUN, LAYOUTS)),
    "torch": ("torch", (*ON_ALL, "test_keras_convert.py", "test_keras_fit.py")),
}
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    # glibc keeps freed memory: half of the time of small eager steps goes into page faults.
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
}
# XLA compiles ten times as fast if it need not make fast code. jaxlib ends the process if it does
# not know one of these; then find out what took its place, or leave them out and wait.
JAX_SETTINGS = {
    "XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    " --xla_cpu_use_fusion_emitters=false"
}


def run(*command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A Python process of its own, which does not know that it runs inside of pytest."""
    inherited = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
    environment = {**inherited, **SETTINGS, **settings}
    return subprocess.run(
        [sys.executable, *command],
        env=environment,
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_keras_on(name: str) -> None:
    backend, checks = CHECKS[name]
    for module in ("keras", backend):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"NOT TESTED: Keras on {backend}, because {module} is not installed")
    files = [str(TESTS / check) for check in checks]
    options = ("-q", "-rP", "-p", "no:cacheprovider", "-o", "python_functions=check_")
    settings = JAX_SETTINGS if backend == "jax" else {}
    done = run("-m", "pytest", *options, *files, KERAS_BACKEND=backend, **settings)
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-2000:]


def without(module: str, code: str) -> subprocess.CompletedProcess[str]:
    """Runs code where a module is not installed."""
    return run("-c", f"import sys; sys.modules[{module!r}] = None\n{code}")


def test_without_keras_the_error_says_what_installs_it() -> None:
    done = without("keras", "import fairweather, fairweather.keras")
    assert done.returncode == 1
    assert "MissingExtraError: fairweather.keras needs Keras 3" in done.stderr
    assert "pip install 'fairweather[keras]'" in done.stderr


def test_without_keras_the_command_says_so_in_one_line(tmp_path: Path) -> None:
    words = ["fairweather", "models", "convert", "rain", str(tmp_path / "a.keras"), "--to", "keras"]
    done = without("keras", f"sys.argv = {words}\nfrom fairweather.cli import main\nmain()")
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'fairweather[keras]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_fairweather_imports_no_keras() -> None:
    names = "{'keras', 'tensorflow', 'jax'} & set(sys.modules)"
    done = run("-c", f"import sys, fairweather; print({names})")
    assert done.stdout.strip() == "set()"
