import unicodedata
from pathlib import Path

import pytest
from tiny_sets import save, scene, write_set

from fairweather.errors import DataError, OptionError
from fairweather.evaluation import TestSet, find_photos, find_test_sets, match_results


def names(one: TestSet) -> list[str]:
    return [item.name for item in one.items]


def test_every_set_of_a_tree_is_found_with_its_task(tmp_path: Path) -> None:
    write_set(tmp_path / "rain" / "Rain100L", count=11)
    write_set(tmp_path / "shadow" / "deep" / "ISTD", sides=("Input", "GT"))
    for name in ("hazy/1400_1.png", "hazy/1400_2.png", "clear/1400.png"):
        save(tmp_path / "haze" / "SOTS" / "indoor" / name, scene(1))
    save(tmp_path / "notes" / "a.png", scene(1))
    sets = {one.name: one for one in find_test_sets(tmp_path)}
    assert {name: one.task for name, one in sets.items()} == {
        "Rain100L": "rain", "ISTD": "shadow", "SOTS/indoor": "haze",
    }  # fmt: skip
    assert names(sets["Rain100L"]) == [str(number) for number in range(1, 12)]  # 2 before 10
    assert names(sets["SOTS/indoor"]) == ["1400_1", "1400_2"]
    assert {one.benchmark for one in sets.values()} == {"rain100l", "", "sotsindoor"}
    assert not any(one.faults for one in sets.values())


def test_sets_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("a/SPAD/test", "b/SPAD/test", "b/SPAD/train", "b/AGAN"):
        write_set(tmp_path / folder, count=1)
    sets = {one.name: one.benchmark for one in find_test_sets(tmp_path)}
    assert sets == {"a/SPAD/test": "spad", "b/SPAD/test": "spad", "SPAD/train": "", "AGAN": "agan"}


def test_a_link_to_a_set_is_followed_and_one_that_leads_back_is_not(tmp_path: Path) -> None:
    write_set(tmp_path / "elsewhere" / "SPAD", count=1)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "linked").symlink_to(tmp_path / "elsewhere")
    (tree / "back").symlink_to(tree)
    assert [one.name for one in find_test_sets(tree)] == ["SPAD"]


def test_a_lone_file_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    write_set(tmp_path / "rain" / "mine")
    lone = save(tmp_path / "rain" / "mine" / "input" / "9.png", scene(1))
    (tmp_path / "rain" / "mine" / "input" / "1.png").unlink()
    save(tmp_path / "rain" / "broken" / "hazy" / "unmatched.png", scene(1))
    save(tmp_path / "rain" / "broken" / "clear" / "7.png", scene(1))
    broken, mine = find_test_sets(tmp_path)
    assert names(mine) == ["2", "3"]
    assert mine.faults == (
        f"'9' of {lone.parent} has no clean image in {lone.parents[1] / 'target'}",
        f"'1' of {lone.parents[1] / 'target'} has no degraded image in {lone.parent}",
    )
    assert broken.items == ()
    assert "unmatched" in broken.faults[0]


def test_names_are_paths_below_the_inputs(tmp_path: Path) -> None:
    """Images of one name in two folders are two images."""
    for side in ("input", "target"):
        for place in ("day/1.png", "night/1.JPG", "night/a b ü.png"):
            save(tmp_path / "mine" / side / place, scene(1))
    (one,) = find_test_sets(tmp_path / "mine")
    assert names(one) == ["day/1", "night/1", "night/a b ü"]
    assert one.items[0].degraded == tmp_path / "mine" / "input" / "day" / "1.png"


def test_a_layout_names_its_benchmark(tmp_path: Path) -> None:
    for number in (0, 1):
        save(tmp_path / "drops" / "test_a" / "data" / f"{number}_rain.png", scene(1))
        save(tmp_path / "drops" / "test_a" / "gt" / f"{number}_clean.png", scene(1))
    (one,) = find_test_sets(tmp_path / "drops", layout="agan")
    assert (one.name, one.layout, one.split, one.benchmark) == ("drops", "agan", "test", "agan")
    assert names(one) == ["0_rain", "1_rain"]
    with pytest.raises(OptionError, match="split 'exam'"):
        find_test_sets(tmp_path / "drops", layout="agan", split="exam")
    write_set(tmp_path / "Rain13K" / "test" / "Rain100H")
    (one,) = find_test_sets(tmp_path / "Rain13K", layout="rain13k", split="test-rain100h")
    assert (one.name, one.benchmark) == ("Rain13K/test-rain100h", "rain100h")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "is not a folder"),
        (lambda root: root.mkdir(), "holds no folder with input/ and target/"),
        (lambda root: [(root / s).mkdir(parents=True) for s in ("input", "target")], "no image"),
        (
            lambda root: [save(root / p, scene(1)) for p in ("input/a.png", "target/b.png")],
            "'a' of .* has no clean image",
        ),
    ],
)
def test_nothing_to_evaluate_is_an_error(tmp_path: Path, make, message: str) -> None:
    make(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        find_test_sets(tmp_path / "set")


def test_results_are_matched_by_relative_name(tmp_path: Path) -> None:
    clean, restored, degraded = (tmp_path / name for name in ("clean", "restored", "degraded"))
    for name in ("a/1.png", "b/1.png", "b/missing.png", "Grün 2.v1.PNG"):
        save(clean / name, scene(1))
    decomposed = unicodedata.normalize("NFD", "Grün 2.v1.jpg")
    for name in ("a/1.jpg", "b/1.TIF", "extra.png", decomposed):
        save(restored / name, scene(1))
    save(restored / "a" / "1.png", scene(2))
    for name in ("a/1.bmp", "b/1.png", "b/missing.png"):
        save(degraded / name, scene(1))
    one = match_results(restored, clean, degraded=degraded)
    assert names(one) == ["a/1", "b/1", "Grün 2.v1"]
    for item in one.items[:2]:
        assert item.degraded is not None
        assert item.restored is not None
        assert item.degraded.parent.name == item.restored.parent.name == item.name[0]
    assert one.items[2].degraded is None
    assert one.faults == (
        f"'{restored / 'a' / '1.png'}' has the name of '1.jpg', which is taken instead",
        f"'b/missing' of {clean} has no restored image in {restored}",
        f"'extra' of {restored} has no clean image in {clean}",
        f"'Grün 2.v1' of {clean} has no degraded image in {degraded}",
    )


def test_our_results_pair_with_their_sources(tmp_path: Path) -> None:
    """As `restore` leaves them beside the photographs, with pictures to compare."""
    for name in ("a.png", "b.jpg"):
        save(tmp_path / "clean" / name, scene(1))
    for name in ("a.jpg", "a.restored.jpg", "b.restored.png", "b.restored.png.compare.jpg"):
        save(tmp_path / "photos" / name, scene(1))
    one = match_results(tmp_path / "photos", tmp_path / "clean")
    assert one.faults == ()
    assert {item.name: item.restored and item.restored.name for item in one.items} == {
        "a": "a.restored.jpg",
        "b": "b.restored.png",
    }


def test_results_that_do_not_match_at_all(tmp_path: Path) -> None:
    save(tmp_path / "restored" / "1_out.png", scene(1))
    save(tmp_path / "clean" / "1.png", scene(1))
    with pytest.raises(DataError, match="as '1_out' and '1'"):
        match_results(tmp_path / "restored", tmp_path / "clean")
    with pytest.raises(DataError, match="is not a folder"):
        match_results(tmp_path / "nowhere", tmp_path / "clean")


def test_photographs(tmp_path: Path) -> None:
    photo = save(tmp_path / "snow" / "a.png", scene(1))
    save(tmp_path / "snow" / "b" / "a.JPG", scene(1))
    one = find_photos(tmp_path / "snow")
    assert (one.name, one.task, names(one)) == ("snow", "snow", ["a", "b/a"])
    assert names(find_photos(photo)) == ["a"]
    with pytest.raises(DataError, match="nowhere"):
        find_photos(tmp_path / "nowhere")
