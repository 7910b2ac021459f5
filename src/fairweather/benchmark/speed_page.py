"""The page of speed and memory: from the JSON files of benchmarks and nothing else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fairweather.benchmark.jobs import SHIPPED, TUNED
from fairweather.benchmark.machine import FORMAT
from fairweather.benchmark.targets import target_lines
from fairweather.files import read_document, write_text

Tree = dict[str, Any]

ORDER = ("median", "best")

HEAD = """\
# Speed and memory

Written by `fairweather benchmark speed-page` from the files in `docs/benchmarks`; do not edit it.
Every section names its file, the machine and the command.

Every contestant is a process of its own with the same weights. In each round each of them does
the same work once, in turns, so that other work on the machine disturbs all alike.
Processor seconds are those of all threads of the process, in the program and in the kernel; on a
busy machine they say more than the clock. Ratios are medians over the rounds, each within one
round, in processor seconds on a CPU and by the clock on other devices. So are shares of ceilings;
megapixels and GFLOP a second are by the clock.
Peak memory is the most that a process has held, Python, PyTorch and loading included.
The ceilings are a large matrix product and a large copy in the same rounds. A share of the matrix
ceiling counts only the products and convolutions that the image needs, so padding to a square
lowers it; a share of the copy ceiling counts the parameters, and each block's features read once
and written once.
The official code is https://github.com/joshyZhou/AST, called as its test scripts call it: in the
middle of a square of zeros. The tuned one keeps freed memory
(`MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592`); ours does the like itself.
"""
NO_GPU = """
The fused Triton kernels for GPUs are unmeasured: none of these files is from a GPU. They were
tested in Triton's interpreter only.
"""


def write_speed_page(results: Sequence[Path], page: Path) -> None:
    """Writes a Markdown page from what `fairweather benchmark restore` and `training` measured.

    The same files give the same page to the last byte, whatever their order.

    Args:
        results: JSON files.
        page: the file to write; one of that name is replaced.

    Raises:
        DataError: if a file is none of ours, or the page cannot be written.
    """
    otherwise = "was not written by `fairweather benchmark restore` or `training`"
    trees = {
        path.name: read_document(path, form=FORMAT, otherwise=otherwise)
        for path in sorted(results, key=lambda path: path.name)
    }
    write_text(page, speed_text(trees))


def speed_text(trees: dict[str, Tree]) -> str:
    """The page, of results by file name."""
    on_gpu = any(tree["machine"]["gpu"] for tree in trees.values())
    parts = [HEAD if on_gpu else HEAD + NO_GPU]
    if targets := target_lines(trees):
        parts.append("\n".join(["## Goals\n", *targets, ""]))
    parts += [section_of(name, tree) for name, tree in trees.items()]
    return "\n".join(parts)


def section_of(name: str, tree: Tree) -> str:
    """One file."""
    machine, setting, model = tree["machine"], tree["setting"], tree["model"]
    verb = "Restoring" if tree["kind"] == "restore" else "A training step"
    versions = ", ".join(f"{package} {number}" for package, number in tree["versions"].items())
    gpu = f"{machine['gpu']}; " if machine["gpu"] else ""
    load = " ".join(str(one) for one in machine["load_average"])
    lines = [
        f"## {verb} with {model['name']}: {name}\n",
        f"From [benchmarks/{name}](benchmarks/{name}), {tree['date']}:\n",
        f"```\n{tree['command']}\n```\n",
        f"Machine: {gpu}{machine['processor']}, {machine['cores']} cores,"
        f" {machine['instructions']}, {machine['memory_bytes'] / 2**30:.0f} GiB,"
        f" {machine['system']}; Python {machine['python']}, {versions}."
        f" Load average at the start: {load}.",
        f"Weights: {model['weights']}, {model['parameters'] / 1e6:.2f} M parameters."
        f" {setting['device']}, {setting['precision']}, threads: {setting['threads']},"
        f" rounds: {setting['rounds']}.\n",
    ]
    for run in tree["runs"]:
        lines += run_lines(run)
    return "\n".join(lines)


def run_lines(run: Tree) -> list[str]:
    """One size."""
    batch, height, width = run["shape"]
    load, ceiling = run["load"], run["ceiling"]
    lines = [f"### {height}×{width}, batch {batch}\n"]
    if "matrix_gflop_per_s" in ceiling:
        matrix = ceiling["matrix_gflop_per_s"]
        lines.append(
            f"Matrix ceiling: {matrix['median']:,.0f} GFLOP/s (best {matrix['best']:,.0f},"
            f" {ceiling['matrix_side']}³, {ceiling['matrix_routine']})."
        )
    if "copy_gb_per_s" in ceiling:
        copy = ceiling["copy_gb_per_s"]
        lines.append(
            f"Copy ceiling: {copy['median']:,.1f} GB/s (best {copy['best']:,.1f}),"
            " read and written."
        )
    lines.append(f"The work: {load['gflop']:,.1f} GFLOP, at least {load['gbytes']:.2f} GB.\n")
    lines += [*table_lines(run), ""]
    if run.get("official_shape"):
        side, checked = run["official_shape"][1], run["official_checked_at"][0]
        lines.append(
            f"The official code computed {side}×{side}. Its difference is at {checked}×{checked}."
        )
    if run["largest_change"] is not None:
        lines.append(
            "Differences are the largest ones from plain PyTorch in fp32, which changes values by"
            f" up to {run['largest_change']:.2g}.\n"
        )
    lines += [f"Failed: {fault}.\n" for fault in run["faults"]]
    return lines


def table_lines(run: Tree) -> list[str]:
    """The contestants."""
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


def line_of(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(cells) + " |"


def percent(share: float | None) -> str:
    """A share, where there is one."""
    return "" if share is None else f"{share:.1%}"


def ratio(number: float | None) -> str:
    """How many times; nothing for a contestant beside itself."""
    return "" if number is None else f"{number:.2f}"
