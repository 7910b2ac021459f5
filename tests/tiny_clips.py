"""Clips that tests make: a photograph that moves, with sound and subtitles."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data

RATE = 25
UNIT = Fraction(1, 90_000)
SUBTITLES = ((100, 600, "It rains."), (700, 1400, "It still does."))  # from, to [ms]


def scene(index: int, size: tuple[int, int]) -> np.ndarray:
    """The frame of that number, (H, W, 3) uint8."""
    photo, (height, width) = skimage.data.astronaut(), size
    return np.ascontiguousarray(photo[index : index + height, 2 * index : 2 * index + width])


def make_clip(
    path: Path,
    *,
    frames: int = 40,
    size: tuple[int, int] = (96, 128),
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    varies: bool = True,
    sound: bool = True,
    subtitles: bool = False,
    start: int = 0,
    rotation: float = 0,
    colour: Sequence[int] = (),
    options: dict[str, str] | None = None,
    cut_at: int | None = None,
    unit: Fraction = UNIT,
) -> list[Fraction]:
    """Write a clip; return when each of its frames is shown [s].

    Args:
        path: where to write.
        frames: how many.
        size: (height, width) [px].
        codec: of FFmpeg.
        pixel_format: of FFmpeg.
        varies: whether frames are shown for different times.
        sound: whether there is a stereo stream.
        subtitles: whether there is a stream of them.
        start: when the first frame is shown [units].
        rotation: of the display [degrees].
        colour: primaries, transfer, matrix, range, as numbers of FFmpeg.
        options: of the encoder.
        cut_at: the frame from which another scene is shown.
        unit: of times [s].
    """
    import av

    random, at, times = np.random.default_rng(0), start, []
    with av.open(str(path), "w") as made:
        settings = {"bf": "2", "g": "12"} if codec in ("libx264", "libx265") else {}
        if codec == "libx265":
            settings["x265-params"] = "log-level=none"
        picture: Any = made.add_stream(codec, rate=RATE, options={**settings, **(options or {})})
        picture.width, picture.height, picture.pix_fmt = size[1], size[0], pixel_format
        picture.codec_context.time_base = unit
        if colour:
            context = picture.codec_context
            context.color_primaries, context.color_trc = colour[:2]
            context.colorspace, context.color_range = colour[2:]
        if rotation:
            picture.set_display_rotation(rotation)
        voice: Any = made.add_stream("aac", rate=44_100, layout="stereo") if sound else None
        text = add_subtitles(made, is_mp4=path.suffix == ".mp4") if subtitles else None
        made.metadata["title"] = "A walk in the rain"
        for index in range(frames):
            pixels = scene(index, size)
            if cut_at is not None and index >= cut_at:
                pixels = 255 - pixels
            frame: Any = av.VideoFrame.from_ndarray(pixels).reformat(format=pixel_format)
            frame.pts, frame.time_base = at, unit
            times.append(at * unit)
            step = int(1 / (RATE * unit))
            at += step + (int(random.integers(0, step // 2)) if varies else 0)
            made.mux(picture.encode(frame))
        if voice is not None:
            moments = np.arange(int(at * unit * 44_100))
            tone = (6000 * np.sin(2 * np.pi * 440 * moments / 44_100)).astype(np.int16)
            for first in range(0, len(tone), 1024):
                part = np.stack([tone[first : first + 1024]] * 2, 1).reshape(1, -1)
                heard: Any = av.AudioFrame.from_ndarray(part.copy(), format="s16", layout="stereo")
                heard.sample_rate, heard.pts = 44_100, first
                made.mux(voice.encode(heard))
            made.mux(voice.encode(None))
        made.mux(picture.encode(None))
        for begin, end, words in SUBTITLES if text is not None else ():
            content = words.encode()
            if path.suffix == ".mp4":
                content = len(content).to_bytes(2, "big") + content
            packet = av.Packet(content)
            packet.pts = packet.dts = begin
            packet.duration, packet.time_base, packet.stream = end - begin, text.time_base, text
            made.mux(packet)
    return times


def add_subtitles(made: Any, *, is_mp4: bool) -> Any:
    """Add a stream of subtitles to a clip that is written."""
    text = made.add_stream("mov_text" if is_mp4 else "srt")
    text.codec_context.subtitle_header = b"[Script Info]\n"
    text.time_base = Fraction(1, 1000)
    return text


def packets_of(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """When each packet of the streams of a kind is due [s], and its bytes."""
    import av

    with av.open(str(path)) as clip:
        streams = [stream for stream in clip.streams if stream.type == kind]
        if not streams:
            return []
        return [
            (Fraction(packet.pts) * packet.time_base, bytes(packet))
            for packet in clip.demux(*streams)
            if packet.size
        ]


def frames_of(path: Path) -> list[tuple[Fraction, np.ndarray]]:
    """When each frame is shown [s], and its first plane."""
    import av

    with av.open(str(path)) as clip:
        return [
            (Fraction(frame.pts) * frame.time_base, frame.to_ndarray().copy())
            for frame in clip.decode(video=0)
        ]
