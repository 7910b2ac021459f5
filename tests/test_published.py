import pytest

from fairweather.evaluation import PROTOCOLS
from fairweather.evaluation.published import PUBLISHED, published_key, why_not_comparable
from fairweather.training import list_recipes, load_recipe

SPAD = {"protocol": PROTOCOLS["spad"], "inference": "square_pad_128", "images": 1000}


def test_each_figure_names_a_protocol_and_a_way_of_ours() -> None:
    for figure in PUBLISHED.values():
        assert figure.inference in ("", PROTOCOLS[figure.protocol].inference)
        assert figure.source


def test_figures_are_those_of_the_recipes() -> None:
    """Two tables must not quote one paper differently."""
    of_recipes = {
        (recipe.published.model, recipe.published.psnr_db): recipe.published
        for recipe in map(load_recipe, list_recipes())
        if recipe.published is not None
    }
    for key in ("spad", "agan", "densehaze", "rain100l", "sotsindoor", "sotsoutdoor"):
        figure = PUBLISHED[key]
        same = of_recipes[figure.model, figure.psnr_db]
        assert figure.ssim == same.ssim
        assert figure.source.split(",")[0] == same.source.split(",")[0]
        assert ("second-hand" in figure.source) == ("second-hand" in same.source)


def test_a_figure_that_is_not_known_is_left_out() -> None:
    assert PUBLISHED["rain100h"].figures == {"psnr_db": 31.48}
    assert PUBLISHED["spad"].figures == {"psnr_db": 49.51, "ssim": 0.9942}


@pytest.mark.parametrize(
    ("names", "key"),
    [
        (["SPAD"], "spad"),
        (["Dense-Haze"], "densehaze"),
        (["SOTS/indoor"], "sotsindoor"),
        (["mine", "Rain100L"], "rain100l"),
        (["Rain100"], ""),
        ([], ""),
    ],
)
def test_sets_are_found_by_name(names: list[str], key: str) -> None:
    assert published_key(names) == key


def test_the_same_in_everything_is_comparable() -> None:
    assert why_not_comparable(PUBLISHED["spad"], training=[], **SPAD) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": 24}, "mean of 24 images, theirs of 1000"),
        ({"protocol": PROTOCOLS["plain"]}, "scored under 'plain', theirs under 'spad'"),
        ({"inference": "ours"}, "run as 'ours', theirs as 'square_pad_128'"),
        ({"inference": None}, "how the images were restored is not known"),
        ({"ensemble": True}, "averaged over several views"),
        ({"training": ["noise"]}, "theirs was trained on SPA-Data, ours on noise"),
        ({"training": [""]}, "ours on data that the file does not name"),
    ],
)
def test_each_difference_is_a_reason(changes, reason: str) -> None:
    reasons = why_not_comparable(PUBLISHED["spad"], **({"training": []} | SPAD | changes))
    assert len(reasons) == 1
    assert reason in reasons[0]


def test_files_of_8_bits_are_no_floats() -> None:
    reasons = why_not_comparable(
        PUBLISHED["agan"], protocol=PROTOCOLS["agan"], inference=None, images=58, training=[]
    )
    assert len(reasons) == 2
    assert "files of 8 bits" in reasons[1]
