"""The scripts of clusters: the one for Slurm with one node, the one for Kubernetes as data."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from skimage import data
from typer.testing import CliRunner

pytest.importorskip("ray", reason="NOT TESTED: bulk work, because Ray is not installed")

import ray

from fairweather import cli
from fairweather.imaging import Photo, write_image

DEPLOYED = Path(__file__).parents[2] / "deploy"
SLURM = {
    "scontrol": 'echo "$SLURM_JOB_NODELIST"',
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"',
}


@pytest.mark.slow
@pytest.mark.usefixtures("alone_with_ray")
@pytest.mark.skipif(os.name == "nt", reason="Slurm is of Linux")
def test_the_script_for_slurm(tmp_path: Path) -> None:
    programs, source, out = tmp_path / "bin", tmp_path / "in", tmp_path / "out"
    programs.mkdir()
    for name, text in SLURM.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    source.mkdir()
    for index in range(3):
        write_image(source / f"{index}.png", Photo(data.astronaut()[index : index + 80, :90]))
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = str(found.getsockname()[1])
    environment = {
        **os.environ,
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "RAY_PORT": port,
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": ray.util.get_node_ip_address(),
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_CPUS_PER_TASK": "1",
    }
    script = ["bash", str(DEPLOYED / "bulk.slurm"), str(source), str(out), "--device", "cpu"]
    process = subprocess.Popen(script, env=environment, start_new_session=True)
    try:
        assert process.wait(400) == 0
    finally:
        os.killpg(process.pid, 9)  # as Slurm ends what a job has left behind
    assert sorted(path.name for path in out.glob("*.png")) == ["0.png", "1.png", "2.png"]


def test_the_job_for_kubernetes() -> None:
    job = yaml.safe_load((DEPLOYED / "bulk-rayjob.yaml").read_text("utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    words = job["spec"]["entrypoint"].split()
    told = CliRunner().invoke(cli.app, ["bulk", "--help"], terminal_width=200)
    assert words[:2] == ["fairweather", "bulk"]
    assert all(word in told.output for word in words if word.startswith("--"))
    (workers,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    (container,) = workers["template"]["spec"]["containers"]
    cores = workers["replicas"] * int(container["resources"]["limits"]["cpu"])
    assert int(words[words.index("--workers") + 1]) == cores
