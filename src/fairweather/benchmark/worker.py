"""The process of one contestant: it does one round each time it is told to.

It reads lines from standard input: first its job, then `check` or `round`; it answers each with a
line of JSON on standard output, and ends with its input.
"""

import contextlib
import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any, TextIO

import torch

from fairweather.benchmark.clock import peak_bytes, timed
from fairweather.benchmark.jobs import Job, job_of
from fairweather.benchmark.works import Work, build
from fairweather.errors import FairweatherError
from fairweather.hardware import keep_freed_memory

OOM_SCORE = Path("/proc/self/oom_score_adj")


def main() -> None:
    """Works until the input ends."""
    answers = take_standard_output()
    lines = iter(sys.stdin.readline, "")
    try:
        work = prepare(job_of(next(lines)))
        send(answers, {"note": work.note, "loaded_bytes": peak_bytes()})
        for line in lines:
            send(answers, obey(work, line.strip()))
    except Exception as error:
        known = isinstance(error, FairweatherError)
        if not known:
            traceback.print_exc()
        what = str(error) if known else f"{type(error).__name__}: {error}"
        send(answers, {"error": what, "kind": type(error).__name__ if known else ""})


def take_standard_output() -> TextIO:
    """Standard output for answers alone; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def prepare(job: Job) -> Work:
    """Sets the process up for a job."""
    go_first_when_memory_ends()
    if job.allocator == "fairweather":
        keep_freed_memory()
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    return build(job)


def go_first_when_memory_ends() -> None:
    """Lets Linux end this process rather than another one; what it does can be done again."""
    with contextlib.suppress(OSError):
        OOM_SCORE.write_text("1000", encoding="ascii")


def obey(work: Work, order: str) -> dict[str, Any]:
    """Does what a line says."""
    if order == "round":
        return dataclasses.asdict(timed(work.round))
    work.check()
    return {}


def send(answers: TextIO, answer: dict[str, Any]) -> None:
    """Writes a line."""
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
