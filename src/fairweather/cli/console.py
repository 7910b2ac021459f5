"""Where the commands print to, and the bar that people see while they work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

out_console = Console(soft_wrap=True, highlight=False, markup=False)
err_console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def progress_bar(*, hidden: bool) -> Progress:
    """A bar on standard error with time left, for people only."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err_console,
        transient=True,
        disable=hidden or not err_console.is_terminal,
    )


@contextmanager
def counting(
    what: str = "", *, total: int | None = None, hidden: bool = False
) -> Iterator[Callable[..., None]]:
    """One bar during the block; gives what is told how many are done, of how many, and of what."""
    with progress_bar(hidden=hidden) as progress:
        bar = progress.add_task(what, total=total)

        def show(done: int, total: int, what: str | None = None) -> None:
            progress.update(bar, completed=done, total=total, description=what)

        yield show
