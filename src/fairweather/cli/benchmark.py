"""`fairweather benchmark`."""

import dataclasses
from typing import Annotated

import typer

from fairweather.cli.console import counting, err_console, out_console, print_json, table_of
from fairweather.cli.options import AsJson, Device


def benchmark_command(
    *,
    weights: Annotated[str, typer.Option(help="A bundled name, or a weights file.")] = "rain",
    size: Annotated[
        int, typer.Option(help="Height and width of the photograph in pixels.", min=1)
    ] = 512,
    threads: Annotated[
        int | None,
        typer.Option(help="Of each engine.", min=1, show_default="as PyTorch chooses"),
    ] = None,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Find the fastest engine and precision for some weights on this machine."""
    from fairweather.benchmark import rank_engines

    with counting(hidden=as_json) as show:
        timings, faults = rank_engines(
            weights,
            size_px=size,
            threads=threads,
            device=device,
            on_turn=lambda name, done, total: show(done, total, name),
        )
    fastest = timings[0]
    if as_json:
        document = {
            **{"weights": weights, "size_px": size, "threads": threads, "device": device},
            "fastest": {"engine": fastest.engine, "precision": fastest.precision},
            "engines": [dataclasses.asdict(timing) for timing in timings],
            "failed": faults,
        }
        print_json(document)
    else:
        table = table_of(
            *("engine", "precision", "seconds", "processor seconds", "memory", "differs by"),
            title=f"{weights}, {size}×{size}",
        )
        for one in timings:
            memory = [number for number in (one.peak_bytes, one.device_peak_bytes) if number]
            table.add_row(
                one.engine,
                one.precision,
                f"{one.wall_s:.3f}",
                f"{one.processor_s:.3f}",
                " + ".join(f"{number / 1e6:,.0f} MB" for number in memory),
                f"{one.largest_difference} of 255",
            )
        out_console.print(table)
        out_console.print(f"fastest: --engine {fastest.engine} --precision {fastest.precision}")
    for fault in faults:
        err_console.print(f"failed: {fault}")
    if faults:
        raise typer.Exit(1)
