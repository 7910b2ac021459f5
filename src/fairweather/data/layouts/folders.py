"""Which folders and files of a tree a layout means: whatever their case, and partner by partner."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from fairweather.data.layouts.forms import INPUT_TARGET, Arrangement, Sides
from fairweather.data.pairs import (
    Pair,
    composed,
    iterate_images,
    map_names,
    name_images,
    natural_order,
)
from fairweather.errors import DataError

SHOWN = 8
FEW = 64


def _in_order(path: Path) -> tuple[list[tuple[int, str]], str]:
    return natural_order(path.as_posix())


def locate(root: Path, folder: str) -> Path | None:
    """Return a folder under the root whatever the case and accents of its name, or else None.

    An exact match comes first.
    """
    place = root
    for part in Path(folder).parts:
        if (place / part).is_dir():
            place /= part
            continue
        if not place.is_dir():
            return None
        asked = composed(part).casefold()
        alike = (path for path in place.iterdir() if composed(path.name).casefold() == asked)
        place = min((path for path in alike if path.is_dir()), default=None)
        if place is None:
            return None
    return place if place.is_dir() else None


def first_fitting(root: Path, forms: Iterable[Arrangement]) -> Arrangement | None:
    """Return the first form whose folders are there, with the folders' true names."""
    fallback = None
    for form in forms:
        places = [(locate(root, s.degraded), locate(root, s.clean)) for s in form]
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
    """Tell whether images of each folder are named as expected; one will do where they overlap."""
    if sides.inner is not None:
        there = {path.parent.name.casefold() for path in iterate_images(Path(sides.degraded))}
        return set(sides.inner) <= there
    strict = not _overlap(sides)
    return _some_fit(sides.degraded, sides.degraded_name, strict=strict) and _some_fit(
        sides.clean, sides.clean_name, strict=strict
    )


def _some_fit(folder: str, pattern: str, *, strict: bool) -> bool:
    """Look at a few images only: a folder may hold half a million, and they are matched later."""
    fits = (_key(composed(path.stem), pattern) is not None for path in iterate_images(Path(folder)))
    if not strict:
        return any(fits)
    few = list(islice(fits, FEW))
    return bool(few) and all(few)


def _overlap(sides: Sides) -> bool:
    """Tell whether one folder lies in the other, or both are one."""
    return Path(sides.degraded).is_relative_to(sides.clean)


def _key(stem: str, pattern: str) -> str | None:
    found = re.fullmatch(pattern, stem, flags=re.IGNORECASE)
    return "".join(group or "" for group in found.groups()) if found else None


def _named(
    folder: str, pattern: str, *, strict: bool, inner: str | None = None
) -> list[tuple[str, Path]]:
    """Return the keys and images of a folder; if strict, refuse an image named otherwise.

    With an inner folder only what lies in folders of that name counts, and they are no part of a
    key.
    """
    keyed: list[tuple[str, Path]] = []
    for name, path in name_images(Path(folder)).items():
        if inner is not None and name.parent.name.casefold() != inner:
            continue
        scene = name.parent if inner is None else name.parent.parent
        key = _key(name.name, pattern)
        if key is not None:
            keyed.append(((scene / key).as_posix(), path))
        elif strict:
            raise DataError(
                f"{path}: is not named as the layout's files are ('{pattern}'); rename or remove it"
            )
    return keyed


def match(root: Path, arrangement: Arrangement) -> list[Pair]:
    """Return the pairs of an arrangement.

    Raises:
        DataError: A file has no partner, or two have one name.
    """
    pairs: list[Pair] = []
    lone: list[Path] = []
    unused: dict[str, set[Path]] = {}
    for sides in arrangement:
        strict = not _overlap(sides)
        inner = sides.inner or (None, None)
        degraded = _named(sides.degraded, sides.degraded_name, strict=strict, inner=inner[0])
        clean = map_names(_named(sides.clean, sides.clean_name, strict=strict, inner=inner[1]))
        if not sides.many:
            map_names(degraded)
        found = [Pair(path, clean[key]) for key, path in degraded if key in clean]
        lone += [path for key, path in degraded if key not in clean]
        pairs += sorted(found, key=lambda pair: _in_order(pair.degraded))
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


def contents_of(root: Path) -> str:
    """Return the first entries of a folder, as text."""
    if not root.is_dir():
        return "a file" if root.is_file() else "no such folder"
    entries = sorted((p for p in root.iterdir() if not p.name.startswith(".")), key=_in_order)
    names = [f"{path.name}/" if path.is_dir() else path.name for path in entries]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "nothing"


def fitting_folder(root: Path, forms: Sequence[Arrangement]) -> Path | None:
    """Return a folder in the root that fits where the root does not, as archives often hold."""
    if not root.is_dir():
        return None
    inner = sorted((path for path in root.iterdir() if path.is_dir()), key=_in_order)
    return next((path for path in inner[:SHOWN] if first_fitting(path, forms)), None)


def side_by_side_names(root: Path, folders: Iterable[str]) -> dict[Path, Path]:
    """Return the files that hold both images by what they become, without those taken apart."""
    names: dict[Path, Path] = {}
    for folder in folders:
        place = locate(root, folder)
        apart = {form.degraded for form in INPUT_TARGET} | {"rain"}
        if place is None or any(locate(place, name) for name in apart):
            continue
        inner = place.relative_to(root)
        images = name_images(place)
        names |= {inner / name: images[name] for name in sorted(images, key=_in_order)}
    return names
