"""Write the notebooks in examples/notebooks from the guides that they show.

    python scripts/notebooks.py

Text becomes text, Python becomes cells, commands become cells that begin with `!`, and a block of
YAML becomes a cell that writes the file which the text before it names.
"""

import posixpath
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = {
    "train": "docs/guides/train.md",
    "python": "docs/guides/python.md",
}
BLOCK = re.compile(r"(?:<!-- not run[^\n]*-->\n)?^```(\w+)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
SLIDER = re.compile(r'<div class="compare" markdown>\n+|\n+</div>\n')
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def main() -> None:
    """Write all notebooks."""
    for name in NOTEBOOKS:
        path = notebook_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make_notebook(name), encoding="utf-8")


def notebook_path(name: str) -> Path:
    """Return where a notebook lies."""
    return ROOT / "examples" / "notebooks" / f"{name}.ipynb"


def make_notebook(name: str) -> str:
    """Return the JSON of a notebook."""
    page = NOTEBOOKS[name]
    text = (ROOT / page).read_text("utf-8")
    cells, end = [], 0
    for block in BLOCK.finditer(text):
        before = text[end : block.start()]
        end = block.end()
        code = code_of(block[1], block[2].rstrip("\n"), before)
        if code is None:
            cells.append(nbformat.v4.new_markdown_cell(prose(before + block[0], page)))
            continue
        if before.strip():
            cells.append(nbformat.v4.new_markdown_cell(prose(before, page)))
        cells.append(nbformat.v4.new_code_cell(code))
    if text[end:].strip():
        cells.append(nbformat.v4.new_markdown_cell(prose(text[end:], page)))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


def code_of(language: str, code: str, before: str) -> str | None:
    """Return the cell of a block of code; None for what is only shown."""
    if language == "python":
        return code
    if language == "sh":
        lines = [line for line in code.splitlines() if not line.startswith("pip install")]
        return "\n".join(f"!{line}" for line in lines) or None
    if language == "yaml":
        return f"%%writefile {re.findall(r'`([^`]+[.]yaml)`', before)[-1]}\n{code}"
    return None


def prose(text: str, page: str) -> str:
    """Return the text of a cell, whose links lead from examples/notebooks."""

    def turn(link: re.Match[str]) -> str:
        if "://" in link[2] or link[2].startswith("#"):
            return link[0]
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), link[2]))
        return f"{link[1]}{posixpath.relpath(path, 'examples/notebooks')}{link[3]}"

    return LINK.sub(turn, SLIDER.sub("", text)).strip("\n")


if __name__ == "__main__":
    main()
