"""How the public benchmarks lie on disk: a benchmark's folder → its pairs."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from fairweather.data.layouts.folders import (
    contents_of,
    first_fitting,
    fitting_folder,
    match,
    side_by_side_names,
)
from fairweather.data.layouts.forms import Layout
from fairweather.data.layouts.lists import list_pairs
from fairweather.data.layouts.table import LAYOUTS
from fairweather.data.pairs import Pair
from fairweather.errors import DataError, OptionError


def list_layouts() -> list[str]:
    """Return the names of the layouts, in the order of the table."""
    return list(LAYOUTS)


def describe_layout(name: str) -> str:
    """Describe a layout: the expected tree, where it is published, its splits, what is verified.

    Raises:
        OptionError: There is no such layout.
    """
    layout = layout_named(name)
    return (
        f"{name}: {layout.title} ({layout.task})\n"
        f"Published by: {layout.publisher}\n"
        f"Expected:\n{textwrap.indent(layout.tree, '    ')}\n"
        f"Splits: {', '.join(layout.split_names)}\n"
        f"Usual: {layout.usual}\n"
        f"Known: {layout.source}"
    )


def find_layout_pairs(root: Path, layout: str, *, split: str = "train") -> list[Pair]:
    """Return the pairs of a benchmark in the natural order of their names (2 before 10).

    Lists keep their own order. Folders are found whatever their case, and suffixes may differ.

    Args:
        root: the folder that the layout describes; for `csv` also the table itself.
        layout: one of `list_layouts()`.
        split: one of the layout's splits.

    Raises:
        OptionError: There is no such layout or split.
        DataError: The tree is another one, or a file has no partner.
    """
    table = layout_named(layout)
    if split not in table.split_names:
        raise OptionError(
            f"split {split!r}: layout '{layout}' has none of that name; choose"
            f" {one_of(table.split_names)} with --split"
        )
    if table.lists:
        is_csv, file = layout == "csv", table.lists[split]
        path = root if is_csv and root.is_file() else root / file
        if not path.is_file():
            raise DataError(wrong_tree(root, name=layout, split=split, expected=[file]))
        return list_pairs(path, is_csv=is_csv)
    part = "all" if table.last_for_test else split
    arrangement = first_fitting(root, table.splits[part])
    if arrangement is None:
        raise DataError(wrong_tree(root, name=layout, split=part))
    try:
        pairs = match(root, arrangement)
    except DataError as error:
        others = [other for other in fitting_splits(root, table) if other != "all"]
        if part != "all" or not others:
            raise
        raise DataError(f"{error}, or choose {one_of(others)} with --split") from error
    return _cut(root, pairs, last=table.last_for_test, split=split)


def layout_named(name: str) -> Layout:
    """Return the layout of that name.

    Raises:
        OptionError: There is none.
    """
    if name not in LAYOUTS:
        raise OptionError(f"layout {name!r}: is none of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _cut(root: Path, pairs: list[Pair], *, last: int, split: str) -> list[Pair]:
    """Cut a set without a split: the last pairs are for the test, the others for training."""
    if not last or split == "all":
        return pairs
    if len(pairs) <= last:
        raise DataError(
            f"{root}: holds {len(pairs)} pairs, but the last {last} are the test; is it complete?"
            " If so, choose all with --split"
        )
    return pairs[-last:] if split == "test" else pairs[:-last]


def wrong_tree(root: Path, *, name: str, split: str, expected: Sequence[str] = ()) -> str:
    """Return a message: what was expected, what was found, and what to do."""
    table = LAYOUTS[name]
    forms = table.splits.get(split, ())
    if not expected and side_by_side_names(root, table.side_by_side.get(split, ())):
        return (
            f"{root}: the images of layout '{name}' lie side by side in one file; take them apart"
            " with `fairweather data unpack` (unpack_side_by_side), and give the folder that it"
            " writes"
        )
    if not expected:
        folders = [[Path(f) for s in form for f in (s.degraded, s.clean)] for form in forms]
        named = [" + ".join(dict.fromkeys(f"{f.as_posix()}/" for f in form)) for form in folders]
        expected = list(dict.fromkeys(named))
    if others := fitting_splits(root, table):
        way = f"it does as another split: choose {one_of(others)} with --split"
    elif inner := fitting_folder(root, forms):
        way = f"{inner} does: give that folder"
    else:
        way = f"see layout '{name}' as a whole:\n{textwrap.indent(table.tree, '    ')}"
    lines = (
        f"{root}: does not lie as layout '{name}' (split '{split}') does",
        "  expected: " + "\n        or: ".join(expected),
        f"  found:    {contents_of(root)}",
        f"  {way}",
    )
    return "\n".join(lines)


def fitting_splits(root: Path, table: Layout) -> list[str]:
    """Return the splits of a layout that a folder holds."""
    listed = [split for split, file in table.lists.items() if (root / file).is_file()]
    return listed + [split for split, forms in table.splits.items() if first_fitting(root, forms)]


def one_of(names: Sequence[str]) -> str:
    """Return `a, b or c`."""
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
