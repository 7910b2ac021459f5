"""Many photographs, here or in object stores, restored on Ray Data.

Ray keeps the workers, hands out the work and bounds what waits; fairweather says what is to be
done, restores with the Restorer and the writer of the command, and notes what became of each file.
"""

import collections
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow
import ray
import ray.data

from fairweather.errors import OptionError
from fairweather.hardware import usable_cores
from fairweather.imaging import WRITTEN_SUFFIXES
from fairweather.serving.bulk_worker import BulkWorker, Register, Setting, Task, way_of
from fairweather.serving.cluster import connected
from fairweather.serving.ledger import Entry, Ledger
from fairweather.serving.orders import Order, find_orders
from fairweather.serving.stores import open_place
from fairweather.serving.uploads import RestoreOptions

TOGETHER = 8  # files of one task, so that Ray has less to do for each
WAVE = 20_000  # files of one execution, which Ray keeps track of in memory
RECENT_NS = 3_000_000_000  # a file may change again within the same tick of its store's clock


@dataclass
class Report:
    """What a run has done.

    Attributes:
        files: that were found.
        restored: by this run.
        unchanged: that were restored before.
        failed: that could not be.
        passed_over: that are no photographs.
        megapixels: restored by this run.
        seconds: that it took.
        workers: megapixels a second of each, while it worked.
        failures: how many of each class of error.
        degradations: how many of each were found, or given, and restored.
    """

    files: int = 0
    restored: int = 0
    unchanged: int = 0
    failed: int = 0
    passed_over: int = 0
    megapixels: float = 0.0
    seconds: float = 0.0
    workers: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    degradations: dict[str, int] = field(default_factory=dict)


def restore_bulk(
    sources: Sequence[str],
    out: str,
    *,
    options: RestoreOptions | None = None,
    setting: Setting | None = None,
    ray_address: str | None = None,
    workers: int | None = None,
    gpus: float = 0,
    retry_failed: bool = False,
    on_entry: Callable[[Entry, int, int], None] = lambda entry, done, total: None,
) -> Report:
    """Restore many photographs; a run that was stopped goes on.

    A table beside the results, `_fairweather/files.parquet`, says of each file what became of it.
    A file is done again if its bytes, the weights, the options or the versions of the software are
    others than the table says, or its result is not there. Files that cannot be restored do not
    stop the others.

    Args:
        sources: as for `find_orders`.
        out: folder of the results, here or in a store.
        options: of files that a list does not say others for.
        setting: how files are restored.
        ray_address: of a cluster; see `connected`.
        workers: processes; by default one for each core, or GPU if they use one.
        gpus: of each worker; it may be a fraction.
        retry_failed: whether files that could not be restored are tried again.
        on_entry: called with what became of a file that was worked on, and how many are done, of
            how many.

    Raises:
        OptionError: if a source, an option or the target is wrong.
    """
    begun = time.monotonic()
    options, setting = options or RestoreOptions(), setting or Setting()
    target = open_place(out)
    if any(target.path.lower().endswith(suffix) for suffix in WRITTEN_SUFFIXES):
        raise OptionError(f"{out}: --out must be a folder")
    found = find_orders(sources, target, options)
    ledger = Ledger(target)
    studio = setting.studio()
    ways = functools.cache(lambda told: way_of(studio, RestoreOptions.model_validate_json(told)))
    there = {one.path for one in target.files()}
    entries = list(found.failures)
    tasks: list[Task] = []
    for order in found.orders:
        way = ways(order.options.model_dump_json())
        known = ledger.entries.get(order.name)
        is_there = f"{target.path}/{order.name}" in there
        if known is not None and is_settled(
            known, order, way, is_there=is_there, retry_failed=retry_failed
        ):
            status = "failed" if known.status == "failed" else "unchanged"
            entries.append(dataclasses.replace(known, status=status))
        else:
            tasks.append(task_of(order, known, way, is_there=is_there))
    try:
        if tasks:
            cores = usable_cores()
            count = workers or default_workers(cores, setting, gpus=gpus)
            pool = Pool(found.roots, target, setting, workers=count, gpus=gpus)
            cores = max(cores, count * setting.cpus)
            with connected(address=ray_address, cores=cores, quiet=True):
                for done, entry in enumerate(pool.work_off(tasks), 1):
                    ledger.note(entry)
                    entries.append(entry)
                    on_entry(entry, done, len(tasks))
    finally:
        ledger.flush()
    report = sum_up(entries, passed_over=found.passed_over, seconds=time.monotonic() - begun)
    if tasks:
        ledger.close(dataclasses.asdict(report))
    return report


def is_settled(known: Entry, order: Order, way: str, *, is_there: bool, retry_failed: bool) -> bool:
    """Return whether nothing is to be done for a file, by what a table and its store say of it."""
    same = (known.size, known.mtime_ns, known.way) == (order.size, order.mtime_ns, way)
    is_sure = 0 < order.mtime_ns < known.noted_ns - RECENT_NS
    if known.status == "failed":
        return same and is_sure and known.is_final and not retry_failed
    return same and is_sure and is_there


def task_of(order: Order, known: Entry | None, way: str, *, is_there: bool) -> Task:
    """Return what a worker is told of a file."""
    is_done = known is not None and known.status != "failed" and known.way == way and is_there
    entry = Entry(order.name, order.path, size=order.size, mtime_ns=order.mtime_ns, way=way)
    sha256 = known.sha256 if is_done and known is not None else ""
    return Task(order.root, order.path, order.options, sha256, entry)


def default_workers(cores: int, setting: Setting, *, gpus: float) -> int:
    """Return how many workers this machine can bear."""
    if not gpus:
        return max(1, cores // setting.cpus)
    import torch

    return max(1, int(torch.cuda.device_count() / gpus))


@dataclass(frozen=True)
class Pool:
    """Workers of Ray Data.

    Attributes:
        roots: of the orders.
        target: where results go.
        setting: how files are restored.
        workers: how many there are.
        gpus: of each.
    """

    roots: list[Any]
    target: Any
    setting: Setting
    workers: int
    gpus: float

    def work_off(self, tasks: list[Task]) -> Iterator[Entry]:
        """Yield what becomes of files, as they are done."""
        register = Register.remote()  # type: ignore[attr-defined]
        for start in range(0, len(tasks), WAVE):
            yield from self._execute(tasks[start : start + WAVE], register)

    def _execute(self, tasks: Sequence[Task], register: Any) -> Iterator[Entry]:
        # A large task for a few files would keep some workers waiting for the last one.
        together = max(1, min(TOGETHER, len(tasks) // (4 * self.workers)))
        rows = [task.row() for task in tasks]
        starts = range(0, len(rows), together)
        blocks = [pyarrow.Table.from_pylist(rows[at : at + together]) for at in starts]
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        dataset = ray.data.from_arrow(blocks).map_batches(
            BulkWorker,  # type: ignore[arg-type]
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=self.workers),
            fn_constructor_args=(self.roots, self.target, self.setting, register),
            num_cpus=self.setting.cpus,
            num_gpus=self.gpus,
        )
        for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in table.to_pylist():  # type: ignore[union-attr]
                yield Entry(**row)


def sum_up(entries: Iterable[Entry], *, passed_over: int, seconds: float) -> Report:
    """Return what a run has done."""
    report = Report(passed_over=passed_over, seconds=seconds)
    worked: dict[str, list[float]] = collections.defaultdict(lambda: [0.0, 0.0])
    failures: collections.Counter[str] = collections.Counter()
    degradations: collections.Counter[str] = collections.Counter()
    for entry in entries:
        report.files += 1
        setattr(report, entry.status, getattr(report, entry.status) + 1)
        if entry.status == "failed":
            failures[entry.error] += 1
        elif entry.status == "restored":
            degradations[entry.degradation] += 1
            report.megapixels += entry.pixels / 1e6
            worked[entry.worker][0] += entry.pixels / 1e6
            worked[entry.worker][1] += entry.seconds
    report.workers = {name: mpx / took for name, (mpx, took) in sorted(worked.items()) if took}
    report.failures, report.degradations = dict(failures), dict(degradations)
    return report
