"""Broken, misaligned, duplicate and leaked pairs, found before they cost a training run."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fairweather.data.alignment import find_offset, find_orientation
from fairweather.data.pairs import Pair
from fairweather.data.scenes import (
    LUMA,
    Finding,
    Traits,
    distinct,
    error_of,
    find_duplicates,
    find_leaks,
    find_swapped,
    find_wrong_partners,
    name_of,
    traits_of,
    warning_of,
)
from fairweather.errors import ImageError
from fairweather.imaging import Photo, as_bytes, read_image

QUICK_PAIRS = 200
QUICK_OFFSETS = 24
LARGEST_OFFSET_PX = 0.75
MOST_CLIPPED = 0.5
MOST_CLIPPED_CLEAN = 0.95


def check_pairs(
    pairs: Sequence[Pair],
    *,
    test_pairs: Sequence[Pair] = (),
    quick: bool = False,
    on_pair: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:
    """Find what is wrong with pairs, one by one and as a set.

    Several degraded versions of one clean image, or of exact copies of it, are no duplicates.

    Args:
        pairs: The pairs to train on.
        test_pairs: Pairs that must show other scenes; they are only compared with `pairs`.
        quick: Look at 200 pairs of either kind, spread evenly, and measure 24 offsets.
        on_pair: Called with (pairs looked at, pairs in all).

    Returns:
        What was found: for each pair in their order, then for the set.
    """
    if quick:
        pairs = [pairs[i] for i in _spread(len(pairs), QUICK_PAIRS)]
        test_pairs = [test_pairs[i] for i in _spread(len(test_pairs), QUICK_PAIRS)]
    measured = _spread(len(pairs), QUICK_OFFSETS if quick else len(pairs))
    total = len(pairs) + len(test_pairs)
    reader = _Reader()
    of_pair: dict[int, list[Finding]] = {}
    order = sorted(range(len(pairs)), key=lambda i: (str(pairs[i].clean), i))
    sound: dict[int, tuple[Traits, Traits]] = {}
    for done, index in enumerate(order, 1):
        found, traits = _check_pair(pairs[index], reader=reader, offset=index in measured)
        of_pair[index] = found
        if traits and not any(finding.severity == "error" for finding in found):
            sound[index] = traits
        on_pair(done, total)
    findings = [finding for index in range(len(pairs)) for finding in of_pair[index]]
    clean = distinct(reader.traits.get(pair.clean) for pair in pairs)
    for done, pair in enumerate(test_pairs, len(pairs) + 1):
        if pair.clean not in reader.traits:
            _, found = reader.read(pair.clean, keep=False)
            findings += [finding for finding in found if finding.severity == "error"]
        on_pair(done, total)
    held_out = distinct(reader.traits.get(pair.clean) for pair in test_pairs)
    both = [sound[index] for index in sorted(sound)]
    findings += find_wrong_partners(both)
    findings += find_swapped(both)
    findings += find_duplicates(both, clean)
    return [*findings, *find_leaks(clean, held_out)]


def _spread(length: int, count: int) -> list[int]:
    """Return at most `count` of the numbers below a length, evenly."""
    return list(dict.fromkeys(np.linspace(0, length - 1, min(length, count)).astype(int).tolist()))


class _Reader:
    """Reads images, keeps the last one, the traits of all, and what could not be read."""

    def __init__(self) -> None:
        self.traits: dict[Path, Traits] = {}
        self.broken: set[Path] = set()
        self._last: tuple[Path, Photo] | None = None

    def read(
        self, path: Path, *, keep: bool, most_clipped: float = 1.0
    ) -> tuple[Photo | None, list[Finding]]:
        """Return the photo, or None, and what is wrong with the file alone, the first time only."""
        if self._last and self._last[0] == path:
            return self._last[1], []
        if path in self.broken:
            return None, []
        try:
            photo = read_image(path)
        except ImageError as error:
            self.broken.add(path)
            return None, [Finding("error", "unreadable", (path,), str(error))]
        if keep:
            self._last = path, photo
        if path in self.traits:
            return photo, []
        self.traits[path] = traits_of(path, as_bytes(photo.pixels))
        return photo, _check_exposure(self.traits[path], most_clipped=most_clipped)


def _check_exposure(traits: Traits, *, most_clipped: float) -> list[Finding]:
    looks, name = traits.looks, name_of(traits.path)
    if looks["bright end"] < 16:
        what = f"is nearly black: 99 % of it is under {looks['bright end']:.0f} of 255"
    elif looks["dark end"] > 239:
        what = f"is nearly white: 99 % of it is over {looks['dark end']:.0f} of 255"
    elif looks["clipped"] > most_clipped:
        what = f"is clipped: {looks['clipped']:.0%} of it is pure black or white"
    else:
        return []
    message = f"'{name}' {what}; look at it, and leave the pair out if it shows nothing"
    return [Finding("warning", "exposure", (traits.path,), message)]


def _check_pair(
    pair: Pair, *, reader: _Reader, offset: bool
) -> tuple[list[Finding], tuple[Traits, Traits] | None]:
    """Return what is wrong with one pair, and the traits of its images where there are two."""
    # A rendered page or slide is rightly pure white; a photograph of one is not.
    limit = MOST_CLIPPED if pair.is_synthetic else MOST_CLIPPED_CLEAN
    clean, findings = reader.read(pair.clean, keep=True, most_clipped=limit)
    if pair.is_synthetic:
        return findings, None
    degraded, more = reader.read(pair.degraded, keep=False, most_clipped=MOST_CLIPPED)
    findings = more + findings
    if degraded is None or clean is None:
        return findings, None
    traits = reader.traits[pair.degraded], reader.traits[pair.clean]
    findings += _check_modes(pair, degraded, clean=clean)
    if traits[0].digest == traits[1].digest:
        what = (
            "degraded and clean are the same image, so there is nothing to learn;"
            " was the clean file copied into both folders?"
        )
        return [*findings, error_of("identical", pair, what)], traits
    return findings + _check_geometry(pair, degraded, clean=clean, offset=offset), traits


def _check_geometry(pair: Pair, degraded: Photo, *, clean: Photo, offset: bool) -> list[Finding]:
    """Compare sizes, then orientation, then offset; report the first that does not fit."""
    sizes = [photo.pixels.shape[:2] for photo in (degraded, clean)]
    words = " but ".join(f"{side} is {h}×{w}" for side, (h, w) in
                         zip(("degraded", "clean"), sizes, strict=True))  # fmt: skip
    if sizes[0] not in (sizes[1], sizes[1][::-1]):
        return [error_of("size", pair, f"{words}; crop or resize them to the same pixels")]
    greys = [as_bytes(photo.pixels) @ LUMA for photo in (degraded, clean)]
    turned, fit, as_is = find_orientation(greys[0], greys[1])
    if sizes[0] != sizes[1]:
        hint = f" (degraded looks {turned})" if turned else ""
        return [error_of("size", pair, f"{words}; is one of them rotated?{hint}")]
    if turned:
        what = (
            f"degraded is {turned} against clean (their edges then correlate by {fit:.2f},"
            f" as they lie by {as_is:.2f}); turn one of them back"
        )
        return [error_of("orientation", pair, what)]
    found = find_offset(greys[0], greys[1]) if offset else None
    if found is None or not found.is_certain or found.length_px < LARGEST_OFFSET_PX:
        return []
    what = (
        f"degraded lies {_way(found.right_px, ('right', 'left'))} and"
        f" {_way(found.down_px, ('down', 'up'))} of clean ({found.agreeing} of {found.windows}"
        " windows agree); shift one back and crop both, or leave the pair out"
    )
    return [error_of("offset", pair, what)]


def _way(length_px: float, names: tuple[str, str]) -> str:
    return f"{abs(length_px):.2f} px {names[int(length_px < 0)]}"


def _check_modes(pair: Pair, degraded: Photo, *, clean: Photo) -> list[Finding]:
    differing = [
        f"{mine} but clean {its}"
        for mine, its in zip(_modes(degraded), _modes(clean), strict=True)
        if mine != its
    ]
    what = f"degraded {', '.join(differing)}; save both in the same mode"
    return [warning_of("mode", pair, what)] if differing else []


def _modes(photo: Photo) -> tuple[str, ...]:
    return (
        f"has {8 * photo.pixels.itemsize} bits",
        "is grey" if photo.grey else "is in colour",
        "has no transparency" if photo.alpha is None else "has transparency",
    )
