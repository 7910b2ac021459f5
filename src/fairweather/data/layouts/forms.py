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
        inner: names of the folders that hold the degraded and the clean images of each scene,
            where every scene has a folder of its own below the two.
    """

    degraded: str
    clean: str
    degraded_name: str = "(.+)"
    clean_name: str = "(.+)"
    many: bool = False
    spare_clean: bool = False
    inner: tuple[str, str] | None = None

    def under(self, folder: str) -> "Sides":
        """Return the same, deeper by a folder."""
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


def in_folders(
    *forms: Sides | Arrangement, **folders: tuple[str, ...]
) -> dict[str, tuple[Arrangement, ...]]:
    """Return each form in each folder of each split; `all` holds the forms at the root itself."""
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
