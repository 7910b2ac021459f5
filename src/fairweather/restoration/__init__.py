"""Image → restored image, of any size, on any hardware."""

from fairweather.restoration.batch import Failure, Job, Summary, plan_jobs, run_jobs
from fairweather.restoration.engines import keep_freed_memory
from fairweather.restoration.protocols import restore_equal_tiles, restore_square_padded
from fairweather.restoration.restorer import Restored, Restorer, restore

__all__ = [
    "Failure",
    "Job",
    "Restored",
    "Restorer",
    "Summary",
    "keep_freed_memory",
    "plan_jobs",
    "restore",
    "restore_equal_tiles",
    "restore_square_padded",
    "run_jobs",
]
