"""How public data sets lie on disk."""

from fairweather.data.layouts.layouts import (
    describe_layout,
    find_layout_pairs,
    list_layouts,
    unpack_side_by_side,
)

__all__ = [
    "describe_layout",
    "find_layout_pairs",
    "list_layouts",
    "unpack_side_by_side",
]
