"""What is printed: text and nothing else, wherever it comes from; and where it goes."""

import io
import os
import subprocess
import sys

import pytest
from rich.table import Table

from fairweather.cli.console import PlainConsole, printable

NAME = "a\x1b[31m:car:[red]b[/red]\r\x07\x9b\u202ec"
SHOWN = r"a\x1b[31m:car:[red]b[/red]\r\x07\x9b\u202ec"
FAIRWEATHER = [sys.executable, "-m", "fairweather"]


@pytest.mark.parametrize("in_table", [False, True])
def test_names_are_printed_as_text(*, in_table: bool) -> None:
    screen = io.StringIO()
    console = PlainConsole(file=screen, width=200, soft_wrap=True, highlight=False)
    table = Table("name")
    table.add_row(NAME)
    console.print(table if in_table else NAME)
    assert SHOWN in screen.getvalue()
    assert "\x1b" not in screen.getvalue()


def test_a_line_stays_one_line() -> None:
    assert printable("failed: a\nerror: b\tc é 日本 👩‍🚀") == r"failed: a\nerror: b\tc é 日本 👩‍🚀"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("words", ["models list --json", "--version"])
def test_output_that_cannot_be_written_is_one_line(words: str) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = subprocess.run(
            [*FAIRWEATHER, *words.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output cannot be written: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("words", ["models list", "--version"])
def test_an_output_that_nobody_reads_ends_quietly(words: str) -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [*FAIRWEATHER, *words.split()], stdout=write, stderr=subprocess.PIPE, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX closes streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_closed_streams_do_no_harm(closed: str) -> None:
    command = f'"{sys.executable}" -m fairweather --version {closed}'
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
