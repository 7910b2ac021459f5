"""What is released: the sdist, the wheel made of it, and the wheel at work from elsewhere."""

import email
import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from PIL import Image
from skimage import data

from fairweather.data import degrade_pixels

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "fairweather"

pytestmark = pytest.mark.slow


def run(*words: str | Path, **way: str | Path | dict[str, str]) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, **way)  # type: ignore
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist and the wheel."""
    for module in ("build", "twine", "hatchling", "hatch_fancy_pypi_readme"):
        found = importlib.util.find_spec(module)
        if found is None or found.origin is None:  # a folder build/ is none
            pytest.skip(f"NOT TESTED: what is released, because {module} is not installed")
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


def wheel_in(folder: Path) -> Path:
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    with zipfile.ZipFile(wheel_in(built)) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    files = [path for path in SOURCE.rglob("*") if path.is_file()]
    expected = {
        path.relative_to(SOURCE.parent).as_posix()
        for path in files
        if "__pycache__" not in path.parts
    }
    assert held == expected
    kinds = {PurePosixPath(name).suffix for name in held}
    assert {".py", ".pyi", ".safetensors", ".md", ".yaml", ".html", ".typed"} <= kinds
    assert {f"fairweather/weights/{name}.safetensors" for name in ("rain", "haze")} <= held


def test_the_sdist_holds_what_the_tests_need(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff"} <= held
    tops = {name.partition("/")[0] for name in held}
    assert {"src", "tests", "benchmarks", "scripts", "examples", "deploy", "docs"} <= tops
    assert {"constraints", ".github", "Makefile"} <= tops
    assert not tops & {"trainings", "build", "dist", ".venv", ".git"}
    assert not any("__pycache__" in name for name in held)


def test_twine_finds_nothing_to_complain_about(built: Path) -> None:
    assert run("-m", "twine", "check", "--strict", *built.iterdir()).count("PASSED") == 2


def test_the_page_on_pypi_has_no_links_that_lead_nowhere(built: Path) -> None:
    with zipfile.ZipFile(wheel_in(built)) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(wheel.read(name))
    page = metadata.get_payload()
    assert isinstance(page, str)
    assert page.startswith("# fairweather\n")
    assert metadata["Description-Content-Type"] == "text/markdown"
    prose = re.sub(r"^```.*?^```", "", page, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)]*)\)", prose)
    assert [link for link in links if not link.startswith("https://")] == []
    assert "restores photographs" in prose


def test_the_wheel_restores_from_another_folder(built: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target"]
    run(*pip, installed, wheel_in(built), cwd=tmp_path)
    rainy = degrade_pixels(data.astronaut()[:96, 150:270], task="rain", seed=1)
    Image.fromarray(rainy).save(tmp_path / "rainy.png")
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    code = "import fairweather; print(fairweather.__file__, fairweather.__version__)"
    file, version = run("-c", code, cwd=tmp_path, env=environment).split()
    assert Path(file).is_relative_to(installed)
    assert f"-{version}-" in wheel_in(built).name
    run("-m", "fairweather", "restore", "rainy.png", cwd=tmp_path, env=environment)
    with Image.open(tmp_path / "rainy.restored.png") as restored:
        assert restored.size == (120, 96)
