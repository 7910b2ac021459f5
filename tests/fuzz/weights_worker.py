"""Load damaged weights or recipes until the time is up, and tell of each fault.

A process of its own, so that a crash or a hang ends it and not the tests.
Use: python weights_worker.py checkpoints|keras|recipes SEED SECONDS FOLDER; the last file tried
stays in FOLDER.
"""

import dataclasses
import io
import json
import random
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mutation import MOST_CPU_SECONDS, MOST_MEMORY_BYTES, mutated
from safetensors.torch import save

from fairweather.errors import FairweatherError
from fairweather.models import AST, ASTConfig, load_model, save_official
from fairweather.training import dump_recipe, list_recipes, load_recipe

SMALL = ASTConfig(embed_dim=4, depths=(1, 2, 1), heads=(1, 2, 2), window=4, mlp_ratio=1.5)
MOST_VALUES = 10**6  # of a tensor that is made odd once more
ODD: list[Any] = [
    *(None, True, -1, 0, 1, 2, 3.5, 7, 64, 10**5, 10**9, 10**30, 1e300, float("nan"), float("inf")),
    *(
        "",
        "frfn",
        "x" * 999,
        "../..",
        [],
        [1],
        [[1]],
        [1] * 9,
        [10**6, 1, 1],
        {},
        {"a": 1},
        [-1] * 3,
    ),
]
ODD_WORDS = [
    *(
        "2020-13-45",
        ".nan",
        ".inf",
        "-.inf",
        "~",
        "[]",
        "{}",
        "[[[[",
        "&a [*a]",
        "*b",
        "!!binary x",
    ),
    *(
        "1e999",
        "0x" + "f" * 40,
        "'",
        '"',
        "- - -",
        "!!python/name:os.abort",
        "\x00",
        "\u202e",
        "99999",
    ),
    *("0o8", "1:2:3", "? a", "..", "a/b", "yes", "9" * 5000, "<<: *x", "%YAML 9", "---", "\t"),
]


def odd_tensor(tensor: torch.Tensor, rng: random.Random) -> Any:
    if tensor.numel() > MOST_VALUES:  # which would take minutes
        return tensor
    ways: list[Callable[[], Any]] = [
        lambda: torch.zeros(1).expand(rng.choice((3, 10**4, 10**12))),
        lambda: tensor.to("meta"),
        lambda: tensor.to_sparse(),
        lambda: tensor.to(rng.choice((torch.float16, torch.int8, torch.bool, torch.complex64))),
        lambda: tensor.flatten()[:1],
        lambda: tensor[None],
        lambda: tensor * float("nan"),
        lambda: tensor.double() * 1e300,
        lambda: torch.nn.Parameter(tensor),
        lambda: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda: torch.empty(0),
        lambda: rng.choice(ODD),
    ]
    try:
        return rng.choice(ways)()
    except (RuntimeError, NotImplementedError):  # one that is odd already
        return tensor


def odd_checkpoint(state: dict[str, Any], rng: random.Random) -> tuple[str, bytes]:
    """A whole file with odd contents."""
    state, names = dict(state), [*state]
    if rng.random() < 0.5:
        config = dataclasses.asdict(SMALL)
        for _ in range(rng.randint(1, 3)):
            config[rng.choice([*config, "other"])] = rng.choice(ODD)
        text = json.dumps(config)
        if rng.random() < 0.2:
            text = mutated(text.encode(), b"[[{", rng).decode(errors="replace")
        return ".safetensors", save(state, {"config": text, "recipe": rng.choice((text, "[]"))})
    for _ in range(rng.randint(1, 3)):
        name = rng.choice(names)
        if rng.random() < 0.2:
            state[rng.choice((1, name + ".x", None, (1,)))] = state.pop(name, torch.ones(1))  # type: ignore[index]
        elif isinstance(state.get(name), torch.Tensor):
            state[name] = odd_tensor(state[name], rng)
    content: Any = state
    for _ in range(rng.randint(0, 3)):
        content = {rng.choice(("state_dict", "params", "x", 1)): content, "epoch": rng.choice(ODD)}
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=rng.random() < 0.7)
    return ".pth", file.getvalue()


def checkpoints(folder: Path, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    state = AST(SMALL).state_dict()
    whole = [(".safetensors", save(state, {"config": json.dumps(dataclasses.asdict(SMALL))}))]
    for is_zip in (True, False):
        file = io.BytesIO()
        torch.save({"state_dict": state}, file, _use_new_zipfile_serialization=is_zip)
        whole.append((".pth", file.getvalue()))
    save_official(AST(SMALL), folder / "official.pth")
    whole.append((".pth", (folder / "official.pth").read_bytes()))
    while True:
        suffix, content = rng.choice(whole)
        yield suffix, mutated(content, rng.choice(whole)[1], rng)
        yield odd_checkpoint(state, rng)


def keras_files(folder: Path, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    import fairweather.keras as fk

    whole = []
    for suffix in (".keras", ".weights.h5"):
        fk.save_model(fk.from_torch(AST(SMALL)), folder / f"small{suffix}")
        whole.append((suffix, (folder / f"small{suffix}").read_bytes()))
    while True:
        suffix, content = rng.choice(whole)
        yield suffix, mutated(content, rng.choice(whole)[1], rng)


def recipes(folder: Path, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    texts = [dump_recipe(load_recipe(name)) for name in list_recipes()]
    while True:
        text = rng.choice(texts)
        if rng.random() < 0.3:
            yield ".yaml", mutated(text.encode(), rng.choice(texts).encode(), rng)
            continue
        lines = text.splitlines()
        for _ in range(rng.randint(1, 4)):
            number = rng.randrange(len(lines))
            key, colon, _ = lines[number].partition(":")
            ways = [
                f"{key}{colon} {rng.choice(ODD_WORDS)}",
                f"{lines[number]} {rng.choice(ODD_WORDS)}",
                f"{' ' * rng.randrange(9)}{lines[number].lstrip()}",
                rng.choice(rng.choice(texts).splitlines()),
                f"{rng.choice(ODD_WORDS)}: {rng.choice(ODD_WORDS)}",
            ]
            lines[number] = rng.choice(ways)
        yield ".yaml", "\n".join(lines).encode(errors="replace")


def load_keras(path: Path) -> object:
    import fairweather.keras as fk

    return fk.load_model(path)


KINDS: dict[str, tuple[Any, Callable[[Path], object]]] = {
    "checkpoints": (checkpoints, load_model),
    "keras": (keras_files, load_keras),
    "recipes": (recipes, load_recipe),
}


def fault_of(load: Callable[[Path], object], path: Path) -> str | None:
    """What is wrong with how a file is loaded or refused; "refused" and None are right."""
    started = time.process_time()
    try:
        load(path)
        told = None
    except FairweatherError as error:
        told = "refused" if path.name in str(error) else f"names no file: {error}"
    except BaseException as error:
        told = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - started
    return f"took {seconds:.1f} s" if seconds > MOST_CPU_SECONDS else told


def main() -> None:
    kind, seed, seconds, folder = (
        sys.argv[1],
        int(sys.argv[2]),
        float(sys.argv[3]),
        Path(sys.argv[4]),
    )
    warnings.simplefilter("ignore")
    make, load = KINDS[kind]
    rng, counts, faults = random.Random(seed), {"loaded": 0, "refused": 0}, 0
    end = None
    for number, (suffix, content) in enumerate(make(folder, rng)):
        path = folder / f"tried{suffix}"
        path.write_bytes(content)
        told = fault_of(load, path)
        if number == 0:  # what is imported when it is first used
            told, end = None, time.monotonic() + seconds
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before > MOST_MEMORY_BYTES:
            told = "took too much memory"
        if told in (None, "refused"):
            counts[told or "loaded"] += 1
        else:
            faults += 1
            kept = folder / f"fault-{faults}{suffix}"
            kept.write_bytes(content)
            print(f"{kept}: {told:.300}")
        if end is not None and time.monotonic() > end:
            break
    print(f"seed {seed}: {counts['loaded']} loaded, {counts['refused']} refused, {faults} faults")


if __name__ == "__main__":
    main()
