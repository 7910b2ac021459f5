"""Many photographs, here or in object stores, restored on Ray Data.

Ray keeps the workers, hands out the work and bounds what waits; fairweather says what is to be
done, restores with the Restorer and the writer of the command, and notes what became of each file.
"""

import collections
import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow
import ray
import ray.data

from fairweather.errors import FileTakenError, OptionError
from fairweather.hardware import pick_device, usable_cores
from fairweather.imaging import WRITTEN_SUFFIXES
from fairweather.serving.bulk_worker import BulkWorker, Setting, Task, facts_of, way_of
from fairweather.serving.cluster import connected
from fairweather.serving.ledger import WRITTEN, Entry, Ledger
from fairweather.serving.orders import Order, find_orders
from fairweather.serving.register import Register
from fairweather.serving.stores import Place, open_place, remove_halves
from fairweather.serving.uploads import RestoreOptions

TOGETHER = 8  # files of one task at most, so that Ray has less to do for each
WAVE = 20_000  # files of one execution, which Ray keeps track of in memory
NAMED = 1000  # errors in a report; the table has all
RECENT_NS = 3_000_000_000  # a file may change again within the same tick of its store's clock


@dataclass
class Report:
    """What a run has done.

    Attributes:
        files: that were found.
        restored: by this run.
        left: as they were by this run, since `auto` found no degradation in them.
        unchanged: that were done by an earlier run.
        failed: that could not be.
        passed_over: that are no photographs.
        megapixels: of what was restored or left by this run.
        seconds: that it took.
        workers: megapixels a second of each, while it worked.
        failures: how many of each class of error.
        degradations: how many of each were found, or given.
        errors: what is wrong with files that failed; of the first thousand.
    """

    files: int = 0
    restored: int = 0
    left: int = 0
    unchanged: int = 0
    failed: int = 0
    passed_over: int = 0
    megapixels: float = 0.0
    seconds: float = 0.0
    workers: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    degradations: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)


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
    overwrite: bool = False,
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
        options: for files whose row in a list sets none.
        setting: how files are restored.
        ray_address: of a cluster; see `connected`.
        workers: processes; by default one for each core, or GPU if they use one.
        gpus: of each worker, perhaps a fraction; by default 1 where the device is a GPU.
        retry_failed: whether files that could not be restored are tried again.
        overwrite: whether files in `out` that no run has written may be replaced.
        on_entry: called with what became of a file that was worked on, and how many are done, of
            how many.

    Raises:
        OptionError: if a source, an option or the target is wrong, or the cluster has no room.
        OSError: if the table cannot be written in the end.
    """
    begun = time.monotonic()
    options, setting = options or RestoreOptions(), setting or Setting()
    target = open_place(out)
    if PurePosixPath(target.path).suffix.lower() in WRITTEN_SUFFIXES:
        raise OptionError(f"{out}: --out must be a folder")
    found = find_orders(sources, target, options)
    ledger = Ledger(target)
    there = find_results(target)
    entries = list(found.failures)
    tasks: list[Task] = []
    studio = setting.studio()
    ways: Any = functools.cache(functools.partial(way_of, studio))
    for order in found.orders:
        way, known = ways(order.options), ledger.entries.get(order.name)
        is_there = f"{target.path}/{order.name}" in there
        is_others = is_there and (known is None or known.source != order.path)
        if is_others and not overwrite:
            text = f"'{order.path}': '{out}/{order.name}' exists, and is not its result"
            error = FileTakenError(
                f"{text}; choose another --out, or allow it with --overwrite (overwrite=True)"
            )
            entries.append(Entry(order.name, order.path, **facts_of(error, order.path)))
        elif known is not None and known.source == order.path and known.way == way:
            if is_settled(known, order, setting, is_there=is_there, retry_failed=retry_failed):
                status = "failed" if known.status == "failed" else "unchanged"
                entries.append(dataclasses.replace(known, status=status))
            else:
                tasks.append(Task.of_order(order, way, setting, known if is_there else None))
        else:
            tasks.append(Task.of_order(order, way, setting))
    if tasks:
        begun_ns = time.time_ns()
        ledger.note(
            *(
                dataclasses.replace(task.entry, status="begun", noted_ns=begun_ns)
                for task in tasks
                if not task.known
            )
        )
        ledger.flush()
        try:
            asked = Pool(found.roots, target, setting, workers=workers or 0, gpus=gpus)
            with asked.connected(ray_address) as pool:
                for done, entry in enumerate(pool.work_off(tasks), 1):
                    ledger.note(entry)
                    entries.append(entry)
                    on_entry(entry, done, len(tasks))
        except BaseException:
            with contextlib.suppress(OSError):
                ledger.flush()
            raise
    report = sum_up(entries, passed_over=found.passed_over, seconds=time.monotonic() - begun)
    ledger.close(dataclasses.asdict(report))
    return report


def find_results(target: Place) -> set[str]:
    """Return the paths of what lies in a target; what killed runs left half written is removed.

    Raises:
        OptionError: if it cannot be searched.
    """
    try:
        files = list(target.files())
    except OSError as error:
        raise OptionError(f"{target.text}: cannot be searched: {error}") from error
    remove_halves(target, files)
    return {one.path for one in files}


def is_settled(
    known: Entry, order: Order, setting: Setting, *, is_there: bool, retry_failed: bool
) -> bool:
    """Return whether nothing is to be done for a file, by what a table and its store say of it."""
    is_same = (known.size, known.mtime_ns) == (order.size, order.mtime_ns)
    is_sure = is_same and 0 < order.mtime_ns < known.noted_ns - RECENT_NS
    if known.status == "failed":
        is_final = known.is_final and known.limit == setting.pixels
        return is_sure and is_final and not retry_failed
    return is_sure and is_there and known.status != "begun"


@dataclass(frozen=True)
class Pool:
    """Workers of Ray Data.

    Attributes:
        roots: of the orders.
        target: where results go.
        setting: how files are restored.
        workers: how many there are; 0 for as many as there is room for.
        gpus: of each.
    """

    roots: list[Place]
    target: Place
    setting: Setting
    workers: int
    gpus: float

    @contextlib.contextmanager
    def connected(self, address: str | None) -> Iterator["Pool"]:
        """Use a cluster, or this machine; yield this with workers that have room there.

        Raises:
            OptionError: if not even one has.
        """
        is_gpu = pick_device(self.setting.device).type == "cuda"
        gpus = self.gpus or float(is_gpu)
        cpus = self.setting.cpus
        with connected(address=address, cores=max(usable_cores(), self.workers * cpus), quiet=True):
            has = ray.cluster_resources()
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            if not any(n.get("CPU", 0) >= cpus and n.get("GPU", 0) >= gpus for n in nodes):
                raise OptionError(
                    f"a worker wants {cpus} cores and {gpus:g} GPUs, and no machine of"
                    f" {address or 'Ray here'} has them; change --cpus, --gpus or --device"
                )
            room = min(has["CPU"] / cpus, has.get("GPU", 0) / gpus if gpus else math.inf)
            count = self.workers or max(1, int(room))
            yield dataclasses.replace(self, workers=min(count, max(1, int(room))), gpus=gpus)

    def work_off(self, tasks: list[Task]) -> Iterator[Entry]:
        """Yield what becomes of files, as they are done."""
        register = Register.remote()  # type: ignore[attr-defined]
        for start in range(0, len(tasks), WAVE):
            yield from self._execute(tasks[start : start + WAVE], register)

    def _execute(self, tasks: Sequence[Task], register: Any) -> Iterator[Entry]:
        rows = [task.row() for task in tasks]
        blocks = [
            pyarrow.Table.from_pylist(rows[start:end])
            for start, end in itertools.pairwise(starts_of(len(rows), workers=self.workers))
        ]
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.memory_usage_poll_interval_s = None  # looking takes 4 % of a worker's time
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        # Not from_arrow, which starts processes that only look at the blocks.
        dataset = ray.data.from_blocks(blocks).map_batches(
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


def starts_of(files: int, *, workers: int) -> list[int]:
    """Return where tasks begin, and the last one ends.

    They grow smaller towards the end, so that no worker waits long for the last one.
    """
    starts = [0]
    while left := files - starts[-1]:
        starts.append(starts[-1] + max(1, min(TOGETHER, left // (4 * workers))))
    return starts


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
            if len(report.errors) < NAMED:
                report.errors.append(entry.message)
        elif entry.status in WRITTEN:
            degradations[entry.degradation] += 1
            report.megapixels += entry.pixels / 1e6
            worked[entry.worker][0] += entry.pixels / 1e6
            worked[entry.worker][1] += entry.seconds
    report.workers = {name: mpx / took for name, (mpx, took) in sorted(worked.items()) if took}
    report.failures, report.degradations = dict(failures), dict(degradations)
    return report
