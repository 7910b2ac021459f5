"""Weights by URL and from a Hub that this machine plays: once, checked, and never when offline."""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from typer.testing import CliRunner
from weights_server import Server, git_id, stop

from fairweather.cli import app
from fairweather.errors import CheckpointError
from fairweather.models import (
    AST,
    ASTConfig,
    find_weights,
    load_model,
    save_model,
    save_official,
    sources,
)
from fairweather.models.hub import git_id_of, locate

REPOSITORY = "fairweather-test/ast-rain"
NAME = f"hf:{REPOSITORY}"
OTHER = b"these are other bytes"


@pytest.fixture(scope="session")
def small() -> AST:
    torch.manual_seed(0)
    return AST(ASTConfig(embed_dim=8, depths=(1, 1, 1), heads=(1, 2, 1), window=4)).eval()


@pytest.fixture(scope="session")
def ours(small: AST, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("ours") / "model.safetensors"
    save_model(small, path, metadata={"task": "rain"})
    return path.read_bytes()


@pytest.fixture(scope="session")
def official(small: AST, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("official") / "model.pth"
    save_official(small, path)
    return path.read_bytes()


@pytest.fixture
def server(ours: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with weights at /rain.safetensors and in a repository, and empty caches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        sources.platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache" / name)
    )
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.chdir(tmp_path)
    with Server() as server:
        server.files["/rain.safetensors"] = ours
        server.repositories[REPOSITORY] = {"README.md": b"# rain", "rain.safetensors": ours}
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield server
        finally:
            stop(server)
            locate.cache_clear()


def cached(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


# URLs


def test_a_url_is_downloaded_once(server: Server, tmp_path: Path, ours: bytes, small: AST) -> None:
    url = server.url("/rain.safetensors")
    loaded = load_model(url)
    assert loaded.config == small.config
    found = find_weights(url)
    assert found.read_bytes() == ours
    assert found.name == "rain.safetensors"
    assert cached(tmp_path) == [found]
    assert found.parent.name == hashlib.sha256(ours).hexdigest()
    assert server.asked == ["GET /rain.safetensors"]
    stop(server)
    assert find_weights(url.replace("rain.safetensors", "mirrored.safetensors?x=1")) == found
    assert load_model(url).config == small.config


def test_another_file_is_refused_with_both_hashes(server: Server, tmp_path: Path) -> None:
    url = server.url("/rain.safetensors", OTHER)
    with pytest.raises(CheckpointError, match="was not kept") as caught:
        find_weights(url)
    for content in (server.files["/rain.safetensors"], OTHER):
        assert hashlib.sha256(content).hexdigest() in str(caught.value)
    assert cached(tmp_path) == []


def test_a_copy_that_broke_is_downloaded_again_if_there_is_a_network(
    server: Server, monkeypatch: pytest.MonkeyPatch, ours: bytes
) -> None:
    url = server.url("/rain.safetensors")
    find_weights(url).write_bytes(OTHER)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="no whole copy"):
        find_weights(url)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert find_weights(url).read_bytes() == ours


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("{}/rain.safetensors", r"needs the file's SHA-256, .* add #sha256="),
        ("{}/rain.safetensors#sha256=12ab", r"needs the file's SHA-256"),
        ("{}/rain.safetensors#md5=" + "0" * 64, r"needs the file's SHA-256"),
        ("{}/rain.zip#sha256=" + "0" * 64, r"is no URL of a weights file, which ends in \.safe"),
        ("https:///rain.pth#sha256=" + "0" * 64, "is no URL of a weights file"),
        ("https://[rain.pth#sha256=" + "0" * 64, "is no URL: "),
        ("http://example.org/rain.pth#sha256=" + "0" * 64, "changed on its way; use https://"),
        ("http://127.0.0.1.example.org/r.pth#sha256=" + "0" * 64, "changed on its way"),
    ],
)
def test_urls_that_are_not_to_be_loaded(server: Server, url: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_weights(url.format(server.address))
    assert server.asked == []


def test_secrets_in_a_url_are_not_told(server: Server) -> None:
    url = server.url("/rain.safetensors", OTHER).replace("http://", "http://me:pass@")
    with pytest.raises(CheckpointError) as caught:
        find_weights(url.replace(".safetensors", ".safetensors?token=secret"))
    assert "pass" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_what_a_server_does_wrong_is_told(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, host = server.url("/rain.safetensors"), server.address.removeprefix("http://")
    with pytest.raises(CheckpointError, match=f"nowhere.pth: {host} answers 404 Not Found"):
        find_weights(f"{server.address}/nowhere.pth#sha256={'0' * 64}")
    server.redirects["/moved.pth"] = "http://example.org/moved.pth"
    with pytest.raises(CheckpointError, match="use https://"):
        find_weights(f"{server.address}/moved.pth#sha256={'0' * 64}")
    with monkeypatch.context() as patch:
        patch.setattr(sources, "MAX_BYTES", 100)
        with pytest.raises(CheckpointError, match="is larger than 100 bytes"):
            find_weights(url)
    with monkeypatch.context() as patch:
        patch.setattr(sources, "MAX_SECONDS", 0.0)
        patch.setattr(sources, "WATCH_SECONDS", 0.0)
        with pytest.raises(CheckpointError, match=rf"{host} sent [\d,]+ bytes in 0 s"):
            find_weights(url)
    server.cut = True
    with pytest.raises(CheckpointError, match=rf"{host} broke off after [\d,]+ of [\d,]+ bytes"):
        find_weights(url)
    server.gate.clear()
    monkeypatch.setattr(sources, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(CheckpointError, match=f"{host} cannot be reached: timed out"):
        find_weights(url)
    stop(server)
    with pytest.raises(CheckpointError, match=f"{host} cannot be reached: .*refused"):
        find_weights(url)
    assert cached(tmp_path) == []


def test_a_redirect_is_followed(server: Server, ours: bytes) -> None:
    server.redirects["/latest.safetensors"] = "/rain.safetensors"
    url = server.url("/latest.safetensors", ours)
    assert find_weights(url).name == "latest.safetensors"


def test_offline_asks_nobody(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = server.url("/rain.safetensors")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for weights in (url, NAME, f"{NAME}@v1:rain.safetensors", f"{NAME}@{'c' * 40}"):
        with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE forbids the network; load it"):
            find_weights(weights)
    assert server.asked == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    found = [find_weights(url), find_weights(NAME)]
    server.asked.clear()
    locate.cache_clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert [find_weights(url), find_weights(NAME)] == found
    assert find_weights(f"{NAME}:rain.safetensors") == found[1]
    assert server.asked == []


def test_a_cache_that_cannot_be_written_is_told(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(CheckpointError, match=r"cannot be kept in .*XDG_CACHE_HOME"):
        find_weights(server.url("/rain.safetensors"))


def test_downloads_at_the_same_time_and_one_that_is_killed(
    server: Server, tmp_path: Path, ours: bytes
) -> None:
    url = server.url("/rain.safetensors")
    server.gate.clear()
    code = f"from fairweather.models.sources import find_by_url; find_by_url({url!r})"
    killed = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    with killed, ThreadPoolExecutor(4) as pool:
        assert server.half_sent.acquire(timeout=120)
        found = [pool.submit(find_weights, url) for _ in range(4)]
        for _ in found:
            assert server.half_sent.acquire(timeout=120)
        killed.kill()
        killed.wait()
        assert all(path.suffix == ".tmp" for path in cached(tmp_path))
        server.gate.set()
        (path,) = {one.result() for one in found}
    assert path.read_bytes() == ours
    assert len([path for path in cached(tmp_path) if path.suffix == ".tmp"]) <= 1  # the killed one


# The Hub


def test_a_repository_is_downloaded_once(server: Server, ours: bytes, small: AST) -> None:
    assert load_model(NAME).config == small.config
    asked = list(server.asked)
    assert f"GET /{REPOSITORY}/resolve/main/rain.safetensors" in asked
    path = find_weights(NAME)
    assert path.name == "rain.safetensors"
    assert path.read_bytes() == ours
    assert server.asked == asked  # a name keeps its meaning within a process
    locate.cache_clear()
    assert find_weights(NAME) == path
    bodies = [one for one in server.asked if one.startswith("GET") and "resolve" in one]
    assert len(bodies) == 1
    path.unlink()
    assert find_weights(NAME).read_bytes() == ours  # the cache may be emptied at any time


def test_a_commit_in_the_cache_asks_nobody(server: Server) -> None:
    found = find_weights(f"{NAME}@{server.commit}:rain.safetensors")
    locate.cache_clear()
    server.asked.clear()
    assert find_weights(f"{NAME}@{server.commit}:rain.safetensors") == found
    assert server.asked == []


def test_a_branch_moves_on(server: Server, official: bytes) -> None:
    old = find_weights(NAME)
    server.commit = "d" * 40
    server.repositories[REPOSITORY] = {"rain.pth": official}
    locate.cache_clear()
    assert find_weights(NAME).name == "rain.pth"
    assert find_weights(f"{NAME}@{'c' * 40}") == old


def test_a_branch_moves_on_between_two_questions(server: Server, ours: bytes) -> None:
    newer = ours[:-4] + bytes(4)
    server.moves_on = {"rain.safetensors": newer}
    assert find_weights(NAME).read_bytes() == newer


def test_which_file_of_a_repository(server: Server, ours: bytes, official: bytes) -> None:
    files = server.repositories[REPOSITORY]
    files["rain.pth"] = official
    assert find_weights(NAME).suffix == ".safetensors"
    assert find_weights(f"{NAME}:rain.pth").read_bytes() == official
    assert load_model(f"{NAME}@v1:rain.pth").config.embed_dim == 8
    files["more/haze.safetensors"] = ours
    locate.cache_clear()
    several = r"holds more/haze\.safetensors, rain\.safetensors; name the one .*:more/haze"
    with pytest.raises(CheckpointError, match=several):
        find_weights(NAME)
    assert find_weights(f"{NAME}:more/haze.safetensors").name == "haze.safetensors"
    with pytest.raises(CheckpointError, match=r"holds no snow\.pth; it holds .*, rain\.pth, "):
        find_weights(f"{NAME}:snow.pth")
    server.repositories["a/b"] = {"README.md": b""}
    with pytest.raises(CheckpointError, match="hf:a/b: holds no weights"):
        find_weights("hf:a/b")


def test_what_is_not_what_the_hub_says_is_refused_and_removed(server: Server) -> None:
    server.told["rain.safetensors"] = hashlib.sha256(OTHER).hexdigest()
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"but the Hub gives .* removed") as caught:
            find_weights(NAME)
        assert server.told["rain.safetensors"] in str(caught.value)
    server.told.clear()
    path = find_weights(NAME)
    path.resolve().write_bytes(OTHER)  # changed in the cache, later
    with pytest.raises(CheckpointError, match="removed from the cache"):
        find_weights(NAME)
    assert load_model(NAME).config.embed_dim == 8


def test_a_file_changed_in_the_cache_is_refused_offline(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_weights(NAME).resolve().write_bytes(OTHER)
    locate.cache_clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(CheckpointError, match="but the Hub gives"):
        find_weights(NAME)


def test_files_in_git_are_compared_by_their_git_id(server: Server, official: bytes) -> None:
    server.repositories[REPOSITORY] = {"rain.pth": official}
    server.in_git.add("rain.pth")
    path = find_weights(NAME)
    assert git_id_of(path) == git_id(official) == path.readlink().name
    path.resolve().write_bytes(OTHER)
    with pytest.raises(CheckpointError, match="has git id"):
        find_weights(NAME)


def test_the_hash_that_the_user_gives_counts_too(server: Server, ours: bytes) -> None:
    right, wrong = (hashlib.sha256(content).hexdigest() for content in (ours, OTHER))
    assert find_weights(f"{NAME}#sha256={right.upper()}").is_file()
    with pytest.raises(CheckpointError, match=f"has SHA-256 {right}, not the {wrong}"):
        find_weights(f"{NAME}@main:rain.safetensors#sha256={wrong}")
    assert find_weights(NAME).is_file()  # which is right, and stays


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("hf:rain", "is no name of weights on the Hub; write hf:OWNER/NAME"),
        ("hf:a/b/c", "is no name of weights on the Hub"),
        ("hf:a/b#sha256=12", "is no name of weights on the Hub"),
        ("hf:a/b:../../c.pth", "leads out of the repository"),
        ("hf:a/b@../c", "leads out of the repository"),
        ("hf:a/b:config.json", "config.json is no weights file"),
    ],
)
def test_names_that_are_none(server: Server, weights: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        find_weights(weights)
    assert server.asked == []


def test_what_the_hub_refuses_is_told(server: Server) -> None:
    host = server.address.removeprefix("http://")
    with pytest.raises(CheckpointError, match=f"hf:a/nothing: {host} has no model repository"):
        find_weights("hf:a/nothing")
    with pytest.raises(CheckpointError, match="has no revision v9; give a branch"):
        find_weights(f"{NAME}@v9")
    with pytest.raises(CheckpointError, match="is no name of a repository"):
        find_weights("hf:a--b/c")


@pytest.mark.parametrize("fault", ["stopped", "out of order"])
def test_a_hub_that_is_down_leaves_the_cache(
    server: Server, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    found = find_weights(NAME)
    locate.cache_clear()
    server.status = 503
    if fault == "stopped":
        stop(server)
    host = server.address.removeprefix("http://")
    assert find_weights(NAME) == found
    assert f"{NAME}: {host} cannot be reached" in caplog.text
    started = time.monotonic()
    with pytest.raises(CheckpointError, match=f"{host} cannot be reached: .*nothing is in the"):
        find_weights("hf:a/b")
    assert time.monotonic() - started < 5


def test_a_name_without_hf_is_a_path(server: Server, tmp_path: Path, ours: bytes) -> None:
    with pytest.raises(CheckpointError, match=f"no file or folder; .* or hf:{REPOSITORY} for"):
        find_weights(REPOSITORY)
    folder = tmp_path / REPOSITORY
    folder.mkdir(parents=True)
    (folder / "mine.pth").write_bytes(ours)
    assert find_weights(REPOSITORY).name == "mine.pth"
    for weights in ("runs/rian.pth", "./runs/rian", "runs/rian/", "~/rian", ".runs/rian", "rian"):
        with pytest.raises(CheckpointError, match=r"is no file or folder; give a weights file"):
            find_weights(weights)
    assert server.asked == []


def test_code_in_a_downloaded_file_is_refused(server: Server, tmp_path: Path) -> None:
    class Touch:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return open, (str(tmp_path / "executed"), "w")  # type: ignore[return-value]

    torch.save({"state_dict": {}, "extra": Touch()}, tmp_path / "trap.pth")
    server.files["/trap.pth"] = (tmp_path / "trap.pth").read_bytes()
    server.repositories["a/trap"] = {"trap.pth": server.files["/trap.pth"]}
    for weights in (server.url("/trap.pth"), "hf:a/trap"):
        with pytest.raises(CheckpointError, match="could run code"):
            load_model(weights)
    assert not (tmp_path / "executed").exists()


def test_the_command_line_takes_them(server: Server) -> None:
    for weights in (server.url("/rain.safetensors"), NAME):
        done = CliRunner().invoke(app, ["models", "info", weights, "--json"])
        assert json.loads(done.stdout)["metadata"]["task"] == "rain"


def test_in_a_new_process_local_names_import_no_client_and_the_environment_is_heard(
    server: Server, tmp_path: Path, ours: bytes
) -> None:
    (tmp_path / "local.safetensors").write_bytes(ours)
    code = (
        "import sys; from fairweather.models import find_weights;"
        "find_weights('rain'); find_weights('local.safetensors');"
        "assert 'huggingface_hub' not in sys.modules;"
        f"print(find_weights({NAME!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    path = Path(done.stdout.strip())
    assert path.is_relative_to(tmp_path / "hub")
    assert path.read_bytes() == ours
