"""Damaged recipes are recipes, or errors that name the file: no traceback, no hang, no code."""

from pathlib import Path

from test_fuzz_checkpoints import load_damaged


def test_damaged_recipes(tmp_path: Path) -> None:
    load_damaged("recipes", tmp_path)
