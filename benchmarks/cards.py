"""Measure again what the cards of the bundled weights claim, and write it into them.

python benchmarks/cards.py DATA [WEIGHTS …]

Runs the command that stands in each row of a card, writes what it printed to docs/results/quality,
from which quality_page.py writes its page, and puts the figures into the row. `git diff` then shows
what has changed. DATA holds the test sets as the rows name them. All weights take about half an
hour on one thread.
"""

import itertools
import json
import re
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from fairweather.cli import run_command
from fairweather.errors import DataError, OptionError
from fairweather.files import write_text
from fairweather.models import list_weights
from laboratory.pages import RESULTS, line_of

ROW = re.compile(
    r"^\| (?P<images>[^|]+) \|(?P<figures>[^`\n]*)\| `fairweather evaluate (?P<options>[^`]+)` \|$",
    re.MULTILINE,
)
QUALITY = RESULTS / "quality"

Tree = dict[str, Any]


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the test sets, DATA in the cards.")],
    weights: Annotated[
        list[str] | None, typer.Argument(help="Bundled names.", show_default="all")
    ] = None,
) -> None:
    """Measure again what the cards of the bundled weights claim, and write it into them."""
    known = list_weights()
    if unknown := set(weights or ()) - set(known):
        raise OptionError(f"{', '.join(sorted(unknown))}: is none of {', '.join(known)}")
    chosen = weights or list(known)
    for name in chosen:
        for row in ROW.finditer(known[name].with_suffix(".md").read_text("utf-8")):
            tree = evaluate(row["options"], data)
            write_text(results_of(row["options"]), json.dumps(tree, indent=1) + "\n")
            typer.echo(f"{name}: {row['images']}: {results_of(row['options']).name}")
    for name in chosen:
        card = known[name].with_suffix(".md")
        write_text(card, renewed_card(card.read_text("utf-8")))


def evaluate(options: str, data: Path) -> Tree:
    """Run `fairweather evaluate` as a card says it; return its document."""
    words = [
        str(data) + word.removeprefix("DATA") if word.startswith("DATA/") else word
        for word in shlex.split(options)
    ]
    command = [sys.executable, "-m", "fairweather", "evaluate", *words, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise DataError(f"fairweather evaluate {options}: {ended.stderr.strip()}")
    tree: Tree = json.loads(ended.stdout)
    return tree


def results_of(options: str, weights: str | None = None) -> Path:
    """Return where the results of a row's command are kept; or those of other weights."""
    data, *words = shlex.split(options)
    values = dict(itertools.pairwise(words))
    parts = [Path(data).name, values.get("--degradation"), values.get("--protocol")]
    name = "-".join([weights or values["--weights"], *filter(None, parts)])
    return QUALITY / f"{name.lower()}.json"


def renewed_card(text: str) -> str:
    """Return a card with the figures of the results that are kept."""
    return ROW.sub(renewed_row, text)


def renewed_row(row: re.Match[str]) -> str:
    """Return the row of a card with the figures of its results."""
    tree = json.loads(results_of(row["options"]).read_text("utf-8"))
    (one,), (weights,) = tree["sets"], tree["weights"]
    name = weights["name"]
    if one["mean"]["input"] is None:
        cells = ["", untouched(one["images"], name), ""]
    else:
        degraded, restored = one["mean"]["input"], one["mean"]["restored"][name]
        cells = [figures(degraded), figures(restored), f"{signed(restored['gain_db'])} dB"]
    if row["figures"].count("|") == len(cells):  # a column for the weights for the task alone
        cells.append(alone(row["options"], one["task"]))
    line = line_of(row["images"], *cells, f"`fairweather evaluate {row['options']}`")
    return line.replace("  ", " ")


def untouched(images: Sequence[Tree], name: str) -> str:
    """Return how clean photographs came back."""
    changed = {one["name"]: one["restored"][name]["psnr_db"] for one in images}
    changed = {photo: psnr_db for photo, psnr_db in changed.items() if psnr_db is not None}
    parts = [f"{len(images) - len(changed)} identical"] if len(changed) < len(images) else []
    if changed:
        worst = min(changed, key=changed.__getitem__)
        lowest = f"worst {changed[worst]:.2f}, " if len(changed) > 1 else ""
        parts.append(f"{statistics.mean(changed.values()):.2f} dB ({lowest}{worst})")
    return ", ".join(parts)


def figures(mean: Tree) -> str:
    """Return mean PSNR and SSIM."""
    return f"{mean['psnr_db']:.2f} dB / {mean['ssim']:.4f}"


def signed(gain_db: float) -> str:
    """Return a gain with its sign."""
    return f"{gain_db:+.2f}".replace("-", "−")


def alone(options: str, task: str) -> str:
    """Return the mean PSNR that the weights for the task alone reach on the images of a row."""
    if not task:
        return ""
    tree = json.loads(results_of(options, task).read_text("utf-8"))
    return f"{tree['sets'][0]['mean']['restored'][task]['psnr_db']:.2f} dB"


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
