"""The README's table of presets; what it quotes is checked with all pages in test_docs_names."""

import re
from pathlib import Path

from fairweather.models import PRESETS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_presets_are_those_that_exist() -> None:
    assert set(re.findall(r"^\| `(ast\w*)` \|", README, re.MULTILINE)) == set(PRESETS)
