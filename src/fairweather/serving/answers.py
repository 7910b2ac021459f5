"""What requests and answers hold, for the routes and for their description."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from fairweather.serving.uploads import CHUNK, MEDIA_TYPES

BINARY = {"schema": {"type": "string", "format": "binary"}}
IMAGES = {media: BINARY for media in MEDIA_TYPES.values() if media.startswith("image")}
ONE_FILE = {"type": "object", "required": ["file"], "properties": {"file": BINARY["schema"]}}
MANY_FILES = {
    "type": "object",
    "required": ["file"],
    "properties": {"file": {"type": "array", "items": BINARY["schema"], "minItems": 1}},
}


def body_of(form: dict[str, Any], *media: str) -> dict[str, Any]:
    """Return what a body is, for OpenAPI."""
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}}
    return {"requestBody": {"required": True, "content": content | dict.fromkeys(media, BINARY)}}


class FileOnce(StreamingResponse):
    """A file as an answer, and what is cleaned up behind it, also if the client has gone."""

    def __init__(
        self, path: Path, left: contextlib.ExitStack, headers: dict[str, str], media: str | None
    ):
        headers = headers | {"Content-Length": str(path.stat().st_size)}
        kind = media or "application/octet-stream"
        super().__init__(chunks_of(path), headers=headers, media_type=kind)
        self.left = left

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self.left:
            await super().__call__(scope, receive, send)


def chunks_of(path: Path) -> Iterator[bytes]:
    """Yield a file."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk
