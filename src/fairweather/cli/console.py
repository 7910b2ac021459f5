"""Where the commands print to, and the progress bar that people see."""

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
    """Make a progress bar on standard error, for people only: none is drawn into a file."""
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
    """Show one bar during the block; yield what sets done, total and label."""
    with progress_bar(hidden=hidden) as progress:
        bar = progress.add_task(what, total=total)

        def show(done: int, total: int, what: str | None = None) -> None:
            progress.update(bar, completed=done, total=total, description=what)

        yield show
