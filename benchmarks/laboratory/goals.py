"""The goals for speed and memory on a CPU, beside what was measured."""

from typing import Any, NamedTuple

from laboratory.jobs import SHIPPED, TUNED

Tree = dict[str, Any]

AGREES = 1e-4  # further from plain PyTorch, an engine does not compute the same


class Goal(NamedTuple):
    """At least so many times as fast, or as little memory, for ast_t in fp32 on one CPU thread."""

    size: tuple[int, int]
    beside: str
    figure: str
    least: float


GOALS = (
    Goal((256, 256), SHIPPED, "speed", 3.0),
    Goal((256, 256), TUNED, "speed", 1.7),
    Goal((720, 1280), SHIPPED, "speed", 10.0),
    Goal((720, 1280), SHIPPED, "memory", 8.0),
)


def goal_lines(trees: dict[str, Tree]) -> list[str]:
    """Return a table of the goals and of every engine's figure, or nothing if none was measured."""
    lines = []
    for name, tree in trees.items():
        setting = tree["setting"]
        what = (tree["kind"], tree["model"]["name"], setting["device"], setting["precision"])
        if what == ("restore", "ast_t", "cpu", "fp32") and setting["threads"] == 1:
            lines += [line for run in tree["runs"] for line in run_lines(run, name)]
    head = "| size | goal | engine | figure | | file |"
    return [head, "|---|---|---|---:|---|---|", *lines] if lines else []


def run_lines(run: Tree, name: str) -> list[str]:
    """Return the goals of one size."""
    _, height, width = run["shape"]
    peaks = {one["name"]: one["peak_bytes"] for one in run["contestants"]}
    lines = []
    for goal in GOALS:
        if goal.size != (height, width) or goal.beside not in peaks:
            continue
        for one in run["contestants"]:
            if one["role"] != "engine" or (one["largest_difference"] or 0) > AGREES:
                continue
            figure = (
                one["faster_than"][goal.beside]
                if goal.figure == "speed"
                else peaks[goal.beside] / one["peak_bytes"]
            )
            what = "times the speed of" if goal.figure == "speed" else "times less memory than"
            lines.append(
                f"| {height}×{width} | {goal.least:g} {what} {goal.beside} | {one['name']}"
                f" | {figure:.2f} | {'reached' if figure >= goal.least else 'missed'}"
                f" | {name} |"
            )
    return lines
