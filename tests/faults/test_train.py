"""A training killed at random moments goes on, and ends with the weights of one that was not.

Runs are killed in processes that are forked from one that has loaded everything, so that each kill
falls into the work.
"""

import os
from pathlib import Path

import pytest
from forked import run_script
from tiny_runs import write_images

KILLS = """
import os, random, signal, sys, time
count, data, folder = int(sys.argv[1]), *sys.argv[2:]
from functools import partial
from pathlib import Path
import lightning.pytorch, torch, torchdata
from forked import start
from tiny_runs import assert_same_run, make_recipe, one_thread_of_the_cpu, train
choose, recipe, data = random.Random(0), make_recipe(), Path(data)

def work(run):
    with one_thread_of_the_cpu():
        train(recipe, data=data, run=run)
    assert "tensorflow" not in sys.modules  # which TensorBoard would import

started = time.monotonic()
whole = Path(folder, "whole")
assert os.waitpid(start(partial(work, whole)), 0)[1] == 0
took, killed, number = time.monotonic() - started, 0, 0
while killed < count:
    number += 1
    run = Path(folder, str(number))
    while True:
        pid = start(partial(work, run))
        time.sleep(choose.uniform(0, took))
        os.kill(pid, choose.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        if os.waitpid(pid, 0)[1] == 0:
            break
        killed += 1
        if killed >= count:
            assert os.waitpid(start(partial(work, run)), 0)[1] == 0
            break
    assert_same_run(run, whole)
print(killed, number)
"""


def kill_trainings(count: int, folder: Path) -> None:
    data = write_images(folder / "data")
    printed = run_script(KILLS, count, data, folder)
    assert printed.splitlines()[-1].split()[0] == str(count)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_killed_trainings_end_as_if_they_had_not_been(tmp_path: Path) -> None:
    kill_trainings(int(os.environ.get("FAIRWEATHER_KILLS", "2")), tmp_path)
