"""Pixels without networks: photo files, tiles, metrics and figures."""

from fairweather.imaging.figures import write_contact_sheet, write_side_by_side
from fairweather.imaging.image import (
    DEFAULT_MAX_PIXELS,
    IMAGE_SUFFIXES,
    Metadata,
    Photo,
    read_image,
    write_image,
)
from fairweather.imaging.tiles import Span, TilePlan, cut_tile, merge_tiles, plan_tiles

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "IMAGE_SUFFIXES",
    "Metadata",
    "Photo",
    "Span",
    "TilePlan",
    "cut_tile",
    "merge_tiles",
    "plan_tiles",
    "read_image",
    "write_contact_sheet",
    "write_image",
    "write_side_by_side",
]
