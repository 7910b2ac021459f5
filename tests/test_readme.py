"""What the README tells people to type exists: every command, option, name and file."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

import fairweather
from fairweather.cli import app
from fairweather.models import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
LINES = [
    line.partition("#")[0].strip()
    for language, block in BLOCKS
    if language == "sh"
    for line in block.splitlines()
]
COMMANDS = [line for line in LINES if line.startswith("fairweather ")]
COMMANDS += re.findall(r"`(fairweather [^`]+)`", README)


def test_the_readme_is_read() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_parse(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_context("fairweather", words)  # raises for an unknown option or a missing argument


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [line.split()[1] for line in LINES if line.startswith("make ")]
    assert {"restore", "test", "check"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_python_names_exist() -> None:
    names = set(re.findall(r"\bfw\.(\w+)", README))
    assert {"restore", "Restorer", "load_model", "create_model"} <= names
    assert names <= set(fairweather.__all__)
    for language, block in BLOCKS:
        if language == "python":
            compile(block, "README.md", "exec")


def test_presets_are_those_that_exist() -> None:
    assert set(re.findall(r"^\| `(ast\w*)` \|", README, re.MULTILINE)) == set(PRESETS)


def test_linked_files_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).is_file(), link
