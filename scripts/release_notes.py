"""Print what CHANGELOG.md says about one version, for the notes of its release."""

import argparse
import re
import sys
from pathlib import Path

CHANGELOG = Path(__file__).parents[1] / "CHANGELOG.md"


def release_notes(changelog: str, version: str) -> str:
    """Return the Markdown between the heading of a version and that of the next one.

    Args:
        changelog: the text of a changelog in the format of Keep a Changelog.
        version: as in its heading, such as `0.1.0`; a leading `v`, as tags have it, is left out.
            `Unreleased` in any case of letters is the part that no version has yet.

    Raises:
        ValueError: if the changelog has no such part, or nothing in it.
    """
    wanted = re.sub(r"^v(?=\d)", "", version).lower()
    parts = re.split(r"^## \[(.+?)\].*\n", changelog, flags=re.MULTILINE)
    notes = {
        name.lower(): text.strip() for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    if wanted not in notes:
        known = ", ".join(parts[1::2]) or "no version at all"
        raise ValueError(f"version {version!r}: has no part in the changelog, which has {known}")
    if not notes[wanted]:
        raise ValueError(f"version {version!r}: the changelog says nothing about it")
    return notes[wanted]


def main() -> int:
    """Print the notes of the version on the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="such as 0.1.0, v0.1.0 or Unreleased")
    asked = parser.parse_args()
    try:
        print(release_notes(CHANGELOG.read_text("utf-8"), asked.version))
    except ValueError as error:
        print(f"release_notes.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
