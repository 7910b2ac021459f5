"""`fairweather evaluate`."""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from fairweather.cli.console import counting, err_console, out_console
from fairweather.cli.options import AsJson
from fairweather.errors import OptionError

if TYPE_CHECKING:
    from fairweather.evaluation import Evaluation, ReportWriter, TestSet

# What each option belongs to; it is refused with anything else.
BELONGS = {
    "--layout": ("DATA",),
    "--split": ("--layout",),
    "--degradation": ("DATA",),
    "--clean": ("--restored",),
    "--degraded": ("--restored",),
    "--protocol": ("DATA", "--restored"),
    "--masks": ("DATA", "--restored"),
    "--weights": ("DATA", "--photos"),
    "--inference": ("DATA", "--photos"),
    "--self-ensemble": ("DATA", "--photos"),
    "--device": ("DATA", "--photos"),
}


@dataclass(frozen=True)
class Call:
    """What was asked for; None or empty where an option was not given."""

    data: Path | None
    restored: Path | None
    photos: Path | None
    clean: Path | None
    degraded: Path | None
    masks: Path | None
    layout: str | None
    split: str | None
    degradation: str | None
    protocol: str | None
    weights: tuple[str, ...]
    inference: str | None
    self_ensemble: bool
    device: str | None


def evaluate_command(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="Test set, or a folder of several (each input/ + target/, or hazy/ + clear/).",
            show_default=False,
        ),
    ] = None,
    *,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            help="Weights to evaluate: a bundled name, a file, the folder of a run, hf:OWNER/NAME"
            " or a URL with #sha256=…; repeat to compare.",
            show_default="all bundled",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="How to compute the figures: see --list-protocols.", show_default="plain"
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help="How its files are arranged: see `fairweather data layouts`."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Part of the layout to evaluate.", show_default="test")
    ] = None,
    degradation: Annotated[
        str | None,
        typer.Option(
            help="DATA holds clean photographs: degrade them first (rain, haze, …), or, with none,"
            " measure how much the weights change them."
        ),
    ] = None,
    inference: Annotated[
        str | None,
        typer.Option(
            help="How to run the network: ours, whole, square_pad_128, tiles_384_80 or"
            " tiles_1152_384.",
            show_default="ours",
        ),
    ] = None,
    self_ensemble: Annotated[
        bool, typer.Option("--self-ensemble", help="Average over 8 views: 8 times slower, better.")
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(help="Device to run on: auto, cpu, cuda, mps or xpu.", show_default="auto"),
    ] = None,
    restored: Annotated[
        Path | None,
        typer.Option(help="Folder of images restored by another program; needs --clean."),
    ] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Folder of their clean versions, under the same names.")
    ] = None,
    degraded: Annotated[
        Path | None,
        typer.Option(help="Folder of their inputs, to compare with doing nothing."),
    ] = None,
    photos: Annotated[
        Path | None,
        typer.Option(
            help="Folder of photographs without clean versions: shows them, but cannot score them."
        ),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of shadow masks, for --protocol istd.")
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Folder for the report.")] = None,
    as_json: AsJson = False,
    list_protocols: Annotated[
        bool, typer.Option("--list-protocols", help="Describe every protocol, and stop.")
    ] = False,
) -> None:
    """Score weights, or images that another program restored, and write a report."""
    if list_protocols:
        print_protocols()
        return
    call = Call(
        data=data,
        restored=restored,
        photos=photos,
        clean=clean,
        degraded=degraded,
        masks=masks,
        layout=layout,
        split=split,
        degradation=degradation,
        protocol=protocol,
        weights=tuple(weights or ()),
        inference=inference,
        self_ensemble=self_ensemble,
        device=device,
    )
    check_call(call)
    check_out(call, out)
    evaluation, page = run_call(call, out, hidden=as_json)
    tell(evaluation, page, as_json=as_json)
    for fault in evaluation.faults:
        err_console.print(f"error: {fault}")
    if evaluation.faults:
        raise typer.Exit(1)


def check_call(call: Call) -> None:
    """Refuse options that do not belong together.

    Raises:
        OptionError: naming them.
    """
    given = {
        "DATA" if name == "data" else f"--{name.replace('_', '-')}"
        for name, value in vars(call).items()
        if value not in (None, (), False)
    }
    if len(given & {"DATA", "--restored", "--photos"}) != 1:
        raise OptionError("give one of: a test set, --restored DIR with --clean DIR, --photos DIR")
    if "--restored" in given and "--clean" not in given:
        raise OptionError("--restored needs --clean, the folder of their clean versions")
    if {"--degradation", "--layout"} <= given:
        raise OptionError("--degradation makes pairs of clean photographs; leave --layout out")
    for option, owners in BELONGS.items():
        if option in given and not given & set(owners):
            raise OptionError(f"{option} belongs to {' or '.join(owners)}; leave it out")


def check_out(call: Call, out: Path | None) -> None:
    """Refuse a report among the images that it is about: the next call would evaluate it.

    Raises:
        OptionError: naming the folder.
    """
    for folder in (call.restored, call.photos, call.clean, call.degraded, call.masks):
        if out and folder and out.resolve().is_relative_to(folder.resolve()):
            raise OptionError(f"-o {out}: lies in {folder}, among the images; choose another place")


def run_call(call: Call, out: Path | None, *, hidden: bool) -> tuple["Evaluation", Path | None]:
    """Evaluate behind a progress bar, and write the report if one is wanted."""
    from fairweather.evaluation import ReportWriter

    sets = choose_sets(call)
    count = sum(len(one.items) for one in sets)
    with (
        ReportWriter(out, images=count) if out else nullcontext() as writer,
        counting("images", total=count, hidden=hidden) as show,
    ):
        evaluation = evaluate_sets(call, sets, writer, on_progress=show)
        return evaluation, writer.finish(evaluation) if writer else None


def choose_sets(call: Call) -> list["TestSet"]:
    """Find what is asked for: test sets, results by name, or photographs."""
    from fairweather.evaluation import (
        find_degraded_set,
        find_photos,
        find_test_sets,
        match_results,
    )

    if call.restored is not None and call.clean is not None:
        return [match_results(call.restored, call.clean, degraded=call.degraded)]
    if call.photos is not None:
        return [find_photos(call.photos)]
    assert call.data is not None
    if call.degradation is not None:
        return [find_degraded_set(call.data, degradation=call.degradation)]
    return find_test_sets(call.data, layout=call.layout, split=call.split or "test")


def evaluate_sets(
    call: Call,
    sets: list["TestSet"],
    writer: "ReportWriter | None",
    *,
    on_progress: Callable[[int, int], None],
) -> "Evaluation":
    """Call the function that fits."""
    from fairweather.evaluation import evaluate, evaluate_photos, evaluate_results
    from fairweather.models import list_weights

    models: dict[str, Any] = {
        "weights": call.weights or tuple(list_weights()),
        "inference": call.inference or "ours",
        "ensemble": call.self_ensemble,
        "device": call.device or "auto",
    }
    scores: dict[str, Any] = {"protocol": call.protocol or "plain", "masks": call.masks}
    calls: dict[str, Any] = {
        "on_image": writer.add if writer else None,
        "on_progress": on_progress,
    }
    if call.restored is not None:
        return evaluate_results(sets[0], **scores, **calls)
    if call.photos is not None:
        return evaluate_photos(sets[0], **models, **calls)
    return evaluate(sets, **models, **scores, **calls)


def tell(evaluation: "Evaluation", page: Path | None, *, as_json: bool) -> None:
    """Print a table or a JSON document, and the notes that go with it."""
    from fairweather.evaluation import as_results_tree, as_tree

    if as_json:
        tree = as_tree(evaluation) if evaluation.weights else as_results_tree(evaluation)
        sys.stdout.write(json.dumps(tree) + "\n")
    else:
        out_console.print(means_table(evaluation))
    if evaluation.protocol is None:
        err_console.print("note: without clean versions nothing here measures fidelity")
    for note in evaluation.notes:
        err_console.print(f"note: {note}")
    if page is not None and not as_json:
        out_console.print(f"report: {page}")


def means_table(evaluation: "Evaluation") -> Table:
    """Return a table of the means of every set."""
    from fairweather.evaluation import INPUT, figure_text, label

    names = evaluation.figure_names
    table = Table("test set", "images", "model", *map(label, names))
    for result in evaluation.sets:
        for column, mean in result.means().items():
            figures = (
                figure_text(name, mean.figures[name], of=mean.counts.get(name))
                if name in mean.figures
                else ""
                for name in names
            )
            table.add_row(result.name, str(len(result.rows)), column or INPUT, *figures)
    return table


def print_protocols() -> None:
    """Print every protocol in words."""
    from fairweather.evaluation import PROTOCOLS, describe_protocol

    for protocol in PROTOCOLS.values():
        out_console.print(f"{describe_protocol(protocol)}\n")
