"""`-`: one image from standard input, or to standard output."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairweather.cli.console import err_console, give_up_output, printable
from fairweather.errors import FairweatherError, ImageError, OptionError

if TYPE_CHECKING:
    from fairweather.restoration import Restorer

STREAM = "-"


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


def restore_stream(
    restorer: "Restorer",
    given: str,
    out: Path | None,
    *,
    format: str | None,
    lossless: bool,
    **options: Any,
) -> None:
    """Restore the one image that is named or comes from standard input.

    Args:
        restorer: what restores.
        given: the input.
        out: where to write.
        format: as for `plan_jobs`; by default that of the image.
        lossless: the same.
        options: of `Restorer.restore_file`.
    """
    from fairweather.restoration import plan_jobs

    with tempfile.TemporaryDirectory(prefix="fairweather-") as folder:
        reads, prints = given == STREAM, out is None or str(out) == STREAM
        source = keep_input(Path(folder)) if reads else given
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


def keep_input(folder: Path) -> Path:
    """Write standard input to a file with the suffix of what it is."""
    from fairweather.imaging import FORMATS, HEAD_BYTES, format_of

    path = folder / "standard-input"
    with path.open("w+b") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.seek(0)
        told = format_of(file.read(HEAD_BYTES), path=STREAM)
    suffixes = (suffix for suffix, known in FORMATS.items() if known.name == told)
    return path.rename(path.with_suffix(next(suffixes, f".{told.lower()}")))  # such as .jxl


def write_output(path: Path) -> None:
    """Write a file to standard output."""
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
    except OSError as error:
        give_up_output(error)
