"""How near a clip's pipeline is to the network alone, what encoding costs, and its memory."""

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import skimage.data
import typer
from PIL import Image

from fairweather import Restorer, create_model
from fairweather.benchmark import peak_bytes
from fairweather.cli import parse_size
from fairweather.data import degrade_pixels
from fairweather.hardware import map_in_threads, use_threads
from fairweather.imaging import ClipOptions, read_clip_facts, read_frames
from fairweather.models import ASTConfig, save_model
from laboratory.pages import RESULTS, write_facts

RATE = 25
PAGE = RESULTS / "clips.md"
STREAKS = 8  # different frames of rain, which take turns
# A network that costs next to nothing, since memory is asked over the length of a clip alone.
TINY = ASTConfig(
    embed_dim=1,
    fold=8,
    depths=(1, 1, 1),
    heads=(1, 1, 1),
    mlp_ratio=1.0,
    feed_forward="mlp",
    stochastic_depth=0.0,
)

Rows = list[tuple[str, str]]
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


def make_clip(path: Path, *, frames: int, size: tuple[int, int], rain: bool) -> None:
    """Write a walk over a photograph, with a constant rate and no sound."""
    import av

    height, width = size
    photo = skimage.data.astronaut()
    # Enlarged, since a video camera's frames are softer than a photograph.
    side = max(height, width) + STREAKS
    photo = np.asarray(Image.fromarray(photo).resize((side, side), Image.Resampling.BICUBIC))
    shown = [
        np.ascontiguousarray(photo[at : at + height, at : at + width]) for at in range(STREAKS)
    ]
    if rain:
        shown = [degrade_pixels(one, task="rain", seed=at) for at, one in enumerate(shown)]
    with av.open(str(path), "w") as made:
        options = {"crf": "14", "preset": "veryfast"}
        stream: Any = made.add_stream("libx264", rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(shown[index % STREAKS])
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))


def seconds_of(work: Callable[[], Any]) -> tuple[float, float]:
    """Return how long something takes by the clock, and of the processor."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - processor


def peak_mib(*arguments: Any) -> float:
    """Return the most memory that restoring a clip in a process of its own takes [MiB]."""
    process = multiprocessing.get_context("spawn").Process(target=restore, args=arguments)
    process.start()
    process.join()
    return float(Path(arguments[1]).with_suffix(".peak").read_text())


def restore(source: Path, target: Path, weights: Path, threads: int) -> None:
    """Restore a clip and write down the most memory that it took."""
    use_threads(threads)
    Restorer(weights, device="cpu", levels=0).restore_file(source, target)
    target.with_suffix(".peak").write_text(str(peak_bytes() / 2**20))


def measure_speed(folder: Path, weights: str, *, frames: int, size: str, rounds: int) -> Rows:
    """Return how near a clip is to its frames alone, in turns, and what encoding loses."""
    source, target, options = folder / "a.mp4", folder / "b.mp4", ClipOptions()
    make_clip(source, frames=frames, size=parse_size(size), rain=True)
    restorer = Restorer(weights, device="cpu", levels=0)
    facts = read_clip_facts(source, options)
    given = [frame.pixels for frame in read_frames(source, facts, options)]

    def alone() -> list[np.ndarray]:
        work = map_in_threads(restorer.restore_pixels, given, workers=restorer.at_once())
        return list(work)

    restorer.restore_pixels(given[0])
    alone_s: list[tuple[float, float]] = []
    clip_s: list[tuple[float, float]] = []
    for _ in range(rounds):
        alone_s.append(seconds_of(alone))
        clip_s.append(seconds_of(lambda: restorer.restore_file(source, target, overwrite=True)))
    result = read_frames(target, read_clip_facts(target, options), options)
    errors = [
        float(np.square(one.astype(float) - frame.pixels).mean())
        for one, frame in zip(alone(), result, strict=True)
    ]
    psnr_db = [10 * np.log10(255**2 / error) for error in errors]
    fastest_s = [min(clock for clock, _ in measured) for measured in (alone_s, clip_s)]
    processor_s = [
        statistics.median(processor for _, processor in measured) for measured in (alone_s, clip_s)
    ]
    return [
        ("frames a second, network alone, fastest round", f"{frames / fastest_s[0]:.3f}"),
        ("frames a second, whole clip, fastest round", f"{frames / fastest_s[1]:.3f}"),
        ("processor time a frame, network alone", f"{processor_s[0] / frames:.2f} s"),
        ("processor time a frame, whole clip", f"{processor_s[1] / frames:.2f} s"),
        ("share of the network in it", f"{processor_s[0] / processor_s[1]:.1%}"),
        ("encoded against restored frames, mean PSNR", f"{np.mean(psnr_db):.2f} dB"),
        ("the same, worst frame", f"{min(psnr_db):.2f} dB"),
    ]


def measure_memory(folder: Path, *, size: str, lengths: tuple[int, int], threads: int) -> Rows:
    """Return the most memory that a short and a long clip take."""
    weights = folder / "tiny.safetensors"
    save_model(create_model(TINY), weights)
    peaks = []
    for seconds in lengths:
        source = folder / f"{seconds}.mp4"
        make_clip(source, frames=seconds * RATE, size=parse_size(size), rain=False)
        peaks.append(peak_mib(source, source.with_suffix(".out.mp4"), weights, threads))
    return [
        *(
            (f"peak memory, {seconds} s ({seconds * RATE} frames)", f"{peak:.0f} MiB")
            for seconds, peak in zip(lengths, peaks, strict=True)
        ),
        ("the second over the first", f"{peaks[1] / peaks[0]:.2f}"),
    ]


@app.command()
def main(
    *,
    weights: Annotated[str, typer.Option(help="Bundled weights, or a file.")] = "rain",
    size: Annotated[str, typer.Option(metavar="HxW")] = "720x1280",
    frames: Annotated[int, typer.Option(help="Of the timed clip.")] = 10,
    rounds: Annotated[int, typer.Option(help="Of timing, with and without the clip.")] = 3,
    lengths: Annotated[tuple[int, int], typer.Option(help="Of the clips for memory [s].")] = (
        5,
        60,
    ),
    threads: Annotated[int, typer.Option(help="On the CPU.")] = 2,
    page: Annotated[Path, typer.Option(help="Where to write.")] = PAGE,
) -> None:
    """Measure the pipeline of clips, and write docs/results/clips.md."""
    use_threads(threads)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        rows = measure_speed(folder, weights, frames=frames, size=size, rounds=rounds)
        rows += measure_memory(folder, size=size, lengths=lengths, threads=threads)
    call = f"python benchmarks/clips.py --weights {weights} --size {size} --frames {frames}"
    write_facts(
        page,
        "Clips",
        f"`{call} --rounds {rounds} --threads {threads}` writes this page. H.264 at the default"
        f" quality, {threads} threads. Speed: {frames} frames of {size} in synthetic rain with the"
        f" weights `{weights}`, as a clip and as frames in memory, {rounds} times in turns. The"
        " clock also counts what else the machine does; processor time, of which the medians are"
        " given, does not.\n\n"
        f"Memory: clips of {size} at {RATE} frames a second, each in a process of its own. They go"
        " through a network of a few parameters, since the bundled weights would take more than an"
        " hour for the long one. Those need more memory, but the same for every length.",
        rows,
    )


if __name__ == "__main__":
    app()
