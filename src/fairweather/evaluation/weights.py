"""Which weights are evaluated, and what a report says of them."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fairweather.errors import OptionError
from fairweather.evaluation.sets import tell_apart
from fairweather.models import Network, count_parameters, find_weights, list_weights, read_metadata

INPUT = "input"  # the column of the figures of doing nothing


@dataclass(frozen=True)
class WeightsFacts:
    """Which weights a column of figures belongs to.

    Attributes:
        name: of the column, different for all weights of a call.
        file: the file's name without its folder.
        bundled: whether they come with the package under that name.
        sha256: of the file.
        parameters: how many the network has.
        task: what they were trained for, if the file says it.
        training_data: what they were trained on, likewise.
    """

    name: str
    file: str
    bundled: bool
    sha256: str
    parameters: int
    task: str
    training_data: str


def name_weights(weights: Sequence[str | Path]) -> list[str]:
    """Name each by its bundled name, its folder or its file; longer where two are alike.

    Raises:
        OptionError: if there are none, or one is given twice.
        CheckpointError: if there is no such file.
    """
    if not weights:
        raise OptionError("no weights: give at least one file or bundled name")
    # Not resolved: in the cache of the Hub a file's name is a link to one called after its hash.
    files = [find_weights(one).absolute() for one in weights]
    twice = [file for file, count in Counter(file.resolve() for file in files).items() if count > 1]
    if twice:
        raise OptionError(f"weights {twice[0].name}: are given twice; leave one out")
    given = [
        file.parent if are_folder(one) else file.with_suffix("")
        for one, file in zip(weights, files, strict=True)
    ]
    depths = [1 + (one.name == INPUT) for one in given]  # no column may be called as the input's
    names = tell_apart(given, depths)
    return [  # two formats of one file differ in their suffixes only
        file.name if names.count(name) > 1 else name
        for name, file in zip(names, files, strict=True)
    ]


def are_folder(weights: str | Path) -> bool:
    """Return whether weights are given as the folder that holds them, and not by a bundled name."""
    return str(weights) not in list_weights() and Path(weights).is_dir()


def describe_weights(weights: str | Path, model: Network, *, name: str) -> WeightsFacts:
    """Describe weights that were loaded as a model."""
    path = find_weights(weights)
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WeightsFacts(
        name=name,
        file=path.name,
        bundled=path in list_weights().values(),
        sha256=digest,
        parameters=count_parameters(model),
        task=metadata.get("task", ""),
        training_data=metadata.get("training_data", ""),
    )
