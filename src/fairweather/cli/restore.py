"""`fairweather restore`."""

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fairweather.cli.console import (
    err_console,
    out_console,
    print_json,
    printable,
    progress_bar,
)
from fairweather.cli.options import AsJson, Device, Precision, SelfEnsemble, Threads
from fairweather.cli.sample import restore_sample
from fairweather.cli.streams import parse_rawvideo, restore_stream, takes_stream
from fairweather.models import list_weights

if TYPE_CHECKING:
    from fairweather.restoration import (
        Failure,
        Job,
        PassedOver,
        Plan,
        Restored,
        Restorer,
        Summary,
    )

SHOWN_NAMES = 8  # of files that are passed over; --json names all
FEW_PARTS = 4  # tiles or frames, which are done before anybody has read a bar of them


def restore_command(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PHOTO|CLIP|FOLDER|GLOB|FRAME_%06d.PNG|- …",
            help="What to restore; a folder with all below it, numbered frames of one clip, or -"
            " for standard input.",
        ),
    ] = None,
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="Where to write: a file for one photograph, else a folder; - for standard output.",
            show_default="beside the input",
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(
            help=f"Degradation to remove: {', '.join(list_weights())}; or auto, which finds it."
        ),
    ] = "rain",
    weights: Annotated[
        str | None,
        typer.Option(
            help="Use these weights instead: a .safetensors, an official .pth, a folder with one,"
            " hf:OWNER/NAME, or a URL with #sha256=…"
        ),
    ] = None,
    device: Device = "auto",
    engine: Annotated[
        str,
        typer.Option(help="What runs the network: auto, torch, compiled, openvino or onnxruntime."),
    ] = "auto",
    threads: Threads = None,
    precision: Precision = "fp32",
    tile: Annotated[
        str, typer.Option(help="Side of a tile in pixels, auto, or none for no tiles.")
    ] = "auto",
    levels: Annotated[
        str,
        typer.Option(
            help="How often to halve a photo, to restore it coarse to fine: 0 to 3, or auto."
        ),
    ] = "auto",
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Restore a version of one megapixel and hand its change on: a quick preview.",
        ),
    ] = False,
    finish: Annotated[
        Literal["colour", "smooth", "contrast"] | None,
        typer.Option(
            help="A last touch: take back a colour cast, smooth blotches, raise local contrast."
        ),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="From 0, the input, to 1, the restored image.")
    ] = 1.0,
    self_ensemble: SelfEnsemble = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Also write input and result side by side.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing targets.")
    ] = False,
    skip_existing: Annotated[
        bool,
        typer.Option(
            "--skip-existing",
            help="Skip inputs whose target exists, to continue an interrupted run.",
        ),
    ] = False,
    format: Annotated[
        str | None,
        typer.Option(
            help="Format of all results: jpg, png, webp, tif, avif, bmp, gif; heic with its extra.",
            show_default="that of each input",
        ),
    ] = None,
    quality: Annotated[
        int | None,
        typer.Option(
            help="Quality of JPEG, WebP, AVIF and HEIC, 1 to 100.",
            min=1,
            max=100,
            show_default="as large as a file of that format was, else 95",
        ),
    ] = None,
    lossless: Annotated[
        bool,
        typer.Option("--lossless", help="Write without loss: JPEG, AVIF, HEIC and GIF become PNG."),
    ] = False,
    chroma: Annotated[
        Literal["4:4:4", "4:2:2", "4:2:0"] | None,
        typer.Option(
            help="Resolution of the colours in JPEG, AVIF and HEIC.",
            show_default="that of a JPEG in a JPEG, else 4:4:4",
        ),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            help="Refuse images with more pixels; to read one takes up to 24 bytes a pixel.",
            min=1,
            show_default="500 million",
        ),
    ] = None,
    truncated: Annotated[
        Literal["refuse", "allow"],
        typer.Option(
            help="What to do with a JPEG or PNG that is cut off: allow restores the rest."
        ),
    ] = "refuse",
    codec: Annotated[
        Literal["h264", "h265", "av1", "ffv1"] | None,
        typer.Option(
            help="Codec of clips; ffv1 loses nothing.",
            show_default="h264, h265 above 8 bits, av1 in webm",
        ),
    ] = None,
    crf: Annotated[
        int | None,
        typer.Option(
            help="Quality of clips, 0 to 51 (63 for av1); less is better.",
            min=0,
            max=63,
            show_default="nearly without visible loss",
        ),
    ] = None,
    interlaced: Annotated[
        Literal["refuse", "deinterlace"],
        typer.Option(help="What to do with clips whose frames hold two moments each."),
    ] = "refuse",
    calm: Annotated[
        bool,
        typer.Option("--calm", help="Take back what flickers in clips where nothing moves."),
    ] = False,
    hardware: Annotated[
        Literal["nvenc", "qsv", "amf", "videotoolbox"] | None,
        typer.Option(help="Encode clips on a GPU: faster, with larger files."),
    ] = None,
    rawvideo: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT[:FORMAT][@RATE]",
            help="Take and give raw frames through -: rgb24, bgr24, gray or rgb48le.",
        ),
    ] = None,
    as_json: AsJson = False,
    sample: Annotated[
        bool, typer.Option("--sample", help="Make a rainy photograph in ./sample and restore it.")
    ] = False,
) -> None:
    """Restore photographs, clips and folders of them; inputs are never overwritten.

    photo.jpg becomes photo.restored.jpg beside it; a folder photos is mirrored in photos-restored.
    Clips (extra video) keep sound, subtitles and the times of all frames; a stopped one goes on.
    JPEG, WebP, AVIF and HEIC stay about as large, unless --quality or --lossless asks for more.
    """
    if sample and inputs:
        raise typer.BadParameter("--sample restores a photograph of its own; leave out the inputs")
    if sample:
        restore_sample(device=device, engine=engine)
        return
    if not inputs:
        raise typer.BadParameter("name a photo, a folder or a glob, or use --sample")
    if overwrite and skip_existing:
        raise typer.BadParameter("--overwrite and --skip-existing exclude each other")
    if weights is None and task not in ("auto", *list_weights()):
        known = ", ".join(list_weights())
        raise typer.BadParameter(
            f"--task {task}: is none of auto, {known}; other weights: --weights"
        )
    if task == "auto" and weights is not None:
        raise typer.BadParameter("--task auto picks the weights; leave out --weights")
    side = parse_tile(tile)

    if lossless and quality is not None:
        raise typer.BadParameter("--lossless and --quality exclude each other")
    others = {"--json": as_json, "--compare": compare, "--skip-existing": skip_existing}
    streams = takes_stream(inputs, out=out, others=others)
    raw = None if rawvideo is None else parse_rawvideo(rawvideo, inputs)

    # Only now, so that a refusal does not wait for PyTorch.
    from fairweather.hardware import keep_freed_memory, use_threads
    from fairweather.imaging import DEFAULT_MAX_PIXELS, ClipOptions
    from fairweather.restoration import Restorer, plan_jobs

    clip = ClipOptions(codec=codec, crf=crf, interlaced=interlaced, calm=calm, hardware=hardware)
    keep_freed_memory()
    use_threads(threads)
    written: dict[str, Any] = {"format": format, "lossless": lossless}
    plan = None if streams else plan_jobs(inputs, out=out, **written)
    restorer = Restorer(
        weights or task,
        device=device,
        engine=engine,
        precision=precision,
        tile=side,
        strength=strength,
        levels=parse_levels(levels),
        fast=fast,
        finish=finish,
        self_ensemble=self_ensemble,
    )
    options: dict[str, Any] = {
        "quality": 100 if lossless else quality,
        "chroma": chroma,
        "max_pixels": max_pixels or DEFAULT_MAX_PIXELS,
        "truncated": truncated,
    }
    if plan is None:
        options |= {"overwrite": overwrite, "clip": clip}
        restore_stream(restorer, inputs[0], out, raw=raw, **written, **options)
        return
    existing = "overwrite" if overwrite else "skip" if skip_existing else "refuse"
    options |= {"existing": existing, "compare": compare, "clip": clip}
    if not restore_planned(restorer, plan, options=options, as_json=as_json):
        raise typer.Exit(1)


def restore_planned(
    restorer: "Restorer", plan: "Plan", *, options: dict[str, Any], as_json: bool
) -> bool:
    """Work jobs off and print what becomes of them; return whether all was done."""
    from fairweather.restoration import Summary, run_jobs

    asked = len(plan.jobs) + len(plan.failures)
    summary = Summary(failed=plan.failures, passed_over=plan.passed_over)
    interrupted = False
    shown = Shown(plan.jobs, as_json=as_json)
    with shown.progress:
        try:
            run_jobs(
                restorer,
                plan.jobs,
                summary=summary,
                on_start=shown.start,
                on_done=shown.finish,
                **options,
            )
        except KeyboardInterrupt:
            interrupted = True
    print_summary(summary, asked=asked, interrupted=interrupted, as_json=as_json)
    if interrupted:
        raise KeyboardInterrupt
    return not summary.failed


class Shown:
    """Show people how jobs go: a line for each file, a bar for all and for each large one."""

    def __init__(self, jobs: list["Job"], *, as_json: bool):
        self.as_json = as_json
        self.progress = progress_bar(hidden=as_json)
        # On a terminal the lines go above the bar, which only the bar's own console can do.
        self.console = err_console if sys.stdout.isatty() else out_console
        self.files = self.progress.add_task("files", total=len(jobs), visible=len(jobs) > 1)
        self.parts: dict[Path, Any] = {}  # the bar of tiles or frames of each file

    def start(self, job: "Job") -> Any:
        """Show a file that is about to be restored; return the callback for its tiles."""
        bar = self.progress.add_task(printable(job.source.name), visible=False)
        self.parts[job.source] = bar

        def on_tile(done: int, total: int) -> None:
            self.progress.update(bar, completed=done, total=total, visible=total > FEW_PARTS)

        return on_tile

    def finish(self, outcome: "Restored | Failure | Job") -> None:
        """Show what became of a file."""
        from fairweather.restoration import Restored

        self.progress.advance(self.files)
        self.progress.remove_task(self.parts.pop(outcome.source))
        if self.as_json or not isinstance(outcome, Restored):
            return
        told, found = outcome.diagnosis, ""  # of --task auto
        while told is not None:
            found += ("; then " if found else "  ") + f"{told.degradation}, {told.probability:.0%}"
            told = told.then
        frames = f", {outcome.frames} frames" if outcome.frames else ""
        lines = [
            f"{outcome.source} → {outcome.target}"
            f"  ({outcome.width} × {outcome.height}{frames}, {outcome.seconds:.1f} s){found}"
        ]
        if outcome.compare is not None:
            lines.append(f"    beside the input: {outcome.compare}")
        lines += [f"    note: {note}" for note in outcome.notes]
        self.console.print("\n".join(map(printable, lines)))


def print_summary(summary: "Summary", *, asked: int, interrupted: bool, as_json: bool) -> None:
    """Say what was done, and name each input that could not be restored."""
    if as_json:
        document = dataclasses.asdict(summary)
        print_json({**document, "interrupted": interrupted})
        return
    for failure in summary.failed:
        err_console.print(printable(f"failed: {failure.reason}"))
    if summary.passed_over:
        err_console.print(printable(f"passed over: {describe_passed_over(summary.passed_over)}"))
    diagnoses = [outcome.diagnosis for outcome in summary.restored if outcome.diagnosis]
    left = sum(diagnosis.weights is None for diagnosis in diagnoses)  # by --task auto
    parts = [f"{len(summary.restored) - left} restored"]
    if left:
        parts.append(f"{left} left as they were")
    if summary.skipped:
        parts.append(f"{len(summary.skipped)} skipped, since their targets exist")
    if summary.failed:
        parts.append(f"{len(summary.failed)} failed")
    if interrupted:
        finished = len(summary.restored) + len(summary.skipped) + len(summary.failed)
        parts.append(f"stopped with {asked - finished} not done")
    if interrupted or summary.failed or asked > 1:
        err_console.print(", ".join(parts))


def describe_passed_over(passed_over: "list[PassedOver]") -> str:
    """Return one line that counts and names what is not restored, by the reason."""
    names: dict[str, list[str]] = {}
    for one in passed_over:
        names.setdefault(one.reason, []).append(str(one.path))
    return "; ".join(
        f"{reason}: {len(paths)} ({', '.join(paths[:SHOWN_NAMES])}"
        f"{', …' if len(paths) > SHOWN_NAMES else ''})"
        for reason, paths in names.items()
    )


def parse_levels(text: str) -> Any:
    """Read --levels; anything but a number is left to the Restorer, which knows what there is."""
    return int(text) if text.isdigit() else text


def parse_tile(tile: str) -> Any:
    """Read `auto`, `none` or a number of pixels."""
    if tile == "auto":
        return "auto"
    if tile == "none":
        return None
    if not tile.isdecimal():
        raise typer.BadParameter(f"--tile {tile}: is neither a number of pixels, auto nor none")
    return int(tile)
