"""Conversions and exports killed at random moments leave the old file, the new one or none.

Runs are killed in processes that are forked from one that has loaded everything, so that each kill
falls into the work.
"""

import os
from pathlib import Path

import pytest
from forked import run_script
from tiny_sets import FEWEST_OPERATIONS, write_weights

KILLS = """
import os, random, signal, sys, time
count, folder = int(sys.argv[1]), sys.argv[2]
os.chdir(folder)
import torch
torch.set_num_threads(1)
import fairweather.export
from fairweather.models import load_model
from forked import start_command
torch.export.export(torch.nn.Linear(1, 1), (torch.ones(1, 1),))  # loads what an export needs
choose = random.Random(0)
COMMANDS = [
    ("models", "convert", "mine.safetensors", "new.pth", "--to", "official", "--overwrite"),
    ("models", "convert", "mine.safetensors", "new.safetensors", "--overwrite"),
    ("export", "mine.safetensors", "new.pt2", "--to", "torch", "--overwrite"),
]

killed = 0
for command in COMMANDS:
    name = command[3] if command[0] == "models" else command[2]
    started = time.monotonic()
    assert os.waitpid(start_command(*command), 0)[1] == 0, command
    took = time.monotonic() - started
    for number in range(count):
        if number % 2:
            open(name, "wb").write(b"what was there before")
        elif os.path.exists(name):
            os.unlink(name)
        pid = start_command(*command)
        time.sleep(choose.uniform(0, took))
        os.kill(pid, choose.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        killed += os.waitpid(pid, 0)[1] != 0
        if os.path.exists(name) and open(name, "rb").read(21) != b"what was there before":
            if command[0] == "models":
                load_model(name)
            else:
                torch.export.load(name)
    assert os.waitpid(start_command(*command), 0)[1] == 0, command
    left = [one for one in os.listdir() if one.startswith(".")]
    assert not left, left
print(killed)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals are others there")
def test_killed_conversions_leave_whole_files(tmp_path: Path) -> None:
    write_weights(tmp_path / "mine.safetensors", strength=0.3, config=FEWEST_OPERATIONS)
    count = os.environ.get("FAIRWEATHER_KILLS", "2")
    assert int(run_script(KILLS, count, tmp_path)) > 0
