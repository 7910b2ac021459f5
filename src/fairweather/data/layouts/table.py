"""The table of the public benchmarks: how the pairs of each lie on disk, and how that is known."""

from fairweather.data.layouts.forms import (
    DS_REAL,
    DS_SYNTHETIC,
    INPUT_TARGET,
    NORAIN,
    RAIN,
    TRAIN_TEST,
    Layout,
    Sides,
    in_folders,
    joint_rain_removal,
    ntire_haze,
    reside_forms,
)

_RESIDE = "the page of RESIDE (Li et al., TIP 2019)"
_RESIDE_SOURCE = (
    "from several public loaders and READMEs (the forms of DEA-Net and FocalNet); the archives"
    " were not at hand"
)

_SIDE_BY_SIDE = (
    " Both images lie side by side in one file, so they have to be taken apart first:"
    " unpack_side_by_side writes input/ and target/. Loaders disagree on which half is degraded;"
    " tell it, or have it looked at."
)

_SNOW = (Sides("Snow", "Gt"),)

LAYOUTS: dict[str, Layout] = {
    "folders": Layout(
        title="two folders of one set of names",
        task="any",
        publisher="you",
        tree="train/input/NAME + train/target/NAME\ntest/input/NAME + test/target/NAME\n"
        "or   input/ + target/ for the split 'all' (target may be gt)",
        usual="yours",
        source="the form that `fairweather data degrade` writes and many loaders read.",
        splits=in_folders(INPUT_TARGET, **TRAIN_TEST),
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
    "rain100l": joint_rain_removal("Rain100L", weight="Light", train=200, test=100),
    "rain100h": joint_rain_removal("Rain100H", weight="Heavy", train=1800, test=100),
    "rain200l": joint_rain_removal("Rain200L", weight="Light", train=1800, test=200),
    "rain200h": joint_rain_removal("Rain200H", weight="Heavy", train=1800, test=200),
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
            (*INPUT_TARGET, Sides("rain", "norain", RAIN, NORAIN)),
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
        splits=in_folders(INPUT_TARGET, **TRAIN_TEST),
        side_by_side={
            "train": tuple(
                f"DID-MDN-training/Rain_{density}/train2018new"
                for density in ("Heavy", "Medium", "Light")
            ),
            **{
                f"train-{density.lower()}": (f"DID-MDN-training/Rain_{density}/train2018new",)
                for density in ("Heavy", "Medium", "Light")
            },
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
            tuple(
                Sides(rainy, clean, "(.+)_[0-9]+", many=True)
                for rainy, clean in (
                    ("rainy_image", "ground_truth"),
                    ("input", "gt"),
                    ("input", "target"),
                )
            ),
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
            INPUT_TARGET,
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
            (DS_SYNTHETIC,),
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
            (DS_REAL,),
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
            (Sides("data", "gt", "(.+)_rain", "(.+)_clean"),),
            train=("train", "train/train"),
            test=("test_a", "test_a/test_a"),
            test_b=("test_b", "test_b/test_b"),
        ),
    ),
    "dense-haze": ntire_haze(
        "Dense-Haze",
        year=2019,
        name="01_{}.png",
        pairs=55,
        test="by custom the last 5 are the test",
    ),
    "nh-haze": ntire_haze(
        "NH-HAZE",
        year=2020,
        name="01_{}.png",
        pairs=55,
        test="the last 5 as the test follows Dense-Haze and is not verified",
        flat=True,
    ),
    "o-haze": ntire_haze(
        "O-HAZE",
        year=2018,
        name="01_outdoor_{}.jpg",
        pairs=45,
        test="the last 5 as the test is not verified",
    ),
    "i-haze": ntire_haze(
        "I-HAZE",
        year=2018,
        name="01_indoor_{}.jpg",
        pairs=35,
        test="the last 5 as the test is not verified",
    ),
    "its": Layout(
        title="RESIDE indoor training set (ITS)",
        task="haze",
        publisher=_RESIDE,
        tree="hazy/1_1_0.9.png + clear/1.png   (or in train/; clear may be gt)\n"
        "test/hazy/1400_1.png + test/gt/1400.png, where it is there",
        usual="trained on whole, tested on the indoor part of SOTS",
        source=_RESIDE_SOURCE + ".",
        splits=in_folders(reside_forms(), train=("train", "."), test=("test",)),
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
        splits=in_folders(reside_forms(spare_clean=True), train=("train", "."), test=("test",)),
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
            reside_forms(),
            indoor=("indoor/nyuhaze500", "indoor", "nyuhaze500"),
            outdoor=("outdoor",),
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
            (Sides("synthetic", "gt"),),
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
            for split, order in {
                "train": ("ours", "official"),
                "test": ("official", "ours"),
            }.items()
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
            (
                Sides("shadow", "shadow_free", clean_name="(.+?)(?:_no_shadow|_free)?"),
                Sides("train_A", "train_C", clean_name="(.+?)(?:_no_shadow|_free)?"),
                Sides("test_A", "test_C", clean_name="(.+?)(?:_no_shadow|_free)?"),
            ),
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
            (Sides("source", "target", "(.*?)_?source", "(.*?)_?target"),),
            train=("trainData", "train"),
            test=("testData", "test"),
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
        splits=in_folders((Sides(".", ".", "(.+)_moire", "(.+)_gt"),), **TRAIN_TEST),
    ),
    "fhdmi": Layout(
        title="FHDMi",
        task="moire",
        publisher="the authors of FHDe2Net (He et al., ECCV 2020)",
        tree="train/source/src_00001.png + train/target/tar_00001.png\ntest/…",
        usual="the folders: 9,981 pairs to train, 2,019 to test",
        source="inner folders and names from the loader of UHDM; train/ and test/ and the counts"
        " are not verified.",
        splits=in_folders((Sides("source", "target", "src_(.+)", "tar_(.+)"),), **TRAIN_TEST),
    ),
}
