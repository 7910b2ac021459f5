"""Frames through pipes as pixels alone: FFmpeg's rawvideo, whose size the caller has to know."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from fairweather.errors import ImageError, OptionError
from fairweather.imaging.image import DEFAULT_MAX_PIXELS
from fairweather.imaging.video import Frame
from fairweather.imaging.y4m import Y4M_MAGIC, Readable

# FFmpeg's pixel formats: the type of a sample, and which channel of RGB each of a pixel is.
RAW_FORMATS: dict[str, tuple[str, tuple[int, ...]]] = {
    "rgb24": ("u1", (0, 1, 2)),
    "bgr24": ("u1", (2, 1, 0)),
    "gray": ("u1", (0,)),
    "rgb48le": ("<u2", (0, 1, 2)),
}


@dataclass(frozen=True)
class RawVideo:
    """What a stream of raw frames does not say itself.

    Attributes:
        width: of a frame [px].
        height: the same.
        pixel_format: one of `RAW_FORMATS`.
        rate: frames a second.
    """

    width: int
    height: int
    pixel_format: str = "rgb24"
    rate: Fraction = Fraction(25)

    def __post_init__(self) -> None:
        if not 1 <= self.width * self.height <= DEFAULT_MAX_PIXELS:
            raise OptionError(
                f"rawvideo {self.width}x{self.height}: must have 1 to {DEFAULT_MAX_PIXELS} pixels"
            )
        if self.pixel_format not in RAW_FORMATS:
            raise OptionError(
                f"rawvideo {self.pixel_format}: is none of {', '.join(RAW_FORMATS)}; FFmpeg makes"
                " them with -pix_fmt"
            )
        if self.rate <= 0:
            raise OptionError(f"rawvideo @{self.rate}: must be above 0 frames a second")


def read_raw(file: Readable, raw: RawVideo, *, name: str) -> Iterator[Frame]:
    """Yield the frames of a stream as they are asked for.

    Args:
        file: the stream, whose `read` returns fewer bytes at its end alone.
        raw: what it holds.
        name: what it is called in errors.

    Raises:
        ImageError: if it is empty, ends within a frame, or is Y4M.
    """
    kind, channels = RAW_FORMATS[raw.pixel_format]
    shape = (raw.height, raw.width, len(channels))
    frame_bytes = np.dtype(kind).itemsize * int(np.prod(shape))
    count = 0
    while data := file.read(frame_bytes):
        if count == 0 and data.startswith(Y4M_MAGIC):
            raise ImageError(f"'{name}' is Y4M, which tells its own size; leave out --rawvideo")
        if len(data) < frame_bytes:
            raise ImageError(
                f"'{name}' is cut off behind frame {count}: {len(data)} bytes are left, and a frame"
                f" of {raw.width}x{raw.height}:{raw.pixel_format} has {frame_bytes}; are its size"
                " and format right?"
            )
        samples = np.frombuffer(data, kind).reshape(shape)
        pixels = samples[..., channels * (3 // len(channels))]
        native = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
        yield Frame(count, 1, native, grey=len(channels) == 1)
        count += 1
    if count == 0:
        raise ImageError(f"'{name}' holds no frame")


class RawWriter:
    """Frames → a stream of their pixels."""

    def __init__(self, file: BinaryIO, raw: RawVideo):
        self.file = file
        self.kind, self.channels = RAW_FORMATS[raw.pixel_format]

    def write(self, frame: Frame) -> None:
        """Write a frame at once.

        Raises:
            OSError: if nobody reads any more.
        """
        self.file.write(frame.pixels[..., self.channels].astype(self.kind, copy=False).tobytes())

    def close(self) -> None:
        """Write what the file still holds."""
        self.file.flush()
