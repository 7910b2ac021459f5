"""Pairs that a text file or a table lists."""

import csv
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from fairweather.data.pairs import Pair
from fairweather.errors import DataError


def list_pairs(path: Path, *, is_csv: bool) -> list[Pair]:
    """Return the pairs of a text file or a table, in its order.

    Raises:
        DataError: It cannot be read, is malformed, or names files that are missing.
    """
    pairs: list[Pair] = []
    missing: list[str] = []
    for number, words in _csv_lines(path) if is_csv else _text_lines(path):
        degraded, clean = (_listed(path.parent, word.replace("\\", "/")) for word in words)
        pair = Pair(degraded, clean)
        if pair.is_synthetic:
            raise DataError(f"{path}, line {number}: names one file twice: {words[0]}")
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


def _listed(folder: Path, name: str) -> Path:
    """Return a file as the disk has it: with accents in their letters, or apart."""
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((folder / form for form in forms if (folder / form).exists()), folder / name)


def _text_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read lines `degraded clean`; a leading slash means the list's own folder."""
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = [word.lstrip("/\\") for word in line.split()]
        if len(words) not in (0, 2):
            raise DataError(f"{path}, line {number}: has {len(words)} names, not two: {line!r}")
        if words:
            yield number, words


def _csv_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Read lines `degraded,clean`; a first line of these words gives the order of the columns."""
    reader = csv.reader(_text(path).splitlines(), strict=True, skipinitialspace=True)
    try:
        rows = [(reader.line_num, [word.strip() for word in row]) for row in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is no CSV: {error}") from error
    rows = [(number, words) for number, words in rows if any(words)]
    order = 1
    if rows and sorted(map(str.casefold, rows[0][1])) == ["clean", "degraded"]:
        order = -1 if rows.pop(0)[1][0].casefold() == "clean" else 1
    for number, words in rows:
        if len(words) != 2 or not all(words):
            raise DataError(
                f"{path}, line {number}: has {len(words)} columns, or an empty one;"
                " two are needed: degraded,clean"
            )
        yield number, words[::order]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text: {error}") from error
