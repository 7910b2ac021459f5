"""An evaluation as a folder: report.html, results.json, results.csv, and figures as PNG."""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fairweather.errors import TAKEN, DataError
from fairweather.evaluation.report.page import page_parts, render_card
from fairweather.evaluation.report.pictures import FigureFiles, close_ups
from fairweather.evaluation.results import Evaluation, Images, Row, SetResult, as_table, as_tree

MARK = '<meta name="generator" content="fairweather evaluate">'  # in templates/report.html
PAGE, TREE, TABLE, FIGURES = "report.html", "results.json", "results.csv", "figures"
UNFINISHED = ".fairweather-unfinished"
PAGE_BYTES = 80_000_000  # of pictures that a browser still opens well


class ReportWriter:
    """Write the pictures while images are evaluated, so that only one is in memory.

    Everything is made in a hidden folder and moved into place at the end: whatever stops the
    evaluation leaves an older report as it was, and no half of a new one.

        with ReportWriter(folder, images=100) as writer:
            writer.finish(evaluate(…, on_image=writer.add))
    """

    def __init__(self, folder: Path, *, images: int, overwrite: bool = False):
        """Prepare the folder.

        Args:
            folder: of the report.
            images: how many will come; the more, the smaller their pictures.
            overwrite: whether an older report in the folder is replaced.

        Raises:
            DataError: if the folder holds an older report that is not replaced, or something else,
                or cannot be written.
        """
        check_is_free(folder, overwrite=overwrite)
        self.folder, self.is_new = folder, not folder.exists()
        self.work = folder / UNFINISHED
        self.budget_bytes = PAGE_BYTES / max(1, images)
        self.count = 0
        with writing(folder):
            shutil.rmtree(self.work, ignore_errors=True)
            for inner in ("cards", FIGURES):
                (self.work / inner).mkdir(parents=True)
        self.figures = FigureFiles(self.work / FIGURES)

    def __enter__(self) -> "ReportWriter":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        if self.is_new and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def add(self, evaluation: Evaluation, result: SetResult, row: Row, images: Images) -> None:
        """Take an image in, as `evaluate` calls it.

        Raises:
            DataError: if it cannot be written.
        """
        crops, rank = close_ups(images), evaluation.rank(row)
        card = render_card(
            row,
            images,
            crops=crops,
            number=self.count,
            title=f"{result.name}: {row.name}",
            rank=rank,
            budget_bytes=self.budget_bytes,
        )
        with writing(self.folder):
            write_text(self.work / f"cards/{self.count:08}.html", [card])
            self.figures.add(result, images, rank=rank, crops=crops)
        self.count += 1

    def finish(self, evaluation: Evaluation) -> Path:
        """Write the page, which joins the cards, and the figures, and put all into place.

        Raises:
            DataError: if something cannot be written.
        """
        cards = (path.read_text("utf-8") for path in sorted((self.work / "cards").iterdir()))
        with writing(self.folder):
            text = json.dumps(as_tree(evaluation), indent=1, ensure_ascii=False)
            write_text(self.work / TREE, [text, "\n"])
            write_text(self.work / TABLE, [as_table(evaluation)])
            self.figures.finish(evaluation)
            write_text(self.work / PAGE, page_parts(evaluation, cards))
            self._put_into_place()
        return self.folder / PAGE

    def _put_into_place(self) -> None:
        """Replace all files, the page last, and remove the old page before the rest."""
        (self.folder / PAGE).unlink(missing_ok=True)
        figures = self.folder / FIGURES
        figures.mkdir(exist_ok=True)
        for old in figures.glob("*.png"):
            old.unlink()
        for new in (self.work / FIGURES).iterdir():
            new.replace(figures / new.name)
        for name in (TREE, TABLE, PAGE):
            (self.work / name).replace(self.folder / name)


def check_is_free(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds anything but a report that is replaced.

    Raises:
        DataError: if it does, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; choose a folder for the report")
    with writing(folder):
        held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    held -= {UNFINISHED, ".DS_Store"}
    others = held - {PAGE, TREE, TABLE, FIGURES}
    if held and (others or not is_report(folder / PAGE)):
        first = min(others or held)
        raise DataError(
            f"{folder}: holds '{first}', which is no part of a report; choose a new folder"
        )
    if held and not overwrite:
        raise DataError(f"'{folder / PAGE}' {TAKEN}")


def is_report(page: Path) -> bool:
    """Tell whether a file is a page of ours."""
    if not page.is_file():
        return False
    with page.open("rb") as file:
        return MARK.encode() in file.read(1000)


def write_text(path: Path, parts: Iterable[str]) -> None:
    """Write UTF-8; what cannot be encoded, as in some file names, becomes an escape of JSON."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        file.writelines(parts)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Say in one line what the system refused within.

    Raises:
        DataError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from error
