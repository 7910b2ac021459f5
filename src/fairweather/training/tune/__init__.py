"""Search over a recipe's values."""

from fairweather.training.tune.search import SearchResult, search_recipe

__all__ = [
    "SearchResult",
    "search_recipe",
]
