import os
import stat
import time
from pathlib import Path

import pytest

from fairweather.errors import DataError
from fairweather.files import read_document, replacing, staging, walk_once, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "photo.bin"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        (temporary,) = (name for name in names(tmp_path) if name != "photo.bin")
        assert temporary.startswith(".")
        assert str(os.getpid()) in temporary
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["photo.bin"]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    path = tmp_path / "photo.bin"
    path.write_bytes(b"old")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half of the n")
            raise interruption

    with pytest.raises(interruption):
        write_half()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["photo.bin"]


def test_a_failing_sync_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"), replacing(tmp_path / "photo.bin") as file:
        file.write(b"new")
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_sets_the_permissions(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "photo.bin"
    before = os.umask(umask)
    try:
        with replacing(path) as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_an_existing_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "photo.bin"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError), replacing(path, overwrite=False):
        pytest.fail("the block must not run")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
    path = tmp_path / "photo.bin"

    def write_while_another_does() -> None:
        with replacing(path, overwrite=False) as file:
            file.write(b"mine")
            path.write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        write_while_another_does()
    assert path.read_bytes() == b"theirs"
    assert names(tmp_path) == ["photo.bin"]


@pytest.mark.parametrize("has_links", [True, False])
def test_a_free_name_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    if not has_links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(1, "no links")))
    with replacing(tmp_path / "photo.bin", overwrite=False) as file:
        file.write(b"new")
    assert names(tmp_path) == ["photo.bin"]
    assert (tmp_path / "photo.bin").read_bytes() == b"new"


def test_a_symbolic_link_is_written_through(tmp_path: Path) -> None:
    target, link = tmp_path / "album.bin", tmp_path / "link.bin"
    target.write_bytes(b"old")
    link.symlink_to(target)
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError), replacing(tmp_path):
        pytest.fail("the block must not run")


def test_staged_files_and_folders_appear_together_at_the_end(tmp_path: Path) -> None:
    with staging(tmp_path / "model.xml") as whole:
        whole.write_bytes(b"graph")
        whole.with_suffix(".bin").write_bytes(b"weights")
        assert not (tmp_path / "model.xml").exists()
    assert names(tmp_path) == ["model.bin", "model.xml"]
    with staging(tmp_path / "folder") as whole:
        whole.mkdir()
        (whole / "a").touch()
    assert names(tmp_path / "folder") == ["a"]


def test_a_staged_folder_replaces_the_old_one_only_if_asked(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "old").touch()
    with pytest.raises(FileExistsError), staging(tmp_path / "model"):
        pass
    assert names(tmp_path / "model") == ["old"]
    with staging(tmp_path / "model", overwrite=True) as whole:
        whole.mkdir()
        (whole / "new").touch()
    assert names(tmp_path / "model") == ["new"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("interruption", [ValueError, KeyboardInterrupt])
def test_an_interrupted_staging_leaves_everything_as_it_was(
    tmp_path: Path, interruption: type[BaseException]
) -> None:
    (tmp_path / "model").write_bytes(b"old")

    def write_half() -> None:
        with staging(tmp_path / "model", overwrite=True) as whole:
            whole.write_bytes(b"half of the n")
            raise interruption

    with pytest.raises(interruption):
        write_half()
    assert names(tmp_path) == ["model"]
    assert (tmp_path / "model").read_bytes() == b"old"


def test_a_name_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def write() -> None:
        with staging(tmp_path / "model") as whole:
            whole.write_bytes(b"mine")
            (tmp_path / "model").write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        write()
    assert (tmp_path / "model").read_bytes() == b"theirs"
    assert names(tmp_path) == ["model"]


def test_text_that_no_encoding_holds_is_escaped(tmp_path: Path) -> None:
    """Names of files may hold bytes that are no UTF-8; Python reads them as lone surrogates."""
    write_text(tmp_path / "report.txt", "Regen in Köln: \udcff.png")
    assert (tmp_path / "report.txt").read_text("utf-8") == "Regen in Köln: \\udcff.png"
    with pytest.raises(DataError, match=r"nowhere.report\.txt: cannot be written: No such file"):
        write_text(tmp_path / "nowhere/report.txt", "rain")


def test_a_document_is_told_by_its_format(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text('{"format": "ours 1", "rows": 3}')
    assert read_document(path, form="ours 1", otherwise="is no result")["rows"] == 3
    with pytest.raises(DataError, match=r"results\.json: is no result"):
        read_document(path, form="ours 2", otherwise="is no result")
    for text in ("[1]", '"ours 1"'):
        path.write_text(text)
        with pytest.raises(DataError, match=r"results\.json: is no result"):
            read_document(path, form="ours 1", otherwise="is no result")
    path.write_text('{"format": ')
    with pytest.raises(DataError, match=r"results\.json: cannot be read as JSON"):
        read_document(path, form="ours 1", otherwise="is no result")
    with pytest.raises(DataError, match=r"missing\.json: cannot be read as JSON"):
        read_document(tmp_path / "missing.json", form="ours 1", otherwise="is no result")


GONE, ALIVE = 999_999_999, os.getpid()  # no process has the first number


def leave(folder: Path, process: int, *, machine: str | None = None, age: float = 0) -> Path:
    """What a run leaves that is killed while it writes."""
    if machine is None:
        with replacing(folder.parent / "probe"):
            (temporary,) = folder.parent.glob(".fairweather-*")
            machine = temporary.name.split("-")[1]
    path = folder / f".fairweather-{machine}-{process}-0123abcd.tmp"
    path.write_bytes(b"half")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


DAYS = 24 * 3600


@pytest.mark.parametrize(
    ("process", "machine", "age", "is_removed"),
    [
        (GONE, None, 0, True),
        (ALIVE, None, 9 * DAYS, False),
        (ALIVE, "00000000", 9 * DAYS, True),
        (GONE, "00000000", 3600, False),
    ],
    ids=("gone here", "alive here", "old elsewhere", "young elsewhere"),
)
def test_what_a_killed_run_left_is_removed_by_the_next(
    tmp_path: Path, process: int, machine: str | None, age: float, *, is_removed: bool
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = leave(folder, process, machine=machine, age=age)
    with replacing(folder / "photo.bin") as file:
        file.write(b"new")
    assert path.exists() is not is_removed
    assert (folder / "photo.bin").read_bytes() == b"new"


def test_a_clock_that_jumps_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The age is told by the clock that set the times of the files."""
    folder = tmp_path / "out"
    folder.mkdir()
    path = leave(folder, GONE, machine="00000000")
    later = time.time() + 99 * DAYS
    monkeypatch.setattr(time, "time", lambda: later)
    with staging(folder / "model"):
        pass
    assert path.exists()


def test_files_of_another_user_are_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    path = leave(folder, GONE)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with replacing(folder / "photo.bin"):
        pass
    assert path.exists()


def test_a_run_that_was_killed_between_two_folders_is_finished(tmp_path: Path) -> None:
    """The old one was moved aside, and the new one not yet into its place."""
    folder = tmp_path / "out"
    folder.mkdir()
    hidden = leave(folder, GONE)
    hidden.unlink()
    for part in ("old", "new/model"):
        (hidden / part).mkdir(parents=True)
        (hidden / part / "which").write_text(part)
    with replacing(folder / "photo.bin"):
        pass
    assert (folder / "model" / "which").read_text() == "new/model"
    assert names(folder) == ["model", "photo.bin"]


def test_folders_are_walked_once_however_they_are_linked(tmp_path: Path) -> None:
    for place in ("a/b", "elsewhere/c", "a/.store"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "file").touch()
    root, again = tmp_path / "a", []
    for link, target in (
        ("up", "."), ("same", "b"), ("one", "../elsewhere"), ("two", "../elsewhere"),
        ("shown", ".store"), ("b/loop", "../b"),
    ):  # fmt: skip
        (root / link).symlink_to(target)
    found = {}
    for place, folders, files in walk_once(root, on_again=again.append):
        folders[:] = [folder for folder in folders if not folder.startswith(".")]
        found[place.relative_to(root).as_posix()] = files
    assert found == {
        ".": [], "b": ["file"], "one": [], "one/c": ["file"], "shown": ["file"],
    }  # fmt: skip
    told = [path.relative_to(root).as_posix() for path in again]
    assert sorted(told) == ["b/loop", "same", "two", "up"]
