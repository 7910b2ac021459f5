"""The benchmark page: what weights reach on every set, from results.json files and nothing else."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from fairweather.errors import DataError
from fairweather.evaluation.report.wording import figure_text
from fairweather.evaluation.results import read_results as read_tree
from fairweather.evaluation.sets import NO_DEGRADATION
from fairweather.evaluation.weights import INPUT
from fairweather.files import write_text

Tree = dict[str, Any]

HEAD = """\
# Benchmark

Written by `fairweather benchmark page` from results of `fairweather evaluate`; do not edit it.
The input's own figures stand beside every result: a gain below 0 is worse than doing nothing.
Means are over the images of a set.
"""


def write_benchmark_page(results: Sequence[Path], page: Path) -> None:
    """Writes a Markdown page from the results.json files of evaluations.

    The same files give the same page to the last byte, whatever their order.

    Args:
        results: what `fairweather evaluate … -o` wrote, of sets with clean images.
        page: the file to write; one of that name is replaced.

    Raises:
        DataError: if a file is none of ours, or the page cannot be written.
    """
    trees = {path: read_results(path) for path in results}
    ordered = [trees[path] for path in sorted(trees, key=lambda path: (path.name, str(path)))]
    write_text(page, benchmark_text(ordered))


def read_results(path: Path) -> Tree:
    """A results.json of sets with clean images.

    Raises:
        DataError: if it is something else.
    """
    tree = read_tree(path)
    if tree["protocol"] is None:
        raise DataError(f"{path}: is of photographs without clean versions: nothing to compare")
    return tree


def benchmark_text(trees: Sequence[Tree]) -> str:
    """The page."""
    sets = [(tree, one) for tree in trees for one in tree["sets"]]
    tasks = dict.fromkeys(sorted(heading_of(one) for _, one in sets))
    parts = [HEAD]
    for task in tasks:
        chosen = [(tree, one) for tree, one in sets if heading_of(one) == task]
        chosen.sort(key=lambda both: both[1]["name"])
        parts.append(f"## {task}\n\n{_table(chosen)}{_published(chosen)}")
    parts.append(_making(trees))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


def heading_of(one: Tree) -> str:
    """Under which heading a set stands."""
    return one["task"] or (
        "no degradation" if one.get("degradation") == NO_DEGRADATION else "other"
    )


def _table(sets: Iterable[tuple[Tree, Tree]]) -> str:
    lines = [
        "| test set | images | protocol | inference | model | PSNR [dB] | SSIM | gain [dB] |",
        "|---|---:|---|---|---|---:|---:|---:|",
    ]
    for tree, one in sets:
        way = tree["inference"] or "restored elsewhere"
        way += ", self-ensemble" if tree["self_ensemble"] else ""
        head = (one["name"], str(one["count"]), tree["protocol"]["name"], way)
        columns = {INPUT: one["mean"]["input"], **one["mean"]["restored"]}
        for name, mean in columns.items():
            if mean is None:
                continue
            shown = name if name == INPUT else f"`{name}`"
            figures = [_mean_cell(mean, key) for key in ("psnr_db", "ssim", "gain_db")]
            lines.append(_line(*head, shown, *figures))
            head = ("", "", "", "")
    return "\n".join(lines) + "\n"


def _mean_cell(mean: Tree, key: str) -> str:
    if key not in mean:
        return ""
    return figure_text(key, mean[key], of=mean.get("mean_of", {}).get(key))


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _published(sets: Iterable[tuple[Tree, Tree]]) -> str:
    """Each published figure once, beside the evaluation that differs least from it."""
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
            f"- {one['name']}, published: {figure['model']},"
            f" {figure_text('psnr_db', figure['psnr_db'])} dB{ssim} ({figure['source']})."
            f" Ours under `{tree['protocol']['name']}` is"
            + (f" not comparable: {'; '.join(why)}." if why else " comparable.")
        )
    return "\n" + "\n".join(lines) if lines else ""


def _reasons(one: Tree) -> list[str]:
    return one["published"]["not_comparable_because"]


def _making(trees: Sequence[Tree]) -> str:
    """Commands, dates, versions, weights and protocols."""
    parts = ["## How the figures were made\n"]
    for tree in trees:
        names = ", ".join(one["name"] for one in tree["sets"])
        versions = ", ".join(f"{name} {number}" for name, number in tree["versions"].items())
        device = f" on {tree['device']}" if tree["device"] else ""
        parts.append(
            f"{names}: {tree['date']}{device}, {versions}.\n\n```\n{command_of(tree)}\n```\n"
        )
        failed = len(tree["faults"])
        if failed:
            parts.append(f"{failed} could not be evaluated, and are not in the means.\n")
        parts += [f"Note: {note}.\n" for note in tree["notes"]]
    weights = {one["sha256"]: one for tree in trees for one in tree["weights"]}
    if weights:
        parts.append("### Weights\n\n" + _weights_table(weights.values()))
    ways = {tree["inference"]: tree["inference_in_words"] for tree in trees if tree["inference"]}
    if ways:
        lines = "\n".join(f"- `{way}`: {words}." for way, words in ways.items())
        parts.append(f"### Inference\n\n{lines}\n")
    protocols = {tree["protocol"]["name"]: tree["protocol"]["in_words"] for tree in trees}
    lines = "\n".join(f"- {words}" for words in protocols.values())
    parts.append(f"### Protocols\n\n{lines}\n")
    return "\n".join(parts)


def _weights_table(weights: Iterable[Tree]) -> str:
    lines = ["| weights | task | parameters | trained on | SHA-256 |", "|---|---|---:|---|---|"]
    lines += [
        _line(
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
    """The command that makes an evaluation; DATA stands for the folder of the test sets."""
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
