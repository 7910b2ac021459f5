"""What the scripts that write a page of docs/results share: options, files, rows of tables."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from laboratory.machine import describe_machine

RESULTS = Path(__file__).parents[2] / "docs" / "results"

Files = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[RESULTS.json …]",
        help="Results that were measured.",
        show_default="those beside the page",
    ),
]
Out = Annotated[
    Path, typer.Option("-o", "--out", help="The Markdown file.", show_default="that page")
]


def files_of(page: Path) -> list[Path]:
    """Return the results that a page is written from."""
    return sorted(page.with_suffix("").glob("*.json"))


def line_of(*cells: str) -> str:
    """Return a row of a Markdown table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def machine_line() -> str:
    """Return what this machine is, as a page says it."""
    facts = describe_machine("cpu")
    return "Machine: " + ", ".join(f"{name} {value}" for name, value in facts.items()) + "."


def write_facts(page: Path, title: str, text: str, rows: Iterable[tuple[str, str]]) -> None:
    """Write a page of one table, and print it.

    Args:
        page: the file.
        title: its heading.
        text: what was measured, and by which command.
        rows: what each figure is, and the figure.
    """
    table = "\n".join(line_of(*row) for row in rows)
    page.write_text(
        f"# {title}\n\n{text}\n\n{machine_line()}\n\n| | |\n|---|---:|\n{table}\n", "utf-8"
    )
    typer.echo(page.read_text("utf-8"))
