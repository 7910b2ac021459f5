"""The service under twice the load that it can bear: what it answers, how fast, in what memory."""

import asyncio
import collections
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import psutil
import typer
from PIL import Image

from fairweather import Restorer
from fairweather.hardware import map_in_threads, use_threads
from laboratory.load import SIZES, encoded, make_photos, order
from laboratory.pages import RESULTS, write_facts

PAGE = RESULTS / "serving.md"
COMMAND = "from fairweather.cli import main; main()"
QUANTILES = (0.5, 0.9, 0.99)

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


def alone(photos: list[np.ndarray], seconds: float) -> tuple[float, list[np.ndarray]]:
    """Measure the Restorer without a service, decoding and encoding included.

    Returns:
        How many megapixels it restores a second, and its results.
    """
    restorer = Restorer("rain", device="cpu")

    def work(file: bytes) -> np.ndarray:
        with Image.open(io.BytesIO(file)) as image:
            result = restorer.restore_pixels(np.asarray(image))
        encoded(result)
        return result

    files = [encoded(photo) for photo in photos]
    results = list(map(work, files))
    started = time.perf_counter()

    def given() -> Iterator[bytes]:
        for index in order():
            if time.perf_counter() - started > seconds:
                return
            yield files[index]

    done = map_in_threads(work, given(), workers=restorer.at_once(), ordered=False)
    pixels = sum(result[..., 0].size for result in done)
    return pixels / 1e6 / (time.perf_counter() - started), results


class Load:
    """What clients send, and what they get.

    Attributes:
        statuses: how often each was answered.
        seconds: of each accepted request, from its first byte to the last of the answer.
        megapixels: of accepted requests.
        wrong: accepted answers with other pixels than the Restorer's.
    """

    def __init__(self, url: str, photos: list[np.ndarray], results: list[np.ndarray]):
        self.url = url
        self.files = [encoded(photo) for photo in photos]
        self.results = results
        self.statuses: collections.Counter[int] = collections.Counter()
        self.seconds: list[float] = []
        self.wrong = 0
        self.megapixels = 0.0

    async def run(self, *, rate: float, seconds: float) -> None:
        """Send photographs at a rate [megapixels a second], whatever becomes of those before."""
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(timeout=600, limits=limits) as client:
            tasks = []
            begun = time.perf_counter()
            due = 0.0
            for index in order():
                await asyncio.sleep(max(0.0, begun + due - time.perf_counter()))
                if due > seconds:
                    break
                tasks.append(asyncio.create_task(self.send(client, index)))
                due += self.results[index][..., 0].size / 1e6 / rate
            await asyncio.gather(*tasks)

    async def send(self, client: httpx.AsyncClient, index: int) -> None:
        """Send one."""
        begun = time.perf_counter()
        answer = await client.post(f"{self.url}/v1/restore", content=self.files[index])
        self.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            self.megapixels += self.results[index][..., 0].size / 1e6
            self.seconds.append(time.perf_counter() - begun)
            with Image.open(io.BytesIO(answer.content)) as image:
                self.wrong += not np.array_equal(np.asarray(image), self.results[index])


def start(folder: str, threads: int, queue: int) -> tuple[subprocess.Popen[str], str]:
    """Start a service, and wait until it is ready."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", COMMAND, "serve", "--port", "0", "--no-page"),
            *("--device", "cpu", "--folder", folder, "--threads", str(threads)),
            *("--queue", str(queue)),
        ],
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    assert process.stderr
    url = ""
    for line in process.stderr:
        if found := re.search(r"running on (http://\S+)", line):
            url = found[1]
        if '"ready"' in line:
            return process, url
    raise SystemExit("the service did not start")


async def measure(process: subprocess.Popen[str], load: Load, rate: float, seconds: float) -> Any:
    """Load a service; return its memory, as (second, bytes)."""
    memory: list[tuple[float, int]] = []
    asked, begun = psutil.Process(process.pid), time.perf_counter()

    async def watch() -> None:
        while True:
            memory.append((time.perf_counter() - begun, asked.memory_info().rss))
            await asyncio.sleep(0.5)

    async def drain() -> None:
        assert process.stderr
        while await asyncio.to_thread(process.stderr.readline):
            continue

    tasks = [asyncio.create_task(watch()), asyncio.create_task(drain())]
    await load.run(rate=rate, seconds=seconds)
    took = time.perf_counter() - begun
    process.terminate()
    for task in tasks:
        task.cancel()
    return memory, took


@app.command()
def main(
    *,
    seconds: Annotated[float, typer.Option(help="Of load.")] = 180,
    alone_seconds: Annotated[float, typer.Option(help="Of the Restorer alone.")] = 45,
    threads: Annotated[int, typer.Option(help="On the CPU.")] = 2,
    queue: Annotated[int, typer.Option(help="Of the service.")] = 16,
    page: Annotated[Path, typer.Option(help="Where to write.")] = PAGE,
) -> None:
    """Measure the service under load, and write docs/results/serving.md."""
    use_threads(threads)
    photos = make_photos()
    rate_alone, results = alone(photos, alone_seconds)
    with tempfile.TemporaryDirectory() as folder:
        process, url = start(folder, threads, queue)
        load = Load(url, photos, results)
        memory, took = asyncio.run(measure(process, load, 2 * rate_alone, seconds))
        status = process.wait(600)
    minute = seconds / 3
    first = [held for at, held in memory if minute / 2 < at <= 1.5 * minute]
    last = [held for at, held in memory if seconds - minute < at <= seconds]
    quantiles = np.quantile(load.seconds, QUANTILES)
    rows = [
        ("megapixels a second, Restorer alone", f"{rate_alone:.3f}"),
        ("megapixels a second, service under load", f"{load.megapixels / took:.3f}"),
        ("share of the Restorer alone", f"{load.megapixels / took / rate_alone:.1%}"),
        *((f"answers with {code}", str(count)) for code, count in sorted(load.statuses.items())),
        ("accepted answers with other pixels", str(load.wrong)),
        *(
            (f"seconds of an accepted request, {share:.0%} of them within", f"{value:.1f}")
            for share, value in zip(QUANTILES, quantiles, strict=True)
        ),
        ("mean memory in the first third after the warm-up", f"{np.mean(first) / 2**20:.0f} MiB"),
        ("mean memory in the last third", f"{np.mean(last) / 2**20:.0f} MiB"),
        ("the second over the first", f"{np.mean(last) / np.mean(first):.3f}"),
        ("exit status after SIGTERM", str(status)),
    ]
    write_facts(
        page,
        "The service under load",
        f"`python benchmarks/serving.py --seconds {seconds:g} --threads {threads} --queue {queue}`"
        f" writes this page. A process on the loopback asks for {seconds:g} s for twice as many"
        f" megapixels as the Restorer alone restores in {threads} threads, whatever has become of"
        f" those before: PNG files in synthetic rain, longer sides of {', '.join(map(str, SIZES))}"
        " px in mixed order. The client shares the processor with the service.",
        rows,
    )


if __name__ == "__main__":
    app()
