"""Options that several commands take."""

import re
from typing import Annotated

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]


def parse_size(size: str) -> tuple[int, int]:
    """Read `HxW` in pixels."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", size)
    if not match:
        raise typer.BadParameter(f"--size {size}: is no height and width, such as 256x384")
    return int(match[1]), int(match[2])
