"""The table of the public benchmarks: how the pairs of each lie on disk, and how that is known."""

from fairweather.data.layouts.forms import (
    INPUT_TARGET,
    TRAIN_TEST,
    Layout,
    Sides,
    in_folders,
)
from fairweather.data.layouts.rain import RAIN_LAYOUTS


def _haze(
    title: str,
    *,
    year: int,
    name: str,
    pairs: int,
    test: str = "the last 5 as the test is not verified",
    flat: bool = False,
) -> Layout:
    """Return the layout of a data set of the NTIRE challenges on dehazing."""
    names = ("(.+)_hazy", "(.+)_GT")
    forms = (Sides("hazy", "GT", *names), *((Sides(".", ".", *names),) if flat else ()))
    both = f"or   {name.format('hazy')} + {name.format('GT')} in one folder" if flat else ""
    return Layout(
        title=title,
        task="haze",
        publisher=f"the page of the NTIRE {year} challenge on dehazing",
        tree=f"hazy/{name.format('hazy')}\nGT/{name.format('GT')}\n{both}".rstrip(),
        usual=f"about {pairs} pairs without a split in the files; {test}",
        source="folders and names from several public loaders; the archive was not at hand. The"
        " split is taken from the order of the names, so the set has to be complete.",
        splits=in_folders(*forms),
        last_for_test=5,
    )


_TO_CLEAR = "([^_]+)(?:_.+)?"


def _reside(*, spare_clean: bool = False) -> tuple[Sides, ...]:
    return tuple(
        Sides("hazy", clean, _TO_CLEAR, many=True, spare_clean=spare_clean)
        for clean in ("clear", "gt")
    )


_RESIDE = "the page of RESIDE (Li et al., TIP 2019)"
_RESIDE_SOURCE = (
    "from several public loaders and READMEs (the forms of DEA-Net and FocalNet); the archives"
    " were not at hand"
)

_SNOW = Sides("Snow", "Gt")

LAYOUTS: dict[str, Layout] = {
    "folders": Layout(
        title="two folders of one set of names",
        task="any",
        publisher="you",
        tree="train/input/NAME + train/target/NAME\ntest/input/NAME + test/target/NAME\n"
        "or   input/ + target/ for the split 'all' (target may be gt)",
        usual="yours",
        source="the form that `fairweather data degrade` writes and many loaders read.",
        splits=in_folders(*INPUT_TARGET, **TRAIN_TEST),
    ),
    "csv": Layout(
        title="a table of pairs",
        task="any",
        publisher="you",
        tree="train.csv, test.csv   (or give the file itself, for whichever split)\n"
        "with a line `degraded,clean` for each pair; these two words may be the first line",
        usual="yours",
        source="paths are relative to the table; the order of its lines is kept.",
        lists={"train": "train.csv", "test": "test.csv"},
    ),
    **RAIN_LAYOUTS,
    "dense-haze": _haze(
        "Dense-Haze",
        year=2019,
        name="01_{}.png",
        pairs=55,
        test="by custom the last 5 are the test",
    ),
    "nh-haze": _haze(
        "NH-HAZE",
        year=2020,
        name="01_{}.png",
        pairs=55,
        test="the last 5 as the test follows Dense-Haze and is not verified",
        flat=True,
    ),
    "o-haze": _haze("O-HAZE", year=2018, name="01_outdoor_{}.jpg", pairs=45),
    "i-haze": _haze("I-HAZE", year=2018, name="01_indoor_{}.jpg", pairs=35),
    "its": Layout(
        title="RESIDE indoor training set (ITS)",
        task="haze",
        publisher=_RESIDE,
        tree="hazy/1_1_0.9.png + clear/1.png   (or in train/; clear may be gt)\n"
        "test/hazy/1400_1.png + test/gt/1400.png, where it is there",
        usual="trained on whole, tested on the indoor part of SOTS",
        source=_RESIDE_SOURCE + ".",
        splits=in_folders(*_reside(), train=("train", "."), test=("test",)),
    ),
    "ots": Layout(
        title="RESIDE outdoor training set (OTS)",
        task="haze",
        publisher=_RESIDE,
        tree="hazy/0001_0.8_0.04.jpg + clear/0001.jpg   (or in train/; clear may be gt)\n"
        "test/hazy/ + test/gt/, where they are there",
        usual="trained on whole, tested on the outdoor part of SOTS",
        source=_RESIDE_SOURCE + ". Its hazy images come in parts, so spare clear ones are left"
        " out without an error.",
        splits=in_folders(*_reside(spare_clean=True), train=("train", "."), test=("test",)),
    ),
    "sots": Layout(
        title="RESIDE synthetic test set (SOTS)",
        task="haze",
        publisher=_RESIDE,
        tree="indoor/nyuhaze500/hazy/1400_1.png + indoor/nyuhaze500/gt/1400.png\n"
        "outdoor/hazy/0001_0.8_0.2.jpg + outdoor/gt/0001.png   (gt may be clear)",
        usual="a test set only: the splits are 'indoor' and 'outdoor'",
        source=_RESIDE_SOURCE + ".",
        splits=in_folders(
            *_reside(), indoor=("indoor/nyuhaze500", "indoor", "nyuhaze500"), outdoor=("outdoor",)
        ),
    ),
    "snow100k": Layout(
        title="Snow100K",
        task="snow",
        publisher="the project page of DesnowNet (Liu et al., TIP 2018)",
        tree="train/synthetic/NAME.jpg + train/gt/NAME.jpg   (or all/; mask/ is not read)\n"
        "test/Snow100K-S/synthetic/ + gt/                (Snow100K-M, Snow100K-L alike)",
        usual="the splits 'test-s', 'test-m' and 'test-l' are reported apart",
        source="from several public loaders; all/ as the folder of the training archive is not"
        " verified. The archives unpack to media/jdway/GameSSD/overlapping/: give that folder.",
        splits=in_folders(
            Sides("synthetic", "gt"),
            train=("train", "all"),
            test_s=("test/Snow100K-S", "Snow100K-S"),
            test_m=("test/Snow100K-M", "Snow100K-M"),
            test_l=("test/Snow100K-L", "Snow100K-L"),
        ),
    ),
    "csd": Layout(
        title="CSD",
        task="snow",
        publisher="the authors of HDCWNet (Chen et al., ICCV 2021)",
        tree="Train/Snow/1.tif + Train/Gt/1.tif   (Mask/ is not read; or train2500/)\n"
        "Test/Snow/ + Test/Gt/               (or test2000/)",
        usual="the folders: 8,000 pairs to train, 2,000 to test",
        source="from public loaders (the forms of SnowFormer and FocalNet); the counts are not"
        " verified.",
        splits=in_folders(_SNOW, train=("Train", "train2500"), test=("Test", "test2000")),
    ),
    "srrs": Layout(
        title="SRRS",
        task="snow",
        publisher="GitHub weitingchen83/JSTASR-DesnowNet-ECCV-2020",
        tree="Syn/1.jpg + gt/1.jpg                       (the split 'all'; gt may be gt_new)\n"
        "train2500/Snow/ + train2500/Gt/, test2000/  (the form of FocalNet)",
        usual="the authors' archive has no split; FocalNet's is common",
        source="from public loaders; the authors publish none.",
        splits={
            **in_folders(_SNOW, train=("train2500", "train"), test=("test2000", "test")),
            "all": ((Sides("Syn", "gt"),), (Sides("Syn", "gt_new"),)),
        },
    ),
    "istd": Layout(
        title="ISTD",
        task="shadow",
        publisher="GitHub DeepInsight-PCALab/ST-CGAN (CVPR 2018)",
        tree="train/train_A/1-1.png (shadow), train/train_B/ (mask, not read), train/train_C/"
        " (clean)\n"
        "test/test_A/, test/test_B/, test/test_C/",
        usual="the folders: 1,330 pairs to train, 540 to test",
        source="from several public loaders and the loader of SID; the counts are not verified.",
        splits={
            split: tuple((Sides(f"{folder}{split}_A", f"{folder}{split}_C"),) for folder in outer)
            for split, outer in {"train": ("train/", ""), "test": ("test/", "")}.items()
        },
    ),
    "istd+": Layout(
        title="ISTD+ (adjusted ISTD)",
        task="shadow",
        publisher="GitHub cvlab-stonybrook/SID (ICCV 2019)",
        tree="train_A/ + train_C_fixed_ours/      (or in train/; or train_C_fixed_official/)\n"
        "test_A/ + test_C_fixed_official/    (or in test/; or test_C_fixed_ours/)",
        usual="the folders: 1,330 pairs to train, 540 to test",
        source="the training folders from the authors' loader, the test folders from public ones."
        " A train_C/ is not taken: it cannot be told from ISTD's; if yours is adjusted, use the"
        " layout istd.",
        splits={
            split: tuple(
                (Sides(f"{folder}{split}_A", f"{folder}{split}_C_fixed_{who}"),)
                for folder in ("", f"{split}/")
                for who in order
            )
            for split, order in (("train", ("ours", "official")), ("test", ("official", "ours")))
        },
    ),
    "srd": Layout(
        title="SRD",
        task="shadow",
        publisher="the authors of DeshadowNet (Qu et al., CVPR 2017)",
        tree="Train/shadow/NAME.jpg + Train/shadow_free/NAME_no_shadow.jpg\n"
        "Test/shadow/NAME.jpg + Test/shadow_free/NAME_free.jpg",
        usual="the folders: 2,680 pairs to train, 408 to test",
        source="from several public loaders; the counts are not verified.",
        splits=in_folders(
            Sides("shadow", "shadow_free", clean_name="(.+?)(?:_no_shadow|_free)?"),
            Sides("train_A", "train_C", clean_name="(.+?)(?:_no_shadow|_free)?"),
            Sides("test_A", "test_C", clean_name="(.+?)(?:_no_shadow|_free)?"),
            **TRAIN_TEST,
        ),
    ),
    "tip2018": Layout(
        title="TIP2018",
        task="moire",
        publisher="the authors of 'Moiré Photo Restoration Using Multiresolution Convolutional"
        " Neural Networks' (Sun et al., TIP 2018)",
        tree="trainData/source/NAME_source.png + trainData/target/NAME_target.png   (or train/)\n"
        "testData/…                                                            (or test/)",
        usual="the folders; the loader of UHDM scores the middle 2/3, resized to 256 × 256",
        source="inner folders and names from the loader of UHDM; trainData/ from a public README;"
        " testData/ is not verified.",
        splits=in_folders(
            Sides("source", "target", "(.*?)_?source", "(.*?)_?target"),
            train=("trainData", "train"),
            test=("testData", "test"),
        ),
    ),
    "gopro": Layout(
        title="GoPro",
        task="motion_blur",
        publisher="the project page of DeepDeblur (Nah et al., CVPR 2017)",
        tree="train/SCENE/blur/000001.png + train/SCENE/sharp/000001.png   (blur_gamma/ is not"
        " read)\ntest/SCENE/blur/ + test/SCENE/sharp/\n"
        "or   train/input/ + train/target/, test/ alike (the form of Restormer), or input_crops/ +"
        " target_crops/",
        usual="the folders: 2,103 pairs to train, 1,111 to test",
        source="from several public loaders and the training options of AST-v2; the counts are not"
        " verified.",
        splits=in_folders(
            Sides(".", ".", inner=("blur", "sharp")),
            Sides("input_crops", "target_crops"),
            *INPUT_TARGET,
            **TRAIN_TEST,
        ),
    ),
    **{
        f"lol-v2-{kind}": Layout(
            title=f"LOL-v2, {kind}",
            task="low_light",
            publisher="GitHub flyywh/CVPR-2020-Semi-Low-Light (Yang et al., TIP 2021)",
            tree=f"{folder}/Train/Low/{low} + {folder}/Train/Normal/{normal}\n{folder}/Test/…   (or"
            f" Train/ and Test/ at the root)",
            usual=f"the folders: {counts}",
            source="from the options of AST-v2 and several public loaders; the counts are not"
            " verified.",
            splits=in_folders(
                Sides("Low", "Normal", "(?:low)?(.+)", "(?:normal)?(.+)"),
                train=(f"{folder}/Train", "Train"),
                test=(f"{folder}/Test", "Test"),
            ),
        )
        for kind, folder, low, normal, counts in (
            (
                "real",
                "Real_captured",
                "low00001.png",
                "normal00001.png",
                "689 pairs to train, 100 to test",
            ),
            ("synthetic", "Synthetic", "NAME.png", "NAME.png", "900 pairs to train, 100 to test"),
        )
    },
    "smid": Layout(
        title="SMID",
        task="low_light",
        publisher="GitHub cchen156/Seeing-Motion-in-the-Dark (Chen et al., ICCV 2019)",
        tree="train/SMID_LQ/0001/0001.png + train/SMID_Long/0001/NAME.png\ntest/…\n"
        "a scene has many short exposures and one long one",
        usual="the scenes of the authors' test_list.txt, moved to test/",
        source="folders from the loader of AST-v2, which reads frames as NumPy arrays from"
        " SMID_LQ_np/ and SMID_Long_np/: convert them to PNG first.",
        splits=in_folders(
            *(
                Sides(f"SMID_LQ{end}", f"SMID_Long{end}", ".+", ".+", many=True)
                for end in ("", "_np")
            ),
            **TRAIN_TEST,
        ),
    ),
    "uhdm": Layout(
        title="UHDM",
        task="moire",
        publisher="GitHub CVMI-Lab/UHDM (ECCV 2022)",
        tree="train/…/0001_moire.jpg + train/…/0001_gt.jpg, at any depth\ntest/…",
        usual="the folders: 4,500 pairs to train, 500 to test",
        source="names from the authors' loader, which reads any folders; train/ and test/ and the"
        " counts are not verified.",
        splits=in_folders(Sides(".", ".", "(.+)_moire", "(.+)_gt"), **TRAIN_TEST),
    ),
    "fhdmi": Layout(
        title="FHDMi",
        task="moire",
        publisher="the authors of FHDe2Net (He et al., ECCV 2020)",
        tree="train/source/src_00001.png + train/target/tar_00001.png\ntest/…",
        usual="the folders: 9,981 pairs to train, 2,019 to test",
        source="inner folders and names from the loader of UHDM; train/ and test/ and the counts"
        " are not verified.",
        splits=in_folders(Sides("source", "target", "src_(.+)", "tar_(.+)"), **TRAIN_TEST),
    ),
}
