"""How public data sets lie on disk."""

from fairweather.data.layouts.find import describe_layout, find_layout_pairs, list_layouts
from fairweather.data.layouts.side_by_side import unpack_side_by_side

__all__ = ["describe_layout", "find_layout_pairs", "list_layouts", "unpack_side_by_side"]
