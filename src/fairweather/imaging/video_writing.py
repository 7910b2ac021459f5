"""Write clips: in segments, and from those files in which everything else is as it was.

Frames are restored and encoded in segments, each by itself. `join_segments` puts their packets, at
the times of the source, beside the source's own packets of sound and subtitles, which are not
decoded at all.
"""

import dataclasses
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from fairweather.errors import ImageError
from fairweather.imaging.video import (
    FULL_RANGE,
    HIGHEST_CRF,
    ClipFacts,
    ClipOptions,
    Frame,
    import_av,
    matrix_of,
    open_clip,
    reason_of,
    scaler_flags,
)

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
# What MP4 holds between two subtitles; FFmpeg writes it itself.
NO_TEXT = b"\0\0"


@dataclass(frozen=True)
class Encoder:
    """An encoder, and what it takes to keep what was restored.

    Attributes:
        name: in FFmpeg.
        crf: of the codec's own scale, at which a difference is hardly seen; None without loss.
        options: its own.
        chroma: subsamplings that it takes.
    """

    name: str
    crf: int | None
    options: dict[str, str]
    chroma: tuple[str, ...]


# All frames as well as the first, since rain that is left in one is in no other.
EVENLY = "pbratio=1:ipratio=1"
ALL_CHROMA = ("420", "422", "444")
ENCODERS: dict[str, Encoder] = {
    "h264": Encoder(
        "libx264",
        7,
        {"preset": "medium", "x264-params": f"mbtree=0:{EVENLY}"},
        ALL_CHROMA,
    ),
    "h265": Encoder(
        "libx265",
        6,
        {"preset": "medium", "x265-params": f"log-level=error:cutree=0:{EVENLY}"},
        ALL_CHROMA,
    ),
    "av1": Encoder("libsvtav1", 4, {"preset": "7"}, ("420",)),
    "ffv1": Encoder("ffv1", None, {"level": "3", "slicecrc": "1"}, ALL_CHROMA),
}
# FFmpeg's names for one codec on GPUs, and how each takes a constant quality.
ON_HARDWARE = {"h264": "h264", "h265": "hevc", "av1": "av1"}
HARDWARE_OPTIONS: dict[str, dict[str, str]] = {
    "nvenc": {"preset": "p6", "rc": "constqp", "qp": "{crf}"},
    "qsv": {"preset": "slower", "global_quality": "{crf}"},
    "amf": {"quality": "quality", "rc": "cqp", "qp_i": "{crf}", "qp_p": "{crf}", "qp_b": "{crf}"},
    "videotoolbox": {"q:v": "{percent}"},
}
HARDWARE_CRF = 12  # on the scale of H.264; chips gain less from a smaller one
CODECS_OF = {
    "mp4": ("h264", "h265", "av1"),
    "mov": ("h264", "h265"),
    "matroska": ("h264", "h265", "av1", "ffv1"),
    "webm": ("av1",),
}


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


class SegmentWriter:
    """Frames → a file of encoded packets, with the times that they had."""

    def __init__(self, path: Path, facts: ClipFacts, options: ClipOptions, *, codec: str):
        """Begin a file.

        Raises:
            ImageError: if this PyAV lacks the encoder.
        """
        self.av = import_av()
        self.facts = facts
        encoder = find_encoder(codec, facts, options)
        if encoder.name not in self.av.codecs_available:
            raise ImageError(
                f"{codec}: this PyAV has no encoder {encoder.name}; choose another --codec or"
                " --hardware"
            )
        self.format = pixel_format(facts, codec, on_hardware=options.hardware is not None)
        self.container: Any = self.av.open(str(path), "w", format=SEGMENT_FORMAT)
        rate = facts.rate or Fraction(25)
        self.stream: Any = self.container.add_stream(
            encoder.name, rate=rate.limit_denominator(1001), options=encoder.options
        )
        context: Any = self.stream.codec_context
        context.width, context.height, context.pix_fmt = facts.width, facts.height, self.format
        context.time_base = unit_of(facts)
        context.color_primaries, context.color_trc = facts.colour[:2]
        context.colorspace, context.color_range = facts.colour[2:]
        if facts.aspect:
            context.sample_aspect_ratio = facts.aspect
        try:
            context.open()
        except (self.av.FFmpegError, OSError) as error:
            self.container.close()
            raise ImageError(
                f"{encoder.name}: cannot encode {facts.width} × {facts.height} here:"
                f" {reason_of(error)}; leave out --hardware or choose another --codec"
            ) from error
        self._durations: dict[int, int] = {}

    def write(self, frame: Frame) -> None:
        """Encode a frame."""
        facts, factor = self.facts, self.facts.time_base.numerator
        picture = to_picture(frame.pixels, facts, self.format)
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


def to_picture(pixels: np.ndarray, facts: ClipFacts, pixel_format: str) -> Any:
    """Return (H, W, 3) RGB as a frame of FFmpeg, in the colours of a clip."""
    depth = "rgb24" if pixels.dtype == np.uint8 else "rgb48le"
    picture: Any = import_av().VideoFrame.from_ndarray(np.ascontiguousarray(pixels), depth)
    picture = picture.reformat(
        format=pixel_format,
        dst_colorspace=matrix_of(facts),
        src_color_range=FULL_RANGE,
        dst_color_range=facts.colour[3] or 1,
        interpolation=scaler_flags(),
        threads=1,
    )
    picture.colorspace, picture.color_range = facts.colour[2:]
    picture.color_primaries, picture.color_trc = facts.colour[:2]
    return picture


def find_encoder(codec: str, facts: ClipFacts, options: ClipOptions) -> Encoder:
    """Return the encoder that is asked for, with all of its options."""
    known = ENCODERS[codec]
    if options.hardware is not None:
        crf = HARDWARE_CRF if options.crf is None else options.crf
        percent = round(100 - 100 * crf / (HIGHEST_CRF[codec] or 51))
        words = {"crf": str(crf), "percent": str(percent)}
        settings = {
            name: value.format(**words)
            for name, value in HARDWARE_OPTIONS[options.hardware].items()
        }
        name = f"{ON_HARDWARE[codec]}_{options.hardware}"
        return Encoder(name, None, settings, ("420",))
    settings = dict(known.options)
    if known.crf is not None:
        settings["crf"] = str(known.crf if options.crf is None else options.crf)
    if codec == "h265" and facts.mastering:
        settings["x265-params"] += f":{facts.mastering}"
    return dataclasses.replace(known, options=settings)


def unit_of(facts: ClipFacts) -> Fraction:
    """Return the unit of times in a file that is written [s]: one over a whole number."""
    return Fraction(1, facts.time_base.denominator)


def pixel_format(facts: ClipFacts, codec: str, *, on_hardware: bool = False) -> str:
    """Return the pixel format that loses least."""
    if on_hardware:  # which all of them take
        return "p010le" if facts.depth > 8 else "nv12"
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
        options["video_track_timescale"] = str(facts.time_base.denominator)
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
            elif (copy := copy_stream(made, stream, given=given)) is None:
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


def copy_stream(made: Any, stream: Any, *, given: Any) -> Any:
    """Add a stream like one of the source; None if the container cannot hold such a stream."""
    if stream.type == "attachment":
        if made.format.name != "matroska":
            return None
        name = stream.metadata.get("filename", "attachment")
        return made.add_attachment(name, stream.mimetype or "", stream.data)
    # What data a camera writes means something in its own kind of container alone.
    if stream.type == "data" and made.format.name not in given.format.name.split(","):
        return None
    try:
        return made.add_stream_from_template(stream, opaque=True)
    except ValueError:  # what PyAV says of a codec that is none of the container's
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
        if packet.stream.type == "subtitle" and bytes(packet) == NO_TEXT:
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
