"""A web server and a Hub of weights, played by this machine for the tests of remote weights."""

import contextlib
import hashlib
import http.server
import json
import threading


class Server(http.server.ThreadingHTTPServer):
    """Plays a web server and a Hub, and counts what it is asked.

    Attributes:
        files: path → content.
        repositories: name → files by name.
        told: file name → the SHA-256 that the Hub gives instead of the right one.
        in_git: names of files that are not in LFS.
        moves_on: the files of every repository once one was listed, at another commit.
        cut: whether a body ends in the middle.
        gate: what the second half of a body waits for.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.told: dict[str, str] = {}
        self.in_git: set[str] = set()
        self.status, self.cut, self.commit = 200, False, "c" * 40
        self.moves_on: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.half_sent, self.gate = threading.Semaphore(0), threading.Event()
        self.gate.set()
        self.address = f"http://127.0.0.1:{self.server_port}"

    def url(self, path: str, content: bytes | None = None) -> str:
        sha256 = hashlib.sha256(self.files[path] if content is None else content).hexdigest()
        return f"{self.address}{path}#sha256={sha256}"


class Handler(http.server.BaseHTTPRequestHandler):
    """One request."""

    server: Server

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        if self.server.status != 200:
            self.answer(self.server.status, b"", {})
        elif path in self.server.redirects:
            self.answer(302, b"", {"Location": self.server.redirects[path]})
        elif path in self.server.files:
            self.answer(200, self.server.files[path], {})
        elif path.startswith("/api/models/"):
            self.answer_api(path.removeprefix("/api/models/").partition("/revision/"))
        elif "/resolve/" in path:
            self.answer_file(path)
        else:
            self.answer(404, b"", {})

    def answer_api(self, parts: tuple[str, str, str]) -> None:
        files = self.server.repositories.get(parts[0])
        if files is None:
            self.answer(401, b"", {})
        elif parts[2] not in ("", "main", "v1", self.server.commit):
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
        else:
            siblings = [self.sibling(name, content) for name, content in files.items()]
            said = {"id": parts[0], "sha": self.server.commit, "siblings": siblings}
            if self.server.moves_on:
                files.update(self.server.moves_on)
                self.server.commit = "e" * 40
            self.answer(200, json.dumps(said).encode(), {"Content-Type": "application/json"})

    def sibling(self, name: str, content: bytes) -> dict[str, object]:
        told = {"rfilename": name, "size": len(content), "blobId": git_id(content)}
        if name not in self.server.in_git:
            lfs = {"size": len(content), "sha256": self.hash_of(name, content), "pointerSize": 134}
            told["lfs"] = lfs
        return told

    def hash_of(self, name: str, content: bytes) -> str:
        return self.server.told.get(name) or hashlib.sha256(content).hexdigest()

    def answer_file(self, path: str) -> None:
        repository, _, rest = path[1:].partition("/resolve/")
        name = rest.partition("/")[2]
        content = self.server.repositories[repository][name]
        etag = git_id(content) if name in self.server.in_git else self.hash_of(name, content)
        self.answer(200, content, {"X-Repo-Commit": self.server.commit, "ETag": f'"{etag}"'})

    def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or not body:
            return
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body[: len(body) // 2])
            self.server.half_sent.release()
            self.server.gate.wait(120)
            if not self.server.cut:
                self.wfile.write(body[len(body) // 2 :])

    def log_message(self, format: str, *args: object) -> None: ...


def git_id(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def stop(server: Server) -> None:
    server.gate.set()
    server.shutdown()
    server.server_close()
