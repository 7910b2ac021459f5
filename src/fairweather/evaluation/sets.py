"""What is evaluated: test sets, results that somebody else restored, photographs alone."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairweather.data import (
    DEGRADATIONS,
    Pair,
    composed,
    find_images,
    find_layout_pairs,
    natural_order,
)
from fairweather.errors import DataError, OptionError
from fairweather.evaluation.published import published_key
from fairweather.files import walk_once
from fairweather.restoration import MARK

# Folders of a test set, in small letters, and the layout that they tell.
TOLD_BY = (
    ("input", "target", "folders"),
    ("input", "gt", "folders"),
    ("hazy", "clear", "sots"),
    ("hazy", "gt", "sots"),
)
PARTS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "all",
         "indoor", "outdoor", "data", "test_a", "test_b"}  # fmt: skip
NO_DEGRADATION = "none"
FOR_TRAINING = {"train", "training", "val", "valid", "validation"}


@dataclass(frozen=True)
class Item:
    """What is read for one row.

    Attributes:
        name: the path below the folder of the images without its suffix, as reports and masks
            call it.
        degraded: the input, if there is one.
        clean: what it is compared with, if there is such an image.
        restored: what somebody else made of the input.
        degradation: what makes the input of the clean image: a task or `none`; empty if the input
            is a file.
    """

    name: str
    degraded: Path | None
    clean: Path | None = None
    restored: Path | None = None
    degradation: str = ""


@dataclass(frozen=True)
class TestSet:
    """Images that are reported together.

    Attributes:
        name: as its folder is called, with those above where it would mean nothing alone.
        task: the degradation, told from the folders above; empty if they do not say.
        items: what is restored and compared.
        faults: what belongs to no item, one sentence each.
        layout: the layout that it was read as, if one was asked for.
        split: the part of that layout.
        benchmark: its key in the table of published figures, or empty.
        folder: of clean photographs that are given a degradation: its name.
        degradation: which; `none` where they are to be left alone.
    """

    __test__ = False  # not a test, whatever pytest thinks of its name

    name: str
    task: str
    items: tuple[Item, ...]
    faults: tuple[str, ...] = ()
    layout: str = ""
    split: str = ""
    benchmark: str = ""
    folder: str = ""
    degradation: str = ""


def find_test_sets(root: Path, *, layout: str | None = None, split: str = "test") -> list[TestSet]:
    """Find the test sets of a folder.

    Args:
        root: a data set, or without a layout also a tree that holds several.
        layout: one of `fairweather.data.list_layouts()`; None looks for folders `input` beside
            `target` (or `gt`) and `hazy` beside `clear` (or `gt`), at any depth.
        split: which part of a layout.

    Returns:
        At least one set with an item. Without a layout, files without a partner are faults.

    Raises:
        DataError: if nothing is found, or the tree is not the layout's.
        OptionError: for a layout or split that there is not.
    """
    if layout is not None:
        items = _items(find_layout_pairs(root, layout, split=split))
        folder = root.resolve().name
        name = folder if split in ("test", "all") else f"{folder}/{split}"
        known = () if split in FOR_TRAINING else (split.removeprefix("test-"), layout, folder)
        key = published_key(known)
        return [TestSet(name, _task(root), items, (), layout, split, key)]
    if not root.is_dir():
        raise DataError(f"{root}: is not a folder; give the folder that holds the test images")
    told = _told(root)
    names = _set_names([folder for folder, *_ in told])
    found = [_told_set(name, *one) for name, one in zip(names, told, strict=True)]
    if not found:
        raise DataError(
            f"{root}: holds no folder with input/ and target/, or hazy/ and clear/; say with"
            " --layout how it lies on disk (`fairweather data layouts`)"
        )
    if not any(one.items for one in found):
        raise DataError("; ".join([fault for one in found for fault in one.faults][:3]))
    return found


def find_degraded_set(folder: Path, *, degradation: str) -> TestSet:
    """Make a test set of clean photographs: to be degraded, or to be left alone.

    Args:
        folder: searched with all below.
        degradation: a task of `DEGRADATIONS`, seeded by each image's name; `none` gives the
            photographs themselves, which should come back as they are.

    Raises:
        DataError: if the folder is missing or holds no image.
        OptionError: for a degradation that there is not.
    """
    if degradation not in (*DEGRADATIONS, NO_DEGRADATION):
        raise OptionError(
            f"degradation {degradation!r}: is none of {', '.join(DEGRADATIONS)}, {NO_DEGRADATION}"
        )
    images = name_images(folder)
    name = folder.resolve().name
    return TestSet(
        f"{name}, clean" if degradation == NO_DEGRADATION else f"{name}, synthetic {degradation}",
        degradation if degradation in DEGRADATIONS else "",
        tuple(Item(key, None, path, degradation=degradation) for key, path in images.paths.items()),
        images.faults,
        folder=name,
        degradation=degradation,
    )


def _told(root: Path) -> list[tuple[Path, Path, Path, str]]:
    """Folder, both sides and layout of each set below a folder, however deep."""
    found = []
    for place, folders, _ in walk_once(root):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        known = {folder.casefold(): folder for folder in reversed(folders)}
        for degraded, clean, layout in TOLD_BY:
            if degraded in known and clean in known:
                sides = known[degraded], known[clean]
                found.append((place, place / sides[0], place / sides[1], layout))
                folders[:] = [folder for folder in folders if folder not in sides]
                break
    return found


def _set_names(folders: Sequence[Path]) -> list[str]:
    """Each set's folder, with as many of those above as it takes to tell it from the others."""
    paths = [folder.resolve() for folder in folders]
    depths = []
    for parts in (path.parts for path in paths):
        depth = 1
        while depth < len(parts) - 1 and parts[-depth].casefold() in PARTS:
            depth += 1
        depths.append(depth)
    return tell_apart(paths, depths)


def tell_apart(paths: Sequence[Path], depths: Sequence[int]) -> list[str]:
    """Name absolute paths by their last parts; by more of them where two would have one name.

    Args:
        paths: what to name; equal ones get equal names.
        depths: how many parts each name has at least.
    """
    depths = list(depths)
    while True:
        names = ["/".join(path.parts[-n:]) for path, n in zip(paths, depths, strict=True)]
        count = Counter(names)
        longer = [
            n + (count[name] > 1 and n < len(path.parts) - 1)
            for path, n, name in zip(paths, depths, names, strict=True)
        ]
        if longer == depths:
            return names
        depths = longer


def _told_set(name: str, folder: Path, degraded: Path, clean: Path, layout: str) -> TestSet:
    """The set of a folder; of `input/` and `target/`, what can be matched."""
    parts = name.split("/")
    known = () if parts[-1].casefold() in FOR_TRAINING else (name, *reversed(parts))
    empty = TestSet(name, _task(folder), (), benchmark=published_key(known))
    try:
        if layout != "folders":
            pairs = find_layout_pairs(folder, layout, split="all")
            return replace(empty, items=_items(pairs, base=degraded))
        inputs, targets = name_images(degraded), name_images(clean)
    except DataError as error:
        return replace(empty, faults=(str(error),))
    return replace(
        empty,
        items=tuple(
            Item(key, path, targets.paths[key])
            for key, path in inputs.paths.items()
            if key in targets.paths
        ),
        faults=(
            *inputs.faults,
            *targets.faults,
            *inputs.without(targets, what="no clean image"),
            *targets.without(inputs, what="no degraded image"),
        ),
    )


def _items(pairs: Sequence[Pair], *, base: Path | None = None) -> tuple[Item, ...]:
    """Pairs with names below the folder that holds all of their degraded images."""
    if base is None or not all(pair.degraded.is_relative_to(base) for pair in pairs):
        base = Path(os.path.commonpath([pair.degraded.parent for pair in pairs]))
    paths = [pair.degraded.relative_to(base) for pair in pairs]
    plain = [path.with_suffix("") for path in paths]
    names = paths if len(set(plain)) < len(plain) else plain
    return tuple(
        Item(composed(name.as_posix()), pair.degraded, pair.clean)
        for name, pair in zip(names, pairs, strict=True)
    )


def _task(folder: Path) -> str:
    """The nearest folder above that is called as a task."""
    parts = (folder.resolve(), *folder.resolve().parents)
    return next((part.name for part in parts if part.name in DEGRADATIONS), "")


@dataclass(frozen=True)
class NamedImages:
    """The images of a folder by their names, and those whose name another one has."""

    folder: Path
    paths: Mapping[str, Path]
    faults: tuple[str, ...]

    def without(self, others: "NamedImages", *, what: str) -> list[str]:
        """Return a sentence for each image that the other folder lacks."""
        return [
            f"'{name}' of {self.folder} has {what} in {others.folder}"
            for name in self.paths
            if name not in others.paths
        ]


def name_images(folder: Path) -> NamedImages:
    """Name the images below a folder by their paths without suffixes, 2 before 10.

    Raises:
        DataError: if the folder is missing or holds no image.
    """
    paths: dict[str, Path] = {}
    faults = []
    for path in find_images(folder):
        name = composed(path.relative_to(folder).with_suffix("").as_posix())
        if name in paths:
            faults.append(f"'{path}' has the name of '{paths[name].name}', which is taken instead")
        else:
            paths[name] = path
    ordered = {name: paths[name] for name in sorted(paths, key=natural_order)}
    return NamedImages(folder, ordered, tuple(faults))


def name_results(folder: Path) -> NamedImages:
    """Name results as their inputs: `a.restored.png` is that of `a`, also where both lie there.

    Pictures that `restore --compare` wrote are no results.
    """
    named = name_images(folder)
    paths = {name: path for name, path in named.paths.items() if not name.endswith(".compare")}
    ours = {name.removesuffix(MARK): path for name, path in paths.items() if name.endswith(MARK)}
    others = {name: path for name, path in paths.items() if not name.endswith(MARK)}
    paths = others | ours
    return replace(named, paths={name: paths[name] for name in sorted(paths, key=natural_order)})


def match_results(restored: Path, clean: Path, *, degraded: Path | None = None) -> TestSet:
    """Match images that were restored elsewhere to clean ones by name; suffixes may differ.

    Args:
        restored: the folder of results.
        clean: the folder of clean images.
        degraded: the folder of inputs, for the figures of doing nothing.

    Returns:
        The matched items; missing and extra images as faults.

    Raises:
        DataError: if a folder is missing or empty, or nothing matches.
    """
    results, targets = name_results(restored), name_images(clean)
    faults = [*results.faults, *targets.faults]
    faults += targets.without(results, what="no restored image")
    faults += results.without(targets, what="no clean image")
    inputs = name_images(degraded) if degraded is not None else None
    if inputs is not None:
        faults += [*inputs.faults, *targets.without(inputs, what="no degraded image")]
    items = tuple(
        Item(name, inputs.paths.get(name) if inputs else None, path, results.paths[name])
        for name, path in targets.paths.items()
        if name in results.paths
    )
    if not items:
        raise DataError(
            f"{restored} and {clean}: no image of one has the name of one of the other, as"
            f" '{next(iter(results.paths))}' and '{next(iter(targets.paths))}'; suffixes may"
            " differ, the rest must not"
        )
    name = restored.resolve().name
    return TestSet(name, _task(clean), items, tuple(faults), benchmark=published_key([name]))


def find_photos(source: Path) -> TestSet:
    """Make a test set of photographs without a clean version: a folder of them, or one.

    Raises:
        DataError: if there is none.
    """
    name = source.resolve().name
    if source.is_file():
        return TestSet(name, "", (Item(source.stem, source),))
    named = name_images(source)
    items = tuple(Item(name, path) for name, path in named.paths.items())
    return TestSet(name, _task(source), items, named.faults)
