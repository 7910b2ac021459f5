"""Train a recipe with Ray Train on a cluster; each worker is a process of one training.

    python examples/ray_train.py rain_n --data s3://bucket/set --out /shared/runs/rain_n \
        --workers 8 --gpu

The run folder has to be on storage that all machines share. A run whose machine or process dies is
started again by Ray, and goes on from its last checkpoint; so does the same command later on.
Needs fairweather[train] and Ray with its Train library: pip install 'ray[train]'.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from fairweather.training import load_recipe


def train_in_worker(config: dict[str, Any]) -> None:
    """Be one of the processes of a training."""
    # Ray sets what torchrun does (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR …) but for this one, by
    # which Lightning and fairweather see that all processes are there already.
    os.environ["TORCHELASTIC_RUN_ID"] = "ray-train"
    # Imported here, where RANK is set: Lightning reads it when it is imported.
    from fairweather.data import bring_data, default_cache_folder
    from fairweather.training import Machines, Recipe, train

    cache = Path(config["cache"] or default_cache_folder())
    train(
        Recipe.model_validate_json(config["recipe"]),
        data=bring_data(config["data"], cache=cache),
        run=Path(config["out"]),
        machines=Machines.of_torchrun(workers=config["loaders"], cache=cache),
    )


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("recipe", help="name of a bundled recipe, or a .yaml file")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--data", required=True, help="shared folder, or URL of shards")
    parser.add_argument("--out", required=True, type=Path, help="run folder, on shared storage")
    parser.add_argument("--cache", help="folder on a disk of each machine")
    parser.add_argument("--workers", type=int, default=2, help="processes of the training")
    parser.add_argument("--gpu", action="store_true", help="give each of them a GPU")
    parser.add_argument("--cpus", type=float, default=1, help="cores for each of them")
    parser.add_argument("--loaders", type=int, default=0, help="loading processes for each")
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        default=os.environ.get("RAY_ADDRESS", "local"),
        help="of the cluster; `auto` is the one of this machine, and `local` starts one",
    )
    parser.add_argument("--failures", type=int, default=3, help="how often a run is started again")
    return parser.parse_intermixed_args()


def main() -> None:
    """Train until the run is over."""
    options = parse()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    ray.init(options.ray, include_dashboard=False)
    out = options.out.absolute()
    recipe = load_recipe(options.recipe, overrides=options.overrides)
    resources = {"CPU": options.cpus} | ({"GPU": 1} if options.gpu else {})
    TorchTrainer(
        train_in_worker,
        train_loop_config={
            "recipe": recipe.model_dump_json(),
            "data": options.data,
            "out": str(out),
            "cache": options.cache,
            "loaders": options.loaders,
        },
        scaling_config=ScalingConfig(
            num_workers=options.workers, use_gpu=options.gpu, resources_per_worker=resources
        ),
        run_config=RunConfig(
            name=out.name,
            storage_path=str(out.parent / "ray"),  # where Ray keeps notes of its own
            failure_config=FailureConfig(max_failures=options.failures),
        ),
    ).fit()
    print(f"trained: {out / 'model.safetensors'}")


if __name__ == "__main__":
    main()
