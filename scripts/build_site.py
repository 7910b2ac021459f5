"""Build the site into build/site: the pages in docs/, those written from the code, and files.

Pages link to files of the repository as on a hosting site: a card of weights, a script, a folder.
On the site each such file has a page of its own, and the links lead there. All pages are gathered
in build/docs, from which Zensical makes the site.
"""

import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from site_reference import reference_pages

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "build" / "docs"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
CODE = re.compile(r"^ *(`{3,}).*?^ *\1|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LANGUAGES = {
    ".cpp": "cpp",
    ".json": "json",
    ".py": "python",
    ".service": "ini",
    ".sh": "bash",
    ".slurm": "bash",
    ".yaml": "yaml",
    ".yml": "yaml",
}
PLACES = {
    "README.md": "index.md",
    "docs": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "CODE_OF_CONDUCT.md": "project/conduct.md",
    "LICENSE": "project/licence.md",
    "src/fairweather/weights": "weights/index.md",
}


def main() -> None:
    """Gather the pages and build the site; the exit status is that of Zensical."""
    gather()
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    raise SystemExit(subprocess.run(command, cwd=ROOT, check=False).returncode)


def gather() -> None:
    """Write all pages into build/docs."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(ROOT / "docs", PAGES, ignore=shutil.ignore_patterns("*.md"))
    queue = [path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")]
    queue += [path for path in PLACES if path.isupper() or path.endswith(".md")]
    queue = [path for path in queue if path != "README.md" and (ROOT / path).exists()]
    written: dict[str, str] = {}
    generated = dict(reference_pages())
    for place, text in generated.items():
        write_page(place, text, source=f"docs/{place}", queue=queue)
    while queue:
        path = queue.pop()
        place = place_of(path)
        if place not in written and place not in generated:
            written[place] = path
            write_page(place, page_of(path), source=path, queue=queue)


def write_page(place: str, text: str, *, source: str, queue: list[str]) -> None:
    """Write a page whose links lead to pages, and queue the files that it links to."""

    def turn(link: re.Match[str]) -> str:
        path = path_of(link[2], source)
        if path is None:
            return link[0]
        if not path.startswith("docs/") or (ROOT / path).is_dir():
            queue.append(path)
        _, mark, anchor = link[2].partition("#")
        to = place_of(path)
        if to == place and mark:
            return f"{link[1]}#{anchor}{link[3]}"
        target = posixpath.relpath(to, posixpath.dirname(place) or ".")
        return f"{link[1]}{target}{mark}{anchor}{link[3]}"

    file = PAGES / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(outside_code(text, turn), encoding="utf-8")


def page_of(path: str) -> str:
    """Return the Markdown of the page that shows a file or folder of the repository."""
    file = ROOT / path
    if file.is_dir():
        return folder_page(path)
    text = file.read_text("utf-8")
    if file.suffix == ".md":
        return text
    title = "Licence" if path == "LICENSE" else path
    language = LANGUAGES.get(file.suffix, "text")
    return f"# {title}\n\n````{language}\n{text.strip(chr(10))}\n````\n"


def folder_page(path: str) -> str:
    """Return the page of a folder: its files, with what the first line of each says."""
    rows = []
    for file in sorted((ROOT / path).iterdir()):
        first = file.read_text("utf-8").partition("\n")[0] if file.suffix == ".py" else ""
        if file.is_file() and file.name != "__init__.py":
            rows.append(f"| `{file.name}` | {first.strip(chr(34))} |")
    return "\n".join([f"# {path}", "", "| file | |", "|---|---|", *rows, ""])


def place_of(path: str) -> str:
    """Return the page, or other file of the site, that shows a file of the repository."""
    if path in PLACES:
        return PLACES[path]
    if path.startswith("docs/"):
        inside = path.removeprefix("docs/")
        if (ROOT / path).is_dir() and (ROOT / path / "README.md").exists():
            return f"{inside}/README.md"
        return f"source/{path}/index.md" if (ROOT / path).is_dir() else inside
    if path.startswith("src/fairweather/weights/"):
        return path.removeprefix("src/fairweather/")
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}.md"


def path_of(target: str, source: str) -> str | None:
    """Return the file of the repository that a link of a page leads to; None for other links."""
    file = target.partition("#")[0]
    if "://" in target or target.startswith("mailto:") or not file:
        return None
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), file))
    return None if path.startswith("..") else path


def outside_code(text: str, turn: Callable[[re.Match[str]], str]) -> str:
    """Replace the links that stand outside of code."""
    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [LINK.sub(turn, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(turn, text[end:])])


if __name__ == "__main__":
    main()
