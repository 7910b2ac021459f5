"""Write docs/results/speed.md from the JSON files of benchmarks; nothing on the page is typed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from fairweather.cli import run_command
from fairweather.files import read_document, write_text
from laboratory.goals import goal_lines
from laboratory.jobs import SHIPPED, TUNED
from laboratory.machine import FORMAT
from laboratory.pages import RESULTS, Files, Out, files_of, line_of

Tree = dict[str, Any]

PAGE = RESULTS / "speed.md"
ORDER = ("median", "best")

HEAD = """\
# Speed and memory

`python benchmarks/speed_page.py` writes this page from the files in [speed/](speed); do not edit
it. Each section gives the file, the machine and the command that repeats it from the repository's
root. In a command, `joshyZhou/AST` stands for a checkout of https://github.com/joshyZhou/AST, the
official code, and `joshyZhou/ASTv2` for that of AST-v2. To find the fastest engine on your own
machine, run `fairweather benchmark`.

How the figures are measured:

- Each contestant is a process of its own with the same weights. The contestants take turns: in each
  round, each does the same work once, so that other programs slow them all down alike.
- Processor seconds count all threads of a process, in the program and in the kernel. On a busy
  machine they tell more than the clock.
- A ratio is the median over the rounds of the ratios within each round: of processor seconds on a
  CPU, of seconds on the clock on other devices. So is a share of a ceiling. Megapixels and GFLOP
  per second are by the clock.
- Peak memory is the most that a process has held, with Python, PyTorch and loading.
- The ceilings are the speeds of a large matrix product and of a large copy in the same rounds. The
  share of the matrix ceiling counts only the products and convolutions that the image itself needs,
  so that padding to a square lowers it. The share of the copy ceiling counts the parameters, and
  each block's features read once and written once.
- The official code runs as its test scripts run it, with the image in the middle of a square of
  zeros: "as shipped" with glibc's defaults, "tuned" told to keep freed memory
  (`MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592`), which fairweather does
  by itself.
"""
NO_GPU = """
The fused Triton kernels for GPUs are not measured: no file here is from a GPU.
"""


def main(results: Files = None, *, out: Out = PAGE) -> None:
    """Write the page of speed and memory, docs/results/speed.md."""
    write_speed_page(results or files_of(PAGE), out)
    typer.echo(f"page: {out}")


def write_speed_page(results: Sequence[Path], page: Path) -> None:
    """Write a Markdown page from what `restoring.py` and `training_step.py` measured.

    The same files give the same page to the last byte, whatever their order.

    Args:
        results: JSON files.
        page: the file to write; one of that name is replaced.

    Raises:
        DataError: if a file is none of ours, or the page cannot be written.
    """
    otherwise = "was not written by benchmarks/restoring.py or benchmarks/training_step.py"
    trees = {
        path.name: read_document(path, form=FORMAT, otherwise=otherwise)
        for path in sorted(results, key=lambda path: path.name)
    }
    write_text(page, speed_text(trees))


def speed_text(trees: dict[str, Tree]) -> str:
    """Return the page, of results by file name."""
    on_gpu = any(tree["machine"]["gpu"] for tree in trees.values())
    parts = [HEAD if on_gpu else HEAD + NO_GPU]
    if goals := goal_lines(trees):
        parts.append("\n".join(["## Goals\n", *goals, ""]))
    parts += [section_of(name, tree) for name, tree in trees.items()]
    return "\n".join(parts)


def section_of(name: str, tree: Tree) -> str:
    """Return the section of one file."""
    machine, setting, model = tree["machine"], tree["setting"], tree["model"]
    versions = ", ".join(f"{package} {number}" for package, number in tree["versions"].items())
    gpu = f"{machine['gpu']}; " if machine["gpu"] else ""
    load = " ".join(str(one) for one in machine["load_average"])
    lines = [
        f"## {heading_of(tree)}\n",
        f"[{name}](speed/{name}), {tree['date']}:\n",
        f"```\n{tree['command']}\n```\n",
        f"Machine: {gpu}{machine['processor']}, {machine['cores']} cores,"
        f" {machine['instructions']}, {machine['memory_bytes'] / 2**30:.0f} GiB,"
        f" {machine['system']}; Python {machine['python']}, {versions}."
        f" Load average at the start: {load}.",
        f"Weights: {model['weights']}, {model['parameters'] / 1e6:.2f} M parameters."
        f" Device {setting['device']}, {setting['precision']}, threads: {setting['threads']},"
        f" rounds: {setting['rounds']}.\n",
    ]
    for run in tree["runs"]:
        lines += run_lines(run)
    return "\n".join(lines)


def heading_of(tree: Tree) -> str:
    """Say what was measured, with which weights, at which sizes, and on what."""
    what = "Restoring" if tree["kind"] == "restore" else "A training step"
    sizes = " and ".join(f"{run['shape'][1]}×{run['shape'][2]}" for run in tree["runs"])
    machine = tree["machine"]
    return f"{what} with {tree['model']['name']}, {sizes}, {machine['gpu'] or machine['processor']}"


def run_lines(run: Tree) -> list[str]:
    """Return the lines of one size."""
    batch, height, width = run["shape"]
    load, ceiling = run["load"], run["ceiling"]
    lines = [f"### {height}×{width}, batch {batch}\n"]
    if "matrix_gflop_per_s" in ceiling:
        matrix = ceiling["matrix_gflop_per_s"]
        lines.append(
            f"Ceiling of matrix products: {matrix['median']:,.0f} GFLOP/s"
            f" (best {matrix['best']:,.0f}; {ceiling['matrix_side']}³, {ceiling['matrix_routine']})"
        )
    if "copy_gb_per_s" in ceiling:
        copy = ceiling["copy_gb_per_s"]
        lines.append(
            f"Ceiling of copies: {copy['median']:,.1f} GB/s (best {copy['best']:,.1f}),"
            " read and written."
        )
    lines.append(f"The work: {load['gflop']:,.1f} GFLOP, and at least {load['gbytes']:.2f} GB.\n")
    lines += [*table_lines(run), ""]
    if run.get("official_shape"):
        side, checked = run["official_shape"][1], run["official_checked_at"][0]
        lines.append(
            f"The official code computes {side}×{side}. Its difference is measured at"
            f" {checked}×{checked}."
        )
    if run["largest_change"] is not None:
        lines.append(
            "A difference is the largest one from plain PyTorch in fp32, which itself changes the"
            f" image by up to {run['largest_change']:.2g}.\n"
        )
    lines += [f"Failed: {fault}.\n" for fault in run["faults"]]
    return lines


def table_lines(run: Tree) -> list[str]:
    """Return the table of the contestants."""
    names = [one["name"] for one in run["contestants"]]
    baselines = [name for name in (SHIPPED, TUNED) if name in names] or names[:1]
    head = [
        *("contestant", "processor s", "best", "wall s", "best", "peak memory MB", "MP/s"),
        *("GFLOP/s", "of matrix ceiling", "of copy ceiling", "difference"),
        *(f"times as fast as {name}" for name in baselines),
        *(f"memory, {name} / this" for name in baselines),
    ]
    lines = [line_of(*head), line_of("---", *["---:"] * (len(head) - 1))]
    memory = {one["name"]: one["peak_bytes"] for one in run["contestants"]}
    for one in run["contestants"]:
        processor, wall = one["processor_s"], one["wall_s"]
        lines.append(
            line_of(
                one["name"],
                *(f"{seconds[key]:#.3g}" for seconds in (processor, wall) for key in ORDER),
                f"{one['peak_bytes'] / 1e6:,.0f}",
                f"{one['megapixels_per_s']:.3g}",
                f"{one['gflop_per_s']:.3g}",
                *(percent(one.get(f"share_of_{kind}_ceiling")) for kind in ("matrix", "copy")),
                "" if one["largest_difference"] is None else f"{one['largest_difference']:.1e}",
                *(ratio(one["faster_than"].get(name)) for name in baselines),
                *(ratio(memory[name] / one["peak_bytes"]) for name in baselines),
            )
        )
    return lines


def percent(share: float | None) -> str:
    """Return a share, where there is one."""
    return "" if share is None else f"{share:.1%}"


def ratio(number: float | None) -> str:
    """Return how many times; nothing for a contestant beside itself."""
    return "" if number is None else f"{number:.2f}"


if __name__ == "__main__":
    run_command(lambda: typer.run(main))
