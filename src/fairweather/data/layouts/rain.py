"""The layouts of data sets of rain and raindrops, and how each is known."""

from fairweather.data.layouts.forms import (
    INPUT_TARGET,
    TRAIN_TEST,
    Arrangement,
    Layout,
    Sides,
    in_folders,
)

RAIN, NORAIN = "(?:no)?rain-([0-9]+)(?:x2)?", "norain-([0-9]+)"
RAIN_FORMS = (
    Sides("rain/X2", "norain", RAIN, NORAIN),
    Sides("rain", "norain", RAIN, NORAIN),
    Sides("input", "target", RAIN, NORAIN),
    Sides("input", "gt", RAIN, NORAIN),
    *INPUT_TARGET,
    Sides("rainy", ".", "rain-([0-9]+)", NORAIN),
    Sides(".", ".", "rain-([0-9]+)", NORAIN),
)

_SYNTHETIC_DS = "(pie-)?{}-([^-]+)"
_DS_KINDS = {"rainstreak": "rain", "raindrop": "rd", "rainstreak_raindrop": "rd-rain"}
DS_SYNTHETIC: Arrangement = tuple(
    Sides(folder, "gt", _SYNTHETIC_DS.format(kind), _SYNTHETIC_DS.format("norain"), many=True)
    for folder, kind in _DS_KINDS.items()
)
DS_REAL: Arrangement = tuple(Sides(folder, "gt", many=True) for folder in _DS_KINDS)

_DENSITIES = tuple(
    f"DID-MDN-training/Rain_{density}/train2018new" for density in ("Heavy", "Medium", "Light")
)

_SIDE_BY_SIDE = (
    " Both images lie side by side in one file, so they have to be taken apart first:"
    " `fairweather data unpack` writes input/ and target/. Loaders disagree on which half is"
    " degraded: say it (--degraded), or it is told from the edges in the images."
)


def _joint_rain_removal(title: str, *, weight: str, train: int, test: int) -> Layout:
    """Return the layout of Rain100 or Rain200, of one project."""
    letter = title[-1]
    return Layout(
        title=title,
        task="rain",
        publisher="the project page 'Joint Rain Detection and Removal' (JORDER, CVPR 2017)",
        tree=f"""\
rain_data_train_{weight}/rain/X2/norain-1x2.png   (or in rain/; or train/, RainTrain{letter}/)
rain_data_train_{weight}/norain/norain-1.png
rain_data_test_{weight}/…                         (or test/, {title}/)
or   train/input/1.png  + train/target/1.png    (the form of MPRNet; target may be gt)
or   rainy/rain-001.png + norain-001.png, or both in one folder""",
        usual=f"{train} pairs to train, {test} to test",
        source="from several public loaders; the authors' archives were not at hand. The authors"
        " replaced Rain100 by what is now called Rain200: check how many pairs you have.",
        splits=in_folders(
            *RAIN_FORMS,
            train=(f"rain_data_train_{weight}", "train", f"RainTrain{letter}"),
            test=(f"rain_data_test_{weight}", "test", title),
        ),
    )


RAIN_LAYOUTS: dict[str, Layout] = {
    "spad": Layout(
        title="SPA-Data",
        task="rain",
        publisher="GitHub stevewongv/SPANet (CVPR 2019)",
        tree="real_world.txt        lines `/real_world/…/a.png /real_world/…/b.png`\n"
        "real_world/\n"
        "real_test_1000.txt    the same\n"
        "real_test_1000/",
        usual="real_world.txt to train, real_test_1000.txt to test (1,000 pairs)",
        source="from the authors' README and loader, and from the loader of AST, which takes the"
        " slash off and looks beside the list. The order of the lines is kept.",
        lists={"train": "real_world.txt", "test": "real_test_1000.txt"},
    ),
    "rain100l": _joint_rain_removal("Rain100L", weight="Light", train=200, test=100),
    "rain100h": _joint_rain_removal("Rain100H", weight="Heavy", train=1800, test=100),
    "rain200l": _joint_rain_removal("Rain200L", weight="Light", train=1800, test=200),
    "rain200h": _joint_rain_removal("Rain200H", weight="Heavy", train=1800, test=200),
    "rain800": Layout(
        title="Rain800",
        task="rain",
        publisher="GitHub hezhangsprinter/ID-CGAN",
        tree="train/1.jpg   (or training/)\ntest/1.jpg\n"
        "or   train/input/1.png + train/target/1.png, or train/rain/rain-001.png +"
        " train/norain/norain-001.png",
        usual="700 pairs to train, 100 to test",
        source="that the images lie side by side is from public loaders; the names of the folders"
        " and the counts are not verified." + _SIDE_BY_SIDE,
        splits=in_folders(
            *INPUT_TARGET,
            Sides("rain", "norain", RAIN, NORAIN),
            train=("train", "training"),
            test=("test",),
        ),
        side_by_side={"train": ("train", "training"), "test": ("test",)},
    ),
    "did-mdn": Layout(
        title="DID-MDN (Rain1200)",
        task="rain",
        publisher="GitHub hezhangsprinter/DID-MDN (CVPR 2018)",
        tree="DID-MDN-training/Rain_Heavy/train2018new/1.jpg   (Rain_Medium and Rain_Light alike)\n"
        "DID-MDN-test/1.jpg\n"
        "or   train/input/1.png + train/target/1.png, and test/",
        usual="12,000 pairs to train, 1,200 to test; train-light, train-medium and train-heavy can"
        " be unpacked alone",
        source="training folders and halves (left degraded, right clean) from the authors' README"
        " and loader; DID-MDN-test is from a public loader." + _SIDE_BY_SIDE,
        splits=in_folders(*INPUT_TARGET, **TRAIN_TEST),
        side_by_side={
            "train": _DENSITIES,
            "train-heavy": _DENSITIES[:1],
            "train-medium": _DENSITIES[1:2],
            "train-light": _DENSITIES[2:],
            "test": ("DID-MDN-test",),
        },
    ),
    "rain1400": Layout(
        title="Rain1400 (DDN-Data)",
        task="rain",
        publisher="the project page of 'Removing Rain from Single Images via a Deep Detail Network'"
        " (Fu et al., CVPR 2017)",
        tree="training/rainy_image/1_1.jpg … 1_14.jpg   (or train/)\n"
        "training/ground_truth/1.jpg\n"
        "testing/…                                 (or test/)\n"
        "or   input/ + gt/ with the same names",
        usual="900 clean images with 14 rainy ones each to train, 100 to test",
        source="names and inner folders from several public loaders; training/ and testing/ are"
        " not verified.",
        splits=in_folders(
            Sides("rainy_image", "ground_truth", "(.+)_[0-9]+", many=True),
            Sides("input", "gt", "(.+)_[0-9]+", many=True),
            Sides("input", "target", "(.+)_[0-9]+", many=True),
            train=("training", "train", "rainy_image_dataset/training"),
            test=("testing", "test", "rainy_image_dataset/testing"),
        ),
    ),
    "rain13k": Layout(
        title="Rain13K",
        task="rain",
        publisher="GitHub swz30/MPRNet (CVPR 2021), gathered from other data sets",
        tree="train/input/1.png + train/target/1.png   (or train/Rain13K/)\n"
        "test/Rain100H/input/ + target/           (Rain100L, Test100, Test1200, Test2800 alike)",
        usual="13,712 pairs to train; each test set is reported apart",
        source="from several public READMEs; the counts are not verified.",
        splits=in_folders(
            *INPUT_TARGET,
            train=("train", "train/Rain13K"),
            test_rain100h=("test/Rain100H",),
            test_rain100l=("test/Rain100L",),
            test_test100=("test/Test100",),
            test_test1200=("test/Test1200",),
            test_test2800=("test/Test2800",),
        ),
    ),
    "rainds-syn": Layout(
        title="RainDS, synthetic part",
        task="raindrop",
        publisher="GitHub Songforrr/RainDS_CCN (CVPR 2021)",
        tree="RainDS_syn/train/rainstreak/rain-1.png\n"
        "RainDS_syn/train/raindrop/rd-1.png\n"
        "RainDS_syn/train/rainstreak_raindrop/rd-rain-1.png\n"
        "RainDS_syn/train/gt/norain-1.png         (names may begin with pie-)\n"
        "RainDS_syn/test/…                        (or train_set/, test_set/)",
        usual="the folders; streaks, drops and both are reported apart",
        source="inner folders and names from the authors' loader; the outer ones from public"
        " loaders. All three kinds are given, in this order.",
        splits=in_folders(
            DS_SYNTHETIC,
            train=("RainDS_syn/train", "RainDS_syn/train_set", "train", "train_set"),
            test=("RainDS_syn/test", "RainDS_syn/test_set", "test", "test_set"),
        ),
    ),
    "rainds-real": Layout(
        title="RainDS, real part",
        task="raindrop",
        publisher="GitHub Songforrr/RainDS_CCN (CVPR 2021)",
        tree="RainDS_real/train_set/rainstreak/2.png   (raindrop/, rainstreak_raindrop/ alike)\n"
        "RainDS_real/train_set/gt/2.png\n"
        "RainDS_real/test_set/…",
        usual="the folders; streaks, drops and both are reported apart",
        source="from public loaders, not from the authors'.",
        splits=in_folders(
            DS_REAL,
            train=("RainDS_real/train_set", "RainDS_real/train", "train_set", "train"),
            test=("RainDS_real/test_set", "RainDS_real/test", "test_set", "test"),
        ),
    ),
    "agan": Layout(
        title="Raindrop (AGAN)",
        task="raindrop",
        publisher="GitHub rui1996/DeRaindrop (CVPR 2018)",
        tree="train/data/0_rain.png + train/gt/0_clean.png   (or train/train/)\n"
        "test_a/data/0_rain.png + test_a/gt/0_clean.png\n"
        "test_b/…",
        usual="train to train, test_a (split 'test') to test; test_b is larger and less exact",
        source="from several public loaders; the authors publish none.",
        splits=in_folders(
            Sides("data", "gt", "(.+)_rain", "(.+)_clean"),
            train=("train", "train/train"),
            test=("test_a", "test_a/test_a"),
            test_b=("test_b", "test_b/test_b"),
        ),
    ),
}
