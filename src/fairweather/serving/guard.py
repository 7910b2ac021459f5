"""What each request passes first: who asks, how much, how fast; and what is noted of it."""

import asyncio
import contextlib
import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from itertools import chain
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairweather.serving.limits import HEAD_BYTES
from fairweather.serving.problems import Problem, problem_response
from fairweather.serving.service import Service

log = logging.getLogger("fairweather.serving.requests")

API = "/v1/"
PAGE_API = "/gradio_api/"
UPLOAD = f"{PAGE_API}upload"
FILE = "file="
PAGE_ASKS = (
    *("upload", "queue/join", "queue/data", "cancel", "reset", "heartbeat/"),
    *("startup-events", "app_id", "info"),
)
PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, Accept, X-Request-Id",
    "Access-Control-Max-Age": "600",
}
LOCKED = (API, "/metrics")
WORK = "POST"
ANY_HOST = "*"
SAFE_ID = re.compile(r"[\w-]{1,64}", re.ASCII)
# Everything comes from here; the page's own script and style are within it.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:;"
    " style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


class Guard:
    """ASGI middleware: bounds, key, origin, request id, and one line of log for each request."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: Service,
        hosts: Iterable[str] = (ANY_HOST,),
        origins: Iterable[str] = (),
    ):
        """Stand before an application.

        Args:
            app: it.
            service: whose limits hold.
            hosts: names under which it may be asked; others are those of a page that would have a
                browser believe that this is its own machine.
            origins: of pages elsewhere that may ask, such as `https://example.org`.
        """
        self.app = app
        self.service = service
        self.hosts = frozenset(hosts)
        self.origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        asked = headers.get("X-Request-Id", "")
        request_id = asked if SAFE_ID.fullmatch(asked) else uuid.uuid4().hex
        seen = Seen(receive, self.service.limits.upload_bytes, self.service.limits.upload_seconds)
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                more = MutableHeaders(scope=message)
                more["X-Request-Id"] = request_id
                for name, value in HEADERS.items():
                    more.setdefault(name, value)
                self._allow(headers, more)
            await send(message)

        client = (scope.get("client") or ("?",))[0]
        works = scope["method"] == WORK and scope["path"].startswith((API, UPLOAD))
        counts = self.service.clients
        started = time.monotonic()
        try:
            if self._is_preflight(scope, headers):
                await Response(status_code=204, headers=PREFLIGHT)(scope, receive, answer)
                return
            try:
                refusal = self._refusal(scope, headers, client=client, works=works)
            except ValueError:  # of a host or an origin that is no address
                refusal = Problem(403, "the host or the origin of the request cannot be read")
            if refusal is not None:
                problem = problem_response(
                    refusal.status_code, str(refusal.detail), headers=dict(refusal.headers or {})
                )
                await problem(scope, receive, answer)
                return
            with self._counted(client) if works else contextlib.nullcontext():
                await self.app(scope, seen.receive, answer)
        finally:
            seconds = time.monotonic() - started
            route = getattr(scope.get("route"), "path", "") or "page"
            metrics = self.service.metrics
            metrics.requests.labels(route, status).inc()
            metrics.seconds.labels(route).observe(seconds)
            if route != "page" or status >= 400:
                facts = {
                    "id": request_id,
                    "method": scope["method"],
                    "route": route,
                    "status": status,
                    "seconds": round(seconds, 3),
                    "received": seen.size,
                    "clients": len(counts),
                }
                log.info("request", extra={"facts": facts})

    def _refusal(
        self, scope: Scope, headers: Headers, *, client: str, works: bool
    ) -> Problem | None:
        limits, path = self.service.limits, scope["path"]
        if len(scope["query_string"]) + sum(map(len, chain(*scope["headers"]))) > HEAD_BYTES:
            return Problem(431, f"address and headers may have at most {HEAD_BYTES:,} bytes")
        host = urlsplit(f"//{headers.get('Host', '')}").hostname
        if ANY_HOST not in self.hosts and host not in self.hosts:
            return Problem(403, "this service is not asked under that name; see --host")
        origin = headers.get("Origin")
        is_other = origin and origin not in self.origins
        if is_other and urlsplit(origin).netloc != headers.get("Host"):
            return Problem(403, "requests from pages of other sites are not answered")
        if path.startswith(PAGE_API) and not is_of_the_page(scope):
            return Problem(403, "the page does not ask for this, and nobody else may")
        if path.startswith(LOCKED) and not self._knows_key(headers):
            wanted = {"WWW-Authenticate": "Bearer"}
            return Problem(401, "give the key as `Authorization: Bearer KEY`", wanted)
        length = headers.get("Content-Length", "")
        if length.isdecimal() and int(length) > limits.upload_bytes:
            return too_large(limits.upload_bytes)
        if works and self.service.clients.get(client, 0) >= limits.uploads_per_client:
            text = f"{limits.uploads_per_client} requests of yours are in work; wait for one"
            return Problem(429, text, {"Retry-After": "1"})
        return None

    def _is_preflight(self, scope: Scope, headers: Headers) -> bool:
        asks = headers.get("Access-Control-Request-Method") is not None
        return scope["method"] == "OPTIONS" and asks and headers.get("Origin") in self.origins

    def _knows_key(self, headers: Headers) -> bool:
        if self.service.api_key is None:
            return True
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        key = self.service.api_key.encode()
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key)

    @contextlib.contextmanager
    def _counted(self, client: str) -> Iterator[None]:
        counts = self.service.clients
        counts[client] = counts.get(client, 0) + 1
        try:
            yield
        finally:
            counts[client] -= 1
            if not counts[client]:
                del counts[client]

    def _allow(self, headers: Headers, more: MutableHeaders) -> None:
        origin = headers.get("Origin")
        if origin in self.origins:
            more["Access-Control-Allow-Origin"] = origin or ""
            more["Vary"] = "Origin"


def is_of_the_page(scope: Scope) -> bool:
    """Return whether the page asks for this of Gradio, which would do much more than it needs."""
    place = scope["path"].removeprefix(PAGE_API)
    if place.startswith(FILE):  # of this machine, and not an address that it would fetch
        return scope["method"] in ("GET", "HEAD") and place.startswith(f"{FILE}/")
    return place.startswith(PAGE_ASKS)


class Seen:
    """The body of a request, bounded in size and time."""

    def __init__(self, receive: Receive, most_bytes: int, seconds: float):
        self._receive = receive
        self._most_bytes = most_bytes
        self._ends = time.monotonic() + seconds
        self._is_whole = False
        self.size = 0

    async def receive(self) -> Message:
        """Return the next part.

        Raises:
            Problem: 413 or 408.
        """
        if self._is_whole:
            return await self._receive()
        try:
            wait = max(0.0, self._ends - time.monotonic())
            message = await asyncio.wait_for(self._receive(), wait)
        except TimeoutError:
            raise Problem(408, "the upload took too long", {"Connection": "close"}) from None
        if message["type"] == "http.request":
            self.size += len(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
            if self.size > self._most_bytes:
                raise too_large(self._most_bytes)
        return message


def too_large(most_bytes: int) -> Problem:
    """Return the refusal of an upload."""
    return Problem(413, f"an upload may have at most {most_bytes:,} bytes", {"Connection": "close"})


class JsonLines(logging.Formatter):
    """One JSON object for each line of log; nothing of what an image holds or is called."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1]:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)
