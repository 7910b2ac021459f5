"""What the scripts that write a page of docs/results share: options, files, rows of tables."""

from pathlib import Path
from typing import Annotated

import typer

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
