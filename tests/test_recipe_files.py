"""Recipes from anywhere: no text ends in a traceback, leaves the folder of runs, or runs code."""

from pathlib import Path
from typing import Any

import pytest
from test_recipe import SMALL, message_of, save, with_stage

from fairweather.training import Recipe, load_recipe


@pytest.mark.parametrize(
    "name", ["../../../escaped", "a/b", "a\\b", "..", ".hidden", "", "a\nb", " a", "x" * 101]
)
def test_a_name_is_one_of_a_file(tmp_path: Path, name: str) -> None:
    assert "name: " in message_of(save(tmp_path, {**SMALL, "name": name}))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: 2020-13-45", "month must be in"),
        ("x: " + "[" * 6000, "more than 32 levels deep"),
        ("- " * 3000 + "x", "more than 32 levels deep"),
        ("x: " + "y" * 200_000, "longer than 100,000 characters"),
        ("? [a, {b: c}]\n: d", "not YAML"),
        ("1: 2", "Keys should be strings"),
        ("", "recipe"),
        ("[1, 2]", "recipe"),
        ("x: !!python/object/apply:os.abort []", "not YAML"),
        ("x: &x [*x]", "x: there is no such key"),
        ("name: 2020-12-05", "name: Input should be a valid string"),
    ],
)
def test_no_yaml_ends_in_a_traceback(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text, encoding="utf-8")
    assert words in message_of(path)
    assert "odd.yaml" in message_of(path)


@pytest.mark.parametrize(
    "override",
    ["seed=2020-13-45", "x=[" + "[" * 99 + "]" * 100, "stages." + "9" * 5000 + ".batch=1"],
)
def test_no_override_ends_in_a_traceback(tmp_path: Path, override: str) -> None:
    assert repr(override) in message_of(save(tmp_path, SMALL), override)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("feed_forward", [["frfn"] * 9] * 9),
        ("embed_dim", 8.5),
        ("mlp_ratio", float("inf")),
        ("mlp_ratio", "much"),
        ("global_context", 1),
        ("depths", 10**9),
    ],
)
def test_an_architecture_of_other_types_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    assert "architecture: " in message_of(save(tmp_path, {**SMALL, "architecture": {key: value}}))


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    assert "stages.1.learning_rate" in message_of(
        save(tmp_path, with_stage(learning_rate=float("inf")))
    )


def test_code_is_run_only_where_it_is_allowed(tmp_path: Path) -> None:
    path = save(tmp_path, {**SMALL, "loss": "perceptual", "perceptual_backbone": "os:abort"})
    assert "--allow-code" in message_of(path)
    assert load_recipe(path, allow_code=True).perceptual_backbone == "os:abort"


@pytest.mark.parametrize(
    ("data", "orientation", "expected"),
    [
        ({"clean": ["clean"]}, "all", "horizontal_flip"),
        ({"pairs": ["pairs"]}, "all", "all"),
        ({"pairs": ["pairs"]}, "flips", "flips"),
    ],
)
def test_a_network_knows_the_symmetries_of_its_training(
    data: dict[str, Any], orientation: str, expected: str
) -> None:
    tree = {**SMALL, "data": data, "augmentation": {"orientation": orientation}}
    assert Recipe.model_validate(tree).config.symmetries == expected
