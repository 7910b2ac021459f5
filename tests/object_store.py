"""A store that speaks S3, on the loopback, for tests."""

import random
import threading
import time
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}


class Store:
    """A store that speaks S3, on the loopback, and fails when it is told to.

    Attributes:
        fails: whether it does.
        puts: what was written.
        gets: what was read.
        environment: the variables by which clients find it.
    """

    def __init__(self) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app
        from werkzeug.serving import make_server

        self.app = DomainDispatcherApplication(create_backend_app)
        self.random = random.Random(0)
        self.fails = False
        self.puts: list[str] = []
        self.gets: list[str] = []
        self.server = make_server("127.0.0.1", 0, self.answer, threaded=True)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        self.environment = {**KEYS, "AWS_ENDPOINT_URL": self.address}

    def answer(self, environ: dict[str, Any], respond: Any) -> Any:
        kind = self.random.random() if self.fails else 1.0
        if kind < 0.15:
            respond("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        if kind < 0.2:
            time.sleep(1.5)
        elif kind < 0.25:
            raise ConnectionAbortedError  # the server closes the connection
        if environ["REQUEST_METHOD"] == "PUT":
            self.puts.append(environ["PATH_INFO"])
        if environ["REQUEST_METHOD"] == "GET":
            self.gets.append(environ["PATH_INFO"])
        return self.app(environ, respond)
