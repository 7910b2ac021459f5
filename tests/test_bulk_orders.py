"""What folders, globs, stores and lists stand for, and what a table remembers of it."""

from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

pytest.importorskip("ray", reason="NOT TESTED: bulk work, because Ray is not installed")

from fairweather.errors import OptionError
from fairweather.serving import Entry, Ledger, RestoreOptions, find_orders, open_place

RAIN = RestoreOptions()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep/er").mkdir(parents=True)
    for name in ("a.jpg", "b.png", "deep/c.webp", "deep/er/d.tif", ".hidden.png"):
        Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / name)
    (folder / "clip.mp4").write_bytes(b"")
    (folder / "notes.txt").write_text("")
    return folder


def names(sources: list[str], out: str, options: RestoreOptions = RAIN) -> list[str]:
    found = find_orders(sources, open_place(out), options)
    assert not found.failures
    return sorted(order.name for order in found.orders)


def test_a_folder_is_mirrored(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    every = ["a.jpg", "b.png", "deep/c.webp", "deep/er/d.tif"]
    assert names([str(photos)], out) == every
    assert find_orders([str(photos)], open_place(out), RAIN).passed_over == 3
    assert names([str(photos / "deep/*")], out) == ["c.webp"]
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(photos / "deep/a.jpg")
    assert names([str(photos / "**/a.jpg")], out) == ["a.jpg", "deep/a.jpg"]
    (photos / "deep/a.jpg").unlink()
    assert names([str(photos)], "memory://out") == every
    tif = RestoreOptions(format="tif")
    assert names([str(photos / "deep")], out, tif) == ["c.tif", "er/d.tif"]


def test_a_store_is_mirrored(photos: Path) -> None:
    store = open_place("memory://bucket")
    for path in photos.rglob("*.*"):
        store.at(path.relative_to(photos).as_posix()).write(path.read_bytes())
    store.at("out/a.jpg").write(b"a result")
    every = ["a.jpg", "b.png", "deep/c.webp", "deep/er/d.tif"]
    assert names(["memory://bucket"], "memory://bucket/out") == every
    assert names(["memory://bucket/deep/er"], "memory://out") == ["d.tif"]
    assert names(["memory://bucket/deep/**/*.tif"], "memory://out") == ["er/d.tif"]
    assert names(["memory://bucket/b.png"], "memory://out") == ["b.png"]
    missing = find_orders(["memory://nothing"], open_place("memory://out"), RAIN)
    (failure,) = missing.failures
    assert "/nothing' cannot be read" in failure.message


def test_a_list_says_how(photos: Path, tmp_path: Path) -> None:
    rows = ("path,task,strength,levels", "./a.jpg,haze,0.5,2", "deep/../deep/c.webp,,,")
    (photos / "list.csv").write_text("\n".join((*rows, "missing.png,rain,1,", "clip.mp4,,,")))
    found = find_orders([str(photos / "list.csv")], open_place(str(tmp_path / "out")), RAIN)
    told = {o.name: (o.options.task, o.options.strength, o.options.levels) for o in found.orders}
    assert told == {"a.jpg": ("haze", 0.5, "2"), "deep/c.webp": ("rain", 1.0, "auto")}
    assert found.passed_over == 1
    assert [one.message for one in found.failures] == [
        f"'{photos}/missing.png' cannot be read: No such file or directory"
    ]
    table = pyarrow.table({"path": [str(photos / "a.jpg"), f"file://{photos}/b.png"]})
    pyarrow.parquet.write_table(table, photos / "list.parquet")
    assert names([str(photos / "list.parquet")], str(tmp_path / "out")) == ["a.jpg", "b.png"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file\na.jpg\n", "has no column `path`"),
        ("path,task\na.jpg,sun\n", "row 1: task: .*is none of auto"),
        ("path,colour\na.jpg,red\n", "row 1: colour"),
        ("path,task\n,rain\n", "row 1 has no path"),
    ],
)
def test_a_wrong_list_is_refused(photos: Path, tmp_path: Path, text: str, said: str) -> None:
    (photos / "list.csv").write_text(text)
    with pytest.raises(OptionError, match=said):
        find_orders([str(photos / "list.csv")], open_place(str(tmp_path)), RAIN)


def test_a_list_names_results_below_the_target(photos: Path, tmp_path: Path) -> None:
    """By the paths of their files, whatever else is in the list."""
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "list.csv").write_text(f"path\n../photos/a.jpg\n{photos}/b.png\n")
    below = str(tmp_path)[1:]
    found = names([str(folder / "list.csv")], str(tmp_path / "out"))
    assert found == [f"{below}/photos/a.jpg", f"{below}/photos/b.png"]
    (folder / "list.csv").write_text(
        "path,name\n../photos/a.jpg,7/a.jpg\n../photos/a.jpg,../b.jpg\n"
    )
    orders = find_orders([str(folder / "list.csv")], open_place(str(tmp_path / "out")), RAIN)
    assert [one.name for one in orders.orders] == ["7/a.jpg"]
    assert "is no name below the target" in orders.failures[0].message
    (folder / "list.csv").write_text("path,name\n../photos/a.jpg,a.txt\n")
    (failure,) = find_orders([str(folder / "list.csv")], open_place("memory://out"), RAIN).failures
    assert "'a.txt' has no suffix of a format that is written" in failure.message


def test_nothing_is_overwritten(photos: Path, tmp_path: Path) -> None:
    found = find_orders([str(photos / "*.png"), str(photos)], open_place(str(photos)), RAIN)
    assert not found.orders
    assert len(found.failures) == 6  # with the clip
    assert "would overwrite the input" in found.failures[0].message
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.jpg").write_bytes((photos / "a.jpg").read_bytes())
    found = find_orders([str(photos / "a.jpg"), str(other)], open_place(str(other)), RAIN)
    assert not found.orders
    assert all("would overwrite the input" in one.message for one in found.failures)


def test_a_file_that_is_named_twice_is_restored_once(photos: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    assert names([str(photos / "a.jpg"), str(photos), str(photos)], out).count("a.jpg") == 1
    (photos / "list.csv").write_text("path,task\na.jpg,rain\na.jpg,haze\na.jpg,rain\n")
    found = find_orders([str(photos / "list.csv")], open_place(out), RAIN)
    assert [one.options.task for one in found.orders] == ["rain"]
    (failure,) = found.failures
    assert "would be written to 'a.jpg', as" in failure.message


def test_a_store_that_there_is_not_is_refused() -> None:
    for text in ("sky://cloud/photos", "s3://"):
        with pytest.raises(OptionError, match="cannot be opened"):
            open_place(text)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    place = open_place(str(tmp_path / "new/folder/file"))
    place.write(b"one")
    place.write(b"two")
    assert place.read() == b"two"
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="taken"):
        open_place(str(tmp_path / "taken/file")).write(b"three")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder", "new", "taken"]


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_a_table_remembers_what_a_killed_run_noted(tmp_path: Path, kind: str) -> None:
    target = open_place(str(tmp_path) if kind == "local" else "memory://table")
    ledger = Ledger(target)
    first = Entry("a", "in/a", size=3, sha256="x", noted_ns=1, seconds=0.5)
    ledger.note(first)
    ledger.flush()
    ledger.note(Entry("b", "in/b", noted_ns=2))  # lost
    again = Ledger(target)
    assert again.entries == {"a": first}
    later = Entry("a", "in/a", status="failed", error="ImageError", noted_ns=3)
    again.note(later)
    again.close({"files": 1})
    assert Ledger(target).entries == {"a": later}
    left = sorted(one.path.rpartition("/")[2] for one in target.files())
    assert left == ["files.parquet", "report.json"]
