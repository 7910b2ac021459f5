"""The commands of docs/training-at-scale.md: as many processes as they name, the weights of one."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from object_store import Store
from tiny_runs import QUIET, assert_close, one_thread_of_the_cpu, train, weights_in, write_images
from two_processes import (
    BATCH,
    STEPS,
    STOPPED_AT,
    TOLERANCE,
    assert_same_as_alone,
    make_recipe,
    save_recipe,
    trained_on,
    write_script,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/training-at-scale.md").read_text("utf-8")
PAIRS = 5  # to train on

pytestmark = [
    *QUIET,
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="torchrun with c10d, Slurm and bash are of Linux"),
]


def command_of_the_page(begins: str, /, **changes: object) -> list[str]:
    """The only command that begins so, with words changed; each word has to be there."""
    (line,) = (line for line in PAGE.splitlines() if line.startswith(begins))
    words = shlex.split(line)
    for before, after in {
        "rain_n": changes.pop("recipe", None),
        "s3://bucket/set": changes.pop("data", None),
        "/shared/runs/rain_n": changes.pop("run", None),
        **changes,
    }.items():
        if after is not None:
            assert before in words, before
            words[words.index(before)] = str(after)
    return words


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | more


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pairs, of which three are held out."""
    return write_images(tmp_path_factory.mktemp("data"), clean=0, pairs=8)


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process on the plain folder."""
    run = tmp_path_factory.mktemp("alone")
    with one_thread_of_the_cpu():
        train(make_recipe(each_once=True), data=data, run=run)
    return run


def run_on_two_machines(
    folder: Path, *, store: Store, run: Path, stop_at: int | None = None
) -> list[int]:
    """The page's torchrun, twice at a time; return the statuses."""
    script = write_script(folder, stop_at=stop_at)
    words = command_of_the_page(
        "torchrun ",
        recipe=save_recipe(make_recipe(each_once=True), folder),
        run=run,
        **{
            "--nproc-per-node=4": "--nproc-per-node=1",
            "--rdzv-endpoint=machine-1:29500": f"--rdzv-endpoint=127.0.0.1:{free_port()}",
            "--no-python": "--no-python",
            "fairweather": script,
        },
    )
    words[words.index("--no-python")] = "--rdzv-conf=join_timeout=300"
    words = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
    agents = [
        subprocess.Popen(
            [*words, "--cache", str(folder / f"cache-{machine}")],
            env=environment(**store.environment),
        )
        for machine in range(2)
    ]
    return [agent.wait(300) for agent in agents]


def test_two_machines_train_from_an_object_store_as_one_does_from_a_folder(
    data: Path, alone: Path, tmp_path: Path
) -> None:
    pytest.importorskip("moto", reason="NOT TESTED: training from S3, as moto is not installed")
    pytest.importorskip("s3fs", reason="NOT TESTED: training from S3, as s3fs is not installed")
    import boto3

    store, run = Store(), tmp_path / "run"
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=store.address, **keys).create_bucket(Bucket="bucket")
    words = command_of_the_page("fairweather data pack", DATA=data)
    subprocess.run(words, env=environment(**store.environment), check=True)

    stopped = run_on_two_machines(tmp_path, store=store, run=run, stop_at=STOPPED_AT)
    assert 0 not in stopped
    assert torch.load(run / "stage-0/last.ckpt", weights_only=True)["global_step"] == 10
    before = trained_on(tmp_path)
    (tmp_path / "told").unlink()
    assert run_on_two_machines(tmp_path, store=store, run=run) == [0, 0]
    assert_same_as_alone(run, alone)
    starts = json.loads((run / "starts.json").read_text())
    assert [(start["devices"], start["nodes"]) for start in starts] == [(1, 2), (1, 2)]
    assert store.gets.count("/bucket/set/000000.tar") == 2  # by each machine once
    after = trained_on(tmp_path)
    assert {step for step, *_ in before} == set(range(STOPPED_AT))
    assert {step for step, *_ in after} == set(range(10, STEPS))
    assert_each_pair_once([one for one in before if one[0] < 10] + after)
    assert sorted(one for one in before if one[0] >= 10) == sorted(
        one for one in after if one[0] < STOPPED_AT
    )


def assert_each_pair_once(batches: list[tuple[int, list[int], list[int]]]) -> None:
    """Each crop once in all, and each pair once in each epoch."""
    numbers = [number for _, some, _ in batches for number in some]
    assert sorted(numbers) == list(range(STEPS * BATCH))
    indices = [index for _, _, some in batches for index in some]
    used = Counter((n // PAIRS, index) for n, index in zip(numbers, indices, strict=True))
    epochs = range(STEPS * BATCH // PAIRS)
    assert used == Counter((epoch, index) for epoch in epochs for index in range(PAIRS))


SLURM = {
    "scontrol": """case "$1" in
show) echo "$SLURM_JOB_NODELIST" ;;
*) echo "$@" >> "$TOLD" ;;
esac""",
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"',
}


def start_slurm(folder: Path, *, steps: int, data: Path, run: Path) -> subprocess.Popen[bytes]:
    """The job of the page, on one node with two processes."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    for name, text in SLURM.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    recipe = save_recipe(make_recipe(steps=steps, each_once=True), folder)
    words = command_of_the_page("sbatch ", recipe=recipe, data=data, run=run)
    assert words[3] == "deploy/train.slurm"
    told = environment(
        SLURM_JOB_ID="7",
        SLURM_JOB_NODELIST="localhost",
        SLURM_JOB_NUM_NODES="1",
        PROCESSES_PER_NODE="2",
        RDZV_PORT=str(free_port()),
        TOLD=str(folder / "told"),
    )
    told["PATH"] = f"{programs}:{told['PATH']}"
    more = ["--cache", str(folder / "cache")]
    return subprocess.Popen(["bash", str(ROOT / words[3]), *words[4:], *more], env=told)


def test_the_script_for_slurm(data: Path, alone: Path, tmp_path: Path) -> None:
    job = start_slurm(tmp_path, steps=STEPS, data=data, run=tmp_path / "run")
    assert job.wait(300) == 0
    assert_same_as_alone(tmp_path / "run", alone)
    assert not (tmp_path / "told").exists()


def test_the_script_for_slurm_puts_the_job_back_before_its_time_is_over(
    data: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = start_slurm(tmp_path, steps=10**6, data=data, run=run)
    while not (run / "stage-0/last.ckpt").exists():
        assert job.poll() is None
        time.sleep(0.1)
    job.send_signal(signal.SIGTERM)
    assert job.wait(300) == 0
    assert (tmp_path / "told").read_text() == "requeue 7\n"
    assert torch.load(run / "stage-0/last.ckpt", weights_only=True)["global_step"] > 0


@pytest.mark.usefixtures("alone_with_ray")
def test_the_script_for_ray_train(data: Path, alone: Path, tmp_path: Path) -> None:
    recipe, run = save_recipe(make_recipe(each_once=True), tmp_path), tmp_path / "run"
    changes = {"8": "2", "--gpu": "--cpus=0.5", "python": sys.executable}
    words = command_of_the_page("python examples/", recipe=recipe, data=data, run=run, **changes)
    words += ["--cache", str(tmp_path / "cache")]
    subprocess.run(words, cwd=ROOT, env=environment(), check=True, timeout=400)
    for name in ("last.ckpt", "best.ckpt"):
        weights, expected = (weights_in(one / "stage-0" / name) for one in (run, alone))
        assert_close(weights, expected, atol=TOLERANCE)
    (start,) = json.loads((run / "starts.json").read_text())
    assert (start["devices"], start["nodes"]) == (2, 1)
