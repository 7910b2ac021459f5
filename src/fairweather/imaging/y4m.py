"""Frames through pipes: YUV4MPEG2 (Y4M), which players and FFmpeg read and write."""

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any, BinaryIO, Protocol

from fairweather.errors import ImageError
from fairweather.imaging.video import (
    ClipFacts,
    ClipOptions,
    Frame,
    deinterlaced,
    facts_of,
    import_av,
    reason_of,
    refuse_interlaced,
    time_of,
    to_pixels,
)
from fairweather.imaging.video_writing import to_picture

Y4M_MAGIC = b"YUV4MPEG2 "
FORMAT = "yuv4mpegpipe"
HEAD_BYTES = 4096


class Readable(Protocol):
    """What bytes are read from; it cannot be wound back."""

    def read(self, size: int = -1, /) -> bytes:
        """Return as many bytes, or fewer at the end."""
        ...


def read_y4m(
    file: Readable, options: ClipOptions, *, name: str
) -> tuple[ClipFacts, Iterator[Frame]]:
    """Begin to read a Y4M stream.

    Args:
        file: the stream, from its start.
        options: what to do with half-frames.
        name: what it is called in errors.

    Returns:
        What it is, and its frames, which are read as they are taken.

    Raises:
        ImageError: if it cannot be read, or is interlaced and that is refused; also while frames
            are taken, if it breaks off.
    """
    av = import_av()
    counted = Counted(file)
    try:
        container: Any = av.open(counted, format=FORMAT)
        decoded = decode_whole(container, counted, name=name)
        first = next(decoded, None)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ImageError(f"'{name}' is no Y4M that can be read: {reason_of(error)}") from error
    if first is None:
        raise ImageError(f"'{name}' holds no frame")
    refuse_interlaced(first, options, name=name)
    told = facts_of(container, container.streams.video[0], first)
    facts = dataclasses.replace(told, siting=counted.siting())

    def frames() -> Iterator[Frame]:
        whole: Iterator[Any] = itertools.chain([first], decoded)
        if options.interlaced == "deinterlace":
            whole = deinterlaced(av, container.streams.video[0], whole)
        with contextlib.closing(container):
            try:
                for frame in whole:
                    time = time_of(frame, last=None, facts=facts)
                    yield Frame(time, 0, to_pixels(frame, facts))
            except av.FFmpegError as error:
                raise ImageError(f"'{name}' cannot be decoded: {reason_of(error)}") from error

    return facts, frames()


class Counted:
    """A stream, of which FFmpeg would not tell that it ends within a frame."""

    def __init__(self, file: Readable):
        self.file = file
        self.head = b""
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return as many bytes, or fewer at the end."""
        data = self.file.read(size)
        self.head += data[: HEAD_BYTES - len(self.head)]
        self.size += len(data)
        return data

    def siting(self) -> str:
        """Return what the header says of where colours lie; empty for nothing."""
        found = re.search(rb" C420(jpeg|mpeg2|paldv)\b", self.head.partition(b"\n")[0])
        return found[1].decode() if found else ""

    def left_over(self, frames: int, frame_bytes: int) -> int:
        """Return how many bytes there are behind whole frames, of which all begin alike."""
        header, _, rest = self.head.partition(b"\n")
        begin = rest.partition(b"\n")[0]
        return self.size - len(header) - 1 - frames * (len(begin) + 1 + frame_bytes)


def decode_whole(container: Any, counted: Counted, *, name: str) -> Iterator[Any]:
    """Yield the frames of a Y4M stream.

    Raises:
        ImageError: if it ends within one.
    """
    frame_bytes = count = 0
    for packet in container.demux(video=0):
        frame_bytes = frame_bytes or packet.size
        for frame in packet.decode():
            yield frame
            count += 1
    if counted.left_over(count, frame_bytes) > 0:
        raise ImageError(f"'{name}' is cut off behind frame {count}")


class Y4mWriter:
    """Frames → a Y4M stream."""

    def __init__(self, file: BinaryIO, facts: ClipFacts):
        """Begin a stream of frames like those that were read."""
        self.facts = facts
        self.format = f"yuv{facts.chroma}p{'10le' if facts.depth > 8 else ''}"
        options = {"strict": "-1"}  # more than 8 bits, which all readers know, are no part of it
        self.av = import_av()
        self.sink = Sink(file, facts)
        self.container: Any = self.av.open(self.sink, "w", format=FORMAT, options=options)
        rate = facts.rate or Fraction(25)
        self.stream: Any = self.container.add_stream("wrapped_avframe", rate=rate)
        context = self.stream.codec_context
        context.width, context.height, context.pix_fmt = facts.width, facts.height, self.format
        context.color_range = facts.colour[3]
        self.count = 0

    def write(self, frame: Frame) -> None:
        """Write a frame at once.

        Raises:
            OSError: if nobody reads any more.
        """
        picture = to_picture(frame.pixels, self.facts, self.format)
        picture.pts, self.count = self.count, self.count + 1
        self.container.mux(self.stream.encode(picture))

    def close(self) -> None:
        """End the stream, also one that nobody reads any more."""
        try:
            self.container.mux(self.stream.encode(None))
            self.container.close()
        except self.av.FFmpegError:
            if self.sink.error is None:
                raise


class Sink:
    """A file, of which FFmpeg would forget why it cannot be written, and what it should say."""

    def __init__(self, file: BinaryIO, facts: ClipFacts):
        self.file = file
        self.facts = facts
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write bytes; nothing more once that has failed.

        Raises:
            OSError: if they cannot be written.
        """
        told, size = data, len(data)
        if data.startswith(Y4M_MAGIC):
            aspect, siting = self.facts.aspect, self.facts.siting
            if aspect:
                shape = f" A{aspect.numerator}:{aspect.denominator} "
                told = told.replace(b" A0:0 ", shape.encode(), 1)
            if siting:
                told = told.replace(b" C420jpeg ", f" C420{siting} ".encode(), 1)
        try:
            if not self.error:
                self.file.write(told)
        except OSError as error:
            self.error = error
            raise
        return size
