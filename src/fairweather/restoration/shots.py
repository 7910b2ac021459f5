"""Shots of a clip: what is decided once for many frames, how it changes, and what flickers.

A network judges each frame by itself. What it decides for the whole of one (its degradation, how
often it is halved, what the global context is, how certain a change is) is therefore decided at the
first frame of a shot and again every few seconds, and goes over from one decision to the next.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import torch

from fairweather.hardware import map_in_threads
from fairweather.imaging import as_bytes, as_float, quantise, resized
from fairweather.restoration.decisions import Decisions
from fairweather.restoration.proxy import window_mean

SKETCH_PX = 24
CUT = 0.12  # mean change of brightness between two frames from which a new shot begins, of 1
RENEWED_SECONDS = 10.0
EASED_SECONDS = 1.0
RATE = 25.0  # where none is told

# Mean differences at which little is calmed any more; chosen in docs/experiments/clips.md.
AGREE, AGREE_RADIUS_PX = 8 / 255, 3  # of the two of three frames that are most alike
STILL, STILL_RADIUS_PX = 12 / 255, 10  # of the frames before and after

Way = Callable[..., list[np.ndarray]]  # (images, grey=…) → the same, restored


class Picture(Protocol):
    """A frame, or a photograph of a sequence."""

    @property
    def pixels(self) -> np.ndarray:
        """(H, W, 3) RGB, uint8, uint16 or float32 in [0, 1]."""
        ...

    @property
    def grey(self) -> bool:
        """Whether its channels are equal, and shall stay so."""
        ...


class RestoresAs(Protocol):
    """What restores images as another one was."""

    def __call__(
        self, images: Sequence[np.ndarray], decisions: Decisions, *, grey: bool
    ) -> list[np.ndarray]:
        """Restore (H, W, 3) each, of one size and type; the results have them, too."""
        ...


@dataclass(frozen=True, eq=False)
class Settled:
    """How the frames of a shot are restored.

    Attributes:
        restore: restores a frame by decisions; None leaves frames as they are.
        decisions: those.
    """

    restore: RestoresAs | None = None
    decisions: Decisions = dataclasses.field(default_factory=Decisions)

    def __call__(self, images: Sequence[np.ndarray], *, grey: bool = False) -> list[np.ndarray]:
        """Restore frames, (H, W, 3) each; the results have their size and type."""
        if self.restore is None:
            return [pixels.copy() for pixels in images]
        return self.restore(images, self.decisions, grey=grey)

    def eased(self, after: "Settled", share: float) -> Way:
        """Return what restores on the way to what is decided later; share lies in (0, 1)."""
        is_alike = self.decisions.levels == after.decisions.levels
        if self.restore is not None and self.restore == after.restore and is_alike:
            return Settled(self.restore, self.decisions.toward(after.decisions, share))
        return functools.partial(cross_fade, self, after, share)


def cross_fade(
    before: Settled, after: Settled, share: float, images: Sequence[np.ndarray], *, grey: bool
) -> list[np.ndarray]:
    """Restore frames in two ways, and return what lies between."""
    results = []
    for one, two in zip(before(images, grey=grey), after(images, grey=grey), strict=True):
        between = one + np.float32(share) * (two.astype(np.float32) - one)
        results.append(np.empty_like(one))
        quantise(between / largest(one), out=results[-1])
    return results


def largest(pixels: np.ndarray) -> np.float32:
    """Return the value of white."""
    return np.float32(1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max)


@dataclass(frozen=True)
class RestoredClip:
    """What became of a clip: its size and frames, and what to tell the user."""

    height: int
    width: int
    frames: int
    notes: tuple[str, ...]


class FrameRestorer(Protocol):
    """What restores frames: a `Restorer`."""

    def settle(self, pixels: np.ndarray) -> Settled:
        """Decide by a frame how those of its shot are restored."""
        ...

    def at_once(self) -> int:
        """Return how many threads should restore at the same time."""
        ...

    def together(self) -> int:
        """Return how many frames go through the network together."""
        ...

    def describe(self) -> str:
        """Return all that decides what it makes of a frame."""
        ...


P = TypeVar("P", bound=Picture)


class InShot(NamedTuple, Generic[P]):
    """A frame, what restores it, and the number of its shot."""

    frame: P
    restore: Way
    shot: int


def restore_frames(
    restorer: FrameRestorer,
    frames: Iterable[P],
    *,
    rate: float = RATE,
    calm: bool = False,
    skip: int = 0,
) -> Generator[P, None, None]:
    """Restore frames in their order, several at a time; each shot in one way.

    Args:
        restorer: what restores a frame.
        frames: read a few ahead of those that are yielded.
        rate: of the frames [1/s].
        calm: whether what flickers where nothing moves is taken back.
        skip: as many frames are looked at and not yielded. The others are as they are without it.
    """
    lead = 1 if calm and skip else 0
    shots = in_shots(frames, restorer, rate=rate, skip=skip - lead)
    batches = in_batches(shots, most=restorer.together())
    restored = map_in_threads(restore_batch, batches, workers=restorer.at_once(), apart=True)
    with contextlib.closing(restored):
        one_by_one = itertools.chain.from_iterable(restored)
        if calm:
            yield from itertools.islice(calmed(one_by_one), lead, None)
        else:
            yield from (frame for frame, _ in one_by_one)


def in_batches(items: Iterable[InShot[P]], *, most: int) -> Iterator[list[InShot[P]]]:
    """Yield frames that are restored in the same way together, as many as that."""
    batch: list[InShot[P]] = []
    for item in items:
        alike = batch and (item.restore, item.frame.grey) == (batch[0].restore, batch[0].frame.grey)
        if batch and (len(batch) == most or not alike):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def restore_batch(batch: Sequence[InShot[P]]) -> list[tuple[P, int]]:
    """Restore frames with what their shot has; return each with the number of its shot."""
    frames = [item.frame for item in batch]
    results = batch[0].restore([frame.pixels for frame in frames], grey=frames[0].grey)
    return [
        (dataclasses.replace(item.frame, pixels=pixels), item.shot)  # type: ignore[type-var]
        for item, pixels in zip(batch, results, strict=True)
    ]


def in_shots(
    frames: Iterable[P], restorer: FrameRestorer, *, rate: float = RATE, skip: int = 0
) -> Iterator[InShot[P]]:
    """Yield each frame with what restores it.

    Args:
        frames: of a clip, from its start.
        restorer: what decides.
        rate: of the frames [1/s].
        skip: as many frames are looked at and not yielded.
    """
    renewed, eased = max(1, round(RENEWED_SECONDS * rate)), max(1, round(EASED_SECONDS * rate))
    sketch: np.ndarray | None = None
    before: Callable[[], Settled] | None = None
    now: Callable[[], Settled] | None = None
    shot = age = 0
    for index, frame in enumerate(frames):
        sketch, last = sketch_of(frame.pixels), sketch
        is_cut = last is not None and float(np.abs(sketch - last).mean()) > CUT
        if now is None or is_cut:
            shot, age, before = shot + is_cut, 0, None
            now = settle_later(restorer, frame.pixels)
        elif age % renewed == 0:
            before, now = now, settle_later(restorer, frame.pixels)
        step = age % renewed + 1
        age += 1
        if index < skip:
            continue
        if before is None or step >= eased:
            yield InShot(frame, now(), shot)
        else:
            yield InShot(frame, before().eased(now(), step / eased), shot)


def settle_later(restorer: FrameRestorer, pixels: np.ndarray) -> Callable[[], Settled]:
    """Return what decides by a frame, once, when that is first asked for."""
    return functools.cache(functools.partial(restorer.settle, pixels))


def sketch_of(pixels: np.ndarray) -> np.ndarray:
    """Return a frame as few brightnesses in [0, 1], to find cuts by."""
    return resized(as_bytes(pixels), (SKETCH_PX, SKETCH_PX)).mean(-1, dtype=np.float32) / 255


def calmed(frames: Iterable[tuple[P, int]]) -> Iterator[P]:
    """Take back what a frame alone has where nothing moves, such as a streak that was left.

    The first and the last frame of a shot stay as they are.

    Args:
        frames: restored, each with the number of its shot; one is read ahead.
    """
    before: tuple[P, int] | None = None
    now: tuple[P, int] | None = None
    for after in frames:
        if now is not None:
            yield calm_frame(before, now, after)
        before, now = now, after
    if now is not None:
        yield now[0]


def calm_frame(before: tuple[P, int] | None, now: tuple[P, int], after: tuple[P, int]) -> P:
    """Return a frame as `calmed` does."""
    frame, shot = now
    if before is None or not before[1] == shot == after[1]:
        return frame
    pixels = calm_pixels(before[0].pixels, frame.pixels, after[0].pixels)
    return dataclasses.replace(frame, pixels=pixels)  # type: ignore[type-var]


def calm_pixels(before: np.ndarray, pixels: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Return the median of three frames where nothing moves.

    There the frames before and after are alike, and at each place two of the three are.

    Args:
        before: (H, W, 3), uint8, uint16 or float32 in [0, 1].
        pixels: the frame behind it, of the same size, as the next.
        after: the one behind that.

    Returns:
        (H, W, 3) of the type of `pixels`.
    """
    one, now, two = (as_float(frame) for frame in (before, pixels, after))
    low, middle, high = np.sort(np.stack((one, now, two)), axis=0)
    gap = local_mean(np.minimum(middle - low, high - middle), AGREE_RADIUS_PX) / AGREE
    moved = local_mean(np.abs(two - one), STILL_RADIUS_PX) / STILL
    share = np.exp(-np.square(gap) - np.square(moved))[..., None]
    out = np.empty_like(pixels)
    quantise(now + share * (middle - now), out=out)
    return out


def local_mean(values: np.ndarray, radius_px: int) -> np.ndarray:
    """Return the mean over the channels and around each pixel of (H, W, 3): (H, W)."""
    planes = torch.from_numpy(values.mean(-1))[None, None]
    return window_mean(planes, radius_px)[0, 0].numpy()
