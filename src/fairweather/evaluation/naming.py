"""Names of paths: short ones that tell them apart, and their order."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def tell_apart(paths: Sequence[Path], depths: Sequence[int]) -> list[str]:
    """The last parts of absolute paths; more of them where two would have one name.

    Args:
        paths: what to name; equal ones get equal names.
        depths: how many parts each name has at least.
    """
    depths = list(depths)
    while True:
        names = ["/".join(path.parts[-n:]) for path, n in zip(paths, depths, strict=True)]
        shared = {name for name, count in Counter(names).items() if count > 1}
        longer = [
            n + (name in shared and n < len(path.parts) - 1)
            for path, n, name in zip(paths, depths, names, strict=True)
        ]
        if longer == depths:
            return names
        depths = longer


def in_natural_order(name: str) -> tuple[list[tuple[int, str]], str]:
    """Sorts numbers in names by their value: 2 before 10."""
    parts = re.split("([0-9]+)", name.casefold())
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)], name
