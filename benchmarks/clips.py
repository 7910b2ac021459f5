"""How near a clip's pipeline is to the network alone, what encoding costs, and its memory."""

import multiprocessing
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

from fairweather import Restorer
from fairweather.benchmark import peak_bytes
from fairweather.cli import parse_size
from fairweather.data import degrade_pixels
from fairweather.hardware import map_in_threads, use_threads
from fairweather.imaging import ClipOptions, read_clip_facts, read_frames
from laboratory.pages import RESULTS, write_facts

RATE = 25
PAGE = RESULTS / "clips.md"
STREAKS = 8  # different frames of rain, which take turns

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


def make_clip(path: Path, *, frames: int, size: tuple[int, int]) -> None:
    """Write a walk over a photograph in the rain, with a constant rate and no sound."""
    import av

    height, width = size
    photo = skimage.data.astronaut()
    # Enlarged, since a video camera's frames are softer than a photograph.
    side = max(height, width) + STREAKS
    photo = np.asarray(Image.fromarray(photo).resize((side, side), Image.Resampling.BICUBIC))
    rainy = [
        degrade_pixels(
            np.ascontiguousarray(photo[at : at + height, at : at + width]), task="rain", seed=at
        )
        for at in range(STREAKS)
    ]
    with av.open(str(path), "w") as made:
        stream: Any = made.add_stream("libx264", rate=RATE, options={"crf": "14"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(rainy[index % STREAKS])
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            made.mux(stream.encode(frame))
        made.mux(stream.encode(None))


def seconds_of(work: Callable[[], Any]) -> float:
    """Return how long something takes by the clock."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def restore(source: Path, target: Path, weights: str, threads: int) -> None:
    """Restore a clip in a process of its own."""
    use_threads(threads)
    Restorer(weights, device="cpu", levels=0).restore_file(source, target)


def peak_mib(*arguments: Any) -> float:
    """Return the most memory that restoring a clip takes [MiB]."""
    process = multiprocessing.get_context("spawn").Process(target=told, args=arguments)
    process.start()
    process.join()
    return float(Path(arguments[1]).with_suffix(".peak").read_text())


def told(source: Path, target: Path, weights: str, threads: int) -> None:
    """Restore a clip and write down the most memory that it took."""
    restore(source, target, weights, threads)
    target.with_suffix(".peak").write_text(str(peak_bytes() / 2**20))


@app.command()
def main(
    *,
    weights: Annotated[str, typer.Option(help="Bundled weights, or a file.")] = "rain",
    size: Annotated[str, typer.Option(metavar="HxW")] = "720x1280",
    frames: Annotated[int, typer.Option(help="Of the timed clip.")] = 20,
    small: Annotated[str, typer.Option(metavar="HxW", help="Of the clips for memory.")] = "120x160",
    lengths: Annotated[tuple[int, int], typer.Option(help="Of those [s].")] = (5, 60),
    threads: Annotated[int, typer.Option(help="On the CPU.")] = 2,
    page: Annotated[Path, typer.Option(help="Where to write.")] = PAGE,
) -> None:
    """Measure the pipeline of clips, and write docs/results/clips.md."""
    use_threads(threads)
    options = ClipOptions()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "a.mp4"), Path(folder, "b.mp4")
        make_clip(source, frames=frames, size=parse_size(size))
        facts = read_clip_facts(source, options)
        restorer = Restorer(weights, device="cpu", levels=0)
        given = [frame.pixels for frame in read_frames(source, facts, options)]
        restorer.restore_pixels(given[0])
        expected: list[np.ndarray] = []
        work = map_in_threads(restorer.restore_pixels, given, workers=restorer.at_once())
        alone_s = seconds_of(lambda: expected.extend(work))
        clip_s = seconds_of(lambda: restorer.restore_file(source, target))
        result = [f.pixels for f in read_frames(target, read_clip_facts(target, options), options)]
        errors = [
            float(np.square(one.astype(float) - other).mean())
            for one, other in zip(expected, result, strict=True)
        ]
        psnr_db = [10 * np.log10(255**2 / error) for error in errors]
        peaks = []
        for seconds in lengths:
            source = Path(folder, f"{seconds}.mp4")
            make_clip(source, frames=seconds * RATE, size=parse_size(small))
            peaks.append(peak_mib(source, source.with_suffix(".out.mp4"), weights, threads))
    rows = [
        ("frames a second, network alone", f"{frames / alone_s:.3f}"),
        ("frames a second, whole clip", f"{frames / clip_s:.3f}"),
        ("share of the network alone", f"{alone_s / clip_s:.1%}"),
        ("encoded against restored frames, mean PSNR", f"{np.mean(psnr_db):.2f} dB"),
        ("the same, worst frame", f"{min(psnr_db):.2f} dB"),
        *(
            (f"peak memory, {seconds} s of {small}", f"{peak:.0f} MiB")
            for seconds, peak in zip(lengths, peaks, strict=True)
        ),
        ("the second over the first", f"{peaks[1] / peaks[0]:.2f}"),
    ]
    call = f"python benchmarks/clips.py --weights {weights} --size {size} --frames {frames}"
    write_facts(
        page,
        "Clips",
        f"`{call} --threads {threads}` writes this page. {frames} frames of {size} in synthetic"
        f" rain, {weights}, H.264 at the default quality, {threads} threads; the last rows are of"
        " processes of their own.",
        rows,
    )


if __name__ == "__main__":
    app()
