"""The notebooks are the guides that they show, and run."""

import os
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="NOT TESTED: notebooks, because nbclient is missing")

import nbclient
import nbformat

from notebooks import NOTEBOOKS, make_notebook, notebook_path

ROOT = Path(__file__).parents[1]
FEWER = {"steps: 500": "steps: 4", "warmup_steps: 20": "warmup_steps: 1"}
FEWER |= {"validate_every_steps: 100": "validate_every_steps: 2"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_what_its_guide_says(name: str) -> None:
    assert notebook_path(name).read_text("utf-8") == make_notebook(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that trains does so with four steps instead of five hundred."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    text = notebook_path(name).read_text("utf-8")
    if name == "train":
        for many, few in FEWER.items():
            assert text.count(many) == 1
            text = text.replace(many, few)
    notebook = nbformat.reads(text, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": here}}).execute()
    printed = "".join(
        output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ())
    )
    assert not re.search(r"^error:|^failed:|Traceback", printed, re.MULTILINE), printed
    if name == "train":
        assert (here / "runs/scanner/model.safetensors").is_file()
        assert (here / "rocket.png").is_file()
    else:
        rain_db, restored_db = map(float, re.findall(r"([\d.]+) dB", printed)[:2])
        assert restored_db > rain_db + 3
