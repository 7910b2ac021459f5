"""scripts/release_notes.py, on changelogs of its own and on the project's."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "release_notes.py"
Notes = Callable[[str, str], str]
CHANGELOG = """# Changelog

What changes.

## [Unreleased]

## [0.2.0] - 2026-12-24

### Added

- Snow, which [was missing](docs/snow.md).

## [0.1.0]

- Rain.
"""


@pytest.fixture
def release_notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    import release_notes

    return release_notes.release_notes


@pytest.mark.parametrize("version", ["0.2.0", "v0.2.0"])
def test_the_part_of_a_version_ends_where_the_next_one_begins(
    version: str, release_notes: Notes
) -> None:
    expected = "### Added\n\n- Snow, which [was missing](docs/snow.md)."
    assert release_notes(CHANGELOG, version) == expected
    assert release_notes(CHANGELOG, "0.1.0") == "- Rain."


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("0.3.0", "'0.3.0': has no part in the changelog, which has Unreleased, 0.2.0, 0.1.0"),
        ("0.2", "'0.2': has no part"),
        ("unreleased", "says nothing about it"),
    ],
)
def test_a_version_without_notes_is_named(version: str, message: str, release_notes: Notes) -> None:
    with pytest.raises(ValueError, match=message):
        release_notes(CHANGELOG, version)


def test_a_text_without_versions_has_no_notes(release_notes: Notes) -> None:
    with pytest.raises(ValueError, match="no version at all"):
        release_notes("# Changelog\n", "0.1.0")


def test_the_command_prints_the_projects_own_notes() -> None:
    def run(version: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, SCRIPT, version]
        return subprocess.run(command, capture_output=True, text=True, encoding="utf-8")

    done = run("Unreleased")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("### Added\n")
    assert "\n## " not in done.stdout
    done = run("99.0.0")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("release_notes.py: version '99.0.0': has no part")
