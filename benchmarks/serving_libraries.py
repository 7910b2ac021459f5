"""Our service beside the same work on LitServe and on Ray Serve, in one run."""

import base64
import concurrent.futures
import contextlib
import io
import itertools
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import httpx
import numpy as np
import psutil
import typer
from PIL import Image

from fairweather import Restorer
from fairweather.hardware import keep_freed_memory, use_threads
from laboratory.load import SIZES, encoded, make_photos, order
from laboratory.machine import memory_of
from laboratory.pages import RESULTS, line_of, machine_line

PAGE = RESULTS / "serving-libraries.md"
COMMAND = "from fairweather.cli import main; main()"
CLIENTS = 8
TILE_PX = 256
BATCHES = (1, 2, 4, 8)

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


class Service:
    """A service in processes of its own.

    Attributes:
        name: what the page calls it.
        command: that starts it, with its port in place of `PORT`.
        path: of its address, where photographs are posted.
        packed: whether it takes JSON with Base64, as LitServe does, and not bytes.
    """

    def __init__(self, name: str, command: list[str], path: str, *, packed: bool = False):
        self.name = name
        self.command = command
        self.path = path
        self.packed = packed

    @contextlib.contextmanager
    def running(self, photo: bytes) -> Iterator[tuple[str, psutil.Process, float]]:
        """Start it; yield its address, its process, and after how many seconds it restored."""
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        url = f"http://127.0.0.1:{port}{self.path}"
        command = [word.replace("PORT", str(port)) for word in self.command]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}
        begun = time.perf_counter()
        with subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            cwd=Path(__file__).parent,
        ) as process:
            try:
                while not self.answers(url, photo):
                    if process.poll() is not None:
                        raise SystemExit(f"{self.name} did not start: {' '.join(command)}")
                    time.sleep(0.1)
                yield url, psutil.Process(process.pid), time.perf_counter() - begun
            finally:
                end(psutil.Process(process.pid))

    def answers(self, url: str, photo: bytes) -> bool:
        """Return whether it restores a photograph."""
        with contextlib.suppress(httpx.HTTPError):
            return self.post(url, photo).status_code == 200
        return False

    def post(self, url: str, photo: bytes) -> httpx.Response:
        """Send a photograph."""
        if self.packed:
            return httpx.post(url, json={"photo": base64.b64encode(photo).decode()}, timeout=600)
        return httpx.post(url, content=photo, timeout=600)


def end(process: psutil.Process) -> None:
    """End a service, and what it leaves behind."""
    started = process.children(recursive=True)
    process.terminate()
    for left in psutil.wait_procs([process, *started], timeout=60)[1]:
        left.kill()


def services(threads: int) -> list[Service]:
    """Return what is compared: each restores on as many cores."""
    ours = [sys.executable, "-c", COMMAND, "serve", "--no-page", "--device", "cpu"]
    theirs = [sys.executable, "-m", "laboratory.on_litserve"]
    many = str(threads)
    return [
        Service("ours, threads", [*ours, "--threads", many, "--port", "PORT"], "/v1/restore"),
        Service(
            "LitServe",
            [*theirs, "--port", "PORT", "--workers", many],
            "/predict",
            packed=True,
        ),
        Service(
            "ours on Ray Serve (`--ray`)",
            [*ours, "--ray", "--replicas", many, "--port", "PORT"],
            "/v1/restore",
        ),
    ]


class Clients:
    """Clients that send the next photograph when the last has been answered.

    Attributes:
        seconds: of each request.
        megapixels: answered.
        wrong: answers that are no restored photograph of ours.
    """

    def __init__(self, files: list[bytes], results: list[np.ndarray]):
        self.files = files
        self.results = results
        self.seconds: list[float] = []
        self.megapixels = 0.0
        self.wrong = 0
        self.lock = threading.Lock()

    def run(self, service: Service, url: str, *, seconds: float) -> float:
        """Send for some time, in a fixed order; return how long it took."""
        turns = order()
        begun = time.perf_counter()

        def work() -> None:
            while time.perf_counter() - begun < seconds:
                with self.lock:
                    index = next(turns)
                sent = time.perf_counter()
                answer = service.post(url, self.files[index])
                took = time.perf_counter() - sent
                right = answer.status_code == 200 and self.is_right(answer.content, index)
                with self.lock:
                    self.seconds.append(took)
                    self.wrong += not right
                    self.megapixels += right * self.results[index][..., 0].size / 1e6

        with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
            for done in [pool.submit(work) for _ in range(CLIENTS)]:
                done.result()
        return time.perf_counter() - begun

    def is_right(self, data: bytes, index: int) -> bool:
        """Return whether an answer has the pixels of the Restorer."""
        with Image.open(io.BytesIO(data)) as image:
            return np.array_equal(np.asarray(image), self.results[index])


def measure(service: Service, clients: Clients, seconds: float) -> dict[str, float]:
    """Start a service, load it, end it; return figures."""
    with service.running(clients.files[0]) as (url, process, ready):
        took = clients.run(service, url, seconds=seconds)
        memory = memory_of(process)
    return {"rate": clients.megapixels / took, "ready": ready, "memory": memory}


def time_batches(restorer: Restorer, seconds: float) -> dict[int, float]:
    """Return the seconds for a tile where so many go through the network together, in turns."""
    engine = restorer.engine
    assert engine is not None
    tiles = np.random.default_rng(0).random((max(BATCHES), TILE_PX, TILE_PX, 3), np.float32)
    found: dict[int, list[float]] = {size: [] for size in BATCHES}
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or not all(found.values()):
        for size in BATCHES:
            started = time.perf_counter()
            engine(tiles[:size])
            found[size].append((time.perf_counter() - started) / size)
    return {size: statistics.median(times) for size, times in found.items()}


@app.command()
def compare(
    *,
    seconds: Annotated[float, typer.Option(help="Of load, for each service and round.")] = 60,
    rounds: Annotated[int, typer.Option(help="In turns.")] = 2,
    threads: Annotated[int, typer.Option(help="Cores to restore on.")] = 2,
    page: Annotated[Path, typer.Option(help="Where to write.")] = PAGE,
) -> None:
    """Compare the services, and write docs/results/serving-libraries.md."""
    use_threads(1)
    keep_freed_memory()
    restorer = Restorer("rain", device="cpu")
    photos = make_photos()
    files = [encoded(photo) for photo in photos]
    results = [restorer.restore_pixels(photo) for photo in photos]
    batches = time_batches(restorer, 20)
    del restorer
    kinds = services(threads)
    loads = {one.name: Clients(files, results) for one in kinds}
    figures: dict[str, list[dict[str, float]]] = {one.name: [] for one in kinds}
    for _, service in itertools.product(range(rounds), kinds):
        load = loads[service.name]
        load.megapixels = 0.0
        figures[service.name].append(measure(service, load, seconds))
    rows = [
        line_of("", "MP/s", "s, half within", "s, 95% within", "MiB", "s to the first", "wrong"),
        "|---" + "|---:" * 6 + "|",
    ]
    for name, found in figures.items():
        load = loads[name]
        half, most = np.quantile(load.seconds, (0.5, 0.95))
        mean = {key: statistics.mean(one[key] for one in found) for key in found[0]}
        cells = (f"{mean['rate']:.3f}", f"{half:.1f}", f"{most:.1f}")
        memory, ready = f"{mean['memory'] / 2**20:.0f}", f"{mean['ready']:.1f}"
        rows.append(line_of(name, *cells, memory, ready, str(load.wrong)))
    together = ", ".join(f"{size}: {took * 1000:.0f} ms" for size, took in batches.items())
    command = f"python benchmarks/serving_libraries.py --seconds {seconds:g} --rounds {rounds}"
    page.write_text(
        "# Services beside each other\n\n"
        f"`{command} --threads {threads}`, with LitServe installed, writes this page. {CLIENTS}"
        " clients on the loopback send PNG files in synthetic rain, longer sides of"
        f" {', '.join(map(str, SIZES))} px in mixed order, and the next when the last is answered."
        f" Each service restores with `rain` on {threads} cores, one photograph each; they run in"
        " turns. Memory is that of all processes of a service, shared pages counted once.\n\n"
        f"{machine_line()}\n\n" + "\n".join(rows) + "\n\n"
        f"A tile of {TILE_PX} px on one core, by how many go through the network together:"
        f" {together}.\n",
        "utf-8",
    )
    typer.echo(page.read_text("utf-8"))


if __name__ == "__main__":
    app()
