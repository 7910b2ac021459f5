"""The command line that scripts call; a change here is a change for them."""

from typing import Any

import typer

from fairweather import cli

COMMANDS = {
    "": {"--version"},
    "restore": {
        "[inputs …]", "-o", "--out", "--task", "--weights", "--device", "--engine", "--precision",
        "--tile", "--strength", "--self-ensemble", "--compare", "--overwrite", "--skip-existing",
        "--max-pixels", "--json", "--sample",
    },
    "models": set(),
    "models list": {"--json"},
    "models info": {"weights", "--json"},
    "models convert": {"source", "target", "--to", "--bottleneck-shift", "--overwrite"},
    "models train-classifier": {
        "--data", "-o", "--out", "--steps", "--minutes", "--precision", "--seed", "--workers",
    },
    "models confusion": {"--data", "--weights", "--json"},
    "benchmark": set(),
    "benchmark data": {"folder", "--crop", "--batch", "--seconds", "--json"},
    "benchmark page": {"[results …]", "-o", "--out"},
    "benchmark restore": {
        "--model", "--engine", "--size", "--batch", "--threads", "--rounds", "--device",
        "--precision", "--official", "--official-allocator", "--json",
    },
    "benchmark training": {
        "--model", "--batch", "--crop", "--checkpointing", "--threads", "--rounds", "--device",
        "--precision", "--official", "--official-allocator", "--json",
    },
    "benchmark speed-page": {"[results …]", "-o", "--out"},
    "evaluate": {
        "data", "--weights", "--protocol", "--layout", "--split", "--degradation", "--inference",
        "--self-ensemble", "--device", "--restored", "--clean", "--degraded", "--photos", "--masks",
        "-o", "--out", "--json", "--list-protocols",
    },
    "export": {
        "weights", "target", "--to", "--size", "--int8", "--largest-loss", "--overwrite",
    },
    "data": set(),
    "data degrade": {"source", "-o", "--out", "--task", "--seed"},
    "data layouts": {"name"},
    "data check": {"folder", "--layout", "--split", "--test-split", "--quick", "--json"},
    "tune": {
        "recipe", "[overrides …]", "--data", "-o", "--out", "--trials", "--search", "--workers",
        "--cache", "--unchecked",
    },
    "data unpack": {"source", "-o", "--out", "--layout", "--split", "--degraded"},
    "train": {
        "recipe", "[overrides …]", "--data", "-o", "--out", "--weights", "--framework", "--devices",
        "--workers", "--cache", "--unchecked", "--dry-run", "--list", "--schema",
    },
}  # fmt: skip


def test_the_frozen_command_line() -> None:
    """Scripts call these; a change here is a change for them, so it goes into the changelog."""
    found: dict[str, set[str]] = {}

    def walk(command: Any, name: str) -> None:
        words = set()
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                many = parameter.nargs == -1
                words.add(f"[{parameter.name} …]" if many else str(parameter.name))
            else:
                words |= {*parameter.opts, *parameter.secondary_opts}
        found[name] = words - {"--install-completion", "--show-completion"}
        for inner in getattr(command, "commands", {}).values():
            walk(inner, f"{name} {inner.name}".strip())

    walk(typer.main.get_command(cli.app), "")
    assert found == COMMANDS
