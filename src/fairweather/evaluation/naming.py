"""Short names for paths, long enough to tell them apart."""

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
