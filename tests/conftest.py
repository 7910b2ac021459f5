"""What all tests share: real images where there are some, and Hypothesis without deadlines."""

import gc
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch

from fairweather import cli

sys.path.insert(0, str(Path(__file__).parent))  # for parity.py and others, which are no tests
sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
sys.path.append(str(Path(__file__).parents[1] / "scripts"))

from command import Done, Run

ROOT = Path(__file__).parents[1]

hypothesis.settings.register_profile(
    "fairweather", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("fairweather")


LONGEST = {"test_keras_backends.py", "test_deployed_service.py", "test_bulk.py"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the tests that take longest, so that no worker is left with one in the end."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


def pytest_collection_finish() -> None:
    """Keeps what was imported and collected out of garbage collections, which would go through it.

    Lightning and Optuna ask for one after each run, which would take longer than a tiny run.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images; without it the test is skipped, and says so."""
    folder = os.environ.get("FAIRWEATHER_DATA")
    if not folder:
        pytest.skip("set FAIRWEATHER_DATA to a folder of real images to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def fk() -> Any:
    """The Keras wing, which is an extra and takes seconds to import."""
    import fairweather.keras

    return fairweather.keras


@pytest.fixture(scope="module")
def one_cpu_thread() -> Iterator[None]:
    """Has the tests of a file compute on one thread of the CPU, so that runs can be compared."""
    from tiny_runs import one_thread_of_the_cpu

    with one_thread_of_the_cpu():
        yield


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Has PyTorch compute with so many threads during a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `fairweather` as the shell does, in this process."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["fairweather", *map(str, arguments)])
        return end_of(cli.main, capsys)

    return run


@pytest.fixture
def run_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a file of benchmarks/ or scripts/ as `python FILE …` does, in this process."""

    def run(script: str, *arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        return end_of(lambda: runpy.run_path(str(ROOT / script), run_name="__main__"), capsys)

    return run


def end_of(command: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> Done:
    """How a command ends, and what it prints."""
    capsys.readouterr()
    status = 0
    try:
        command()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    done = Done(status, *capsys.readouterr())
    assert "Traceback" not in done.out + done.err
    return done
