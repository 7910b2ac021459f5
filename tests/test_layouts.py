"""A benchmark's folder becomes its pairs, and a wrong folder is told so."""

import re
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from fairweather.data import (
    describe_layout,
    find_layout_pairs,
    list_layouts,
)
from fairweather.data.layouts.table import LAYOUTS
from fairweather.errors import DataError, OptionError


def grow(root: Path, *files: str) -> Path:
    """Empty files; finding pairs opens no image."""
    for file in files:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def names(root: Path, layout: str, *, split: str = "train") -> list[tuple[str, str]]:
    return [
        (pair.degraded.relative_to(root).as_posix(), pair.clean.relative_to(root).as_posix())
        for pair in find_layout_pairs(root, layout, split=split)
    ]


# One tree for each layout and split: the pairs as "degraded clean" in the order expected.
TREES = {
    ("folders", "train"): "train/input/2.png train/target/2.jpg;"
    " train/input/10.png train/target/10.png",
    ("folders", "test"): "test/input/a/1.png test/gt/a/1.png",
    ("folders", "all"): "input/a.v2.png target/a.v2.jpg; input/b.png target/b.webp;"
    " input/deep/a.tif target/deep/a.png",
    ("rain100l", "train"): "train/rain/norain-2x2.png train/norain/norain-2.png;"
    " train/rain/norain-10x2.png train/norain/norain-10.png",
    ("rain100l", "test"): "rain_data_test_Light/rain/X2/norain-001x2.png"
    " rain_data_test_Light/norain/norain-001.png",
    ("rain100h", "train"): "RainTrainH/rain/rain-1.png RainTrainH/norain/norain-1.png",
    ("rain100h", "test"): "Rain100H/rainy/rain-001.png Rain100H/norain-001.png",
    ("rain100h", "all"): "rain-001.png norain-001.png",
    ("rain200l", "train"): "train/input/norain-1x2.png train/target/norain-1.png",
    ("rain200h", "test"): "test/input/1.png test/target/1.png",
    ("rain800", "train"): "train/rain/rain-001.png train/norain/norain-001.png",
    ("rain800", "test"): "test/input/1.png test/gt/1.png",
    ("did-mdn", "train"): "train/input/1.jpg train/target/1.jpg",
    ("rain1400", "train"): "training/rainy_image/1_1.jpg training/ground_truth/1.jpg;"
    " training/rainy_image/1_14.jpg training/ground_truth/1.jpg;"
    " training/rainy_image/2_3.jpg training/ground_truth/2.jpg",
    ("rain1400", "test"): "test/input/901_1.jpg test/gt/901.jpg",
    ("rain13k", "train"): "train/Rain13K/input/1.png train/Rain13K/target/1.png",
    ("rain13k", "test-rain100h"): "test/Rain100H/input/1.png test/Rain100H/target/1.png",
    ("rain13k", "test-test2800"): "test/Test2800/input/1.png test/Test2800/target/1.png",
    ("rainds-syn", "train"): "RainDS_syn/train/rainstreak/rain-2.png"
    " RainDS_syn/train/gt/norain-2.png;"
    " RainDS_syn/train/raindrop/pie-rd-2.png RainDS_syn/train/gt/pie-norain-2.png;"
    " RainDS_syn/train/raindrop/rd-2.png RainDS_syn/train/gt/norain-2.png;"
    " RainDS_syn/train/rainstreak_raindrop/rd-rain-2.png RainDS_syn/train/gt/norain-2.png",
    ("rainds-real", "test"): "RainDS_real/test_set/rainstreak/2.png RainDS_real/test_set/gt/2.png;"
    " RainDS_real/test_set/raindrop/2.png RainDS_real/test_set/gt/2.png;"
    " RainDS_real/test_set/rainstreak_raindrop/2.png RainDS_real/test_set/gt/2.png",
    ("agan", "train"): "train/data/2_rain.png train/gt/2_clean.png;"
    " train/data/10_rain.png train/gt/10_clean.png",
    ("agan", "test"): "test_a/test_a/data/0_rain.png test_a/test_a/gt/0_clean.png",
    ("agan", "test-b"): "test_b/data/0_rain.jpg test_b/gt/0_clean.jpg",
    ("dense-haze", "all"): "hazy/01_hazy.png GT/01_GT.png; hazy/02_hazy.png GT/02_GT.png",
    ("nh-haze", "all"): "01_hazy.png 01_GT.png; 02_hazy.png 02_GT.png",
    ("o-haze", "all"): "hazy/01_outdoor_hazy.jpg GT/01_outdoor_GT.jpg",
    ("i-haze", "all"): "hazy/01_indoor_hazy.jpg GT/01_indoor_GT.jpg",
    ("its", "train"): "hazy/2_1_0.9.png clear/2.png; hazy/2_10_0.6.png clear/2.png;"
    " hazy/10_1_0.9.png clear/10.png",
    ("its", "test"): "test/hazy/1400_02.png test/gt/1400.jpg",
    ("ots", "train"): "train/hazy/0001_0.8_0.04.jpg train/clear/0001.jpg",
    ("sots", "indoor"): "indoor/nyuhaze500/hazy/1400_1.png indoor/nyuhaze500/gt/1400.png",
    ("sots", "outdoor"): "outdoor/hazy/0001_0.8_0.2.jpg outdoor/gt/0001.png",
    ("snow100k", "train"): "all/synthetic/a_1.jpg all/gt/a_1.jpg",
    ("snow100k", "test-l"): "test/Snow100K-L/synthetic/a.jpg test/Snow100K-L/gt/a.jpg",
    ("csd", "train"): "Train/Snow/1.tif Train/Gt/1.tif",
    ("csd", "test"): "test2000/Snow/1.tif test2000/Gt/1.tif",
    ("srrs", "all"): "Syn/1.tif gt/1.jpg",
    ("srrs", "train"): "train2500/Snow/1.tif train2500/Gt/1.jpg",
    ("istd", "train"): "train/train_A/1-2.png train/train_C/1-2.png;"
    " train/train_A/1-10.png train/train_C/1-10.png",
    ("istd", "test"): "test_A/1-1.png test_C/1-1.png",
    ("istd+", "train"): "train_A/1-1.png train_C_fixed_ours/1-1.png",
    ("istd+", "test"): "test/test_A/1-1.png test/test_C_fixed_official/1-1.png",
    ("srd", "train"): "Train/shadow/I_1.jpg Train/shadow_free/I_1_no_shadow.jpg",
    ("srd", "test"): "Test/shadow/I_1.jpg Test/shadow_free/I_1_free.jpg",
    ("tip2018", "train"): "trainData/source/i_1_source.png trainData/target/i_1_target.png",
    ("tip2018", "test"): "test/source/i_1_source.png test/target/i_1_target.png",
    ("uhdm", "train"): "train/pair_00/0001_moire.jpg train/pair_00/0001_gt.jpg;"
    " train/pair_01/0001_moire.jpg train/pair_01/0001_gt.jpg",
    ("gopro", "train"): "train/GOPR1/blur/2.png train/GOPR1/sharp/2.png;"
    " train/GOPR1/blur/10.png train/GOPR1/sharp/10.png;"
    " train/GOPR2/blur/2.png train/GOPR2/sharp/2.png",
    ("gopro", "test"): "test/input/1.png test/target/1.png",
    ("lol-v2-real", "train"): "Real_captured/Train/Low/low00690.png"
    " Real_captured/Train/Normal/normal00690.png",
    ("lol-v2-synthetic", "test"): "Test/Low/r1.png Test/Normal/r1.png",
    ("smid", "train"): "train/SMID_LQ/0001/0001.png train/SMID_Long/0001/a.png;"
    " train/SMID_LQ/0001/0002.png train/SMID_Long/0001/a.png;"
    " train/SMID_LQ/0002/0001.png train/SMID_Long/0002/b.png",
    ("fhdmi", "test"): "test/source/src_00002.png test/target/tar_00002.png",
}  # fmt: skip


@pytest.mark.parametrize(("layout", "split"), TREES)
def test_the_pairs_of_a_tree(tmp_path: Path, layout: str, split: str) -> None:
    expected = [tuple(pair.split()) for pair in TREES[layout, split].split(";")]
    grow(tmp_path, *(name for pair in expected for name in pair))
    assert names(tmp_path, layout, split=split) == expected


@pytest.mark.parametrize(("layout", "split"), TREES)
def test_another_split_is_named(tmp_path: Path, layout: str, split: str) -> None:
    grow(tmp_path, *TREES[layout, split].replace(";", " ").split())
    messages: list[str] = []
    for other in LAYOUTS[layout].split_names:
        try:
            find_layout_pairs(tmp_path, layout, split=other)
        except DataError as error:
            messages.append(str(error))
    assert all(re.search(rf"choose .*\b{split}\b.* with --split", told) for told in messages)


def test_every_layout_has_a_tree_here() -> None:
    assert set(list_layouts()) - {layout for layout, _ in TREES} == {"csv", "spad"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_split_of_every_layout_is_told_apart_from_nothing(
    tmp_path: Path, layout: str
) -> None:
    grow(tmp_path, "elsewhere/notes.txt")
    for split in LAYOUTS[layout].split_names:
        with pytest.raises(DataError, match=r"expected:.*\n(.*\n)*.*found: +elsewhere/"):
            find_layout_pairs(tmp_path, layout, split=split)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_described(layout: str) -> None:
    text = describe_layout(layout)
    table = LAYOUTS[layout]
    for part in (layout, table.title, table.publisher, table.usual, table.source):
        assert part in text
    for line in table.tree.splitlines():
        assert f"    {line}" in text
    assert all(split in text for split in table.split_names)


def test_unknown_names_are_wrong_calls(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"'spada': is none of .*spad"):
        find_layout_pairs(tmp_path, "spada")
    with pytest.raises(OptionError, match=r"'spada': is none of"):
        describe_layout("spada")
    with pytest.raises(OptionError, match="choose indoor, outdoor or all with --split"):
        find_layout_pairs(tmp_path, "sots")


@pytest.mark.parametrize("layout", ["dense-haze", "nh-haze", "o-haze", "i-haze"])
def test_the_last_five_are_the_test(tmp_path: Path, layout: str) -> None:
    for number in range(1, 13):  # without leading zeros: 12 comes after 9
        grow(tmp_path, f"hazy/{number}_hazy.png", f"GT/{number}_GT.png")
    train = names(tmp_path, layout)
    test = names(tmp_path, layout, split="test")
    assert [name for name, _ in train] == [f"hazy/{n}_hazy.png" for n in range(1, 8)]
    assert [name for name, _ in test] == [f"hazy/{n}_hazy.png" for n in range(8, 13)]
    assert train + test == names(tmp_path, layout, split="all")


def test_five_pairs_leave_nothing_to_train_on(tmp_path: Path) -> None:
    for number in range(1, 6):
        grow(tmp_path, f"hazy/{number}_hazy.png", f"GT/{number}_GT.png")
    with pytest.raises(DataError, match="holds 5 pairs, but the last 5 are the test"):
        find_layout_pairs(tmp_path, "dense-haze", split="test")


def test_case_of_suffixes_names_and_folders(tmp_path: Path) -> None:
    grow(tmp_path, "TRAIN/Data/3_RAIN.PNG", "TRAIN/GT/3_clean.Jpg")
    assert names(tmp_path, "agan") == [("TRAIN/Data/3_RAIN.PNG", "TRAIN/GT/3_clean.Jpg")]


def test_a_split_never_falls_back_on_another(tmp_path: Path) -> None:
    grow(tmp_path, "train/data/0_rain.png", "train/gt/0_clean.png")
    with pytest.raises(DataError, match=r"test_a/data/ \+ test_a/gt/"):
        find_layout_pairs(tmp_path, "agan", split="test")


def test_expected_beside_found(tmp_path: Path) -> None:
    grow(tmp_path, *(f"img{number}.png" for number in range(12)), "rainy/1.png", ".hidden")
    with pytest.raises(DataError) as caught:
        find_layout_pairs(tmp_path, "agan")
    text = str(caught.value)
    assert str(tmp_path) in text
    assert "expected: train/data/ + train/gt/" in text
    assert "found:    img0.png, img1.png, img2.png" in text
    assert "and 5 more" in text
    assert "train/data/0_rain.png + train/gt/0_clean.png" in text
    with pytest.raises(DataError, match="no such folder"):
        find_layout_pairs(tmp_path / "nowhere", "agan")


def test_the_folder_inside_is_pointed_at(tmp_path: Path) -> None:
    grow(tmp_path, "DeRain/train/data/0_rain.png", "DeRain/train/gt/0_clean.png")
    with pytest.raises(DataError, match="DeRain does: give that folder"):
        find_layout_pairs(tmp_path, "agan")


@pytest.mark.parametrize("lone", ["train/data/7_rain.png", "train/gt/7_clean.png"])
def test_lone_files_are_named(tmp_path: Path, lone: str) -> None:
    grow(tmp_path, "train/data/1_rain.png", "train/gt/1_clean.png", lone)
    with pytest.raises(DataError, match=rf"{lone} without a partner \(1 such"):
        find_layout_pairs(tmp_path, "agan")


def test_many_lone_files_are_counted(tmp_path: Path) -> None:
    grow(tmp_path, "hazy/1_1_0.9.png", "clear/1.png", *(f"hazy/{n}_1.png" for n in range(2, 9)))
    with pytest.raises(DataError, match=r"hazy/2_1.png, .* … without a partner \(7 such"):
        find_layout_pairs(tmp_path, "its")


def test_spare_clean_images_matter_but_for_ots(tmp_path: Path) -> None:
    grow(tmp_path, "hazy/1_1_0.9.png", "clear/1.png", "clear/2.png")
    with pytest.raises(DataError, match=r"clear/2.png without a partner"):
        find_layout_pairs(tmp_path, "its")
    assert names(tmp_path, "ots") == [("hazy/1_1_0.9.png", "clear/1.png")]


def test_a_clean_image_that_one_kind_of_rain_uses_is_not_lone(tmp_path: Path) -> None:
    kinds = ("rainstreak", "raindrop", "rainstreak_raindrop")
    grow(tmp_path, *(f"train_set/{kind}/1.png" for kind in kinds), "train_set/gt/1.png")
    grow(tmp_path, "train_set/raindrop/2.png", "train_set/gt/2.png")
    assert len(names(tmp_path, "rainds-real")) == 4


def test_a_file_named_otherwise_is_named(tmp_path: Path) -> None:
    grow(tmp_path, "train/data/1_rain.png", "train/gt/1_clean.png", "train/data/cover.png")
    with pytest.raises(DataError, match=r"cover\.png: is not named as"):
        find_layout_pairs(tmp_path, "agan")


def test_two_files_of_one_name_are_named(tmp_path: Path) -> None:
    grow(tmp_path, "train/data/1_rain.png", "train/data/1_rain.jpg", "train/gt/1_clean.png")
    with pytest.raises(DataError, match="have one name"):
        find_layout_pairs(tmp_path, "agan")


def test_the_adjusted_shadows_are_never_taken_from_istd(tmp_path: Path) -> None:
    grow(tmp_path, "train/train_A/1-1.png", "train/train_C/1-1.png")
    with pytest.raises(DataError, match="train_C_fixed_ours"):
        find_layout_pairs(tmp_path, "istd+")


def spad(root: Path, text: str | bytes, *, file: str = "real_world.txt") -> Path:
    grow(root, "real_world/1/a.png", "real_world/1/b.png", "real_world/10/a.png")
    data = text if isinstance(text, bytes) else text.encode()
    (root / file).write_bytes(data)
    return root


LINE = "/real_world/1/a.png /real_world/1/b.png"


@pytest.mark.parametrize(
    "text",
    [
        LINE,
        f"{LINE}\n",
        f"\ufeff{LINE}\r\n\r\n  \r\n",
        LINE.replace("/", "\\"),
        LINE.replace("/real", "./real"),
        LINE[1:].replace(" /", "\t"),
    ],
)
def test_the_list_of_spa_data(tmp_path: Path, text: str) -> None:
    assert names(spad(tmp_path, text), "spad") == [("real_world/1/a.png", "real_world/1/b.png")]


def test_the_order_of_a_list_is_kept(tmp_path: Path) -> None:
    text = f"/real_world/10/a.png /real_world/1/b.png\n{LINE}\n"
    spad(tmp_path, text, file="real_test_1000.txt")
    found = names(tmp_path, "spad", split="test")
    assert [name for name, _ in found] == ["real_world/10/a.png", "real_world/1/a.png"]
    with pytest.raises(DataError, match=r"expected: real_world.txt\n *found: +real_test_1000.txt"):
        find_layout_pairs(tmp_path, "spad")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no pair"),
        (f"{LINE}\n/real_world/1/a.png\n", "line 2: has 1 names"),
        (f"{LINE} /c.png", "line 1: has 3 names"),
        (f"\n{LINE}\n/real_world/2/a.png /b.png\n", r"2 files are missing: line 3: .*2/a.png"),
        ("/real_world/1/a.png /real_world/1/a.png", "line 1: names one file twice"),
        (b"\xff\xfe/\x00a", "cannot be read as UTF-8"),
    ],
)
def test_a_broken_list_is_named(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        find_layout_pairs(spad(tmp_path, text), "spad")
    assert "real_world.txt" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "d/1.png,c/1.png\nd/2, b.png".replace("2, b", "2") + ",c/1.png",
        "degraded,clean\nd/1.png,c/1.png\nd/2.png,c/1.png\n",
        "\ufeffClean, Degraded\r\nc/1.png, d/1.png\r\n\r\n,\r\nc/1.png,d/2.png\r\n",
        '"d\\1.png","c\\1.png"\n"d/2.png",c/1.png',
    ],
)
@pytest.mark.parametrize("given", ["folder", "file"])
def test_a_table_of_pairs(tmp_path: Path, text: str, given: str) -> None:
    grow(tmp_path, "d/1.png", "d/2.png", "c/1.png")
    (tmp_path / "train.csv").write_text(text, encoding="utf-8", newline="")
    pairs = find_layout_pairs(tmp_path / "train.csv" if given == "file" else tmp_path, "csv")
    found = [
        p.relative_to(tmp_path).as_posix() for pair in pairs for p in (pair.degraded, pair.clean)
    ]
    assert found == ["d/1.png", "c/1.png", "d/2.png", "c/1.png"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("degraded,clean\n", "lists no pair"),
        ("d/1.png;c/1.png\n", "line 1: has 1 columns"),
        ("d/1.png,\n", "line 1: has 2 columns, or an empty one"),
        ("d/1.png,c/1.png,3\n", "line 1: has 3 columns"),
        ("d/1.png,c/9.png\n", r"1 files are missing: line 1: .*c/9.png"),
        ('"d/1.png,c/1.png\n', "is no CSV"),
    ],
)
def test_a_broken_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    grow(tmp_path, "d/1.png", "c/1.png")
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        find_layout_pairs(tmp_path, "csv")
    assert "train.csv" in str(caught.value)


def test_a_name_with_a_comma_or_blank_in_a_table(tmp_path: Path) -> None:
    grow(tmp_path, "d/a, b.png", "c/a b.png")
    (tmp_path / "test.csv").write_text('"d/a, b.png",c/a b.png\n')
    assert names(tmp_path, "csv", split="test") == [("d/a, b.png", "c/a b.png")]


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_in_their_letters_and_apart_are_the_same(
    tmp_path: Path, forms: tuple[str, str]
) -> None:
    """As an archive packed on a Mac has them, and one from elsewhere."""
    names = [unicodedata.normalize(form, "Zürich é") for form in forms]
    for side, name in zip(("input", "target"), names, strict=True):
        (tmp_path / side).mkdir()
        Image.new("RGB", (2, 2)).save(tmp_path / side / f"{name}.png")
    (pair,) = find_layout_pairs(tmp_path, "folders", split="all")
    assert (pair.degraded.stem, pair.clean.stem) == tuple(names)
    other = [unicodedata.normalize(form, "Zürich é") for form in reversed(forms)]
    listed = [f"{side}/{name}.png" for side, name in zip(("input", "target"), other, strict=True)]
    (tmp_path / "pairs.csv").write_text(",".join(listed), encoding="utf-8")
    assert find_layout_pairs(tmp_path / "pairs.csv", "csv", split="train") == [pair]


def test_linked_folders_are_searched_once(tmp_path: Path) -> None:
    for side in ("input", "target"):
        for path in (tmp_path / f"disk/{side}/a.png", tmp_path / f"mine/{side}/b.png"):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2)).save(path)
        (tmp_path / f"mine/{side}/more").symlink_to(tmp_path / f"disk/{side}")
        (tmp_path / f"disk/{side}/loop").symlink_to(tmp_path / f"disk/{side}")
    pairs = find_layout_pairs(tmp_path / "mine", "folders", split="all")
    assert [pair.clean.relative_to(tmp_path / "mine/target").as_posix() for pair in pairs] == [
        "b.png",
        "more/a.png",
    ]


def test_the_table_names_no_machine() -> None:
    text = "\n".join(describe_layout(name) for name in list_layouts())
    assert not re.search(r"https?:|www\.|(^|\s)/(?!real_)|[A-Z]:\\", text)


def test_blurred_photographs_of_another_kind_are_not_read(tmp_path: Path) -> None:
    grow(tmp_path, *(f"train/S/{side}/1.png" for side in ("blur", "sharp", "blur_gamma")))
    assert names(tmp_path, "gopro", split="train") == [
        ("train/S/blur/1.png", "train/S/sharp/1.png")
    ]
    grow(tmp_path, "train/S/blur/2.png")
    with pytest.raises(DataError, match=r"blur/2\.png without a partner"):
        find_layout_pairs(tmp_path, "gopro", split="train")
