"""Pixels without networks: photo files, tiles, metrics and figures."""

from fairweather.imaging.figures import (
    Curve,
    write_contact_sheet,
    write_curves,
    write_side_by_side,
)
from fairweather.imaging.image import (
    DEFAULT_MAX_PIXELS,
    IMAGE_SUFFIXES,
    Metadata,
    Photo,
    read_image,
    write_image,
)
from fairweather.imaging.metrics import (
    Measures,
    measure,
    measure_alone,
    measure_cast,
    prepare_image,
)
from fairweather.imaging.pixels import as_bytes, as_float, quantise, resized
from fairweather.imaging.protocols import (
    PROTOCOLS,
    MetricProtocol,
    Source,
    SsimVariant,
    describe_protocol,
)
from fairweather.imaging.tiles import Span, TilePlan, cut_tile, merge_tiles, plan_tiles

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "PROTOCOLS",
    "Curve",
    "Measures",
    "Metadata",
    "MetricProtocol",
    "Photo",
    "Source",
    "Span",
    "SsimVariant",
    "TilePlan",
    "as_bytes",
    "as_float",
    "cut_tile",
    "describe_protocol",
    "measure",
    "measure_alone",
    "measure_cast",
    "merge_tiles",
    "plan_tiles",
    "prepare_image",
    "quantise",
    "read_image",
    "resized",
    "write_contact_sheet",
    "write_curves",
    "write_image",
    "write_side_by_side",
]
