"""`fairweather bulk`."""

import dataclasses
import time
from statistics import mean
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fairweather.cli.console import (
    counted,
    counting,
    err_console,
    out_console,
    print_json,
    printable,
)
from fairweather.cli.options import AsJson, Device, Precision
from fairweather.errors import MissingExtraError, installing
from fairweather.models import list_weights

if TYPE_CHECKING:
    from fairweather.serving import Entry, Report

SHOWN_FAILURES = 20


def bulk_command(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="FOLDER|FILE|GLOB|s3://…|LIST.parquet|LIST.csv …",
            help="What to restore, here or in object stores (s3, gs, az, and what fsspec knows); a"
            " list has a column `path`, and one for each option that differs.",
        ),
    ],
    *,
    out: Annotated[
        str, typer.Option("-o", "--out", help="Folder of the results, here or in a store.")
    ],
    task: Annotated[
        str,
        typer.Option(
            help=f"Degradation to remove: {', '.join(list_weights())}; or auto, which finds it."
        ),
    ] = "rain",
    strength: Annotated[float, typer.Option(min=0, max=1, help="0, the input, to 1.")] = 1.0,
    levels: Annotated[
        Literal["auto", "0", "1", "2", "3"],
        typer.Option(help="How often a photograph is halved, to be restored coarse to fine."),
    ] = "auto",
    format: Annotated[
        str | None, typer.Option(help="Of all results.", show_default="that of each file")
    ] = None,
    quality: Annotated[
        int | None, typer.Option(min=1, max=100, help="Of JPEG, WebP, AVIF and HEIC.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="auto|ADDRESS",
            help="A cluster of Ray; auto is the one that this machine belongs to.",
            show_default="RAY_ADDRESS, or a Ray of this machine",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes.", show_default="one for each core, or GPU"),
    ] = None,
    cpus: Annotated[int, typer.Option(min=1, help="Cores of each worker.")] = 1,
    gpus: Annotated[
        float,
        typer.Option(
            min=0,
            help="GPUs of each worker; it may be a fraction.",
            show_default="1 where the device is a GPU",
        ),
    ] = 0,
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="What runs the network; see restore.")] = "auto",
    precision: Precision = "fp32",
    max_pixels: Annotated[int, typer.Option(min=1, help="Of one photograph.")] = 100_000_000,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what could not be restored before.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace files in OUT that are not results of these."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore many photographs on all cores, GPUs or a cluster; a stopped run goes on.

    Results have the bytes that restore writes. _fairweather/files.parquet beside them says what
    became of each file. Exit status 1 if some could not be restored.
    """
    try:
        from fairweather.serving import RestoreOptions, Setting, restore_bulk
    except ModuleNotFoundError as missing:
        raise MissingExtraError(
            f"bulk needs Ray, which is missing; install it with: {installing('ray')}"
        ) from missing
    options = RestoreOptions.of(
        {"task": task, "strength": strength, "levels": levels, "format": format, "quality": quality}
    )
    setting = Setting(
        device=device, engine=engine, precision=precision, cpus=cpus, pixels=max_pixels
    )
    megapixels, begun, worked = 0.0, time.monotonic(), "nothing done"
    with counting("starting Ray", hidden=as_json) as show:

        def follow(entry: "Entry", done: int, total: int) -> None:
            nonlocal megapixels, worked
            megapixels += entry.pixels / 1e6
            worked = f"{done} of {total} done"
            show(done, total, f"{megapixels / (time.monotonic() - begun):.2f} MP/s")

        try:
            report = restore_bulk(
                sources,
                out,
                options=options,
                setting=setting,
                ray_address=ray,
                workers=workers,
                gpus=gpus,
                retry_failed=retry_failed,
                overwrite=overwrite,
                on_entry=follow,
            )
        except KeyboardInterrupt:
            err_console.print(f"stopped with {worked}; the same command goes on")
            raise
    if as_json:
        print_json({**dataclasses.asdict(report), "out": out})
    else:
        print_report(report, out)
    if report.failed:
        raise typer.Exit(1)


def print_report(report: "Report", out: str) -> None:
    """Say what was done, and what could not be."""
    for message in report.errors[:SHOWN_FAILURES]:
        err_console.print(f"error: {printable(message)}")
    if (more := report.failed - SHOWN_FAILURES) > 0:
        err_console.print(f"error: and {more} more; {out}/_fairweather has them")
    words = [f"{report.restored} restored"]
    if report.left:
        words.append(f"{report.left} left as they were")
    words.append(f"{report.unchanged} done before")
    if report.failed:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(report.failures.items()))
        words.append(f"{report.failed} failed ({kinds})")
    if report.passed_over:
        words.append(f"{report.passed_over} passed over, which are no photographs")
    out_console.print(f"{counted(report.files, 'photograph')}: {', '.join(words)}")
    if report.restored or report.left:
        rate = report.megapixels / report.seconds
        out_console.print(
            f"{report.megapixels:.1f} megapixels in {report.seconds:.1f} s, {rate:.3f} a second;"
            f" a worker, while it works: {mean(report.workers.values()):.3f}"
        )
        found = ", ".join(f"{name} {count}" for name, count in sorted(report.degradations.items()))
        out_console.print(f"degradations: {found}")
