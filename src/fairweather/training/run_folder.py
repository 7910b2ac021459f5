"""What a run folder says of its run: by what it goes on, and that nothing else goes on in it."""

import hashlib
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import filelock

from fairweather.data import find_images
from fairweather.errors import RecipeError, TrainingError
from fairweather.files import write_text
from fairweather.models import find_weights, sha256_of
from fairweather.training.batches import Split
from fairweather.training.faults import cannot_write
from fairweather.training.recipe import Recipe
from fairweather.training.recipe_files import dump_recipe, load_recipe

log = logging.getLogger(__name__)

PACKAGES = ("fairweather", "torch", "lightning", "torchmetrics", "torchdata", "numpy", "pillow")
READ_FILES, READ_BYTES = 256, 1 << 16  # of how many files how much of the content is compared
WEIGHTS = "weights"  # the key of the start weights
WAYS_ON = (
    "choose another folder with -o, or move this run aside and begin anew with --fresh (fresh=True)"
)

Facts = dict[str, Any]


def describe_data(split: Split, recipe: Recipe, root: Path) -> Facts:
    """Return what tells data from other data: names, sizes, and some of the contents.

    Names are relative to the folder of the data, which may be moved. All files count with name and
    size, and of 256 of them, evenly spread, the first 64 KiB.
    """
    layers = [path for folder in recipe.data.layers for path in find_images(root / folder)]
    pairs = [path for side in split for pair in side for path in (pair.degraded, pair.clean)]
    files = sorted({*pairs, *layers})
    names = {path: os.path.relpath(path, root) for path in files}
    listed = hashlib.sha256()
    for path in files:
        listed.update(f"{names[path]}\0{path.stat().st_size}\n".encode(errors="surrogateescape"))
    some = files[:: -(-len(files) // READ_FILES)]
    return {
        "trained_on": len(split[0]),
        "held_out": len(split[1]),
        "listed": listed.hexdigest(),
        "some": {os.fsencode(names[path]).decode(errors="replace"): head_of(path) for path in some},
    }


def head_of(path: Path) -> str:
    """Return a hash of how a file begins."""
    with path.open("rb") as file:
        return hashlib.sha256(file.read(READ_BYTES)).hexdigest()[:16]


def describe_weights(weights: str | Path | None) -> Facts | None:
    """Return what tells start weights from others."""
    if weights is None:
        return None
    path = find_weights(weights)
    return {"file": path.name, "sha256": sha256_of(path)}


def name_difference(there: Facts, here: Facts) -> str:
    """Say how the data of two runs differ; empty if they are the same."""
    if there == here:
        return ""
    counts = [(facts["trained_on"], facts["held_out"]) for facts in (there, here)]
    if counts[0] != counts[1]:
        (one, held), (other, other_held) = counts
        return f"{one} images to train on and {held} held out there, {other} and {other_held} here"
    for name in sorted(there["some"].keys() | here["some"].keys()):
        if name not in here["some"]:
            return f"'{name}' is no longer among them"
        if name not in there["some"]:
            return f"'{name}' was not among them"
        if there["some"][name] != here["some"][name]:
            return f"'{name}' is another file"
    return "some files have other names or sizes"


def name_changes(there: Any, here: Any, place: str = "") -> Iterator[str]:
    """Yield in which values a recipe differs from another one."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in there.keys() | here.keys():
            yield from name_changes(there.get(key), here.get(key), f"{place}.{key}".lstrip("."))
    elif isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        for index, pair in enumerate(zip(there, here, strict=True)):
            yield from name_changes(pair[0], pair[1], f"{place}.{index}")
    elif there != here:
        yield f"{place} is {there!s:.40} there and {here!s:.40} here"


def refuse_other_run(run: Path, recipe: Recipe, facts: Facts, *, framework: str) -> None:
    """Refuse a folder that holds a run of something else.

    Args:
        run: the folder; one without a run is fine.
        recipe: what would be trained.
        facts: `data` and `weights` that it would be trained on and from.
        framework: with which.

    Raises:
        RecipeError: if the recipe or the framework is another one.
        TrainingError: if it is the data or the weights.
    """
    saved = run / "recipe.yaml"
    if not saved.exists():
        return
    there = load_recipe(saved, allow_code=True)  # which is not run here
    if there != recipe:
        dumps = [one.model_dump(mode="json") for one in (there, recipe)]
        changes = sorted(name_changes(dumps[0], dumps[1]))
        raise RecipeError(
            f"{run} holds a run of another recipe ({'; '.join(changes[:3])}); {WAYS_ON}, or go on"
            f" with that one: fairweather train {saved} --data DIR --out {run}"
        )
    starts = read_starts(run)
    begun = starts[0].get("framework", "torch") if starts else framework
    if begun != framework:
        raise RecipeError(f"{run} holds a run of {begun}, not of {framework}; {WAYS_ON}")
    path, differences = run / "begun.json", []
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    data = facts["data"]
    if "data" not in found and starts:  # of a version that noted only how many they are
        counts = (starts[0]["images_trained_on"], starts[0]["images_held_out"])
        found["data"] = {**data, "trained_on": counts[0], "held_out": counts[1]}
    if "data" in found and (how := name_difference(found["data"], data)):
        differences.append(f"other data: {how}")
    shas = [(one.get(WEIGHTS) or {}).get("sha256") for one in (found, facts)]
    if path.exists() and shas[0] != shas[1]:
        names = [(one.get(WEIGHTS) or {}).get("file", "none") for one in (found, facts)]
        differences.append(f"other start weights: {names[0]} there, {names[1]} here")
    if differences:
        raise TrainingError(f"{run} holds a run with {', and with '.join(differences)}; {WAYS_ON}")


def read_starts(run: Path) -> list[Facts]:
    """Return what each start noted."""
    path = run / "starts.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def note_start(
    recipe: Recipe,
    run: Path,
    *,
    facts: Facts,
    machines: tuple[int, int],
    framework: str,
    versions: Mapping[str, str],
) -> None:
    """Write the resolved recipe and, for every start, versions, seed, data and machine.

    Args:
        recipe: what is trained.
        run: the folder.
        facts: as for `refuse_other_run`.
        machines: devices of each, and how many.
        framework: that trains.
        versions: of its packages.
    """
    write_text(run / "recipe.yaml", dump_recipe(recipe))
    write_text(run / "begun.json", json.dumps(facts, indent=1))
    start = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "framework": framework,
        "seed": recipe.seed,
        "images_trained_on": facts["data"]["trained_on"],
        "images_held_out": facts["data"]["held_out"],
        "devices": machines[0],
        "nodes": machines[1],
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{package: version(package) for package in PACKAGES},
        **versions,
    }
    write_text(run / "starts.json", json.dumps([*read_starts(run), start], indent=2))


def is_finished(run: Path, recipe: Recipe) -> bool:
    """Tell whether a run has trained all its stages and left its weights."""
    stages = [run / f"stage-{index}" / "done.json" for index in range(len(recipe.stages))]
    return all(path.exists() for path in (run / "model.safetensors", *stages))


def set_aside(run: Path) -> None:
    """Move a run to a name of its own, so that another can begin in its place."""
    if run.exists():
        numbers = range(1, 10_000)
        aside = next(p for n in numbers if not (p := run.with_name(f"{run.name}.{n}")).exists())
        run.rename(aside)
        log.warning("the run that was in %s is now in %s", run, aside)


@contextmanager
def hold(run: Path) -> Iterator[None]:
    """Keep other processes out of a run folder; one that dies lets go of it.

    Raises:
        TrainingError: if another one trains in it now, or nothing can be written there.
    """
    lock = filelock.FileLock(run / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise TrainingError(
            f"{run}: another process trains in this folder now; let it finish or stop it, or choose"
            " another folder with -o"
        ) from error
    except OSError as error:
        raise cannot_write(run, error) from error
    try:
        yield
    finally:
        lock.release()
