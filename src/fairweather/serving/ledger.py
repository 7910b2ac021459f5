"""What became of each file of a bulk run: a table beside the results, kept while it runs."""

import contextlib
import dataclasses
import io
import json
import logging
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow
import pyarrow.parquet

from fairweather.serving.stores import Place

log = logging.getLogger(__name__)

FOLDER = "_fairweather"
TABLE = "files.parquet"
PARTS = "part-"
REPORT = "report.json"
FLUSH_SECONDS = 2.0
WRITTEN = ("restored", "left")  # statuses of files whose results were written


@dataclass(frozen=True)
class Entry:
    """What became of a file.

    Attributes:
        name: of the result, below the target.
        source: the file.
        size: of it [bytes].
        mtime_ns: when it was last changed.
        sha256: of its bytes; empty if it could not be read.
        way: of all that decides what is made of it: weights, options, versions.
        status: `restored`, `left` (as it was, by `auto`), `unchanged` (done by an earlier run) or
            `failed`; `begun` if a run was stopped before.
        error: the class of the error.
        message: what it says.
        attempts: how often it was begun.
        is_final: whether another attempt would end as this one did.
        limit: pixels that it might have at most.
        noted_ns: when this was noted.
        pixels: of the photograph.
        seconds: of the work.
        degradation: that was found, or given.
        worker: that worked on it.
    """

    name: str
    source: str
    size: int = 0
    mtime_ns: int = 0
    sha256: str = ""
    way: str = ""
    status: str = "restored"
    error: str = ""
    message: str = ""
    attempts: int = 1
    is_final: bool = True
    limit: int = 0
    noted_ns: int = 0
    pixels: int = 0
    seconds: float = 0.0
    degradation: str = ""
    worker: str = ""


TYPES = {"int": pyarrow.int64(), "str": pyarrow.string(), "float": pyarrow.float64()}
TYPES["bool"] = pyarrow.bool_()
SCHEMA = pyarrow.schema(
    [
        (one.name, TYPES[getattr(one.type, "__name__", str(one.type))])
        for one in dataclasses.fields(Entry)
    ]
)


class Ledger:
    """The table of a target, written every few seconds as a part, and in the end as one file."""

    def __init__(self, target: Place):
        """Read what earlier runs noted, those that were killed too."""
        self.place = target.at(FOLDER)
        self.entries: dict[str, Entry] = {}
        self._new: list[Entry] = []
        self._flushed = time.monotonic()
        self._parts = self._read()

    def _read(self) -> list[str]:
        """Add what lies there; return the paths of parts."""
        paths = [one.path for one in self.place.files() if one.path.endswith(".parquet")]
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # another run has just put it together
                data = Place(self.place.fs, path, path, self.place.store).read()
                table = pyarrow.parquet.read_table(io.BytesIO(data), schema=SCHEMA)
                for row in table.to_pylist():
                    entry = Entry(**row)
                    known = self.entries.get(entry.name)
                    if known is None or known.noted_ns < entry.noted_ns:
                        self.entries[entry.name] = entry
        return [path for path in paths if path.rpartition("/")[2].startswith(PARTS)]

    def note(self, *entries: Entry) -> None:
        """Note what became of files."""
        for entry in entries:
            self.entries[entry.name] = entry
            self._new.append(entry)
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            try:
                self.flush()
            except OSError as error:  # of a store; it is tried again, with what comes
                log.warning("the table cannot be written: %s", error)
                self._flushed = time.monotonic()

    def flush(self) -> None:
        """Write what is not yet written.

        Raises:
            OSError: if it cannot be.
        """
        if self._new:
            name = f"{PARTS}{time.time_ns():020}-{uuid.uuid4().hex[:8]}.parquet"
            part = self.place.at(name)
            part.write(packed(self._new))
            self._parts.append(part.path)
            self._new = []
        self._flushed = time.monotonic()

    def close(self, report: dict[str, Any]) -> None:
        """Write a report, and the table as one file, with what others noted; remove the parts.

        Raises:
            OSError: if they cannot be written.
        """
        if self._parts or self._new:
            self._parts += self._read()
            self.place.at(TABLE).write(packed(self.entries.values()))
            for path in self._parts:
                with contextlib.suppress(OSError):
                    self.place.fs.delete_file(path)
        self.place.at(REPORT).write(json.dumps(report, indent=1).encode())
        self._parts, self._new = [], []


def packed(entries: Iterable[Entry]) -> bytes:
    """Return entries as a Parquet file."""
    file = io.BytesIO()
    pyarrow.parquet.write_table(table_of(entries), file)
    return file.getvalue()


def table_of(entries: Iterable[Entry]) -> pyarrow.Table:
    """Return entries as a table."""
    return pyarrow.Table.from_pylist([dataclasses.asdict(one) for one in entries], schema=SCHEMA)
