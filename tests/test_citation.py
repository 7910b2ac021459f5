"""CITATION.cff: what citation managers need, in step with the package."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import fairweather as fw

FILE = Path(__file__).parents[1] / "CITATION.cff"


@pytest.fixture(scope="module")
def citation() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text("utf-8"))


def test_it_has_what_the_format_requires(citation: dict[str, Any]) -> None:
    assert citation["cff-version"] == "1.2.0"
    assert all(citation[key] for key in ("message", "title", "authors", "license"))
    assert citation["type"] == "software"


def test_its_version_is_that_of_the_package(citation: dict[str, Any]) -> None:
    assert citation["version"] == fw.__version__


def test_the_paper_is_a_reference_and_not_ours(citation: dict[str, Any]) -> None:
    assert "preferred-citation" not in citation
    (paper,) = [each for each in citation["references"] if each["title"].startswith("Adapt or")]
    assert paper["type"] == "conference-paper"
    assert paper["year"] == 2024
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Zhou", "Chen", "Pan", "Shi", "Yang"]
    assert not set(names) & {author.get("family-names") for author in citation["authors"]}
