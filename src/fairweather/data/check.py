"""Broken, misaligned, duplicate and leaked pairs, found before they cost a training run."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fairweather.data.alignment import edges_of, find_offset, find_orientation, overview_of
from fairweather.data.pairs import Pair
from fairweather.errors import ImageError
from fairweather.imaging import Photo, as_bytes, read_image

QUICK_PAIRS = 200
QUICK_OFFSETS = 24
LARGEST_OFFSET_PX = 0.75
LUMA = np.array([0.299, 0.587, 0.114], np.float32)
HASH_SIZE = (16, 17)
SKETCH_PX = 32
SAME_SCENE_BITS = 32  # of 256 that may differ; unrelated scenes differ in 128, give or take 25
SAME_SCENE_CORRELATION = 0.7
PARTNER_CORRELATION = 0.35
FEWEST_TO_COMPARE = 12
NAMED_FILES = 6
MOST_CLIPPED = 0.5
MOST_CLIPPED_CLEAN = 0.95
BLOCK = 1024


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


@dataclass(frozen=True, eq=False)
class _Traits:
    """What is kept of an image after its pixels are gone: about 4 KB."""

    path: Path
    digest: bytes
    hash: np.ndarray  # 256 values, 1 or -1
    sketch: np.ndarray  # edges of a small version, of length 1
    looks: dict[str, float]


def check_pairs(
    pairs: Sequence[Pair],
    *,
    test_pairs: Sequence[Pair] = (),
    quick: bool = False,
    on_pair: Callable[[int, int], None] = lambda done, total: None,
) -> list[Finding]:
    """Look for what is wrong with pairs, one by one and as a set.

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
    sound: dict[int, tuple[_Traits, _Traits]] = {}
    for done, index in enumerate(order, 1):
        of_pair[index], traits = _check_pair(pairs[index], reader=reader, offset=index in measured)
        if traits and not any(finding.severity == "error" for finding in of_pair[index]):
            sound[index] = traits
        on_pair(done, total)
    findings = [finding for index in range(len(pairs)) for finding in of_pair[index]]
    clean = _distinct(reader.traits.get(pair.clean) for pair in pairs)
    for done, pair in enumerate(test_pairs, len(pairs) + 1):
        if pair.clean not in reader.traits:
            _, found = reader.read(pair.clean, keep=False)
            findings += [finding for finding in found if finding.severity == "error"]
        on_pair(done, total)
    held_out = _distinct(reader.traits.get(pair.clean) for pair in test_pairs)
    both = [sound[index] for index in sorted(sound)]
    findings += _find_wrong_partners(both)
    findings += _find_swapped(both)
    findings += _find_duplicates(both, clean)
    return [*findings, *_find_leaks(clean, held_out)]


def _spread(length: int, count: int) -> list[int]:
    """At most `count` of the numbers below a length, evenly."""
    return list(dict.fromkeys(np.linspace(0, length - 1, min(length, count)).astype(int).tolist()))


class _Reader:
    """Reads images, keeps the last one, the traits of all, and what could not be read."""

    def __init__(self) -> None:
        self.traits: dict[Path, _Traits] = {}
        self.broken: set[Path] = set()
        self._last: tuple[Path, Photo] | None = None

    def read(
        self, path: Path, *, keep: bool, most_clipped: float = 1.0
    ) -> tuple[Photo | None, list[Finding]]:
        """The photo, or None; with what is wrong with the file alone, told the first time only."""
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
        self.traits[path] = _traits_of(path, as_bytes(photo.pixels))
        return photo, _check_exposure(self.traits[path], most_clipped=most_clipped)


def _traits_of(path: Path, pixels: np.ndarray) -> _Traits:
    grey = pixels @ LUMA
    tiny = overview_of(grey, HASH_SIZE)
    sketch = edges_of(overview_of(grey, (SKETCH_PX, SKETCH_PX))).astype(np.complex64)
    sketch = sketch.ravel().view(np.float32)
    shape = str(pixels.shape).encode()
    return _Traits(
        path=path,
        digest=hashlib.blake2b(pixels.tobytes(), digest_size=16, key=shape).digest(),
        hash=np.where(np.diff(tiny, axis=1) > 0, 1, -1).astype(np.int8).ravel(),
        sketch=(sketch / max(1e-6, float(np.linalg.norm(sketch)))).astype(np.float16),
        looks={
            "bright": float(grey.mean()),
            "veiled": float(pixels.min(-1).mean()),
            "dark end": float(np.percentile(grey, 1)),
            "bright end": float(np.percentile(grey, 99)),
            "clipped": float(((pixels == 0).all(-1) | (pixels == 255).all(-1)).mean()),
        },
    )


def _check_exposure(traits: _Traits, *, most_clipped: float) -> list[Finding]:
    looks, name = traits.looks, _name(traits.path)
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
) -> tuple[list[Finding], tuple[_Traits, _Traits] | None]:
    """What is wrong with one pair, and the traits of its images where there are two."""
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
        message = (
            f"{_title(pair)}: degraded and clean are the same image, so there is nothing to learn;"
            " was the clean file copied into both folders?"
        )
        return [*findings, _error("identical", pair, message)], traits
    misfit = _check_geometry(pair, degraded, clean=clean, offset=offset)
    return findings + misfit, traits


def _check_geometry(pair: Pair, degraded: Photo, *, clean: Photo, offset: bool) -> list[Finding]:
    """Sizes, then orientation, then offset: the first that does not fit."""
    sizes = [photo.pixels.shape[:2] for photo in (degraded, clean)]
    words = " but ".join(f"{side} is {h}×{w}" for side, (h, w) in
                         zip(("degraded", "clean"), sizes, strict=True))  # fmt: skip
    if sizes[0] not in (sizes[1], sizes[1][::-1]):
        message = f"{_title(pair)}: {words}; crop or resize them to the same pixels"
        return [_error("size", pair, message)]
    greys = [as_bytes(photo.pixels) @ LUMA for photo in (degraded, clean)]
    turned, fit, as_is = find_orientation(greys[0], greys[1])
    if sizes[0] != sizes[1]:
        hint = f" (degraded looks {turned})" if turned else ""
        message = f"{_title(pair)}: {words}; is one of them rotated?{hint}"
        return [_error("size", pair, message)]
    if turned:
        message = (
            f"{_title(pair)}: degraded is {turned} against clean (their edges then correlate by"
            f" {fit:.2f}, as they lie by {as_is:.2f}); turn one of them back"
        )
        return [_error("orientation", pair, message)]
    found = find_offset(greys[0], greys[1]) if offset else None
    if found is None or not found.is_certain or found.length_px < LARGEST_OFFSET_PX:
        return []
    message = (
        f"{_title(pair)}: degraded lies {_way(found.right_px, ('right', 'left'))} and"
        f" {_way(found.down_px, ('down', 'up'))} of clean ({found.agreeing} of {found.windows}"
        " windows agree); shift one back and crop both, or leave the pair out"
    )
    return [_error("offset", pair, message)]


def _way(length_px: float, names: tuple[str, str]) -> str:
    return f"{abs(length_px):.2f} px {names[int(length_px < 0)]}"


def _check_modes(pair: Pair, degraded: Photo, *, clean: Photo) -> list[Finding]:
    differing = [
        f"{mine} but clean {its}"
        for mine, its in zip(_modes(degraded), _modes(clean), strict=True)
        if mine != its
    ]
    if not differing:
        return []
    message = f"{_title(pair)}: degraded {', '.join(differing)}; save both in the same mode"
    return [Finding("warning", "mode", (pair.degraded, pair.clean), message)]


def _modes(photo: Photo) -> tuple[str, ...]:
    return (
        f"has {8 * photo.pixels.itemsize} bits",
        "is grey" if photo.grey else "is in colour",
        "has no transparency" if photo.alpha is None else "has transparency",
    )


def _find_wrong_partners(both: list[tuple[_Traits, _Traits]]) -> Iterator[Finding]:
    """Degraded images that show the scene of another pair and nothing of their own."""
    if len(both) < 2:
        return
    clean = np.stack([pair[1].sketch for pair in both]).astype(np.float32)
    for start in range(0, len(both), BLOCK):
        block = both[start : start + BLOCK]
        scores = np.stack([pair[0].sketch for pair in block]).astype(np.float32) @ clean.T
        for row, (degraded, own) in enumerate(block):
            best = int(scores[row].argmax())
            fit, as_is = float(scores[row, best]), float(scores[row, start + row])
            if as_is < PARTNER_CORRELATION / 2 and fit > as_is + PARTNER_CORRELATION:
                message = (
                    f"{_title(Pair(degraded.path, own.path))}: degraded shows the scene of"
                    f" '{_name(both[best][1].path)}' (edges correlate by {fit:.2f}, with its own"
                    f" partner by {as_is:.2f}); are the names off by one?"
                )
                files = degraded.path, own.path, both[best][1].path
                yield Finding("error", "partner", files, message)


def _find_swapped(both: list[tuple[_Traits, _Traits]]) -> Iterator[Finding]:
    """Pairs whose degraded image differs from the clean one just as it does the other way in most.

    Only a look in which nearly all pairs clearly agree is evidence, and all such looks must agree.
    """
    if len(both) < FEWEST_TO_COMPARE:
        return
    evidence = {}
    for look in ("bright", "veiled"):
        change = np.array([d.looks[look] - c.looks[look] for d, c in both])
        usual = float(np.median(change))
        relative = change * np.sign(usual) / max(1.0, abs(usual))
        usual_low = float(np.percentile(relative[relative > 0], 10)) if usual else 0.0
        against = relative <= -max(0.25, usual_low)
        unclear = ~against & (relative < 0.05)
        if against.mean() <= 0.15 and unclear.mean() <= 0.02:
            evidence[look] = usual, change, against
    if not evidence:
        return
    swapped = np.logical_and.reduce([against for _, _, against in evidence.values()])
    look, (usual, change, _) = next(reversed(evidence.items()))
    for index in np.flatnonzero(swapped):
        degraded, own = both[index]
        message = (
            f"{_title(Pair(degraded.path, own.path))}: degraded is {_compared(look, change[index])}"
            f" than clean, the others mostly {_compared(look, usual)}; are the two exchanged?"
        )
        yield Finding("warning", "swapped", (degraded.path, own.path), message)


def _compared(look: str, change: float) -> str:
    """A change in words: "12.0 levels brighter"."""
    words = ("brighter", "darker") if look == "bright" else ("more veiled", "less veiled")
    return f"{abs(change):.1f} levels {words[int(change < 0)]}"


def _distinct(traits: Iterator[_Traits | None]) -> list[_Traits]:
    """The images by their content, the first file of each."""
    return list({t.digest: t for t in reversed([t for t in traits if t])}.values())[::-1]


def _find_duplicates(
    both: list[tuple[_Traits, _Traits]], clean: list[_Traits]
) -> Iterator[Finding]:
    same: dict[tuple[bytes, bytes], list[tuple[_Traits, _Traits]]] = defaultdict(list)
    for pair in both:
        same[pair[0].digest, pair[1].digest].append(pair)
    for copies in same.values():
        if len(copies) > 1:
            yield _duplicate([pair[0].path for pair in copies], "are the same pair")
    first = list(range(len(clean)))  # each image's scene, by the number of another image of it

    def scene_of(number: int) -> int:
        while first[number] != number:
            first[number] = first[first[number]]
            number = first[number]
        return number

    for one, other in _same_scenes(clean, clean):
        first[scene_of(max(one, other))] = scene_of(min(one, other))
    scenes: dict[int, list[_Traits]] = defaultdict(list)
    for number, traits in enumerate(clean):
        scenes[scene_of(number)].append(traits)
    for members in scenes.values():
        if len(members) > 1:
            yield _duplicate([t.path for t in members], "show the same scene")


def _duplicate(paths: list[Path], what: str) -> Finding:
    message = (
        f"{_list(paths)} {what}; keep one, or keep them on the same side when a part is held out"
    )
    return Finding("warning", "duplicate", tuple(paths), message)


def _find_leaks(clean: list[_Traits], held_out: list[_Traits]) -> Iterator[Finding]:
    found: dict[int, list[Path]] = defaultdict(list)
    for one, other in _same_scenes(held_out, clean):
        found[one].append(clean[other].path)
    for one, paths in found.items():
        message = (
            f"test image '{_name(held_out[one].path)}' shows the scene of {_list(paths)}, which is"
            " trained on; take it out of the training set"
        )
        yield Finding("error", "leak", (held_out[one].path, *paths), message)


def _same_scenes(first: list[_Traits], second: list[_Traits]) -> Iterator[tuple[int, int]]:
    """Numbers of the images that show the same, whatever their size and compression.

    The hash (dHash, 256 bits) proposes, and the sketches decide, since flat images hash alike.
    """
    if not first or not second:
        return
    hashes = np.stack([traits.hash for traits in second]).astype(np.float32)
    for start in range(0, len(first), BLOCK):
        block = np.stack([traits.hash for traits in first[start : start + BLOCK]])
        near = block.astype(np.float32) @ hashes.T >= hashes.shape[1] - 2 * SAME_SCENE_BITS
        for row, column in np.argwhere(near):
            one, other = first[start + row], second[column]
            fit = one.sketch.astype(np.float32) @ other.sketch.astype(np.float32)
            if one.digest == other.digest or fit >= SAME_SCENE_CORRELATION:
                yield start + int(row), int(column)


def _error(kind: str, pair: Pair, message: str) -> Finding:
    return Finding("error", kind, (pair.degraded, pair.clean), message)


def _title(pair: Pair) -> str:
    return f"pair '{_name(pair.degraded)}'"


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _list(paths: Sequence[Path]) -> str:
    names = ", ".join(f"'{_name(path)}'" for path in paths[:NAMED_FILES])
    return names + (f" and {len(paths) - NAMED_FILES} more" if len(paths) > NAMED_FILES else "")
