"""The steps of the Dockerfile, in a fresh environment, and what it starts."""

import contextlib
import importlib.metadata
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from packaging.requirements import Requirement
from skimage import data

from fairweather import Restorer
from fairweather.imaging import Photo, write_image

ROOT = Path(__file__).parents[1]
FILE = ROOT / "deploy/Dockerfile"
INSTALLED = "/srv/fairweather"
WHEELS = "--extra-index-url https://download.pytorch.org/whl/cpu "  # Tests ask no other host.


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each in one line."""
    text = re.sub(r"^#.*\n", "", FILE.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def test_the_container_needs_no_root_and_writes_nowhere_else() -> None:
    words = instructions()
    assert ("USER", "10001") in words
    (entry,) = [rest for word, rest in words if word == "ENTRYPOINT"]
    assert shlex.split(entry.replace(",", " ").strip("[]"))[-2:] == ["--folder", "/tmp"]
    (service,) = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))[
        "services"
    ].values()
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp:size=2g,mode=1777"]
    assert service["ports"] == ["127.0.0.1:7860:7860"]


def test_hadolint_finds_nothing() -> None:
    found = shutil.which("hadolint", path=Path(sys.executable).parent) or shutil.which("hadolint")
    if found is None:
        pytest.skip("NOT TESTED: the Dockerfile by hadolint, which is missing")
    done = subprocess.run([found, FILE], capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the steps are for Linux")
def test_the_steps_make_a_service(tmp_path: Path) -> None:
    installed, build = tmp_path / "installed", tmp_path / "build"
    build.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{installed}/bin:{os.environ['PATH']}",
        "HOME": str(tmp_path),
    }
    environment.pop("PYTHONPATH", None)
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from"):
            *names, target = rest.split()
            for name in names:
                copy(ROOT / name, build / target / (name if target in (".", "./") else ""))
        elif word == "RUN" and not rest.startswith("useradd"):
            step = rest.replace(INSTALLED, str(installed)).replace(WHEELS, "")
            step = step.replace("python -m venv", f"{sys.executable} -m venv")
            subprocess.run(["sh", "-ec", step], cwd=build, env=environment, check=True)
            if "-m venv" in step:
                provide("fairweather[serve]", installed)
    before = set(installed.rglob("*"))

    (entry,) = [rest for word, rest in instructions() if word == "ENTRYPOINT"]
    (check,) = [rest for word, rest in instructions() if word == "HEALTHCHECK"]
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    words = [word.replace("/tmp", str(tmp_path)) for word in yaml.safe_load(entry)]
    words[words.index("0.0.0.0")] = "127.0.0.1"
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    process = subprocess.Popen([*words, "--port", port], env=environment, cwd="/")
    try:
        ask = yaml.safe_load(check.partition("CMD ")[2].replace("7860", port))
        wait_until(lambda: subprocess.run(ask, env=environment, cwd="/", stderr=-3).returncode == 0)
        photo = tmp_path / "photo.png"
        write_image(photo, Photo(data.astronaut()[:120, 100:260]))
        url = f"http://127.0.0.1:{port}"
        answer = httpx.post(f"{url}/v1/restore", content=photo.read_bytes(), timeout=100)
        Restorer("rain", device="cpu").restore_file(photo, tmp_path / "expected.png")
        assert answer.content == (tmp_path / "expected.png").read_bytes()
        assert "fairweather" in httpx.get(url).text
    finally:
        process.terminate()
        assert process.wait(60) == 0
    new = {path.name for path in set(installed.rglob("*")) - before}
    assert new <= {"hash_seed.txt"}  # of Gradio, which does without where it cannot write


def provide(wanted: str, installed: Path) -> None:
    """Link what a package needs from here into another environment, where pip then finds it.

    Pip still says what is needed, and fetches what is not here; all of it would take minutes.
    """
    (packages,) = installed.glob("lib/python*/site-packages")
    waiting, seen = [Requirement(wanted)], set[str]()
    while waiting:
        requirement = waiting.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found = importlib.metadata.distribution(requirement.name)
            for one in map(Requirement, found.requires or ()):
                extras = [{"extra": extra} for extra in ("", *requirement.extras)]
                if one.marker is None or any(map(one.marker.evaluate, extras)):
                    waiting.append(one)
            if requirement.name != Requirement(wanted).name:
                link(found, packages)


def link(found: importlib.metadata.Distribution, packages: Path) -> None:
    place = Path(str(found.locate_file("")))
    listed = [place / file for file in found.files or () if ".." not in file.parts]
    compiled = [Path(cache_from_source(file)) for file in listed if file.suffix == ".py"]
    for source in filter(Path.exists, (*listed, *compiled)):
        target = packages / source.relative_to(place)
        if target.exists():
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # on another disk
            shutil.copy2(source, target)


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def wait_until(is_true: Any) -> None:
    ends = time.monotonic() + 300
    while not is_true():
        assert time.monotonic() < ends
        time.sleep(0.2)
