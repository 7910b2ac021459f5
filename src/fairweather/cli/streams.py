"""`-`: one image, or the frames of a clip, from standard input or to standard output."""

import contextlib
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairweather.cli.console import err_console, give_up_output, printable
from fairweather.errors import FairweatherError, ImageError, OptionError

if TYPE_CHECKING:
    from fairweather.imaging import ClipOptions, Frame, RawVideo
    from fairweather.restoration import Restorer

STREAM = "-"
RAW = re.compile(r"(\d+)x(\d+)(?::(\w+))?(?:@(\d+(?:\.\d+|/[1-9]\d*)?))?")


def takes_stream(inputs: list[str], *, out: Path | None, others: dict[str, bool]) -> bool:
    """Return whether a standard stream is asked for; refuse what does not go with one.

    Args:
        inputs: what is restored.
        out: where to write; by default standard output, if the input is standard input.
        others: names of options, and whether they are given.
    """
    prints = str(out) == STREAM or (out is None and STREAM in inputs)
    if not prints and STREAM not in inputs:
        return False
    if len(inputs) > 1:
        raise OptionError("-: a standard stream holds one image; leave the other inputs out")
    if clash := next((name for name, given in others.items() if given), None):
        raise OptionError(f"{clash}: does not go with a standard stream (-)")
    if prints and sys.stdout.isatty():
        raise OptionError("standard output is a terminal; name a file with -o, or pipe the image")
    return True


def parse_rawvideo(text: str, inputs: list[str]) -> "RawVideo":
    """Read `WIDTHxHEIGHT[:FORMAT][@RATE]`, which goes with standard input alone."""
    from fairweather.imaging import RawVideo

    if inputs != [STREAM]:
        raise OptionError("--rawvideo: says what standard input holds; name - as the one input")
    match = RAW.fullmatch(text)
    if not match:
        raise OptionError(
            f"--rawvideo {text}: is no size; write WIDTHxHEIGHT, with a pixel format and a rate if"
            " you like, as in 1280x720:rgb24@25"
        )
    width, height, pixel_format, rate = match.groups()
    return RawVideo(int(width), int(height), pixel_format or "rgb24", Fraction(rate or 25))


def restore_stream(
    restorer: "Restorer",
    given: str,
    out: Path | None,
    *,
    raw: "RawVideo | None",
    format: str | None,
    lossless: bool,
    **options: Any,
) -> None:
    """Restore the one image, or the one clip, that is named or comes from standard input.

    Args:
        restorer: what restores.
        given: the input.
        out: where to write.
        raw: what standard input holds, if that is frames without a header.
        format: as for `plan_jobs`; by default that of the image.
        lossless: the same.
        options: of `Restorer.restore_file`.
    """
    from fairweather.imaging import Y4M_MAGIC, is_clip
    from fairweather.restoration import is_sequence, plan_jobs

    prints = out is None or str(out) == STREAM
    head = b"" if raw or given != STREAM else sys.stdin.buffer.read(len(Y4M_MAGIC))
    if raw or head == Y4M_MAGIC or (prints and is_clip(Path(given))):
        if not prints:
            raise OptionError(
                f"{out}: frames from standard input go to standard output; leave out -o, and let"
                " FFmpeg write the file"
            )
        pipe_frames(restorer, given, head, raw=raw, clip=options["clip"])
        return
    if prints and is_sequence(Path(given)):
        raise OptionError(f"{given}: stands for several images; standard output holds one")
    with tempfile.TemporaryDirectory(prefix="fairweather-") as folder:
        source = keep_input(Path(folder), head) if given == STREAM else given
        place = Path(folder, "results") if prints else out
        jobs, failures, _ = plan_jobs([str(source)], out=place, format=format, lossless=lossless)
        if failures:
            raise FairweatherError(failures[0].reason)
        if len(jobs) != 1:
            raise OptionError(f"{given}: stands for {len(jobs)} images; standard output holds one")
        try:
            restored = restorer.restore_file(jobs[0].source, jobs[0].target, **options)
        except ImageError as error:  # a user knows nothing of a file
            raise ImageError(str(error).replace(str(source), given)) from error
        for note in restored.notes:
            err_console.print(printable(f"note: {note}"))
        if prints:
            write_output(restored.target)


def pipe_frames(
    restorer: "Restorer", given: str, head: bytes, *, raw: "RawVideo | None", clip: "ClipOptions"
) -> None:
    """Restore the frames of a clip, and write them to standard output: raw as raw, else as Y4M."""
    from fairweather.imaging import (
        RawWriter,
        Y4mWriter,
        read_clip_facts,
        read_frames,
        read_raw,
        read_y4m,
    )
    from fairweather.restoration import restore_frames

    def begin() -> tuple[Iterator["Frame"], Fraction, RawWriter | Y4mWriter]:
        if raw is not None:
            frames = read_raw(sys.stdin.buffer, raw, name=STREAM)
            return frames, raw.rate, RawWriter(sys.stdout.buffer, raw)
        if given == STREAM:
            facts, frames = read_y4m(Continued(head), clip, name=STREAM)
        else:
            facts = read_clip_facts(Path(given), clip)
            frames = read_frames(Path(given), facts, clip)
        return frames, facts.rate or Fraction(25), Y4mWriter(sys.stdout.buffer, facts)

    try:
        frames, rate, writer = begin()
        with contextlib.closing(writer):
            for frame in restore_frames(restorer, frames, rate=float(rate), calm=clip.calm):
                writer.write(frame)
                sys.stdout.buffer.flush()
    except OSError as error:
        give_up_output(error)


class Continued:
    """Standard input, of which the first bytes have been read."""

    def __init__(self, head: bytes):
        self.head = head

    def read(self, size: int = -1, /) -> bytes:
        """Return as many bytes, or fewer; none at the end."""
        head, self.head = self.head, b""
        return head or sys.stdin.buffer.read(size)


def keep_input(folder: Path, head: bytes) -> Path:
    """Write standard input to a file with the suffix of what it is."""
    from fairweather.imaging import HEAD_BYTES, suffix_of

    head += sys.stdin.buffer.read(HEAD_BYTES - len(head))
    try:
        suffix = suffix_of(head, name=STREAM)
    except ImageError as error:
        if not head:
            raise
        raise ImageError(
            f"{error}; a clip comes as Y4M, or as raw frames with --rawvideo WIDTHxHEIGHT"
        ) from error
    path = (folder / "standard-input").with_suffix(suffix)
    with path.open("wb") as file:
        file.write(head)
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def write_output(path: Path) -> None:
    """Write a file to standard output."""
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as error:
        give_up_output(error)
