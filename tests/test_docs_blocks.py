"""The commands and the Python of README and docs are run, or are marked with the reason why not.

`<!-- not run: REASON -->` before a block leaves it out; `<!-- not run (WORD, WORD): REASON -->`
leaves out its lines that hold one of these words. What a page writes, its later blocks can read.
"""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import skimage.data
from command import Run
from PIL import Image

from fairweather.data import degrade_pixels
from fairweather.models import load_model, save_official

ROOT = Path(__file__).parents[1]
PAGES = [
    page.relative_to(ROOT).as_posix()
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md")))
]
ELSEWHERE = {
    "docs/experiments/": "a log of what was done, with hours of work and data that are not here",
    "docs/results/": "the output of benchmarks, which their own tests run on less",
    "docs/gallery.md": "test_docs_pictures.py runs it and compares the pictures",
    "docs/degradations.md": "test_docs_pictures.py runs it and compares the pictures",
    "docs/keras.md": "test_keras_tutorial.py runs it",
    "docs/training-at-scale.md": "faults/test_train_at_scale.py runs its commands",
    "docs/guides/train.md": "test_docs_guide.py runs it, with fewer steps",
}
BLOCK = re.compile(
    r"(?:<!-- not run(?: \((?P<words>[^)]+)\))?: (?P<reason>[^>]+?) -->\n)?"
    r"^```(?P<language>\w*)\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
HERE = {"data", "evaluate", "models", "restore", "train"}  # run in the process of the tests
NOT_CODE = {"", "csv", "json", "text", "yaml"}


class Block(NamedTuple):
    """A block of code that is run."""

    language: str
    code: str


def blocks_of(text: str) -> Iterator[Block]:
    """The blocks of a page that are run."""
    for found in BLOCK.finditer(text):
        words = [word.strip() for word in (found["words"] or "").split(",") if word.strip()]
        if found["language"] in NOT_CODE or (found["reason"] and not words):
            continue
        lines = found["code"].splitlines(keepends=True)
        kept = "".join(line for line in lines if not any(word in line for word in words))
        yield Block(found["language"], kept)


def is_elsewhere(page: str) -> bool:
    return page.startswith(tuple(ELSEWHERE))


def test_what_is_marked_is_left_out_and_nothing_else() -> None:
    page = """
```sh
fairweather one
```
<!-- not run (two, three): they take hours -->
```sh
fairweather two
fairweather four
```
<!-- not run: takes hours -->
```python
five()
```
```csv
path
```
"""
    assert [block.code for block in blocks_of(page)] == ["fairweather one\n", "fairweather four\n"]


def test_every_mark_stands_before_a_block() -> None:
    for page in PAGES:
        text = (ROOT / page).read_text("utf-8")
        marks = len(re.findall("^<!-- not run", text, re.MULTILINE))
        assert marks == sum(bool(found["reason"]) for found in BLOCK.finditer(text)), page


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: photographs, clips, pairs, data sets and weights."""
    folder = tmp_path_factory.mktemp("docs")
    photo = np.ascontiguousarray(skimage.data.astronaut()[:96, 160:288])
    rainy = degrade_pixels(photo, task="rain", seed=1)
    for name in ("photo.jpg", "rainy.jpg", "photos/1.jpg", "photos/2.png", "shots/3.png"):
        save(folder / name, rainy)
    for name in ("clean/4.png", "photographs/5.png"):
        save(folder / name, photo)
    for name in ("mine", "DATA/Rain100L", "DATA/dev/pairs/rain/Rain100L"):
        for number in range(4):
            save(folder / name / f"input/{number}.png", np.roll(rainy, 8 * number, 1))
            save(folder / name / f"target/{number}.png", np.roll(photo, 8 * number, 1))
    save(folder / "results/6.png", rainy)
    save(folder / "targets/6.png", photo)
    make_small_clips(folder)
    save_official(load_model("rain"), folder / "model_best.pth")
    for name in ("constraints", "examples", "deploy"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def make_small_clips(folder: Path) -> None:
    pytest.importorskip("av")
    from tiny_clips import make_clip, scene

    (folder / "trip").mkdir()
    for name in ("clip.mp4", "trip/clip.mp4"):
        make_clip(folder / name, frames=4, size=(64, 96))
    save(folder / "trip/photo.jpg", scene(0, (64, 96)))
    for number in range(1, 4):
        save(folder / f"frames/frame_{number:06}.png", scene(number, (64, 96)))


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if not is_elsewhere(page)])
def test_a_page_runs(
    page: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    blocks = list(blocks_of((ROOT / page).read_text("utf-8")))
    if not blocks:
        return
    here = tmp_path / "here"
    shutil.copytree(workplace, here)
    monkeypatch.chdir(here)
    names: dict[str, Any] = {"__name__": page}
    for block in blocks:
        if block.language == "python":
            exec(compile(block.code, page, "exec"), names)
            continue
        assert block.language == "sh", f"{page}: {block.language} is no language that is run"
        for line in block.code.replace("\\\n", " ").splitlines():
            run_line(line, run)


def run_line(line: str, run: Run) -> None:
    """Run a line: a plain call of the command in this process, all else in a shell."""
    words = shlex.split(line, comments=True)
    if not words or words[0] == "source":
        return
    if words[:2] == ["pip", "install"]:
        assert unknown_extras(line) == []
    elif words[0] == "fairweather" and words[1] in HERE and not set(words) & {">", "<", "|"}:
        again = ["--overwrite"] if words[1] == "restore" and "--skip-existing" not in words else []
        done = run(*words[1:], *again)  # pages show alternatives: targets may be there already
        assert done.status == 0, (line, done)
    else:
        scripts = Path(sys.executable).parent
        environment = {"PATH": f"{scripts}:/usr/local/bin:/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
        shell = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert shell.returncode == 0, (line, shell.stdout, shell.stderr)


def unknown_extras(line: str) -> list[str]:
    """The extras that a line installs and the package does not have."""
    known = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = re.findall(r"\[([\w,]+)\]", line)
    extras = [extra for names in asked for extra in names.split(",")]
    return [extra for extra in extras if extra not in known["optional-dependencies"]]


def test_an_extra_that_does_not_exist_is_found() -> None:
    assert unknown_extras("pip install -e '.[train,polish]'") == ["polish"]
