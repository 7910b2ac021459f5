"""Image → restored image, of any size, on any hardware."""

from fairweather.restoration.batch import Failure, Job, Summary, plan_jobs, run_jobs
from fairweather.restoration.engine_choice import (
    EngineEntry,
    create_engine,
    list_engines,
    pick_engine,
)
from fairweather.restoration.engines import Engine, keep_freed_memory, pick_device
from fairweather.restoration.export import export_onnx, export_openvino, export_torch
from fairweather.restoration.protocols import restore_equal_tiles, restore_square_padded
from fairweather.restoration.restorer import Restored, Restorer, restore, self_ensemble
from fairweather.restoration.verification import (
    Exported,
    check_target,
    describe_export,
    sample_images,
    size_bytes,
    verify_export,
)

__all__ = [
    "Engine",
    "EngineEntry",
    "Exported",
    "Failure",
    "Job",
    "Restored",
    "Restorer",
    "Summary",
    "check_target",
    "create_engine",
    "describe_export",
    "export_onnx",
    "export_openvino",
    "export_torch",
    "keep_freed_memory",
    "list_engines",
    "pick_device",
    "pick_engine",
    "plan_jobs",
    "restore",
    "restore_equal_tiles",
    "restore_square_padded",
    "run_jobs",
    "sample_images",
    "self_ensemble",
    "size_bytes",
    "verify_export",
]
