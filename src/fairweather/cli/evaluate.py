"""`fairweather evaluate`."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column, Table

from fairweather.cli.console import counting, err_console, out_console, print_json
from fairweather.cli.options import AsJson, Device, SelfEnsemble
from fairweather.errors import OptionError

if TYPE_CHECKING:
    from fairweather.evaluation import Evaluation

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


def evaluate_command(
    context: typer.Context,
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
        str, typer.Option(help="How to compute the figures: see --list-protocols.")
    ] = "plain",
    layout: Annotated[
        str | None,
        typer.Option(help="How its files are arranged: see `fairweather data layouts`."),
    ] = None,
    split: Annotated[str, typer.Option(help="Part of the layout to evaluate.")] = "test",
    degradation: Annotated[
        str | None,
        typer.Option(
            help="DATA holds clean photographs: degrade them first (rain, haze, …), or, with none,"
            " measure how much the weights change them."
        ),
    ] = None,
    inference: Annotated[
        str,
        typer.Option(
            help="How to run the network: ours, whole, square_pad_128, tiles_384_80 or"
            " tiles_1152_384."
        ),
    ] = "ours",
    self_ensemble: SelfEnsemble = False,
    device: Device = "auto",
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
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an older report in that folder.")
    ] = False,
    as_json: AsJson = False,
    list_protocols: Annotated[
        bool, typer.Option("--list-protocols", help="Describe every protocol, and stop.")
    ] = False,
) -> None:
    """Score weights, or images that another program restored, and write a report."""
    if list_protocols:
        from fairweather.evaluation import PROTOCOLS, describe_protocol

        for known in PROTOCOLS.values():
            out_console.print(f"{describe_protocol(known)}\n")
        return
    check_options(context)
    check_out(out, (restored, photos, clean, degraded, masks))

    # Only now, so that a refusal does not wait for PyTorch.
    from fairweather import evaluation as wing
    from fairweather.models import list_weights

    scores: dict[str, Any] = {"protocol": protocol, "masks": masks}
    models: dict[str, Any] = {
        "weights": weights or list(list_weights()),
        "inference": inference,
        "ensemble": self_ensemble,
        "device": device,
    }
    run: Callable[..., Evaluation]
    if restored is not None and clean is not None:
        sets = [wing.match_results(restored, clean, degraded=degraded)]
        run = partial(wing.evaluate_results, sets[0], **scores)
    elif photos is not None:
        sets = [wing.find_photos(photos)]
        run = partial(wing.evaluate_photos, sets[0], **models)
    else:
        assert data is not None
        sets = (
            [wing.find_degraded_set(data, degradation=degradation)]
            if degradation is not None
            else wing.find_test_sets(data, layout=layout, split=split)
        )
        run = partial(wing.evaluate, sets, **scores, **models)
    count = sum(len(one.items) for one in sets)
    with (
        wing.ReportWriter(out, images=count, overwrite=overwrite)
        if out
        else nullcontext() as writer,
        counting("images", total=count, hidden=as_json) as show,
    ):
        evaluation = run(on_image=writer.add if writer else None, on_progress=show)
        page = writer.finish(evaluation) if writer else None
    tell(evaluation, page, as_json=as_json)
    for fault in evaluation.faults:
        err_console.print(f"error: {fault}")
    if evaluation.faults:
        raise typer.Exit(1)


def check_options(context: typer.Context) -> None:
    """Refuse options that do not belong together."""
    given = {
        "DATA" if name == "data" else f"--{name.replace('_', '-')}"
        for name in context.params
        if (source := context.get_parameter_source(name)) and source.name != "DEFAULT"
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


def check_out(out: Path | None, read: Iterable[Path | None]) -> None:
    """Refuse a report among the images that it is about: the next call would evaluate it."""
    for folder in read:
        if out and folder and out.resolve().is_relative_to(folder.resolve()):
            raise OptionError(f"-o {out}: lies in {folder}, among the images; choose another place")


def tell(evaluation: "Evaluation", page: Path | None, *, as_json: bool) -> None:
    """Print a table or a JSON document, and the notes that go with it."""
    from fairweather.evaluation import as_results_tree, as_tree

    if as_json:
        tree = as_tree(evaluation) if evaluation.weights else as_results_tree(evaluation)
        print_json(tree)
    else:
        print_means(evaluation)
    if evaluation.protocol is None:
        err_console.print("note: without clean versions nothing here measures fidelity")
    for note in evaluation.notes:
        err_console.print(f"note: {note}")
    if page is not None and not as_json:
        out_console.print(f"report: {page}")


def print_means(evaluation: "Evaluation") -> None:
    """Print the means of every set, the published figures, and how far those compare."""
    from fairweather.evaluation import INPUT, figure_text, label

    names, protocol = evaluation.figure_names, evaluation.protocol
    title = f"protocol {protocol.name}" if protocol else None
    heads = ("test set", "images", "model", *map(label, names))
    table = Table(*(Column(head, overflow="fold") for head in heads), title=title)
    lines = []
    for result in evaluation.sets:
        for column, mean in result.means().items():
            figures = (
                figure_text(name, mean.figures[name], of=mean.counts.get(name))
                if name in mean.figures
                else ""
                for name in names
            )
            table.add_row(result.name, str(len(result.rows)), column or INPUT, *figures)
        if result.rows and (theirs := evaluation.published(result)):
            known = theirs.figure.figures
            figures = (figure_text(name, known[name]) if name in known else "" for name in names)
            model = f"published: {theirs.figure.model}"
            table.add_row(result.name, str(theirs.figure.images), model, *figures)
            lines.append(f"{result.name}, {model} ({theirs.figure.source}); {theirs.verdict}")
    out_console.print(table)
    for line in lines:
        out_console.print(line)
