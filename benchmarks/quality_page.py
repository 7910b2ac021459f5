"""Write docs/results/quality.md from results of `fairweather evaluate`; nothing on it is typed."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from shlex import quote
from typing import Any

import typer

from fairweather.cli import run_command
from fairweather.errors import DataError
from fairweather.evaluation import INPUT, NO_DEGRADATION, figure_text, read_results
from fairweather.files import write_text
from laboratory.pages import RESULTS, Files, Out, files_of, line_of

Tree = dict[str, Any]

PAGE = RESULTS / "quality.md"

HEAD = """\
# Quality

`python benchmarks/quality_page.py` writes this page from the files in [quality/](quality), the
results of `fairweather evaluate`; do not edit it.

Each group of rows is one test set under one protocol. Its first row scores the input as it is: a
gain below 0 means that doing nothing is better. A figure is the mean over the images of the set.
"""


def main(results: Files = None, *, out: Out = PAGE) -> None:
    """Write the page of quality, docs/results/quality.md."""
    write_quality_page(results or files_of(PAGE), out)
    typer.echo(f"page: {out}")


def write_quality_page(results: Sequence[Path], page: Path) -> None:
    """Write a Markdown page from the results.json files of evaluations.

    The same files give the same page to the last byte, whatever their order.

    Args:
        results: what `fairweather evaluate … -o` wrote, of sets with clean images.
        page: the file to write; one of that name is replaced.

    Raises:
        DataError: if a file is none of ours, or the page cannot be written.
    """
    ordered = sorted(results, key=lambda path: (path.name, str(path)))
    write_text(page, quality_text([read_scored(path) | {"file": path.name} for path in ordered]))


def read_scored(path: Path) -> Tree:
    """Read a results.json of sets with clean images.

    Raises:
        DataError: if it is something else.
    """
    tree = read_results(path)
    if tree["protocol"] is None:
        raise DataError(f"{path}: is of photographs without clean versions: nothing to compare")
    return tree


def quality_text(trees: Sequence[Tree]) -> str:
    """Return the page."""
    sets = [(tree, one) for tree in trees for one in tree["sets"]]
    parts = [HEAD]
    for task in sorted({heading_of(one) for _, one in sets}):
        chosen = [(tree, one) for tree, one in sets if heading_of(one) == task]
        parts.append(f"## {task.capitalize()}\n\n{_table(chosen)}{_published(chosen)}")
    parts.append(_making(trees))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def heading_of(one: Tree) -> str:
    """Return the heading under which a set stands."""
    untouched = one.get("degradation") == NO_DEGRADATION
    return one["task"] or ("no degradation" if untouched else "other")


def _table(sets: Sequence[tuple[Tree, Tree]]) -> str:
    """Return a group of rows for each set under each protocol."""
    lines = [
        "| test set | images | protocol | inference | model | PSNR [dB] | SSIM | gain [dB] |",
        "|---|---:|---|---|---|---:|---:|---:|",
    ]
    for head, group in groupby(sorted(sets, key=_head), key=_head):
        rows: dict[tuple[str, ...], None] = {}  # each once: many files score the same input
        for _, one in group:
            for name, mean in {INPUT: one["mean"]["input"], **one["mean"]["restored"]}.items():
                if mean is not None:
                    shown = name if name == INPUT else f"`{name}`"
                    figures = (_mean_cell(mean, key) for key in ("psnr_db", "ssim", "gain_db"))
                    rows[shown, *figures] = None
        cells = head
        for row in sorted(rows, key=lambda row: (row[0] != INPUT, row)):
            lines.append(line_of(*cells, *row))
            cells = ("", "", "", "")
    return "\n".join(lines) + "\n"


def _head(both: tuple[Tree, Tree]) -> tuple[str, str, str, str]:
    """Return set, images, protocol and inference: what the rows of a group share."""
    tree, one = both
    way = tree["inference"] or "restored elsewhere"
    way += ", self-ensemble" if tree["self_ensemble"] else ""
    return one["name"], str(one["count"]), tree["protocol"]["name"], way


def _mean_cell(mean: Tree, key: str) -> str:
    if key not in mean:
        return ""
    return figure_text(key, mean[key], of=mean.get("mean_of", {}).get(key))


def _published(sets: Iterable[tuple[Tree, Tree]]) -> str:
    """Return each published figure once, beside the evaluation that differs least from it."""
    closest: dict[str, tuple[Tree, Tree]] = {}
    for tree, one in sets:
        if one["published"] is not None:
            other = closest.setdefault(one["name"], (tree, one))[1]
            if len(_reasons(one)) < len(_reasons(other)):
                closest[one["name"]] = tree, one
    lines = []
    for tree, one in closest.values():
        figure, why = one["published"], _reasons(one)
        ssim = "" if figure["ssim"] is None else f" / {figure_text('ssim', figure['ssim'])}"
        lines.append(
            f"- Published for {one['name']}: {figure['model']},"
            f" {figure_text('psnr_db', figure['psnr_db'])} dB{ssim} ({figure['source']})."
            f" Our figure under `{tree['protocol']['name']}` is"
            + (f" not comparable: {'; '.join(why)}." if why else " comparable.")
        )
    return "\n" + "\n".join(lines) if lines else ""


def _reasons(one: Tree) -> list[str]:
    return one["published"]["not_comparable_because"]


def _making(trees: Sequence[Tree]) -> str:
    """Return commands, dates, versions, weights and protocols."""
    parts = ["## How to repeat the figures\n"]
    parts.append("Each command makes the file before it; `DATA` is the folder of the test sets.\n")
    for how in dict.fromkeys(map(_machine, trees)):
        parts.append(f"{how[0].upper()}{how[1:]}:\n")
        parts.append("\n".join(_evaluation(tree) for tree in trees if _machine(tree) == how) + "\n")
    weights = {one["sha256"]: one for tree in trees for one in tree["weights"]}
    if weights:
        parts.append("## Weights\n\n" + _weights_table(weights.values()))
    ways = {tree["inference"]: tree["inference_in_words"] for tree in trees if tree["inference"]}
    if ways:
        lines = "\n".join(f"- `{way}`: {words}." for way, words in sorted(ways.items()))
        parts.append(f"## Inference\n\n{lines}\n")
    protocols = {tree["protocol"]["name"]: tree["protocol"]["in_words"] for tree in trees}
    lines = "\n".join(f"- {words}" for _, words in sorted(protocols.items()))
    parts.append(f"## Protocols\n\n{lines}\n")
    return "\n".join(parts)


def _machine(tree: Tree) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in tree["versions"].items())
    return f"on {tree['device']}, with {versions}" if tree["device"] else f"with {versions}"


def _evaluation(tree: Tree) -> str:
    """Return file, date and command of an evaluation, and what it has to say."""
    said = [f"{note[:1].upper()}{note[1:]}." for note in tree["notes"]]
    if failed := len(tree["faults"]):
        said.append(f"{failed} could not be evaluated, and are not in the means.")
    line = f"- [{tree['file']}](quality/{tree['file']}), {tree['date']}: `{command_of(tree)}`"
    return f"{line}. {' '.join(said)}" if said else line


def _weights_table(weights: Iterable[Tree]) -> str:
    lines = ["| weights | task | parameters | trained on | SHA-256 |", "|---|---|---:|---|---|"]
    lines += [
        line_of(
            f"`{one['name']}`",
            one["task"],
            f"{one['parameters'] / 1e6:.2f} M",
            one["training_data"],
            f"`{one['sha256']}`",
        )
        for one in weights
    ]
    return "\n".join(lines) + "\n"


def command_of(tree: Tree) -> str:
    """Return the command that makes an evaluation; DATA is the folder of the test sets."""
    if not tree["weights"]:
        parts = ["fairweather evaluate --restored RESTORED --clean CLEAN --degraded DEGRADED"]
    else:
        (first, *others) = tree["sets"]
        data = "DATA" if others else quote(f"DATA/{first.get('folder') or first['name']}")
        parts = [f"fairweather evaluate {data}"]
        for one in tree["weights"]:
            parts.append(f"--weights {quote(one['name'] if one['bundled'] else one['file'])}")
    parts.append(f"--protocol {tree['protocol']['name']}")
    if tree["inference"] not in (None, "ours"):
        parts.append(f"--inference {tree['inference']}")
    if tree["self_ensemble"]:
        parts.append("--self-ensemble")
    for one in tree["sets"][:1]:
        if one["layout"]:
            parts.append(f"--layout {one['layout']} --split {one['split']}")
        if one.get("degradation"):
            parts.append(f"--degradation {one['degradation']}")
    return " ".join([*parts, "-o report"])


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
