"""A clip → the same clip restored: decode, restore and encode at the same time, in segments.

What is decided once for a photograph (its degradation, how often it is halved) is decided once for
a shot, by its first frame, so that neighbouring frames are restored alike. A killed run goes on
from its last whole segment; segments lie in one hidden folder beside the target.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import filelock
import numpy as np

from fairweather.errors import FileTakenError, ImageError
from fairweather.files import replacing, write_text
from fairweather.hardware import map_in_threads
from fairweather.imaging import (
    ClipFacts,
    ClipOptions,
    Frame,
    SegmentWriter,
    as_bytes,
    choose_codec,
    container_of,
    join_segments,
    read_clip_facts,
    read_frames,
    resized,
)
from fairweather.restoration.tiled import OnTile

SEGMENT_SECONDS = 2.0
FEWEST_IN_SEGMENT, MOST_IN_SEGMENT = 12, 240
SKETCH_PX = 24
CUT = 0.12  # mean change of brightness between two frames from which a new shot begins, of 1
HASHED_BYTES = 1 << 20
Restore = Callable[[np.ndarray], np.ndarray]


class FrameRestorer(Protocol):
    """What restores frames: a `Restorer`."""

    def settle(self, pixels: np.ndarray) -> Restore:
        """Decide by a frame how those of its shot are restored."""
        ...

    def at_once(self) -> int:
        """Return how many threads should restore at the same time."""
        ...

    def describe(self) -> str:
        """Return all that decides what it makes of a frame."""
        ...


@dataclass(frozen=True)
class RestoredClip:
    """What became of a clip: its size and frames, and what to tell the user."""

    height: int
    width: int
    frames: int
    notes: tuple[str, ...]


def restore_clip(
    restorer: FrameRestorer,
    source: Path,
    target: Path,
    *,
    overwrite: bool = False,
    options: ClipOptions | None = None,
    on_frame: OnTile | None = None,
) -> RestoredClip:
    """Restore a clip; the target appears whole or not at all.

    Every other stream is copied, and frames keep their times. See `Restorer.restore_file`.

    Args:
        restorer: what restores a frame.
        source: the clip.
        target: where to write; its suffix decides the container.
        overwrite: whether a file at `target` may be replaced.
        options: codec, quality, and what to do with half-frames.
        on_frame: called with (frames done, frames in all, as far as that is known).

    Raises:
        ImageError: if the clip cannot be read, or is cut off, or the container does not take the
            codec.
    """
    options = options or ClipOptions()
    container_of(target)
    facts = read_clip_facts(source, options)
    codec = choose_codec(target, facts, options)
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}.fairweather")
    told = describe_run(restorer, source, facts=facts, options=options, codec=codec)
    with hold(folder, told, source=source) as work:
        length = segment_length(facts)
        done = whole_segments(work)
        seen = 0

        def counted(frames: Iterable[Frame]) -> Iterator[Frame]:
            nonlocal seen
            for frame in frames:
                seen += 1
                yield frame

        shots = in_shots(
            counted(read_frames(source, facts, options)), restorer, skip=len(done) * length
        )
        count = len(done) * length
        results = map_in_threads(restore_frame, shots, workers=restorer.at_once())
        with contextlib.closing(results) as in_turn:
            for segment in segments_of(in_turn, length=length):
                path = work / f"{len(done):06}.nut"
                writer = SegmentWriter(path.with_suffix(".part"), facts, options, codec=codec)
                with contextlib.closing(writer):
                    for frame in segment:
                        writer.write(frame)
                        count += 1
                        if on_frame is not None:
                            on_frame(count, max(count, facts.frames or 0))
                path.with_suffix(".part").replace(path)
                done.append(path)
        joined = work / f"joined{target.suffix}"
        notes = join_segments(source, done, joined, facts, container=container_of(target))
        move(joined, target, overwrite=overwrite)
    if facts.has_alpha:
        notes += ("transparency is left out",)
    return RestoredClip(facts.height, facts.width, seen, notes)


def restore_frame(item: tuple[Frame, Restore]) -> Frame:
    """Restore a frame with what its shot has."""
    frame, restore = item
    return dataclasses.replace(frame, pixels=restore(frame.pixels))


def restore_frames(restorer: FrameRestorer, frames: Iterable[Frame]) -> Iterator[Frame]:
    """Restore frames in their order, several at a time; each shot in one way.

    Args:
        restorer: what restores a frame.
        frames: read a few ahead of those that are yielded.
    """
    shots = in_shots(frames, restorer)
    yield from map_in_threads(restore_frame, shots, workers=restorer.at_once())


def in_shots(
    frames: Iterable[Frame], restorer: FrameRestorer, *, skip: int = 0
) -> Iterator[tuple[Frame, Restore]]:
    """Yield each frame with what restores it, which the first frame of its shot decides.

    Args:
        frames: of a clip, from its start.
        restorer: what decides.
        skip: as many frames are looked at and not yielded.
    """
    before: np.ndarray | None = None
    first: np.ndarray | None = None
    restore: Restore | None = None
    for index, frame in enumerate(frames):
        sketch = sketch_of(frame.pixels)
        if before is None or float(np.abs(sketch - before).mean()) > CUT:
            first, restore = frame.pixels, None
        before = sketch
        if index < skip:
            continue
        if restore is None:
            assert first is not None
            restore = restorer.settle(first)
        yield frame, restore


def sketch_of(pixels: np.ndarray) -> np.ndarray:
    """Return a frame as few brightnesses in [0, 1], to find cuts by."""
    return resized(as_bytes(pixels), (SKETCH_PX, SKETCH_PX)).mean(-1, dtype=np.float32) / 255


def segments_of(frames: Iterator[Frame], *, length: int) -> Iterator[Iterator[Frame]]:
    """Yield runs of `length` frames, each to be used up before the next; none is empty."""
    for first in frames:

        def run(first: Frame = first) -> Iterator[Frame]:
            yield first
            for _, frame in zip(range(length - 1), frames, strict=False):
                yield frame

        yield run()


def segment_length(facts: ClipFacts) -> int:
    """Return how many frames a segment has."""
    frames = round(SEGMENT_SECONDS * (facts.rate or 25))
    return min(max(frames, FEWEST_IN_SEGMENT), MOST_IN_SEGMENT)


def whole_segments(work: Path) -> list[Path]:
    """Return the segments that an earlier run finished, in their order."""
    found: list[Path] = []
    while (path := work / f"{len(found):06}.nut").exists():
        found.append(path)
    return found


def describe_run(
    restorer: FrameRestorer, source: Path, *, facts: ClipFacts, options: ClipOptions, codec: str
) -> str:
    """Return all that decides what the segments of a run hold."""
    status = source.stat()
    with source.open("rb") as file:
        digest = hashlib.sha256(file.read(HASHED_BYTES))
        file.seek(max(0, status.st_size - HASHED_BYTES))
        digest.update(file.read())
    about = {
        "source": [status.st_size, digest.hexdigest()],
        "restorer": restorer.describe(),
        "options": dataclasses.asdict(options),
        "codec": codec,
        "frames in a segment": segment_length(facts),
        "versions": [version("fairweather"), version("av")],
    }
    return json.dumps(about, sort_keys=True)


@contextlib.contextmanager
def hold(folder: Path, told: str, *, source: Path) -> Iterator[Path]:
    """Keep a folder of segments for one run, and go on with what an equal run left in it.

    It is removed when the block ends well, or would end as badly again, and kept for the next run
    otherwise.

    Raises:
        ImageError: if another process works in it, or nothing can be written.
    """
    about = folder / "run.json"
    try:
        folder.mkdir(exist_ok=True)
        with filelock.FileLock(folder / "lock", timeout=0):
            if not about.exists() or about.read_text("utf-8") != told:
                for path in folder.iterdir():
                    if path.name != "lock":
                        path.unlink()
                write_text(about, told)
            yield folder
        shutil.rmtree(folder)
    except filelock.Timeout as error:
        raise FileTakenError(f"'{source}' is being restored by another process") from error
    except FileTakenError:
        raise
    except ImageError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except OSError as error:
        raise ImageError(
            f"'{source}': cannot be written beside '{folder.parent}': {error.strerror or error}"
        ) from error


def move(whole: Path, target: Path, *, overwrite: bool) -> None:
    """Give a whole file its name.

    Raises:
        FileTakenError: if there is one that must not be replaced.
    """
    if overwrite:
        whole.replace(target)
        return
    try:
        os.link(whole, target)  # unlike a rename, it replaces nothing
    except FileExistsError:
        raise FileTakenError(f"'{target}' exists already; allow it with --overwrite") from None
    except OSError:  # no links here
        with replacing(target, overwrite=False) as made, whole.open("rb") as file:
            shutil.copyfileobj(file, made)
