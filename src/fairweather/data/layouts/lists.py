"""Files that list pairs: each line with its number, and the paths of both images."""

import csv
from pathlib import Path

from fairweather.errors import DataError


def text_lines(path: Path) -> list[tuple[int, tuple[str, str]]]:
    """Lines `degraded clean`, each beginning with a slash that means the list's own folder."""
    lines: list[tuple[int, tuple[str, str]]] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise DataError(f"{path}, line {number}: has {len(words)} names, not two: {line!r}")
        degraded, clean = (word.replace("\\", "/").lstrip("/") for word in words)
        lines.append((number, (degraded, clean)))
    return lines


def csv_lines(path: Path) -> list[tuple[int, tuple[str, str]]]:
    """Lines `degraded,clean`; a first line of these two words tells the order of the columns."""
    lines: list[tuple[int, tuple[str, str]]] = []
    first, second, begun = 0, 1, False
    reader = csv.reader(_text(path).splitlines(), strict=True, skipinitialspace=True)
    try:
        for row in reader:
            words = [word.strip() for word in row]
            if not any(words):
                continue
            if len(words) != 2 or not all(words):
                raise DataError(
                    f"{path}, line {reader.line_num}: has {len(words)} columns, or an empty one;"
                    " two are needed: degraded,clean"
                )
            if not begun and {word.casefold() for word in words} == {"degraded", "clean"}:
                first = [word.casefold() for word in words].index("degraded")
                second, begun = 1 - first, True
                continue
            begun = True
            degraded, clean = (words[i].replace("\\", "/") for i in (first, second))
            lines.append((reader.line_num, (degraded, clean)))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is no CSV: {error}") from error
    return lines


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
