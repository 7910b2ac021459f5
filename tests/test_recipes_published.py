"""Every bundled recipe reads its data set as it lies on disk, and trains each of its stages."""

import math
import re
import shlex
from collections.abc import Callable
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import typer
from lightning.pytorch.callbacks import Callback
from PIL import Image
from tiny_runs import one_thread_of_the_cpu

from fairweather.cli import app
from fairweather.data import Pair, find_layout_pairs, read_bytes, unpack_side_by_side
from fairweather.models import ASTv2Config, load_model
from fairweather.training import Recipe, batches, list_recipes, load_recipe, split_pairs, train
from fairweather.training.schedules import length_of

pytestmark = pytest.mark.filterwarnings(
    "ignore:The number of training batches .* is smaller than the log"
)

STEPS = 20  # of each stage
SIDE_PX = 32
PAIRS = 7  # more than the five that Dense-Haze keeps for its test
OURS = [name for name in list_recipes() if name.endswith(("_n", "_s"))]  # of the bundled weights
RECIPES = [name for name in list_recipes() if name not in OURS]

# Degraded and clean, as the data sets themselves name them.
TRAINING_FILES = {
    "agan": ("train/data/{}_rain.png", "train/gt/{}_clean.png"),
    "dense_haze": ("hazy/{:02}_hazy.png", "GT/{:02}_GT.png"),
    "reside_indoor": ("hazy/{}_1_0.9.png", "clear/{}.png"),
    "reside_outdoor": ("hazy/{:04}_0.8_0.04.jpg", "clear/{:04}.jpg"),
    "rain13k": ("train/input/{}.jpg", "train/target/{}.jpg"),
    "snow100k": ("train/synthetic/beautiful_smile_{:05}.jpg", "train/gt/beautiful_smile_{:05}.jpg"),
    "istd": ("train/train_A/{}-1.png", "train/train_C/{}-1.png"),
    "tip2018": (
        "trainData/source/image_test_part001_{:08}_source.png",
        "trainData/target/image_test_part001_{:08}_target.png",
    ),
    "own_pairs": ("input/{}.png", "target/{}.png"),
    "astv2_sots": ("train/hazy/{:04}_0.8_0.04.jpg", "train/clear/{:04}.jpg"),
    "astv2_gopro": ("train/GOPR0372_07_00/blur/{:06}.png", "train/GOPR0372_07_00/sharp/{:06}.png"),
    "astv2_lol_v2_real": (
        "Real_captured/Train/Low/low{:05}.png",
        "Real_captured/Train/Normal/normal{:05}.png",
    ),
    "astv2_lol_v2_synthetic": ("Synthetic/Train/Low/r{}.png", "Synthetic/Train/Normal/r{}.png"),
    "astv2_smid": ("train/SMID_LQ/{:04}/0001.png", "train/SMID_Long/{:04}/long.png"),
}
TRAINING_FILES |= {f"astv2_{name}": TRAINING_FILES[name] for name in ("istd", "snow100k")}
TEST_FILES = {
    "agan": ("test_a/data/{}_rain.png", "test_a/gt/{}_clean.png"),
    "rain13k": ("test/Rain100L/input/{}.png", "test/Rain100L/target/{}.png"),
    "snow100k": ("test/Snow100K-L/synthetic/{}.jpg", "test/Snow100K-L/gt/{}.jpg"),
    "istd": ("test/test_A/{}-1.png", "test/test_C/{}-1.png"),
    "tip2018": ("testData/source/{}_source.png", "testData/target/{}_target.png"),
    "astv2_gopro": ("test/GOPR0384_11_00/blur/{}.png", "test/GOPR0384_11_00/sharp/{}.png"),
}
TEST_FILES |= {f"astv2_{name}": TEST_FILES[name] for name in ("istd", "snow100k")}
TEST_SPLITS = {
    "spad": "test",
    "agan": "test",
    "dense_haze": "test",
    "rain13k": "test-rain100l",
    "snow100k": "test-l",
    "istd": "test",
    "tip2018": "test",
    "astv2_spad": "test",
    "astv2_istd": "test",
    "astv2_snow100k": "test-l",
    "astv2_gopro": "test",
}


def draw(number: int) -> tuple[np.ndarray, np.ndarray]:
    """A degraded and a clean image of smooth patches, different for each number."""
    patches = np.random.default_rng(number).integers(60, 150, (4, 4, 3), dtype=np.uint8)
    size = SIDE_PX, SIDE_PX
    clean = np.asarray(Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC))
    degraded = clean.copy()
    degraded[:, ::3] += 50  # streaks
    return degraded, clean


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_pairs(root: Path, names: tuple[str, str], *, numbers: range) -> None:
    for number in numbers:
        for name, pixels in zip(names, draw(number), strict=True):
            save(root / name.format(number), pixels)


def grow_spa_data(root: Path) -> Path:
    for split, numbers in (("real_world", range(PAIRS)), ("real_test_1000", range(90, 92))):
        names = f"{split}/{{0}}/{{0}}_rain.png", f"{split}/{{0}}/{{0}}_norain.png"
        save_pairs(root, names, numbers=numbers)
        lines = ["/{} /{}".format(*(name.format(number) for name in names)) for number in numbers]
        (root / f"{split}.txt").write_text("\n".join(lines))
    return root


def grow_did_mdn(root: Path, *, split: str) -> Path:
    """As the archive has it, left degraded and right clean, and then taken apart."""
    for density in ("Heavy", "Light", "Medium"):
        for number in range(PAIRS):
            file = f"archive/DID-MDN-training/Rain_{density}/train2018new/{number}.jpg"
            save(root / file, np.concatenate(draw(number), axis=1))
    unpack_side_by_side(
        root / "archive", root / "pairs", layout="did-mdn", split=split, degraded="left"
    )
    return root / "pairs"


def grow_photographs(root: Path) -> Path:
    for number in range(PAIRS):
        save(root / f"{number}.jpg", draw(number)[1])
    return root


def grow_ours(root: Path, *, pairs: tuple[str, str] | None = None) -> Path:
    """Clean photographs, and the pairs, if any, that the weights were also trained on."""
    if pairs:
        save_pairs(root, pairs, numbers=range(1, 1 + PAIRS))
    grow_photographs(root / "clean")
    return root


def grow_rain(root: Path) -> Path:
    """Clean photographs, three sets of rainy pairs, and layers of streaks."""
    for rain in ("Rain13K-sample", "Rain800", "GT-RAIN"):
        sides = tuple(f"pairs/rain/{rain}/{side}/{{}}.jpg" for side in ("input", "target"))
        save_pairs(root, sides, numbers=range(1, 1 + PAIRS))
    layers = tuple(f"layers/rain/Garg06/{{}}-{view}.png" for view in (4, 6))
    save_pairs(root, layers, numbers=range(1, 1 + PAIRS))
    return grow_ours(root)


def grow_weather(root: Path) -> Path:
    """Clean photographs, hazy rooms and rainy pairs."""
    grow_ours(
        root, pairs=("pairs/haze/SOTS-indoor/hazy/{}_1.jpg", "pairs/haze/SOTS-indoor/clear/{}.jpg")
    )
    sides = ("input", "target")
    return grow_ours(root, pairs=tuple(f"pairs/rain/Rain13K-sample/{s}/{{}}.jpg" for s in sides))


TREES: dict[str, Callable[[Path], Path]] = {
    "spad": grow_spa_data,
    "astv2_spad": grow_spa_data,
    "rain_did_mdn": partial(grow_did_mdn, split="train-medium"),
    "rain_did_mdn_full": partial(grow_did_mdn, split="train"),
    "synthetic": grow_photographs,
    "rain_n": partial(
        grow_ours,
        pairs=tuple(f"pairs/rain/Rain13K-sample/{side}/{{}}.jpg" for side in ("input", "target")),
    ),
    "rain_layers_n": grow_rain,
    "raindrop_n": grow_ours,
    "raindrop_far_n": grow_ours,
    "snow_n": grow_ours,
    "snow_more_n": grow_ours,
    "shadow_closeups_s": grow_ours,
    **dict.fromkeys(
        ("haze_n", "haze_s", "haze_proxy_s", "haze_rooms_s", "shadow_s"),
        partial(
            grow_ours,
            pairs=("pairs/haze/SOTS-indoor/hazy/{}_1.jpg", "pairs/haze/SOTS-indoor/clear/{}.jpg"),
        ),
    ),
    "weather_s": grow_weather,
    "moire_n": partial(
        grow_ours,
        pairs=tuple(f"pairs/moire/UHDM-700px/{side}/{{}}.jpg" for side in ("input", "target")),
    ),
}


@pytest.fixture(scope="module")
def grow(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A recipe's name → a miniature of its data set, with its test split where it has one."""

    def grow(name: str) -> Path:
        root = tmp_path_factory.mktemp(name)
        if name in TREES:
            return TREES[name](root)
        save_pairs(root, TRAINING_FILES[name], numbers=range(1, 1 + PAIRS))
        if name in TEST_FILES:
            save_pairs(root, TEST_FILES[name], numbers=range(90, 92))
        return root

    return grow


def shrink(name: str) -> Recipe:
    """The recipe with a tiny network, and twenty steps in each of its stages."""
    recipe = load_recipe(name)
    if isinstance(recipe.config, ASTv2Config):
        overrides = [
            "preset=astv2_n",
            "architecture={embed_dim: 4, groups: 2, depths: [1, 1, 1], heads: [1, 1, 1]}",
        ]
    else:
        context = str(recipe.config.global_context).lower()
        tiny = "embed_dim: 4, window: 2, depths: [1, 1, 1], heads: [1, 1, 1]"
        overrides = ["preset=ast_n", f"architecture={{{tiny}, global_context: {context}}}"]
    overrides += [
        "precision=32-true",
        "activation_checkpointing=false",
        f"validate_every_steps={STEPS}",
        "validation_crop_px=16",
    ]
    if recipe.data.resize_px is not None:
        overrides.append("data.resize_px=24")
    short = {"crop_px": 16, "batch": 2, "accumulate": 1, "steps": STEPS, "epochs": "null"}
    short |= {"warmup_steps": 0, "warmup_epochs": 0}
    for index in range(len(recipe.stages)):
        overrides += [f"stages.{index}.{key}={value}" for key, value in short.items()]
    return load_recipe(name, overrides=overrides)


class Diary(Callback):
    """How many steps each stage took, and what it lost."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.losses: list[float] = []

    def on_train_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        self.steps.append(trainer.global_step)
        self.losses.append(float(trainer.callback_metrics["train_loss"]))


@pytest.mark.parametrize("name", list_recipes())
def test_every_stage_trains_on_the_data_set_as_it_lies(
    grow: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    recipe, diary = shrink(name), Diary()
    with one_thread_of_the_cpu():
        path = train(
            recipe,
            data=grow(name),
            run=tmp_path,
            unchecked=True,
            callbacks=(diary,),
            curves_every_s=None,  # drawing takes four times as long as all the rest
        )
    assert diary.steps == [STEPS] * len(recipe.stages)
    assert all(math.isfinite(loss) for loss in diary.losses)
    assert path == tmp_path / "model.safetensors"
    assert load_model(path).config == recipe.config


@pytest.mark.parametrize("name", RECIPES)
def test_every_pair_is_trained_on_or_held_out_and_none_is_of_the_test(
    grow: Callable[[str], Path], name: str
) -> None:
    recipe, data = load_recipe(name), grow(name)
    training, held_out = split_pairs(recipe, data)
    used = {pair.clean for pair in (*training, *held_out)}
    densities = 3 if name == "rain_did_mdn_full" else 1
    kept_for_the_test = 5 if name == "dense_haze" else 0
    assert len(training) + len(held_out) == len(used) == densities * PAIRS - kept_for_the_test
    assert held_out
    if name in TEST_SPLITS:
        (source,) = recipe.data.pairs
        tested = find_layout_pairs(data, source.layout, split=TEST_SPLITS[name])
        assert used.isdisjoint(pair.clean for pair in tested)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "synthetic"])
def test_the_degraded_images_are_the_streaky_ones(grow: Callable[[str], Path], name: str) -> None:
    training, held_out = split_pairs(load_recipe(name), grow(name))
    for pair in (*training, *held_out):
        degraded, clean = (read_bytes(p).astype(int) for p in (pair.degraded, pair.clean))
        assert 10 < (degraded - clean).mean() < 25
        assert np.abs(degraded - clean).max() < 100  # the same scene


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_documented(name: str) -> None:
    recipe = load_recipe(name)
    file = resources.files("fairweather.training") / "recipes" / f"{name}.yaml"
    text = file.read_text(encoding="utf-8")
    assert recipe.name == name
    assert text.startswith("# yaml-language-server: $schema=recipe.schema.json\n")
    assert len(recipe.description.split()) > 10
    assert recipe.cost is not None
    assert recipe.cost.basis.startswith(("estimated from", "measured"))
    has_none = name in ("synthetic", "own_pairs") or name.startswith("astv2_")
    assert (recipe.published is None) is has_none


# Crop, batch, steps or epochs, and rate: of the official training scripts and the paper.
OFFICIAL_STAGES = {
    "spad": [(128, 32, 20, 2e-4), (256, 16, 15, 1e-4)],
    "agan": [(128, 32, 300, 2e-4), (256, 16, 200, 1e-4), (384, 8, 150, 8e-5)],
    "dense_haze": [
        (256, 4, 2000, 2e-4),
        (384, 4, 1200, 1.2e-4),
        (512, 4, 800, 8e-5),
        (768, 2, 300, 3e-5),
        (896, 2, 80, 1e-5),
    ],
}


@pytest.mark.parametrize("name", OFFICIAL_STAGES)
def test_the_published_trainings_are_followed(name: str) -> None:
    recipe = load_recipe(name)
    for stage, (crop_px, batch, epochs, rate) in zip(
        recipe.stages, OFFICIAL_STAGES[name], strict=True
    ):
        assert (stage.crop_px, stage.batch, stage.learning_rate) == (crop_px, batch, rate)
        assert stage.final_learning_rate == 1e-6
        if stage.epochs is None:  # Dense-Haze: 50 pairs
            epoch_steps = math.ceil(50 / batch)
            assert (stage.steps, stage.warmup_steps) == (epochs * epoch_steps, 3 * epoch_steps)
        else:
            assert (stage.epochs, stage.warmup_epochs) == (epochs, 3)
    assert (recipe.preset, recipe.architecture) == ("ast_b", {})
    assert (recipe.optimizer, recipe.weight_decay) == ("adamw", 0.02)
    assert recipe.loss == {"charbonnier": 1.0}
    assert recipe.augmentation.orientation == "all"
    assert recipe.augmentation.mixup_probability == 0
    assert recipe.ema_decay is recipe.gradient_clip_norm is None


def test_the_report_in_tensorflow_is_followed() -> None:
    recipe = load_recipe("rain_did_mdn")
    (stage,) = recipe.stages
    length = length_of(stage, images=3600, validate_every_steps=recipe.validate_every_steps)
    assert (length.steps, length.warmup_steps) == (10 * 1800, 0)
    assert length.validate_every_steps == 1800
    assert (stage.learning_rate, stage.final_learning_rate) == (2e-4, 1e-6)
    assert (recipe.optimizer, recipe.weight_decay, recipe.config.window) == ("adam", 0.0, 8)


@pytest.mark.parametrize(
    ("name", "densities"),
    [("rain_did_mdn", ("Medium",)), ("rain_did_mdn_full", ("Heavy", "Light", "Medium"))],
)
def test_a_tenth_of_did_mdn_is_held_out(
    monkeypatch: pytest.MonkeyPatch, name: str, densities: tuple[str, ...]
) -> None:
    """The same numbers of every density, which may share scenes."""
    pairs = [
        Pair(Path(f"input/{density}/{number}.png"), Path(f"target/{density}/{number}.png"))
        for density in densities
        for number in range(4000)
    ]
    monkeypatch.setattr(batches, "find_layout_pairs", lambda *_, **__: pairs)
    training, held_out = split_pairs(load_recipe(name), Path())
    assert (len(training), len(held_out)) == (3600 * len(densities), 400 * len(densities))
    numbers = {pair.clean.stem for pair in held_out}
    assert len(numbers) == 400
    assert numbers.isdisjoint(pair.clean.stem for pair in training)


PAGE = (Path(__file__).parents[1] / "docs/recipes.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^(fairweather .+)$|`(fairweather [^`]+)`", PAGE, re.MULTILINE)


@pytest.mark.parametrize("line", sorted({first or second for first, second in COMMANDS}))
def test_the_commands_of_the_page_exist(line: str) -> None:
    command: Any = typer.main.get_command(app)
    words = shlex.split(line.partition(" > ")[0])[1:]
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    values = command.make_context("fairweather", words).params
    if (name := values.get("recipe")) in list_recipes():
        load_recipe(name, overrides=values["overrides"] or ())
    else:
        assert name in (None, "mine.yaml")
