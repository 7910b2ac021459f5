"""How the public benchmarks lie on disk: a benchmark's folder → its pairs."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np

from fairweather.data.layouts.forms import INPUT_TARGET, Arrangement, Layout, Sides
from fairweather.data.layouts.lists import csv_lines, text_lines
from fairweather.data.layouts.table import LAYOUTS
from fairweather.data.pairs import Pair, name_images, natural_order
from fairweather.errors import DataError, OptionError
from fairweather.imaging import IMAGE_SUFFIXES, Photo, as_bytes, read_image, write_image

SHOWN = 8
FEW = 64
LOOKED_AT = 15


def list_layouts() -> list[str]:
    """The names of the layouts, in the order of the table."""
    return list(LAYOUTS)


def describe_layout(name: str) -> str:
    """A layout as text: the expected tree, where it is published, its splits, what is verified.

    Raises:
        OptionError: if there is no such layout.
    """
    layout = _layout(name)
    tree = "\n".join(f"    {line}" for line in layout.tree.splitlines())
    return (
        f"{name}: {layout.title} ({layout.task})\n"
        f"Published by: {layout.publisher}\n"
        f"Expected:\n{tree}\n"
        f"Splits: {', '.join(layout.split_names)}\n"
        f"Usual: {layout.usual}\n"
        f"Known: {layout.source}"
    )


def find_layout_pairs(root: Path, layout: str, *, split: str = "train") -> list[Pair]:
    """The pairs of a benchmark in the natural order of their names (2 before 10).

    Lists keep their own order. Folders are found whatever their case, and suffixes may differ.

    Args:
        root: the folder that the layout describes; for `csv` also the table itself.
        layout: one of `list_layouts()`.
        split: one of the layout's splits.

    Raises:
        OptionError: for a layout or split that there is not.
        DataError: if the tree is another one, or a file has no partner.
    """
    table = _layout(layout)
    if split not in table.split_names:
        raise OptionError(
            f"split {split!r}: layout '{layout}' has none of that name, only"
            f" {', '.join(table.split_names)}"
        )
    if table.lists:
        return _list_pairs(root, name=layout, file=table.lists[split])
    part = "all" if table.last_for_test else split
    arrangement = _first_fitting(root, table.splits[part])
    if arrangement is None:
        raise DataError(_wrong_tree(root, name=layout, split=part))
    pairs = _match(root, arrangement)
    return _cut(root, pairs, last=table.last_for_test, split=split)


def unpack_side_by_side(
    root: Path,
    out: Path,
    *,
    layout: str,
    split: str = "train",
    degraded: Literal["left", "right"] | None = None,
) -> int:
    """Takes files that hold both images of a pair apart, so that `find_layout_pairs` reads `out`.

    Writes PNG files, which lose nothing, to `out/SPLIT/input` and `out/SPLIT/target`.

    Args:
        root: the folder that the layout describes.
        out: where to write; it must not hold this split yet.
        layout: one whose pairs lie side by side, as `rain800` and `did-mdn`.
        split: one of the layout's splits.
        degraded: which half is degraded; None looks at some files and takes the half with the
            stronger edges, which is the one with rain.

    Returns:
        How many pairs were written.

    Raises:
        OptionError: if the layout has nothing side by side.
        DataError: if the tree is another one, a width is odd, `out` holds the split already, or
            looking at the files does not tell the halves.
        ImageError: if a file cannot be read or written.
    """
    folders = _layout(layout).side_by_side.get(split)
    if folders is None:
        raise OptionError(f"layout '{layout}', split {split!r}: has no images side by side")
    names = _side_by_side_names(root, folders)
    if not names:
        raise DataError(_wrong_tree(root, name=layout, split=split, expected=folders))
    for side in ("input", "target"):
        if (out / split / side).exists():
            raise DataError(f"'{out / split / side}' exists already; choose another folder")
    left = (degraded or _look(list(names.values()))) == "left"
    for name, path in names.items():
        halves = _halves(path)
        for side, half in zip(("input", "target"), halves if left else halves[::-1], strict=True):
            target = out / split / side / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_image(target, Photo(half))
    return len(names)


def _layout(name: str) -> Layout:
    if name not in LAYOUTS:
        raise OptionError(f"layout {name!r}: is none of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    return natural_order(path.as_posix())


def _locate(root: Path, folder: str) -> Path | None:
    """A folder under the root whatever the case of its name; the exact name comes first."""
    place = root
    for part in Path(folder).parts:
        if (place / part).is_dir():
            place /= part
            continue
        if not place.is_dir():
            return None
        alike = sorted(p for p in place.iterdir() if p.name.casefold() == part.casefold())
        alike = [path for path in alike if path.is_dir()]
        if not alike:
            return None
        place = alike[0]
    return place if place.is_dir() else None


def _first_fitting(root: Path, forms: Iterable[Arrangement]) -> Arrangement | None:
    """The first form whose folders are there, with the folders' true names."""
    fallback = None
    for form in forms:
        places = [(_locate(root, s.degraded), _locate(root, s.clean)) for s in form]
        if any(place is None for both in places for place in both):
            continue
        found = tuple(
            replace(sides, degraded=str(degraded), clean=str(clean))
            for sides, (degraded, clean) in zip(form, places, strict=True)
        )
        if all(_names_fit(sides) for sides in found):
            return found
        if fallback is None and not any(_overlap(sides) for sides in found):
            fallback = found
    return fallback


def _names_fit(sides: Sides) -> bool:
    """Whether some images of each folder are named as expected; one will do where they overlap."""
    return all(
        _some_fit(Path(folder), pattern, strict=not _overlap(sides))
        for folder, pattern in (
            (sides.degraded, sides.degraded_name),
            (sides.clean, sides.clean_name),
        )
    )


def _some_fit(folder: Path, pattern: str, *, strict: bool) -> bool:
    """Looks at a few images only: a folder may hold half a million, and they are matched later."""
    images = (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    fits = (_key(path.stem, pattern) is not None for path in images)
    if not strict:
        return any(fits)
    few = list(islice(fits, FEW))
    return bool(few) and all(few)


def _overlap(sides: Sides) -> bool:
    """Whether one folder lies in the other, or both are one."""
    return Path(sides.degraded).is_relative_to(sides.clean)


def _key(stem: str, pattern: str) -> str | None:
    found = re.fullmatch(pattern, stem, flags=re.IGNORECASE)
    return "".join(group or "" for group in found.groups()) if found else None


def _named(folder: Path, pattern: str, *, strict: bool) -> dict[Path, str]:
    """The images of a folder and their keys; one that is named otherwise is an error if strict."""
    keys: dict[Path, str] = {}
    for name, path in name_images(folder).items():
        key = _key(name.name, pattern)
        if key is not None:
            keys[path] = (name.parent / key).as_posix()
        elif strict:
            raise DataError(
                f"{path}: is not named as the layout's files are ('{pattern}'); rename or remove it"
            )
    return keys


def _match(root: Path, arrangement: Arrangement) -> list[Pair]:
    """The pairs of an arrangement; any file without a partner is an error that names it."""
    pairs: list[Pair] = []
    lone: list[Path] = []
    unused: dict[str, set[Path]] = {}
    for sides in arrangement:
        strict = not _overlap(sides)
        degraded = _named(Path(sides.degraded), sides.degraded_name, strict=strict)
        clean = _by_key(_named(Path(sides.clean), sides.clean_name, strict=strict))
        if not sides.many:
            _by_key(degraded)
        found = [Pair(path, clean[key]) for path, key in degraded.items() if key in clean]
        lone += [path for path, key in degraded.items() if key not in clean]
        pairs += sorted(found, key=lambda pair: _natural(pair.degraded))
        if not sides.spare_clean:
            spare = unused.setdefault(sides.clean, set(clean.values()))
            spare -= {pair.clean for pair in found}
    lone += sorted(path for spare in unused.values() for path in spare)
    if lone:
        names = ", ".join(path.relative_to(root).as_posix() for path in sorted(lone)[:3])
        raise DataError(
            f"{root}: {names}{' …' if len(lone) > 3 else ''} without a partner"
            f" ({len(lone)} such files); rename or remove them"
        )
    if not pairs:
        raise DataError(f"{root}: holds no image that is named as the layout's files are")
    return pairs


def _by_key(keys: Mapping[Path, str]) -> dict[str, Path]:
    """Turned about; two files of one key are an error."""
    paths: dict[str, Path] = {}
    for path, key in keys.items():
        if key in paths:
            raise DataError(f"{paths[key]} and {path}: have one name; rename one of them")
        paths[key] = path
    return paths


def _cut(root: Path, pairs: list[Pair], *, last: int, split: str) -> list[Pair]:
    """The last pairs are the test and the others the training set, where a set has no split."""
    if not last or split == "all":
        return pairs
    if len(pairs) <= last:
        raise DataError(
            f"{root}: holds {len(pairs)} pairs, but the last {last} are the test; is it complete?"
        )
    return pairs[-last:] if split == "test" else pairs[:-last]


def _wrong_tree(root: Path, *, name: str, split: str, expected: Sequence[str] = ()) -> str:
    """Expected beside found, and what to do."""
    table = LAYOUTS[name]
    side_by_side = table.side_by_side.get(split, ())
    if not expected and _side_by_side_names(root, side_by_side):
        return (
            f"{root}: the images of layout '{name}' lie side by side in one file; take them apart"
            " with unpack_side_by_side, and give the folder that it wrote"
        )
    if not expected:
        forms = dict.fromkeys(
            " + ".join(dict.fromkeys(_short(f) for s in form for f in (s.degraded, s.clean)))
            for form in table.splits.get(split, ())
        )
        expected = list(forms)
    inner = _fitting_folder(root, table.splits.get(split, ()))
    return (
        f"{root}: does not lie as layout '{name}' (split '{split}') does\n"
        f"  expected: {f'{chr(10)}        or: '.join(expected)}\n"
        f"  found:    {_contents(root)}\n"
        + (f"  {inner} does: give that folder" if inner else f"  see layout '{name}' as a whole:\n")
        + ("" if inner else "\n".join(f"    {line}" for line in table.tree.splitlines()))
    )


def _short(folder: str) -> str:
    return f"{Path(folder).as_posix()}/"


def _contents(root: Path) -> str:
    """The first entries of a folder, as text."""
    if not root.is_dir():
        return "a file" if root.is_file() else "no such folder"
    entries = sorted((p for p in root.iterdir() if not p.name.startswith(".")), key=_natural)
    names = [f"{path.name}/" if path.is_dir() else path.name for path in entries]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"


def _fitting_folder(root: Path, forms: Sequence[Arrangement]) -> Path | None:
    """A folder in the root that fits where the root does not: archives often hold one more."""
    if not root.is_dir():
        return None
    inner = sorted((path for path in root.iterdir() if path.is_dir()), key=_natural)
    return next((path for path in inner[:SHOWN] if _first_fitting(path, forms)), None)


def _list_pairs(root: Path, *, name: str, file: str) -> list[Pair]:
    """The pairs of a list file or a table, in its order."""
    path = root if name == "csv" and root.is_file() else root / file
    if not path.is_file():
        raise DataError(
            f"{root}: does not lie as layout '{name}' does\n"
            f"  expected: {file}\n"
            f"  found:    {_contents(root)}"
        )
    lines = csv_lines(path) if name == "csv" else text_lines(path)
    pairs: list[Pair] = []
    missing: list[str] = []
    for number, (degraded, clean) in lines:
        pair = Pair(path.parent / degraded, path.parent / clean)
        if pair.is_synthetic:
            raise DataError(f"{path}, line {number}: names one file twice: {degraded}")
        missing += [f"line {number}: {p}" for p in (pair.degraded, pair.clean) if not p.is_file()]
        pairs.append(pair)
    if missing:
        raise DataError(
            f"{path}: {len(missing)} files are missing: {', '.join(missing[:3])}"
            f"{' …' if len(missing) > 3 else ''}"
        )
    if not pairs:
        raise DataError(f"{path}: lists no pair")
    return pairs


def _side_by_side_names(root: Path, folders: Iterable[str]) -> dict[Path, Path]:
    """The files that hold both images, by what they become; not those taken apart already."""
    names: dict[Path, Path] = {}
    for folder in folders:
        place = _locate(root, folder)
        apart = {form.degraded for form in INPUT_TARGET} | {"rain"}
        if place is None or any(_locate(place, name) for name in apart):
            continue
        inner = place.relative_to(root)
        images = name_images(place)
        names |= {inner / f"{name}.png": images[name] for name in sorted(images, key=_natural)}
    return names


def _halves(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The left and the right half, (H, W / 2, 3) uint8 each."""
    pixels = as_bytes(read_image(path).pixels)
    width = pixels.shape[1]
    if width % 2:
        raise DataError(f"{path}: is {width} px wide, which two images side by side cannot be")
    return pixels[:, : width // 2].copy(), pixels[:, width // 2 :].copy()


def _look(files: Sequence[Path]) -> Literal["left", "right"]:
    """Rain adds edges: the half with more of them is degraded, if nearly all files agree."""
    chosen = files[:: max(1, len(files) // LOOKED_AT)][:LOOKED_AT]
    rainy_left = 0
    for path in chosen:
        left, right = (
            float(np.abs(np.diff(half.astype(np.int16), axis=1)).mean()) for half in _halves(path)
        )
        rainy_left += left > right
    share = rainy_left / len(chosen)
    if 0.1 < share < 0.9:
        raise DataError(
            f"{files[0].parent}: of {len(chosen)} files the left half has the stronger edges in"
            f" {rainy_left}, which does not tell which half is degraded; say it: left or right"
        )
    return "left" if share >= 0.9 else "right"
