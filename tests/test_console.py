"""What is printed: text and nothing else, wherever it comes from; and where it goes."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command import Run
from tiny_sets import write_weights

NAME = "a\x1b[31m:car:[red]b[red]\r\x07\x9b\u202ec"
SHOWN = r"a\x1b[31m:car:[red]b[red]\r\x07\x9b\u202ec"
FAIRWEATHER = [sys.executable, "-m", "fairweather"]


def test_names_are_printed_as_text(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("restore", f"{NAME}.png", "--device", "cpu")
    assert done.err.startswith(f"failed: '{SHOWN}.png' ")


def test_so_they_are_in_tables(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    write_weights(Path(f"{NAME}.safetensors"), strength=0.3)
    done = run("models", "info", f"{NAME}.safetensors")
    assert done.status == 0
    assert f"{SHOWN}.safetensors" in done.out
    assert "\x1b" not in done.out


def test_a_line_stays_one_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("restore", "a\nerror: b\tc é 日本 👩\u200d🚀.png", "--device", "cpu")
    assert done.err.splitlines()[0].startswith(
        r"failed: 'a\nerror: b\tc é 日本 👩" + "\u200d🚀.png' "
    )


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


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(("kernel", "escapes"), [("", True), ("1", False)])
def test_a_notebook_gets_no_escape_codes(kernel: str, escapes: bool) -> None:
    """It gives commands a terminal, and keeps what they would redraw."""
    screen, terminal = os.openpty()
    environment = {**os.environ, "TERM": "xterm-color", "JPY_PARENT_PID": kernel}
    if not kernel:
        del environment["JPY_PARENT_PID"]
    text = b""
    with subprocess.Popen([*FAIRWEATHER, "models", "list"], stdout=terminal, env=environment):
        os.close(terminal)
        with contextlib.suppress(OSError):  # as the end of a pseudo-terminal is told on Linux
            while part := os.read(screen, 1 << 16):
                text += part
    os.close(screen)
    assert b"ast_n" in text
    assert (b"\x1b" in text) is escapes
