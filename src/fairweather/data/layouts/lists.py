"""Pairs that a text file or a table lists."""

import csv
from pathlib import Path

from fairweather.data.layouts.folders import contents_of
from fairweather.data.pairs import Pair
from fairweather.errors import DataError


def list_pairs(root: Path, *, name: str, file: str) -> list[Pair]:
    """Return the pairs of a list file or a table, in its order.

    Raises:
        DataError: It cannot be read, is malformed, or names files that are missing.
    """
    path = root if name == "csv" and root.is_file() else root / file
    if not path.is_file():
        raise DataError(
            f"{root}: does not lie as layout '{name}' does\n"
            f"  expected: {file}\n"
            f"  found:    {contents_of(root)}"
        )
    lines = _csv_lines(path) if name == "csv" else _text_lines(path)
    pairs: list[Pair] = []
    missing: list[str] = []
    for number, (degraded, clean) in lines:
        pair = Pair(path.parent / degraded, path.parent / clean)
        if pair.is_synthetic:
            raise DataError(f"{path}, line {number}: names one file twice: {degraded}")
        missing += [f"line {number}: {p}" for p in (pair.degraded, pair.clean) if not p.is_file()]
        pairs.append(pair)
    if missing:
        raise DataError(
            f"{path}: {len(missing)} files are missing: {', '.join(missing[:3])}"
            f"{' …' if len(missing) > 3 else ''}"
        )
    if not pairs:
        raise DataError(f"{path}: lists no pair")
    return pairs


def _text_lines(path: Path) -> list[tuple[int, tuple[str, str]]]:
    """Read lines `degraded clean`; a leading slash means the list's own folder."""
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


def _csv_lines(path: Path) -> list[tuple[int, tuple[str, str]]]:
    """Read lines `degraded,clean`; a first line of these words gives the order of the columns."""
    reader = csv.reader(_text(path).splitlines(), strict=True, skipinitialspace=True)
    try:
        rows = [(reader.line_num, [word.strip() for word in row]) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is no CSV: {error}") from error
    rows = [(number, words) for number, words in rows if any(words)]
    first = 0
    if rows and sorted(map(str.casefold, rows[0][1])) == ["clean", "degraded"]:
        first = int(rows.pop(0)[1][0].casefold() == "clean")
    for number, words in rows:
        if len(words) != 2 or not all(words):
            raise DataError(
                f"{path}, line {number}: has {len(words)} columns, or an empty one;"
                " two are needed: degraded,clean"
            )
    slashed = ((number, [word.replace("\\", "/") for word in words]) for number, words in rows)
    return [(number, (words[first], words[1 - first])) for number, words in slashed]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
