"""Image → restored image, of any size, on any hardware."""

from fairweather.restoration.batch import Failure, Job, Summary, plan_jobs, run_jobs
from fairweather.restoration.engines import keep_freed_memory, pick_device
from fairweather.restoration.protocols import restore_equal_tiles, restore_square_padded
from fairweather.restoration.restorer import Restored, Restorer, restore, self_ensemble

__all__ = [
    "Failure",
    "Job",
    "Restored",
    "Restorer",
    "Summary",
    "keep_freed_memory",
    "pick_device",
    "plan_jobs",
    "restore",
    "restore_equal_tiles",
    "restore_square_padded",
    "run_jobs",
    "self_ensemble",
]
