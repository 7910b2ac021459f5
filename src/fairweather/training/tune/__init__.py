"""Search over a recipe's values."""

from fairweather.training.tune.search import SearchResult, tune

__all__ = [
    "SearchResult",
    "tune",
]
