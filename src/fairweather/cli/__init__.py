"""The `fairweather` command: parse, call, print.

A command imports what it needs when it runs, so that help and refusals come at once.
"""

import io
import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from fairweather.cli.benchmark import benchmark_command
from fairweather.cli.console import counting, err_console, out_console
from fairweather.cli.data import data_check, data_degrade, data_layouts, data_unpack
from fairweather.cli.evaluate import evaluate_command
from fairweather.cli.export import export_command
from fairweather.cli.models import models_convert, models_info, models_list
from fairweather.cli.options import parse_size
from fairweather.cli.restore import restore_command
from fairweather.cli.train import train_command
from fairweather.cli.tune import tune_command
from fairweather.errors import FairweatherError, OptionError, RecipeError

__all__ = ["app", "counting", "main", "parse_size", "run_command"]

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
app.add_typer(models_app, name="models")
data_app = typer.Typer(help="Check, make and describe training data.", no_args_is_help=True)
data_app.command("check")(data_check)
data_app.command("degrade")(data_degrade)
data_app.command("layouts")(data_layouts)
data_app.command("unpack")(data_unpack)
app.add_typer(data_app, name="data")
app.command("benchmark")(benchmark_command)


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


def main() -> None:
    """Run the `fairweather` command."""
    run_command(app)


def run_command(command: Callable[[], object]) -> None:
    """Run a command line; an error of ours becomes one line, without a traceback.

    Args:
        command: parses the arguments and does what they say, as `typer.Typer` does.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleaned up like Ctrl-C
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not every file name can be encoded
            stream.reconfigure(errors="backslashreplace")
    try:
        command()
    except FairweatherError as error:
        err_console.print(f"error: {error}")
        sys.exit(2 if isinstance(error, OptionError | RecipeError) else 1)
