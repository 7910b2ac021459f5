"""Folders packed into shards, and brought to a machine: whole, checked, once, or not at all."""

import contextlib
import functools
import hashlib
import http.server
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import Run
from tiny_runs import save, write_images

from fairweather.data import bring_data, default_cache_folder, find_layout_pairs, pack_folder
from fairweather.errors import DataError, OptionError

SHARDS = [f"{number:06}.tar" for number in range(4)]
UNUSUAL = "pairs/input/deep/ä b#1?.png"


def files_in(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images in two folders, one of an unusual name, a list, and what is no part of a set."""
    folder = write_images(tmp_path / "data")
    for side in ("input", "target"):
        path = folder / UNUSUAL.replace("input", side)
        path.parent.mkdir()
        shutil.copy(folder / f"pairs/{side}/6.png", path)
    (folder / "train.csv").write_text("degraded,clean\nclean/0.png,clean/1.png\n")
    return folder


@pytest.fixture
def packed(folder: Path, tmp_path: Path) -> Path:
    """A shard for each few images."""
    target = tmp_path / "packed"
    pack_small(folder, target)
    return target


def pack_small(folder: Path, target: Path, **options: Any) -> None:
    """Pack copies of the images that fill 300 kB each, into shards of 1 MB."""
    for path in folder.rglob("*.png"):
        with path.open("ab") as file:  # behind the end of a PNG anything may come
            file.truncate(300_000)
    pack_folder(folder, str(target), shard_mb=1, **options)


def index_of(packed: Path) -> dict[str, Any]:
    return json.loads((packed / "index.json").read_text("utf-8"))


def put_shard(packed: Path, write: Callable[[tarfile.TarFile], object], **facts: Any) -> None:
    """Put another shard in the place of the first, with a hash that is right."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        write(tar)
    index = index_of(packed)
    shard = index["shards"][0]
    content = data.getvalue()
    shard |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()} | facts
    (packed / shard["name"]).write_bytes(content)
    (packed / "index.json").write_text(json.dumps(index))


def test_what_is_brought_is_what_was_packed(folder: Path, tmp_path: Path) -> None:
    (folder / "notes.md").write_text("no image")
    (folder / "clean/.hidden.png").write_bytes(b"")
    target, done = tmp_path / "packed", []
    pack_small(folder, target, on_done=lambda *counts: done.append(counts))
    names = [shard["name"] for shard in index_of(target)["shards"]]
    assert names == SHARDS
    assert done[-1] == (13, 13)
    assert all((target / name).stat().st_size < 1_000_000 for name in names)
    brought = bring_data(target, cache=tmp_path / "cache")
    expected = files_in(folder)
    del expected["notes.md"], expected["clean/.hidden.png"]
    assert files_in(brought) == expected
    assert UNUSUAL in expected
    pairs = (
        find_layout_pairs(place / "pairs", "folders", split="all") for place in (brought, folder)
    )
    relative = [[pair.degraded.relative_to(pair.degraded.parents[2]) for pair in p] for p in pairs]
    assert relative[0] == relative[1]


def test_other_programs_read_the_shards(packed: Path, folder: Path) -> None:
    found = {}
    for path in sorted(packed.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {one.name: len(tar.extractfile(one).read()) for one in tar}  # type: ignore[union-attr]
    assert found == {name: len(content) for name, content in files_in(folder).items()}


def test_the_same_files_make_the_same_shards(packed: Path, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    os.utime(tmp_path / "copy/clean/0.png", (1, 1))
    pack_folder(tmp_path / "copy", str(tmp_path / "again"), shard_mb=1)
    assert files_in(tmp_path / "again") == files_in(packed)


def test_a_plain_folder_is_taken_as_it_is(folder: Path, tmp_path: Path) -> None:
    (folder / "index.json").write_text('{"images": []}')
    assert bring_data(folder, cache=tmp_path / "cache") == folder
    assert bring_data(tmp_path / "none", cache=tmp_path / "cache") == tmp_path / "none"
    assert not (tmp_path / "cache").exists()


def test_a_set_is_brought_once_and_again_when_it_changes(
    packed: Path, folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = bring_data(packed, cache=cache)
    (first / "clean/0.png").unlink()  # which nothing brings back
    assert bring_data(packed, cache=cache) == first
    assert not (first / "clean/0.png").exists()
    save(folder / "clean/7.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"has an index\.json.*--overwrite"):
        pack_folder(folder, str(packed))
    pack_folder(folder, str(packed), overwrite=True)
    assert [path.name for path in sorted(packed.iterdir())] == ["000000.tar", "index.json"]
    second = bring_data(packed, cache=cache)
    assert second != first
    assert files_in(second) == files_in(folder)
    assert first.exists()  # a run may be training on it


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_what_is_no_plain_file_is_refused(packed: Path, tmp_path: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("clean/0.png")
    entry.type, entry.linkname = kind, "../../outside"
    put_shard(packed, lambda tar: tar.addfile(entry), files=1, unpacked_bytes=0)
    with pytest.raises(DataError, match=r"'clean/0\.png' is a link, a folder or a device"):
        bring_data(packed, cache=tmp_path / "cache")


@pytest.mark.parametrize("name", ["../../../outside.png", "clean/../../../../outside.png"])
def test_a_path_that_leaves_the_folder_is_refused(packed: Path, tmp_path: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = 4
    put_shard(
        packed, lambda tar: tar.addfile(entry, io.BytesIO(b"evil")), files=1, unpacked_bytes=4
    )
    before = set(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=r"cannot be unpacked: .*outside"):
        bring_data(packed, cache=tmp_path / "cache")
    assert not [path for path in set(tmp_path.rglob("*")) - before if path.name == "outside.png"]


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"files": 1, "unpacked_bytes": 9_999}, "holds more than"),
        ({"files": 2, "unpacked_bytes": 10_000}, "holds less than"),
    ],
)
def test_a_shard_holds_as_much_as_the_index_says(
    packed: Path, tmp_path: Path, facts: dict[str, int], words: str
) -> None:
    entry = tarfile.TarInfo("clean/0.png")
    entry.size = 10_000
    put_shard(packed, lambda tar: tar.addfile(entry, io.BytesIO(bytes(10_000))), **facts)
    with pytest.raises(DataError, match=f"000000.tar: {words} index.json lists"):
        bring_data(packed, cache=tmp_path / "cache")


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(512))


@pytest.mark.parametrize("change", [spoil, grow])
def test_a_shard_that_is_not_what_the_index_lists(
    packed: Path, folder: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    whole = (packed / "000003.tar").read_bytes()
    change(packed / "000003.tar")
    with pytest.raises(DataError, match=r"000003\.tar: is not the file that index\.json lists"):
        bring_data(packed, cache=tmp_path / "cache")
    assert not [*(tmp_path / "cache/sets").glob("[!.]*")]
    (packed / "000003.tar").write_bytes(whole)
    assert files_in(bring_data(packed, cache=tmp_path / "cache")) == files_in(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{}", "does not list shards"),
        ("[", "does not list shards"),
        ('{"format": "fairweather shards 1", "shards": []}', "does not list shards"),
    ],
)
def test_an_index_that_is_none(packed: Path, tmp_path: Path, text: str, words: str) -> None:
    (packed / "index.json").write_text(text)
    with pytest.raises(DataError, match=words):
        bring_data(packed.as_uri(), cache=tmp_path / "cache")


def test_names_in_an_index_lead_nowhere_else(packed: Path, tmp_path: Path) -> None:
    index = index_of(packed)
    for name in ("../000000.tar", "/000000.tar", "000000.tar\n", index["shards"][1]["name"]):
        index["shards"][0]["name"] = name
        (packed / "index.json").write_text(json.dumps(index))
        with pytest.raises(DataError, match=r"index\.json: (does not list|lists a shard twice)"):
            bring_data(packed.as_uri(), cache=tmp_path / "cache")


def test_errors_name_the_way_out(packed: Path, folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no index\.json.*fairweather data pack FOLDER"):
        bring_data(folder.as_uri(), cache=cache)
    (packed / "000002.tar").unlink()
    with pytest.raises(DataError, match=r"000002\.tar: there is no such file"):
        bring_data(packed, cache=cache)
    with pytest.raises(OptionError, match="nowhere://a: cannot be opened"):
        bring_data("nowhere://a", cache=cache)
    with pytest.raises(DataError, match="is not a folder"):
        pack_folder(tmp_path / "none", str(tmp_path / "out"))
    with pytest.raises(DataError, match="holds no image"):
        pack_folder(tmp_path / "empty", str(tmp_path / "out"))
    with pytest.raises(OptionError, match="is the folder that is packed"):
        pack_folder(folder, str(folder))
    cache.joinpath("file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written.*choose a folder .* with --cache"):
        bring_data(packed, cache=cache / "file")


def test_a_backend_that_is_not_installed(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from fairweather.data import bring_data
from fairweather.errors import MissingExtraError
for kind, package in {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}.items():
    sys.modules[package] = None
    try:
        bring_data(f"{kind}://bucket/set", cache=Path(sys.argv[1]))
    except MissingExtraError as error:
        print(error)
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{kind}://bucket/set: {kind}:// cannot be read here; pip install {package}"
        for kind, package in (("s3", "s3fs"), ("gs", "gcsfs"), ("az", "adlfs"))
    ]


def test_a_set_that_no_disk_can_hold(packed: Path, tmp_path: Path) -> None:
    index = index_of(packed)
    index["shards"][0]["unpacked_bytes"] = 10**18
    (packed / "index.json").write_text(json.dumps(index))
    with pytest.raises(DataError, match=r"the set takes 1000000000\.0 GB\); make room"):
        bring_data(packed, cache=tmp_path / "cache")


def test_a_file_that_cannot_be_packed_leaves_no_set(folder: Path, tmp_path: Path) -> None:

    def remove(done: int, total: int) -> None:
        (folder / "train.csv").unlink(missing_ok=True)

    with pytest.raises(DataError, match=r"train\.csv: cannot be packed"):
        pack_small(folder, tmp_path / "out", on_done=remove)
    assert not (tmp_path / "out/index.json").exists()


class Server:
    """Serves a folder over HTTP; holds one shard back while it is told to."""

    def __init__(self, folder: Path):
        self.asked: list[str] = []
        self.let_go = threading.Event()
        server = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *words: object) -> None: ...

            def do_GET(self) -> None:
                name = self.path.rpartition("/")[2]
                server.asked.append(name)
                if name == "000003.tar":
                    server.let_go.wait(120)
                with contextlib.suppress(ConnectionError):  # of a process that was killed
                    super().do_GET()

        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def server(packed: Path) -> Iterator[Server]:
    server = Server(packed)
    yield server
    server.let_go.set()
    server.server.shutdown()
    server.server.server_close()


def start(server: Server, cache: Path) -> subprocess.Popen[str]:
    """A process that brings a set, and tells where it is."""
    code = "import sys; from pathlib import Path; from fairweather.data import bring_data; "
    code += "print(bring_data(sys.argv[1], cache=Path(sys.argv[2])))"
    words = [sys.executable, "-c", code, server.address, str(cache)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, encoding="utf-8")


def wait_until_all_but_one_are_here(cache: Path, process: subprocess.Popen[str]) -> None:
    while len([*cache.glob("sets/.*.part/*.done")]) < 3:
        assert process.poll() is None
        time.sleep(0.01)


def end_of(process: subprocess.Popen[str]) -> Path:
    told, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return Path(told.strip())


def test_shards_may_make_a_folder_at_the_same_time(
    packed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tarfile.os.makedirs", None)  # which is never asked for
    assert files_in(bring_data(str(packed), cache=tmp_path / "cache")) == files_in(folder)


def test_of_two_processes_one_brings_and_the_other_waits(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    first = start(server, tmp_path / "cache")
    wait_until_all_but_one_are_here(tmp_path / "cache", first)
    second = start(server, tmp_path / "cache")
    while server.asked.count("index.json") < 2:
        assert second.poll() is None
        time.sleep(0.01)
    server.let_go.set()
    place = end_of(first)
    assert end_of(second) == place
    assert files_in(place) == files_in(folder)
    assert sorted(server.asked)[:4] == SHARDS  # each of them once
    assert sorted(server.asked)[4:] == ["index.json", "index.json"]


def test_what_a_killed_process_has_brought_is_not_fetched_again(
    server: Server, folder: Path, tmp_path: Path
) -> None:
    first = start(server, tmp_path / "cache")
    wait_until_all_but_one_are_here(tmp_path / "cache", first)
    first.kill()
    first.communicate()
    assert not [*(tmp_path / "cache/sets").glob("[!.]*")]
    server.let_go.set()
    place = end_of(start(server, tmp_path / "cache"))
    assert files_in(place) == files_in(folder)
    assert [server.asked.count(name) for name in SHARDS] == [1, 1, 1, 2]
    assert [path.name for path in place.parent.iterdir() if path.is_dir()] == [place.name]


def test_the_command_packs_and_trains_on_what_is_packed(
    folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    target = tmp_path / "packed"
    done = run("data", "pack", folder, "-o", target, "--shard-mb", "1")
    assert (done.status, done.err) == (0, "")
    assert "13 files in 1 shard," in done.out
    assert run("data", "pack", folder, "-o", target).status == 1
    assert run("data", "pack", folder, "-o", "nowhere://a").status == 2
    plain, packed = (
        run("train", "own_pairs", "--data", data / "pairs", "--dry-run")
        for data in (folder, bring_data(target, cache=tmp_path / "cache"))
    )
    assert plain.status == packed.status == 0, plain.err
    assert packed.out == plain.out
    assert default_cache_folder().name == "decoded"
