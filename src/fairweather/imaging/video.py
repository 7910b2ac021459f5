"""Clips: frames as arrays with their times, and files in which everything else is as it was.

PyAV reads and writes them (extra `video`). A clip's frames are restored in segments, each of which
is encoded by itself; `join_segments` puts their packets, with the times of the source, beside the
source's own packets of sound and subtitles, which are not decoded at all.
"""

import contextlib
import importlib
import itertools
import math
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fairweather.errors import ImageError, MissingExtraError, OptionError

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
# What is written, by the name of the container.
CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}
# It takes every codec, and keeps times exactly, but for what would be decoded before zero.
SEGMENT_FORMAT = "nut"
SEGMENT_SHIFT_SECONDS = 3600

Codec = Literal["h264", "h265", "av1", "ffv1"]
Interlaced = Literal["refuse", "deinterlace"]


@dataclass(frozen=True)
class Encoder:
    """An encoder, and what it takes to keep what was restored.

    Attributes:
        name: in FFmpeg.
        crf: of the codec's own scale, at which a difference is hardly seen; None without loss.
        options: its own.
        depths: bits that it takes.
        chroma: subsamplings that it takes.
    """

    name: str
    crf: int | None
    options: dict[str, str]
    depths: tuple[int, ...]
    chroma: tuple[str, ...]


ENCODERS: dict[str, Encoder] = {
    "h264": Encoder("libx264", 12, {"preset": "medium"}, (8, 10), ("420", "422", "444")),
    "h265": Encoder(
        "libx265",
        13,
        {"preset": "medium", "x265-params": "log-level=error"},
        (8, 10),
        ("420", "422", "444"),
    ),
    "av1": Encoder("libsvtav1", 14, {"preset": "7"}, (8, 10), ("420",)),
    "ffv1": Encoder("ffv1", None, {"level": "3", "slicecrc": "1"}, (8, 10), ("420", "422", "444")),
}
CODECS_OF = {
    "mp4": ("h264", "h265", "av1"),
    "mov": ("h264", "h265"),
    "matroska": ("h264", "h265", "av1", "ffv1"),
    "webm": ("av1",),
}
HIGHEST_CRF = {"h264": 51, "h265": 51, "av1": 63}

# Matrices of FFmpeg's AVColorSpace → those of its scaler.
MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
UNSPECIFIED = 2
BT709, BT601 = 1, 5
FULL_RANGE = 2
MOST_SECONDS_MISSING = 0.5
HD_ROWS = 720  # from which BT.709 is meant where no matrix is told
LUMINANCE_SCALE, CHROMATICITY_SCALE = 10_000, 50_000  # of x265's master-display


@dataclass(frozen=True)
class ClipOptions:
    """How a clip is written.

    Attributes:
        codec: `h264`, `h265`, `av1` or `ffv1` (without loss, in mkv alone); None takes H.264 for 8
            bits and H.265 for more, AV1 in webm.
        crf: constant rate factor, smaller is better; None is nearly without visible loss.
        interlaced: what to do with a clip of half-frames.
    """

    codec: str | None = None
    crf: int | None = None
    interlaced: Interlaced = "refuse"

    def __post_init__(self) -> None:
        if self.codec is not None and self.codec not in ENCODERS:
            raise OptionError(f"codec {self.codec!r}: is none of {', '.join(ENCODERS)}")
        if self.crf is not None and not 0 <= self.crf <= HIGHEST_CRF.get(self.codec or "h264", 51):
            raise OptionError(f"crf {self.crf}: must lie from 0 to {HIGHEST_CRF['h264']}")


@dataclass(frozen=True)
class ClipFacts:
    """What the picture stream of a clip is.

    Attributes:
        width: of a frame as it is stored [px].
        height: the same.
        time_base: unit of times [s].
        rate: mean frames a second; None if it is not told.
        frames: how many there are, or about how many; None if that is not known.
        depth: bits of a channel.
        chroma: `420`, `422` or `444`.
        colour: primaries, transfer, matrix and range, as numbers of FFmpeg.
        aspect: width of a pixel over its height; None if it is not told.
        matrix: the display matrix, which says how a frame is turned; None for none.
        mastering: of x265, what HDR10 says of the screen and the light; empty for none.
        has_alpha: whether there is transparency, which is not restored.
    """

    width: int
    height: int
    time_base: Fraction
    rate: Fraction | None
    frames: int | None
    depth: int
    chroma: str
    colour: tuple[int, int, int, int]
    aspect: Fraction | None
    matrix: tuple[int, ...] | None
    mastering: str
    has_alpha: bool


@dataclass(frozen=True)
class Frame:
    """One picture of a clip.

    Attributes:
        time: when it is shown, in units of the clip's time base.
        duration: how long, in the same; 0 if it is not told.
        pixels: (H, W, 3) RGB as it is stored, uint8, or uint16 in its full range.
    """

    time: int
    duration: int
    pixels: np.ndarray


def import_av() -> Any:
    """Import PyAV.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        av: Any = importlib.import_module("av")
    except ModuleNotFoundError as missing:
        raise MissingExtraError(
            "clips need PyAV, which is missing; install it with: pip install 'fairweather[video]'"
        ) from missing
    os.environ.setdefault("SVT_LOG", "1")  # errors alone
    # What FFmpeg's threads say would wait for Python, which waits for them when a clip is closed.
    av.logging.set_level(None)
    av.logging.set_libav_level(av.logging.FATAL)
    return av


def is_clip(path: Path) -> bool:
    """Return whether a file is a clip, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def choose_codec(target: Path, facts: ClipFacts, options: ClipOptions) -> str:
    """Return the codec that a clip is written with.

    Raises:
        ImageError: if the container does not take it.
    """
    container = container_of(target)
    allowed = CODECS_OF[container]
    if options.codec is None:
        return next(c for c in ("h265" if facts.depth > 8 else "h264", "av1") if c in allowed)
    if options.codec not in allowed:
        raise ImageError(
            f"{target}: {target.suffix} files hold {' or '.join(allowed)} here, not"
            f" {options.codec}; choose another --codec or another suffix"
        )
    return options.codec


def container_of(target: Path) -> str:
    """Return the container of a clip that is to be written.

    Raises:
        ImageError: for a suffix of another kind.
    """
    container = CONTAINERS.get(target.suffix.lower())
    if container is None:
        raise ImageError(
            f"{target}: a clip is written as {', '.join(CONTAINERS)}; choose such a suffix"
        )
    return container


@contextlib.contextmanager
def open_clip(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a clip: its container and its picture stream.

    Raises:
        ImageError: if it cannot be read, or has no moving picture.
    """
    av = import_av()
    try:
        container = av.open(str(path))
    except FileNotFoundError:
        raise ImageError(f"'{path}' does not exist") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ImageError(f"'{path}' is no clip that can be read: {reason_of(error)}") from error
    with container:
        pictures = [one for one in container.streams.video if not is_cover(av, one)]
        if not pictures:
            raise ImageError(f"'{path}' holds no moving picture, so there is nothing to restore")
        picture = pictures[0]
        picture.thread_type = "AUTO"
        yield container, picture


def is_cover(av: Any, stream: Any) -> bool:
    """Return whether a stream is a picture of the whole, such as a cover."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def reason_of(error: BaseException) -> str:
    """Return what FFmpeg says, in one line."""
    return str(getattr(error, "strerror", None) or error).partition("\n")[0]


def read_clip_facts(path: Path, options: ClipOptions) -> ClipFacts:
    """Look at a clip and its first frame.

    Raises:
        ImageError: if it cannot be read, or is interlaced and that is refused.
    """
    av = import_av()
    with open_clip(path) as (container, stream):
        try:
            frame = next(container.decode(stream), None)
        except av.FFmpegError as error:
            raise ImageError(f"'{path}' cannot be decoded: {reason_of(error)}") from error
        if frame is None:
            raise ImageError(f"'{path}' holds no frame")
        if frame.interlaced_frame and options.interlaced == "refuse":
            raise ImageError(
                f"'{path}' is interlaced: each frame holds two moments; --interlaced deinterlace"
                " restores whole frames made of them"
            )
        context, layout = stream.codec_context, frame.format
        side = {one.type.name: bytes(one) for one in frame.side_data}
        matrix = side.get("DISPLAYMATRIX")
        duration = stream.duration and float(stream.duration * stream.time_base)
        if duration is None and container.duration:
            duration = container.duration / 1e6
        rate = stream.average_rate or stream.guessed_rate
        estimate = round(duration * rate) if duration and rate else None
        return ClipFacts(
            width=frame.width,
            height=frame.height,
            time_base=Fraction(stream.time_base),
            rate=Fraction(rate) if rate else None,
            frames=stream.frames or estimate,
            depth=max(part.bits for part in layout.components),
            chroma=chroma_of(layout),
            colour=(
                int(frame.color_primaries),
                int(frame.color_trc),
                int(frame.colorspace),
                int(frame.color_range),
            ),
            aspect=context.sample_aspect_ratio,
            matrix=struct.unpack("<9i", matrix[:36]) if matrix else None,
            mastering=mastering_of(side),
            has_alpha=len(layout.components) in (2, 4),
        )


def chroma_of(layout: Any) -> str:
    """Return how colours are sampled in a pixel format."""
    if layout.is_rgb or layout.has_palette:
        return "444"
    name = layout.name
    return next((kind for kind in ("420", "422", "444") if kind in name), "420")


def mastering_of(side: dict[str, bytes]) -> str:
    """Return what HDR10 says of the screen and the light, as x265 takes it."""
    words = []
    if screen := side.get("MASTERING_DISPLAY_METADATA"):
        numbers = struct.unpack("<22i", screen[:88])
        pairs = zip(numbers[0:20:2], numbers[1:20:2], strict=True)
        values = [Fraction(top, bottom or 1) for top, bottom in pairs]
        if numbers[20] and numbers[21]:
            (rx, ry, gx, gy, bx, by, wx, wy), (low, high) = (
                [round(value * CHROMATICITY_SCALE) for value in values[:8]],
                [round(value * LUMINANCE_SCALE) for value in values[8:]],
            )
            words.append(
                f"master-display=G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({high},{low})"
            )
    if light := side.get("CONTENT_LIGHT_LEVEL"):
        most, mean = struct.unpack("<2I", light[:8])
        words.append(f"max-cll={most},{mean}")
    return ":".join(["hdr10=1", *words]) if words else ""


def read_frames(path: Path, facts: ClipFacts, options: ClipOptions) -> Iterator[Frame]:
    """Yield the frames of a clip in the order of their times.

    Raises:
        ImageError: if it breaks off, or a frame cannot be decoded.
    """
    av, last, count = import_av(), None, 0
    with open_clip(path) as (container, stream):
        decoded = container.decode(stream)
        if options.interlaced == "deinterlace":
            decoded = deinterlaced(av, stream, decoded)
        try:
            for frame in decoded:
                if frame.is_corrupt:
                    raise ImageError(f"'{path}': frame {count} is damaged")
                time = time_of(frame, last=last, facts=facts)
                if last is not None and time <= last:
                    time = last + 1  # of broken recorders; no player shows two at one time
                yield Frame(time, int(frame.duration or 0), to_pixels(frame, facts))
                last, count = time, count + 1
        except av.FFmpegError as error:
            raise ImageError(
                f"'{path}': cannot be decoded behind frame {count}: {reason_of(error)}"
            ) from error
    missing_seconds = seconds_missing(path)
    if last is None or missing_seconds > MOST_SECONDS_MISSING:
        raise ImageError(
            f"'{path}' is cut off behind frame {count}: {missing_seconds:.1f} s are missing of what"
            " it says that it holds"
        )


def seconds_missing(path: Path) -> float:
    """Return how much earlier the packets of a clip end than the clip says that it does [s]."""
    av = import_av()
    with open_clip(path) as (container, stream):
        told = stream.duration and float((stream.start_time or 0) + stream.duration)
        streams = [stream]
        if told is not None:
            told *= float(stream.time_base)
        elif container.duration is not None:  # which sound may have more of than the picture
            told, streams = container.duration / av.time_base, list(container.streams)
        if told is None:
            return 0.0
        end = 0.0
        with contextlib.suppress(av.FFmpegError):
            for packet in container.demux(*(s for s in streams if s.type != "attachment")):
                if packet.pts is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        return max(0.0, told - end)


def deinterlaced(av: Any, stream: Any, frames: Iterable[Any]) -> Iterator[Any]:
    """Yield whole frames of interlaced ones, as many as there are (FFmpeg's bwdif)."""
    graph: Any = av.filter.Graph()
    source = graph.add_buffer(template=stream, time_base=stream.time_base)
    weave, sink = graph.add("bwdif", "mode=send_frame"), graph.add("buffersink")
    source.link_to(weave)
    weave.link_to(sink)
    graph.configure()
    for frame in itertools.chain(frames, (None,)):
        source.push(frame)
        with contextlib.suppress(av.BlockingIOError, av.EOFError):
            while True:
                yield sink.pull()


def time_of(frame: Any, *, last: int | None, facts: ClipFacts) -> int:
    """Return when a frame is shown; some containers tell it of none."""
    for time in (frame.pts, frame.dts):
        if time is not None:
            return int(Fraction(time) * Fraction(frame.time_base) / facts.time_base)
    step = max(1, round(1 / ((facts.rate or 25) * facts.time_base)))
    return 0 if last is None else last + step


def to_pixels(frame: Any, facts: ClipFacts) -> np.ndarray:
    """Return a decoded frame as (H, W, 3) RGB, uint8, or uint16 for more bits."""
    if (frame.width, frame.height) != (facts.width, facts.height):
        raise ImageError(
            f"a frame is {frame.width} × {frame.height}, and those before it are {facts.width} ×"
            f" {facts.height}; such clips are not restored"
        )
    return frame.reformat(
        format="rgb24" if facts.depth == 8 else "rgb48le",
        src_colorspace=matrix_of(facts),
        src_color_range=facts.colour[3] or 1,
        dst_color_range=FULL_RANGE,
        interpolation=scaler_flags(),
        threads=1,
    ).to_ndarray()


def matrix_of(facts: ClipFacts) -> int:
    """Return the matrix between RGB and what a clip holds, as FFmpeg's scaler numbers it."""
    known = MATRICES.get(facts.colour[2])
    return known or (BT709 if facts.height >= HD_ROWS else BT601)


def scaler_flags() -> int:
    """Return how colours of half the resolution are sampled up and down: exactly rounded."""
    kinds = importlib.import_module("av.video.reformatter").Interpolation
    return int(kinds.BICUBIC | kinds.ACCURATE_RND | kinds.FULL_CHR_H_INT | kinds.FULL_CHR_H_INP)


class SegmentWriter:
    """Frames → a file of encoded packets, with the times that they had."""

    def __init__(self, path: Path, facts: ClipFacts, options: ClipOptions, *, codec: str):
        """Begin a file.

        Raises:
            ImageError: if this PyAV lacks the encoder.
        """
        self.av = import_av()
        self.facts = facts
        encoder = ENCODERS[codec]
        if encoder.name not in self.av.codecs_available:
            raise ImageError(f"{codec}: this PyAV has no encoder {encoder.name}; choose --codec")
        self.format = pixel_format(facts, codec)
        settings = dict(encoder.options)
        if encoder.crf is not None:
            settings["crf"] = str(encoder.crf if options.crf is None else options.crf)
        if codec == "h265" and facts.mastering:
            settings["x265-params"] += f":{facts.mastering}"
        self.container: Any = self.av.open(str(path), "w", format=SEGMENT_FORMAT)
        rate = facts.rate or Fraction(25)
        self.stream: Any = self.container.add_stream(
            encoder.name, rate=rate.limit_denominator(1001), options=settings
        )
        context: Any = self.stream.codec_context
        context.width, context.height, context.pix_fmt = facts.width, facts.height, self.format
        context.time_base = unit_of(facts)
        context.color_primaries, context.color_trc = facts.colour[:2]
        context.colorspace, context.color_range = facts.colour[2:]
        if facts.aspect:
            context.sample_aspect_ratio = facts.aspect
        self._durations: dict[int, int] = {}

    def write(self, frame: Frame) -> None:
        """Encode a frame."""
        facts, factor = self.facts, self.facts.time_base.numerator
        depth = "rgb24" if frame.pixels.dtype == np.uint8 else "rgb48le"
        picture: Any = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.pixels), depth)
        picture = picture.reformat(
            format=self.format,
            dst_colorspace=matrix_of(facts),
            src_color_range=FULL_RANGE,
            dst_color_range=facts.colour[3] or 1,
            interpolation=scaler_flags(),
            threads=1,
        )
        picture.colorspace, picture.color_range = facts.colour[2:]
        picture.color_primaries, picture.color_trc = facts.colour[:2]
        shift = SEGMENT_SHIFT_SECONDS * facts.time_base.denominator
        picture.pts, picture.time_base = frame.time * factor + shift, unit_of(facts)
        self._durations[picture.pts] = frame.duration * factor
        self._mux(self.stream.encode(picture))

    def close(self) -> None:
        """Write what the encoder still holds, and the end of the file."""
        self._mux(self.stream.encode(None))
        self.container.close()

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, 0)
            self.container.mux(packet)


def unit_of(facts: ClipFacts) -> Fraction:
    """Return the unit of times in a file that is written [s]: one over a whole number."""
    return Fraction(1, facts.time_base.denominator)


def pixel_format(facts: ClipFacts, codec: str) -> str:
    """Return the pixel format that loses least."""
    encoder = ENCODERS[codec]
    chroma = facts.chroma if facts.chroma in encoder.chroma else "420"
    # H.264 and H.265 have no odd sizes where colours are of half the resolution.
    is_odd = facts.width % 2 or (chroma == "420" and facts.height % 2)
    if is_odd and chroma != "444" and "444" in encoder.chroma and codec != "ffv1":
        chroma = "444"
    return f"yuv{chroma}p{'10le' if facts.depth > 8 else ''}"


def join_segments(
    source: Path, segments: Sequence[Path], target: Path, facts: ClipFacts, *, container: str
) -> tuple[str, ...]:
    """Write a clip of encoded segments, with all that the source holds besides its picture.

    Args:
        source: the clip that was restored.
        segments: files of `SegmentWriter`, in their order.
        target: where to write.
        facts: of the source.
        container: one of `CONTAINERS`.

    Returns:
        Notes on what the container cannot hold.
    """
    av = import_av()
    options = {"movflags": "+faststart+use_metadata_tags"} if container in ("mp4", "mov") else {}
    if container in ("mp4", "mov"):
        options["video_track_timescale"] = str(timescale_of(facts))
    notes: list[str] = []
    with (
        open_clip(source) as (given, picture),
        av.open(str(segments[0])) as first,
        av.open(str(target), "w", format=container, container_options=options) as made,
    ):
        made.metadata.update(given.metadata)
        streams: dict[int, Any] = {}
        for stream in given.streams:
            if stream.index == picture.index:
                copy = made.add_stream_from_template(first.streams.video[0], opaque=True)
                copy.time_base = unit_of(facts)
                if facts.matrix:
                    copy.set_display_matrix(facts.matrix)
            elif (copy := copy_stream(av, made, stream)) is None:
                codec = getattr(getattr(stream, "codec_context", None), "name", None)
                what = f"{codec} {stream.type}" if codec else stream.type
                notes.append(f"a stream of {what} is left out: {target.suffix} cannot hold it")
                continue
            if stream.type != "attachment":
                copy.metadata.update(stream.metadata)
                copy.disposition = stream.disposition
            streams[stream.index] = copy
        made.set_chapters(given.chapters())
        made.start_encoding()
        others = [s for s in given.streams if s.index in streams and s.type != "attachment"]
        copied = copied_packets([s for s in others if s.index != picture.index], given, streams)
        for packet in in_order(
            picture_packets(segments, streams[picture.index], facts=facts), copied
        ):
            made.mux_one(packet)
    return tuple(notes)


def timescale_of(facts: ClipFacts) -> int:
    """Return the times a second of a track in mp4 and mov, as fine as that of the source."""
    return facts.time_base.denominator


def copy_stream(av: Any, made: Any, stream: Any) -> Any:
    """Add a stream like one of the source; None if the container cannot hold such a stream."""
    try:
        if stream.type == "attachment":
            name = stream.metadata.get("filename", "attachment")
            return made.add_attachment(name, stream.mimetype or "", stream.data)
        return made.add_stream_from_template(stream, opaque=True)
    except (av.FFmpegError, ValueError, NotImplementedError):
        return None


def copied_packets(
    streams: Sequence[Any], given: Any, copies: dict[int, Any]
) -> Iterator[tuple[float, Any]]:
    """Yield the packets of streams as they are, each with when it is needed [s]."""
    if not streams:
        return
    for packet in given.demux(*streams):
        if packet.dts is None and packet.pts is None:
            continue
        time = packet.dts if packet.dts is not None else packet.pts
        needed = float(time * packet.time_base)
        packet.stream = copies[packet.stream_index]
        yield needed, packet


def picture_packets(
    segments: Sequence[Path], stream: Any, *, facts: ClipFacts
) -> Iterator[tuple[float, Any]]:
    """Yield the packets of all segments, with decoding times that rise throughout."""
    unit = unit_of(facts)
    shown = [time for time, _ in read_packets(segments, unit=unit)]
    times = sorted(shown)
    delay = reordering(shown, times)
    # Where a decoder has to be ahead of the first frame, as far as frames are apart there.
    step = max(1, times[1] - times[0]) if len(times) > 1 else 1
    early = [times[0] - step * ahead for ahead in range(delay, 0, -1)]
    decoded = [*early, *times]
    for (shown_at, packet), decoded_at in zip(
        read_packets(segments, unit=unit), decoded, strict=False
    ):
        duration = packet.duration and int(packet.duration * packet.time_base / unit)
        packet.pts, packet.dts, packet.duration = shown_at, decoded_at, duration
        packet.time_base, packet.stream = unit, stream
        yield float(decoded_at * unit), packet


def read_packets(segments: Sequence[Path], *, unit: Fraction) -> Iterator[tuple[int, Any]]:
    """Yield the packets of segments in the order of decoding, with when they are shown [units]."""
    av = import_av()
    for segment in segments:
        with av.open(str(segment)) as container:
            for packet in container.demux(video=0):
                if packet.size:
                    time = packet.pts * packet.time_base - SEGMENT_SHIFT_SECONDS
                    yield int(time / unit), packet


def reordering(shown: Sequence[int], times: Sequence[int]) -> int:
    """Return by how many frames decoding has to be ahead, so that no frame is shown too early."""
    place = {time: rank for rank, time in enumerate(times)}
    return max(0, *(rank - place[time] for rank, time in enumerate(shown))) if shown else 0


def in_order(*sources: Iterator[tuple[float, Any]]) -> Iterator[Any]:
    """Merge packets of several sources by when they are needed."""
    waiting = [(next(source, None), source) for source in sources]
    while any(head is not None for head, _ in waiting):
        index = min(
            (index for index, (head, _) in enumerate(waiting) if head is not None),
            key=lambda index: head_time(waiting[index][0]),
        )
        head, source = waiting[index]
        assert head is not None
        yield head[1]
        waiting[index] = (next(source, None), source)


def head_time(head: tuple[float, Any] | None) -> float:
    """Return when the next packet of a source is needed."""
    return math.inf if head is None else head[0]
