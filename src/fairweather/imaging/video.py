"""Read clips: what they are, and their frames as arrays with their times (PyAV, extra `video`)."""

import contextlib
import importlib
import itertools
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fairweather.errors import ImageError, MissingExtraError, OptionError, installing

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
# The largest constant rate factor of each codec; ffv1, which loses nothing, has none.
HIGHEST_CRF = {"h264": 51, "h265": 51, "av1": 63, "ffv1": None}

Interlaced = Literal["refuse", "deinterlace"]
Hardware = Literal["nvenc", "qsv", "amf", "videotoolbox"]

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
        calm: whether what flickers where nothing moves is taken back.
        hardware: which GPU's encoder to use; None for the CPU.
    """

    codec: str | None = None
    crf: int | None = None
    interlaced: Interlaced = "refuse"
    calm: bool = False
    hardware: Hardware | None = None

    def __post_init__(self) -> None:
        if self.codec is not None and self.codec not in HIGHEST_CRF:
            raise OptionError(f"codec {self.codec!r}: is none of {', '.join(HIGHEST_CRF)}")
        highest = HIGHEST_CRF[self.codec or "h264"]
        if self.crf is not None and highest is None:
            raise OptionError(f"crf {self.crf}: {self.codec} loses nothing and has none")
        if self.crf is not None and not 0 <= self.crf <= (highest or 0):
            raise OptionError(f"crf {self.crf}: must lie from 0 to {highest}")
        if self.hardware is not None and self.codec == "ffv1":
            raise OptionError(f"hardware {self.hardware!r}: has no ffv1; choose another codec")


# Their colours lie between two rows, but at the left pixel of two, unless a stream says otherwise.
LEFT_SITED = ("h264", "hevc", "mpeg4", "mpeg2video")


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
        siting: where colours of half the resolution lie, as Y4M says it; empty if it is not told.
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
    siting: str = ""


@dataclass(frozen=True)
class Frame:
    """One picture of a clip.

    Attributes:
        time: when it is shown, in units of the clip's time base.
        duration: how long, in the same; 0 if it is not told.
        pixels: (H, W, 3) RGB as it is stored, uint8, or uint16 in its full range.
        grey: whether its channels are equal, and shall stay so.
    """

    time: int
    duration: int
    pixels: np.ndarray
    grey: bool = False


def import_av() -> Any:
    """Import PyAV.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        av: Any = importlib.import_module("av")
    except ModuleNotFoundError as missing:
        raise MissingExtraError(
            f"clips need PyAV, which is missing; install it with: {installing('video')}"
        ) from missing
    os.environ.setdefault("SVT_LOG", "1")  # errors alone
    # What FFmpeg's threads say would wait for Python, which waits for them when a clip is closed.
    av.logging.set_level(None)
    av.logging.set_libav_level(av.logging.FATAL)
    return av


def has_video() -> bool:
    """Return whether PyAV is installed."""
    return find_spec("av") is not None


def is_clip(path: Path) -> bool:
    """Return whether a file is a clip, by its suffix."""
    return path.suffix.lower() in VIDEO_SUFFIXES


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
        refuse_interlaced(frame, options, name=path)
        return facts_of(container, stream, frame)


def refuse_interlaced(frame: Any, options: ClipOptions, *, name: object) -> None:
    """Raise an ImageError for half-frames, unless they are deinterlaced."""
    if frame.interlaced_frame and options.interlaced == "refuse":
        raise ImageError(
            f"'{name}' is interlaced: each frame holds two moments; --interlaced deinterlace"
            " restores whole frames made of them"
        )


def facts_of(container: Any, stream: Any, frame: Any) -> ClipFacts:
    """Return what a picture stream is, by its first frame."""
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
        aspect=context.sample_aspect_ratio or stream.sample_aspect_ratio or None,
        matrix=struct.unpack("<9i", matrix[:36]) if matrix else None,
        mastering=mastering_of(side),
        has_alpha=len(layout.components) in (2, 4),
        siting="mpeg2" if context.name in LEFT_SITED else "",
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
    av, last, count, end = import_av(), None, 0, Fraction(0)
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
                end = (time + int(frame.duration or 0)) * facts.time_base
        except av.FFmpegError as error:
            raise ImageError(
                f"'{path}': cannot be decoded behind frame {count}: {reason_of(error)}"
            ) from error
    missing_seconds = 0.0 if last is None else seconds_missing(path, end=float(end))
    if last is None or missing_seconds > MOST_SECONDS_MISSING:
        raise ImageError(
            f"'{path}' is cut off behind frame {count}: {missing_seconds:.1f} s are missing of what"
            " it says that it holds"
        )


def seconds_missing(path: Path, *, end: float) -> float:
    """Return how much earlier a clip ends than it says [s], given when its last frame does."""
    av = import_av()
    with open_clip(path) as (container, stream):
        if stream.duration is not None:
            told = float(((stream.start_time or 0) + stream.duration) * stream.time_base)
            return max(0.0, told - end)
        told = (container.duration or 0) / av.time_base
        if told - end <= MOST_SECONDS_MISSING:
            return 0.0
        # That was told of all streams together, of which sound may be the longest.
        streams = [one for one in container.streams if one.type != "attachment"]
        with contextlib.suppress(av.FFmpegError):
            for packet in container.demux(*streams):
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
