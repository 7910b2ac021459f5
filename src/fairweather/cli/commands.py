"""The command line as a whole: its commands, and what all of them share.

A command imports what it needs when it runs, so that help and refusals come at once.
"""

import io
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from fairweather.cli.benchmark import benchmark_command
from fairweather.cli.bulk import bulk_command
from fairweather.cli.console import err_console, give_up_output, out_console
from fairweather.cli.data import data_check, data_degrade, data_layouts, data_pack, data_unpack
from fairweather.cli.evaluate import evaluate_command
from fairweather.cli.export import export_command
from fairweather.cli.models import models_convert, models_info, models_list, models_precision
from fairweather.cli.restore import restore_command
from fairweather.cli.serve import serve_command
from fairweather.cli.train import train_command
from fairweather.cli.tune import tune_command
from fairweather.errors import FairweatherError, OptionError, RecipeError

SIGNALLED = 128  # and the signal's number is the exit status, as shells have it

app = typer.Typer(
    name="fairweather",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("restore")(restore_command)
app.command("train")(train_command)
app.command("tune")(tune_command)
app.command("evaluate")(evaluate_command)
app.command("export")(export_command)
models_app = typer.Typer(
    help="List, describe and convert networks and their weights.", no_args_is_help=True
)
models_app.command("list")(models_list)
models_app.command("info")(models_info)
models_app.command("convert")(models_convert)
models_app.command("precision")(models_precision)
app.add_typer(models_app, name="models")
data_app = typer.Typer(help="Check, make and describe training data.", no_args_is_help=True)
data_app.command("check")(data_check)
data_app.command("degrade")(data_degrade)
data_app.command("layouts")(data_layouts)
data_app.command("pack")(data_pack)
data_app.command("unpack")(data_unpack)
app.add_typer(data_app, name="data")
app.command("benchmark")(benchmark_command)
app.command("serve")(serve_command)
app.command("bulk")(bulk_command)


@app.callback(invoke_without_command=True)
def root(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Restore photographs spoiled by rain, raindrops, haze, snow, shadows or moiré."""
    if version:
        from fairweather import __version__

        out_console.print(__version__)
        raise typer.Exit


def run_command(command: Callable[[], object]) -> None:
    """Run a command line; an error of ours becomes one line, without a traceback.

    Args:
        command: parses the arguments and does what they say, as `typer.Typer` does.
    """
    open_standard_streams()
    received: list[int] = []  # signals

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        kind = getattr(signal, name, None)
        if kind is not None and signal.getsignal(kind) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(kind, interrupt)
    try:
        refuse_empty(sys.argv[1:])
        command()
    except FairweatherError as error:
        # What goes on in a further line is indented, so that no name can forge one.
        err_console.print(f"error: {error}".replace("\n", "\n  "))
        sys.exit(2 if isinstance(error, OptionError | RecipeError) else 1)
    except KeyboardInterrupt:
        sys.exit(SIGNALLED + (received or [signal.SIGINT])[0])
    except SystemExit as stop:  # typer and Lightning each have a status of their own
        if stop.code and received:
            sys.exit(SIGNALLED + received[0])
        raise
    finally:  # what could not be printed is still there, and fails again
        try:
            sys.stdout.flush()
        except OSError as error:
            give_up_output(error)


def open_standard_streams() -> None:
    """Make every standard stream writable: closed ones (`>&-`) lead nowhere.

    Otherwise the next file that is opened would take their number, and what is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every file name can be encoded
            stream.reconfigure(errors="backslashreplace")


def refuse_empty(arguments: list[str]) -> None:
    """Refuse an empty argument, which would stand for the current folder."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if not argument or re.fullmatch(r"--[\w-]+=", argument):
            place = argument or before or "the first argument"
            raise OptionError(f"{place}: an argument is empty; is a variable of a script not set?")
