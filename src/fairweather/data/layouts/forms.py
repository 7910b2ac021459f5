"""What a layout is made of: folders, the names in them, and the splits."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Sides:
    """Two folders of a split, and what in the names of their files tells the partners.

    The groups of a name's pattern, put together, are the key that both files of a pair share.

    Attributes:
        degraded: folder of the degraded images, relative to the root.
        clean: folder of the clean ones; it may be the same or lie around the other.
        degraded_name: what a degraded file's name without suffix matches as a whole.
        clean_name: the same for a clean one.
        many: several degraded images may share one clean image.
        spare_clean: clean images without a degraded one are no error.
    """

    degraded: str
    clean: str
    degraded_name: str = "(.+)"
    clean_name: str = "(.+)"
    many: bool = False
    spare_clean: bool = False

    def under(self, folder: str) -> "Sides":
        """The same, deeper by a folder."""
        return replace(self, degraded=f"{folder}/{self.degraded}", clean=f"{folder}/{self.clean}")


Arrangement = tuple[Sides, ...]
"""All that belongs to a split in one known form of a data set."""


@dataclass(frozen=True)
class Layout:
    """How one data set lies on disk.

    Attributes:
        title: the data set's name in its paper.
        task: the degradation.
        publisher: where its authors publish it, a project page or repository by its name.
        tree: what the root holds, as text.
        usual: the split that published figures use.
        source: how the tree is known, and what is not verified.
        splits: for each split the known forms; the first whose folders are there is taken.
        lists: for each split the list file of `degraded clean` lines.
        last_for_test: the data set has no split of its own; so many pairs at its end are the test.
        side_by_side: for each split the folders whose files hold both images of a pair.
    """

    title: str
    task: str
    publisher: str
    tree: str
    usual: str
    source: str
    splits: Mapping[str, tuple[Arrangement, ...]] = field(default_factory=dict)
    lists: Mapping[str, str] = field(default_factory=dict)
    last_for_test: int = 0
    side_by_side: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def split_names(self) -> tuple[str, ...]:
        """The splits that can be asked for."""
        if self.last_for_test:
            return ("train", "test", "all")
        return tuple(self.splits) or tuple(self.lists)


Forms = tuple[Sides | Arrangement, ...]


def in_folders(forms: Forms, **folders: tuple[str, ...]) -> dict[str, tuple[Arrangement, ...]]:
    """Each form in each folder that a split may lie in; `all` is the forms at the root itself."""
    arrangements = [(form,) if isinstance(form, Sides) else form for form in forms]
    return {
        split.replace("_", "-"): tuple(
            tuple(sides.under(folder) for sides in arrangement)
            for folder in names
            for arrangement in arrangements
        )
        for split, names in (folders | {"all": (".",)}).items()
    }


INPUT_TARGET = (Sides("input", "target"), Sides("input", "gt"))
TRAIN_TEST = {"train": ("train",), "test": ("test",)}

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


def joint_rain_removal(title: str, *, weight: str, train: int, test: int) -> Layout:
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
            RAIN_FORMS,
            train=(f"rain_data_train_{weight}", "train", f"RainTrain{letter}"),
            test=(f"rain_data_test_{weight}", "test", title),
        ),
    )


def ntire_haze(
    title: str, *, year: int, name: str, pairs: int, test: str, flat: bool = False
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
        splits=in_folders(forms),
        last_for_test=5,
    )


TO_CLEAR = "([^_]+)(?:_.+)?"


def reside_forms(*, spare_clean: bool = False) -> Forms:
    """Return the forms of RESIDE's parts, where several hazy images share a clear one."""
    return tuple(
        Sides("hazy", clean, TO_CLEAR, many=True, spare_clean=spare_clean)
        for clean in ("clear", "gt")
    )
