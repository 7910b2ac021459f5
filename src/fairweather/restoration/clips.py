"""A clip → the same clip restored: decode, restore and encode at the same time, in segments.

A killed run goes on from its last whole segment; segments lie in one hidden folder beside the
target.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import filelock

from fairweather.errors import TAKEN, FileTakenError, ImageError
from fairweather.files import replacing, write_text
from fairweather.imaging import (
    ClipFacts,
    ClipOptions,
    Frame,
    SegmentWriter,
    choose_codec,
    container_of,
    join_segments,
    read_clip_facts,
    read_frames,
)
from fairweather.restoration.shots import (
    RATE,
    FrameRestorer,
    RestoredClip,
    restore_frames,
)
from fairweather.restoration.tiled import OnTile

SEGMENT_SECONDS = 2.0
FEWEST_IN_SEGMENT, MOST_IN_SEGMENT = 12, 240
HASHED_BYTES = 1 << 20


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

        count = len(done) * length
        results = restore_frames(
            restorer,
            counted(read_frames(source, facts, options)),
            rate=float(facts.rate or RATE),
            calm=options.calm,
            skip=count,
        )
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
    frames = round(SEGMENT_SECONDS * (facts.rate or RATE))
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
        for path in (*folder.glob("*.part"), *folder.glob("joined.*")):  # the disk may be full
            path.unlink(missing_ok=True)
        raise ImageError(
            f"'{source}' cannot be written to '{folder.parent}': {error.strerror or error}"
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
        raise FileTakenError(f"'{target}' {TAKEN}") from None
    except OSError:  # no links here
        with replacing(target, overwrite=False) as made, whole.open("rb") as file:
            shutil.copyfileobj(file, made)
