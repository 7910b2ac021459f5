"""Where the `fairweather` command begins."""

import _thread
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FunctionType

INTERRUPT_AGAIN_S = 0.01


def main() -> None:
    """Run the `fairweather` command."""
    with interrupts_kept():
        try:
            from fairweather.cli.commands import app, run_command
        except KeyboardInterrupt:  # as a later one ends
            sys.exit(128 + signal.SIGINT)
        run_command(app)


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Interrupt the main thread again where Python loses an interrupt.

    What is raised in a weak reference's callback or in `__del__` cannot leave it: Python prints it
    and goes on, and a Ctrl-C or SIGTERM that falls there would stop nothing.
    """
    report = sys.unraisablehook

    def hook(lost: "sys.UnraisableHookArgs", /) -> None:
        if not isinstance(lost.exc_value, KeyboardInterrupt):
            report(lost)
            return
        # By one that Python handles: nohup, for one, leaves Ctrl-C ignored.
        kinds = [getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP")]
        kind = next((each for each in kinds if each and callable(signal.getsignal(each))), None)
        if kind is not None:
            with suppress(RuntimeError):  # Python starts no more threads and is about to end
                # From a thread of its own and afterwards, for here it would be lost once more.
                threading.Thread(target=interrupt_after, args=(hook, kind)).start()

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = report


def interrupt_after(hook: FunctionType, kind: signal.Signals) -> None:
    """Interrupt the main thread once a function has ended there."""
    while True:
        time.sleep(INTERRUPT_AGAIN_S)
        frame = sys._current_frames().get(threading.main_thread().ident or 0)
        while frame is not None and frame.f_code is not hook.__code__:
            frame = frame.f_back
        if frame is None:
            interrupt(kind)
            return


def interrupt(kind: signal.Signals) -> None:
    """Send a signal to the main thread, which wakes it where it waits."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, kind)
    else:
        _thread.interrupt_main(kind)
