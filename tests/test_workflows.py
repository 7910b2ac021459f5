"""What lies in .github: it can be read, and calls only what exists."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
MADE = ("dist/", "notes.md")  # by a workflow itself
TARGETS = set(re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def read(path: Path) -> dict[str, Any]:
    return yaml.load(path.read_text("utf-8"), yaml.BaseLoader)  # in which `on` is no truth value


def steps_of(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


def faults_of_command(line: str) -> Iterator[str]:
    """The make targets and the files of the project that a shell command names in vain."""
    words = shlex.split(re.split(r"\s[>|]\s|&&", line)[0])
    if words[:1] == ["make"]:
        yield from (f"make {word}" for word in words[1:] if word not in TARGETS)
    for word in words:
        is_path = re.fullmatch(r"(\.?\w[\w.-]*/)+[\w.-]+", word) or word.endswith(".md")
        if is_path and not word.startswith(MADE) and not (ROOT / word).exists():
            yield word


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_only_what_exists(path: Path) -> None:
    workflow = read(path)
    assert {"name", "on", "permissions", "jobs"} <= set(workflow)
    steps = list(steps_of(workflow))
    assert steps
    commands = [line for step in steps for line in step.get("run", "").splitlines()]
    assert [fault for line in commands for fault in faults_of_command(line)] == []
    files = [step.get("with", {}).get("cache-dependency-path") for step in steps]
    assert all((ROOT / file).is_file() for file in files if file)
    uses = [step["uses"] for step in steps if "uses" in step]
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v\d+)", action) for action in uses)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_do_no_more_than_it_needs(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    for line in (line for step in steps_of(workflow) for line in step.get("run", "").splitlines()):
        assert "${{" not in line  # what an event says must not become part of a command


@pytest.mark.parametrize(
    "line", ["make polish", "python scripts/polish.py", "pip install -c constraints/gpu.txt torch"]
)
def test_what_does_not_exist_is_found(line: str) -> None:
    assert len(list(faults_of_command(line))) == 1


def test_the_matrix_is_what_the_package_supports() -> None:
    workflow = read(ROOT / ".github/workflows/tests.yml")
    jobs = workflow["jobs"].values()
    pyproject = (ROOT / "pyproject.toml").read_text("utf-8")
    supported = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', pyproject)
    assert all(job["strategy"]["matrix"]["python"] == supported for job in jobs)
    systems = {system for job in jobs for system in job["strategy"]["matrix"].get("os", [])}
    systems |= {job["runs-on"] for job in jobs if "matrix" not in job["runs-on"]}
    assert systems == {"ubuntu-latest", "macos-latest", "windows-latest"}


def test_a_release_is_published_without_a_password() -> None:
    text = (ROOT / ".github/workflows/release.yml").read_text("utf-8")
    assert read(ROOT / ".github/workflows/release.yml")["jobs"]["pypi"]["permissions"] == {
        "id-token": "write"
    }
    assert "secrets." not in text
    assert "password:" not in text


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_for_something_and_each_field_once(path: Path) -> None:
    form = read(path)
    assert all(form[key] for key in ("name", "description", "body"))
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    kinds = {"input", "textarea", "dropdown", "checkboxes"}
    assert {field["type"] for field in fields} <= kinds
    assert all(field["attributes"]["label"] for field in fields)
    ids = [field["id"] for field in fields]
    assert len(ids) == len(set(ids))
    assert any(field.get("validations", {}).get("required") == "true" for field in fields)


def test_the_files_that_a_repository_is_asked_for_are_here() -> None:
    assert {path.stem for path in FORMS} == {"bug", "weights-or-quality", "feature"}
    names = ("SECURITY.md", "CODE_OF_CONDUCT.md", ".github/PULL_REQUEST_TEMPLATE.md")
    texts = [(ROOT / name).read_text("utf-8") for name in names]
    targets = re.findall(r"`make (\w+)`", "".join(texts))
    assert set(targets) <= TARGETS
    files = re.findall(r"\]\(([\w/.-]+)\)|`(docs/[\w/.-]+)`", "".join(texts))
    assert all((ROOT / (link or quoted)).is_file() for link, quoted in files)
