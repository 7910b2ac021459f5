"""Where the commands print to, and the progress bar that people see.

What is printed holds names of files, which may be anything: they are text and nothing else.
"""

import contextlib
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from fairweather.hardware import in_notebook

# Control characters but tab and newline, separators of lines, and what turns the writing direction.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)

SPEED_SECONDS = 300  # over which it is measured how fast a bar goes; a large frame takes a minute


def printable(text: str) -> str:
    """Return text with its control characters as escapes, on one line."""
    return _escaped(text).replace("\n", "\\n").replace("\t", "\\t")


def _escaped(text: str) -> str:
    return _UNPRINTABLE.sub(lambda match: ascii(match.group())[1:-1], text)


class PlainConsole(Console):
    """A console that prints text as it is, in tables too, with control characters as escapes."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return text without markup, emoji codes and control characters."""
        plain: dict[str, Any] = {**options, "emoji": False, "markup": False}
        return super().render_str(_escaped(text), **plain)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, or end the process where standard output cannot be written."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            if not self.stderr:
                give_up_output(error)

    def on_broken_pipe(self) -> None:
        """End quietly."""
        give_up_output(BrokenPipeError(errno.EPIPE, ""))


# None lets rich look for a terminal.
_PLAIN: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False, "emoji": False}
_PLAIN["force_terminal"] = False if in_notebook() else None
out_console, err_console = PlainConsole(**_PLAIN), PlainConsole(stderr=True, **_PLAIN)


def table_of(name: str, *heads: str, **options: Any) -> Table:
    """Return a table that cuts nothing: names, its first column, stay whole, the rest is folded."""
    folded = (Column(head, overflow="fold") for head in heads)
    return Table(Column(name, no_wrap=True), *folded, **options)


def counted(number: int, thing: str) -> str:
    """Return `1 photograph`, `2 photographs`."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def print_json(document: Any, *, indent: int | None = None) -> None:
    """Print a document, in one line by default."""
    try:
        sys.stdout.write(json.dumps(document, default=str, indent=indent) + "\n")
    except OSError as error:
        give_up_output(error)


def give_up_output(error: OSError) -> NoReturn:
    """End: nobody reads what is printed, which is quiet, or it cannot be written, which is not."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so that nothing fails again at the end
    if error.errno != errno.EPIPE:
        err_console.print(f"error: standard output cannot be written: {error.strerror}")
    sys.exit(1)


def progress_bar(*, hidden: bool) -> Progress:
    """Make a progress bar on standard error, for people only: none is drawn into a file."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err_console,
        speed_estimate_period=SPEED_SECONDS,
        transient=True,
        disable=hidden or not err_console.is_terminal,
    )


@contextmanager
def counting(
    what: str = "", *, total: int | None = None, hidden: bool = False
) -> Iterator[Callable[..., None]]:
    """Show one bar during the block; yield what sets done, total and label."""
    with progress_bar(hidden=hidden) as progress:
        bar = progress.add_task(what, total=total)

        def show(done: int, total: int, what: str | None = None) -> None:
            progress.update(bar, completed=done, total=total, description=what)

        yield show
