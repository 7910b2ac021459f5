"""What is wrong with a set as a whole: wrong partners, exchanged sides, duplicates and leaks."""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from fairweather.data.alignment import edges_of, overview_of
from fairweather.data.pairs import Pair

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
HASH_SIZE = (16, 17)
SKETCH_PX = 32
SAME_SCENE_BITS = 32  # of 256 that may differ; unrelated scenes differ in 128, give or take 25
SAME_SCENE_CORRELATION = 0.7
PARTNER_CORRELATION = 0.35
FEWEST_TO_COMPARE = 12
BLOCK = 1024
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


def error_of(kind: str, pair: Pair, what: str, *others: Path) -> Finding:
    """Return an error in a pair, and in other files that are concerned."""
    message = f"pair '{name_of(pair.degraded)}': {what}"
    return Finding("error", kind, (pair.degraded, pair.clean, *others), message)


def warning_of(kind: str, pair: Pair, what: str) -> Finding:
    """Return a warning about a pair."""
    return replace(error_of(kind, pair, what), severity="warning")


def name_of(path: Path) -> str:
    """Return a file's name with that of its folder."""
    return f"{path.parent.name}/{path.name}"


def _list(paths: Sequence[Path]) -> str:
    names = ", ".join(f"'{name_of(path)}'" for path in paths[:NAMED_FILES])
    return names + (f" and {len(paths) - NAMED_FILES} more" if len(paths) > NAMED_FILES else "")


@dataclass(frozen=True, eq=False)
class Traits:
    """What is kept of an image when its pixels are gone: about 4 KB."""

    path: Path
    digest: bytes
    hash: np.ndarray  # 256 values, 1 or -1
    sketch: np.ndarray  # edges of a small version, of length 1
    looks: dict[str, float]


def traits_of(path: Path, pixels: np.ndarray) -> Traits:
    """Return the traits of (H, W, 3) uint8 pixels."""
    grey = pixels @ LUMA
    tiny = overview_of(grey, HASH_SIZE)
    sketch = edges_of(overview_of(grey, (SKETCH_PX, SKETCH_PX))).astype(np.complex64)
    sketch = sketch.ravel().view(np.float32)
    return Traits(
        path=path,
        digest=hashlib.blake2b(
            pixels.tobytes(), digest_size=16, key=str(pixels.shape).encode()
        ).digest(),
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


def find_wrong_partners(both: list[tuple[Traits, Traits]]) -> Iterator[Finding]:
    """Find degraded images that show the scene of another pair and nothing of their own."""
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
                shown = both[best][1].path
                what = (
                    f"degraded shows the scene of '{name_of(shown)}' (edges correlate by {fit:.2f},"
                    f" with its own partner by {as_is:.2f}); are the names off by one?"
                )
                yield error_of("partner", Pair(degraded.path, own.path), what, shown)


def find_swapped(both: list[tuple[Traits, Traits]]) -> Iterator[Finding]:
    """Find pairs that differ from degraded to clean as most do from clean to degraded.

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
        what = (
            f"degraded is {_compared(look, change[index])} than clean, the others mostly"
            f" {_compared(look, usual)}; are the two exchanged?"
        )
        yield warning_of("swapped", Pair(degraded.path, own.path), what)


def _compared(look: str, change: float) -> str:
    """Return a change in words: "12.0 levels brighter"."""
    words = ("brighter", "darker") if look == "bright" else ("more veiled", "less veiled")
    return f"{abs(change):.1f} levels {words[int(change < 0)]}"


def distinct(traits: Iterator[Traits | None]) -> list[Traits]:
    """Return one entry for each content, that of its first file."""
    first: dict[bytes, Traits] = {}
    for one in traits:
        if one:
            first.setdefault(one.digest, one)
    return list(first.values())


def find_duplicates(both: list[tuple[Traits, Traits]], clean: list[Traits]) -> Iterator[Finding]:
    """Find pairs that are there twice, and clean images that show one scene."""
    same: dict[tuple[bytes, bytes], list[tuple[Traits, Traits]]] = defaultdict(list)
    for pair in both:
        same[pair[0].digest, pair[1].digest].append(pair)
    for copies in same.values():
        if len(copies) > 1:
            yield _duplicate([pair[0].path for pair in copies], "are the same pair")
    scenes = [{number} for number in range(len(clean))]  # each image's scene: the images of it
    for one, other in _same_scenes(clean, clean):
        if scenes[one] is not scenes[other]:
            joined = scenes[one] | scenes[other]
            for number in joined:
                scenes[number] = joined
    for number, scene in enumerate(scenes):
        if len(scene) > 1 and number == min(scene):
            yield _duplicate(
                [clean[member].path for member in sorted(scene)], "show the same scene"
            )


def _duplicate(paths: list[Path], what: str) -> Finding:
    message = (
        f"{_list(paths)} {what}; keep one, or keep them on the same side when a part is held out"
    )
    return Finding("warning", "duplicate", tuple(paths), message)


def find_leaks(clean: list[Traits], held_out: list[Traits]) -> Iterator[Finding]:
    """Find test images whose scene is trained on."""
    found: dict[int, list[Path]] = defaultdict(list)
    for one, other in _same_scenes(held_out, clean):
        found[one].append(clean[other].path)
    for one, paths in found.items():
        message = (
            f"test image '{name_of(held_out[one].path)}' shows the scene of {_list(paths)},"
            " which is trained on; take it out of the training set"
        )
        yield Finding("error", "leak", (held_out[one].path, *paths), message)


def _same_scenes(first: list[Traits], second: list[Traits]) -> Iterator[tuple[int, int]]:
    """Yield the numbers of images that show the same, whatever their size and compression.

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
