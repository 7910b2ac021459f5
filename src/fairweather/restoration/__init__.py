"""Image → restored image, of any size, on any hardware."""

from fairweather.restoration.automatic import AutoRestorer
from fairweather.restoration.batch import Failure, Job, Summary, plan_jobs, run_jobs
from fairweather.restoration.damage import (
    Diagnosis,
    classify_damage,
    damage_views,
    diagnose,
    mirrored,
    probabilities,
)
from fairweather.restoration.engine_choice import (
    EngineEntry,
    create_engine,
    list_engines,
    pick_engine,
)
from fairweather.restoration.engines import (
    PRECISIONS,
    Engine,
    check_precision,
    keep_freed_memory,
    lowered,
    physical_memory_bytes,
    pick_device,
)
from fairweather.restoration.export import export_onnx, export_openvino, export_torch
from fairweather.restoration.files import Restored
from fairweather.restoration.protocols import (
    restore_equal_tiles,
    restore_square_padded,
    square_side,
)
from fairweather.restoration.quantization import Quantized, export_openvino_int8
from fairweather.restoration.restorer import Restorer, restore, self_ensemble
from fairweather.restoration.verification import (
    Exported,
    check_target,
    describe_export,
    sample_images,
    size_bytes,
    verify_export,
)

__all__ = [
    "PRECISIONS",
    "AutoRestorer",
    "Diagnosis",
    "Engine",
    "EngineEntry",
    "Exported",
    "Failure",
    "Job",
    "Quantized",
    "Restored",
    "Restorer",
    "Summary",
    "check_precision",
    "check_target",
    "classify_damage",
    "create_engine",
    "damage_views",
    "describe_export",
    "diagnose",
    "export_onnx",
    "export_openvino",
    "export_openvino_int8",
    "export_torch",
    "keep_freed_memory",
    "list_engines",
    "lowered",
    "mirrored",
    "physical_memory_bytes",
    "pick_device",
    "pick_engine",
    "plan_jobs",
    "probabilities",
    "restore",
    "restore_equal_tiles",
    "restore_square_padded",
    "run_jobs",
    "sample_images",
    "self_ensemble",
    "size_bytes",
    "square_side",
    "verify_export",
]
