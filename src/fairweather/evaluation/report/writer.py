"""An evaluation as a folder: report.html, results.json, results.csv, and figures as PNG."""

import json
import shutil
from importlib import resources
from pathlib import Path
from string import Template
from types import TracebackType

from fairweather.errors import DataError
from fairweather.evaluation.report.cards import crop_strips, make_card
from fairweather.evaluation.report.extremes import Extremes
from fairweather.evaluation.report.page import facts_section, page_parts
from fairweather.evaluation.report.rows import Evaluation, Images, Row, SetResult, rank
from fairweather.evaluation.results import as_table, as_tree

TEMPLATES = resources.files("fairweather.evaluation")
MARK = '<meta name="generator" content="fairweather evaluate">'
PAGE, TREE, TABLE, FIGURES = "report.html", "results.json", "results.csv", "figures"
UNFINISHED = ".fairweather-unfinished"
PAGE_BYTES = 80_000_000  # of pictures that a browser still opens well


class ReportWriter:
    """Writes pictures while images are evaluated, so that no more than one is in memory.

    Everything is made in a hidden folder and moved into place at the end: whatever stops the
    evaluation leaves an older report as it was, and no half of a new one.

        with ReportWriter(folder, images=100) as writer:
            writer.finish(evaluate(…, on_image=writer.add))
    """

    def __init__(self, folder: Path, *, images: int):
        """Prepares the folder.

        Args:
            folder: of the report; it must not hold anything yet but an older report.
            images: how many will come, which decides how large their pictures may be.

        Raises:
            DataError: if the folder holds something else, or cannot be written.
        """
        check_is_free(folder)
        self.folder, self.is_new = folder, not folder.exists()
        self.work = folder / UNFINISHED
        self.budget_bytes = PAGE_BYTES / max(1, images)
        self.count = 0
        try:
            shutil.rmtree(self.work, ignore_errors=True)
            for inner in ("cards", FIGURES):
                (self.work / inner).mkdir(parents=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        self.extremes = Extremes(self.work / FIGURES)

    def __enter__(self) -> "ReportWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        if self.is_new and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def add(self, evaluation: Evaluation, result: SetResult, row: Row, images: Images) -> None:
        """Takes an image in, as `evaluate` calls it.

        Raises:
            DataError: if it cannot be written.
        """
        by = evaluation.ranked_by
        strips = crop_strips(images)
        card = make_card(
            row,
            images,
            strips=strips,
            number=self.count,
            title=f"{result.name}: {row.name}",
            rank=rank(row, next(iter(row.restored)), by=by),
            budget_bytes=self.budget_bytes,
        )
        try:
            write_text(self.work / f"cards/{self.count:08}.html", card)
            self.extremes.add(result, row, images, strips=strips, by=by)
        except OSError as error:
            raise unwritable(self.folder, error) from error
        self.count += 1

    def finish(self, evaluation: Evaluation) -> Path:
        """Writes the page, which joins the cards, and the figures, and puts all into place.

        Raises:
            DataError: if something cannot be written.
        """
        try:
            text = json.dumps(as_tree(evaluation), indent=1, ensure_ascii=False)
            write_text(self.work / TREE, f"{text}\n")
            write_text(self.work / TABLE, as_table(evaluation))
            self.extremes.finish(evaluation)
            self._write_page(evaluation)
            self._put_into_place()
        except OSError as error:
            raise unwritable(self.folder, error) from error
        return self.folder / PAGE

    def _write_page(self, evaluation: Evaluation) -> None:
        head = Template((TEMPLATES / "report_page.html").read_text("utf-8"))
        script = (TEMPLATES / "report_script.js").read_text("utf-8")
        with (self.work / PAGE).open("wb") as file:
            file.write(as_bytes(head.substitute(mark=MARK, **page_parts(evaluation))))
            for card in sorted((self.work / "cards").iterdir()):
                file.write(card.read_bytes())
            file.write(as_bytes(f"</div>\n{facts_section(evaluation)}"))
            file.write(as_bytes(f"<script>\n{script}</script>\n</body>\n</html>\n"))

    def _put_into_place(self) -> None:
        """The page goes first and comes last, so that it never stands beside others' figures."""
        (self.folder / PAGE).unlink(missing_ok=True)
        figures = self.folder / FIGURES
        figures.mkdir(exist_ok=True)
        for old in figures.glob("*.png"):
            old.unlink()
        for new in (self.work / FIGURES).iterdir():
            new.replace(figures / new.name)
        for name in (TREE, TABLE, PAGE):
            (self.work / name).replace(self.folder / name)


def check_is_free(folder: Path) -> None:
    """Refuses a folder that holds anything but a report.

    Raises:
        DataError: if it does, or is no folder.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; choose a folder for the report")
    try:
        held = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise unwritable(folder, error) from error
    held -= {UNFINISHED, ".DS_Store"}
    others = held - {PAGE, TREE, TABLE, FIGURES}
    if held and (others or not is_report(folder / PAGE)):
        first = min(others or held)
        raise DataError(
            f"{folder}: holds '{first}', which is no part of a report; choose a new folder"
        )


def is_report(page: Path) -> bool:
    """Whether a file is a page of ours."""
    if not page.is_file():
        return False
    with page.open("rb") as file:
        return MARK.encode() in file.read(1000)


def write_text(path: Path, text: str) -> None:
    """Writes a file whole; one of that name is replaced."""
    path.write_bytes(as_bytes(text))


def as_bytes(text: str) -> bytes:
    """UTF-8; what cannot be encoded, as a file's name may be, as an escape that JSON knows."""
    return text.encode("utf-8", errors="backslashreplace")


def unwritable(folder: Path, error: OSError) -> DataError:
    """In one line what the system said."""
    return DataError(f"{folder}: cannot be written: {error.strerror or error}")
