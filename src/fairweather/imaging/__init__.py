"""Pixels without networks: photo files, tiles and figures."""

from fairweather.imaging.figures import Curve, write_contact_sheet, write_curves, write_side_by_side
from fairweather.imaging.image import (
    DEFAULT_MAX_PIXELS,
    IMAGE_SUFFIXES,
    Metadata,
    Photo,
    read_image,
    write_image,
)
from fairweather.imaging.pixels import as_bytes, as_float, quantise, resized
from fairweather.imaging.tiles import Span, TilePlan, cut_tile, merge_tiles, plan_tiles

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "Curve",
    "Metadata",
    "Photo",
    "Span",
    "TilePlan",
    "as_bytes",
    "as_float",
    "cut_tile",
    "merge_tiles",
    "plan_tiles",
    "quantise",
    "read_image",
    "resized",
    "write_contact_sheet",
    "write_curves",
    "write_image",
    "write_side_by_side",
]
