"""What is told of a data set: findings, and how they name pairs and files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from fairweather.data.pairs import Pair

NAMED_FILES = 6


@dataclass(frozen=True)
class Finding:
    """Something wrong with a data set.

    Attributes:
        severity: `error` for what spoils training or a figure, `warning` for what may.
        kind: unreadable, size, orientation, offset, partner, identical, leak (errors); swapped,
            duplicate, exposure, mode (warnings).
        files: The files concerned, the degraded one of a pair first.
        message: A sentence with the numbers and the way out.
    """

    severity: Literal["error", "warning"]
    kind: str
    files: tuple[Path, ...]
    message: str


def error_of(kind: str, pair: Pair, message: str) -> Finding:
    """Return an error in a pair."""
    return Finding("error", kind, (pair.degraded, pair.clean), message)


def title_of(pair: Pair) -> str:
    """Return how messages call a pair."""
    return f"pair '{name_of(pair.degraded)}'"


def name_of(path: Path) -> str:
    """Return a file's name with that of its folder."""
    return f"{path.parent.name}/{path.name}"


def list_names(paths: Sequence[Path]) -> str:
    """Return the names of the first files, and how many more there are."""
    names = ", ".join(f"'{name_of(path)}'" for path in paths[:NAMED_FILES])
    return names + (f" and {len(paths) - NAMED_FILES} more" if len(paths) > NAMED_FILES else "")
