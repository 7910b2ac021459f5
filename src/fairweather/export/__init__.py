"""The model for other programs: ONNX, OpenVINO and torch.export, verified before they count."""

from fairweather.export.graphs import Portable, export_onnx, export_openvino, export_torch, to_onnx
from fairweather.export.int8 import Quantized, export_openvino_int8
from fairweather.export.verification import (
    Exported,
    check_target,
    describe_export,
    sample_images,
    size_bytes,
    verify_export,
)

__all__ = [
    "Exported",
    "Portable",
    "Quantized",
    "check_target",
    "describe_export",
    "export_onnx",
    "export_openvino",
    "export_openvino_int8",
    "export_torch",
    "sample_images",
    "size_bytes",
    "to_onnx",
    "verify_export",
]
