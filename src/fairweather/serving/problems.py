"""Errors as problem details (RFC 9457), which programs and people understand."""

import errno
import http
import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from fairweather.errors import FairweatherError, MissingExtraError
from fairweather.serving.studio import BusyError, LostError
from fairweather.serving.workplace import without_paths

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = "5"  # for what is soon over
FOR_OPERATORS = re.compile(r"(; if you trust the file|, or restore what there is with --).*")
log = logging.getLogger(__name__)

# What each status means here, for the description of the service.
MEANINGS = {
    400: "The form cannot be read, or has too many parts.",
    401: "The API key is missing or wrong.",
    403: "The request comes from a page of another site.",
    404: "There is no such thing.",
    405: "This address does not take this method.",
    406: "None of the asked formats is written.",
    408: "The request arrived too slowly.",
    409: "The job is not done yet.",
    413: "The upload is larger than this service takes.",
    415: "The upload is no photograph that is read here.",
    422: "The photograph cannot be restored, or an option is wrong.",
    429: "Too many requests wait; `Retry-After` says when to come again.",
    503: "The service is starting, about to stop, or without any worker process.",
}


class Problem(HTTPException):
    """A refusal with its reason."""


def problem_response(
    status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """Return an answer that tells what is wrong.

    Args:
        status: of HTTP.
        detail: for a person, in one or two sentences.
        headers: further ones.
        more: further members.
    """
    title = http.HTTPStatus(status).phrase
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return Response(json.dumps(document), status, headers, MEDIA_TYPE)


def described(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what an operation answers besides its result, for OpenAPI."""
    schema = {"$ref": "#/components/schemas/Problem"}
    found: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        example = {
            "type": "about:blank",
            "title": http.HTTPStatus(status).phrase,
            "status": status,
            "detail": MEANINGS[status],
        }
        found[status] = {
            "description": MEANINGS[status],
            "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
        }
        if status in (429, 503):
            found[status]["headers"] = {
                "Retry-After": {"description": "seconds", "schema": {"type": "integer"}}
            }
    return found


def for_clients(error: BaseException, folder: Path) -> str:
    """Return what an error says, without paths and without the way out for those who run it.

    Args:
        error: what was raised.
        folder: of the service, in which all of its files lie.
    """
    return without_paths(FOR_OPERATORS.sub("", str(error)), folder)


def wrong_fields(errors: Iterable[Any]) -> list[dict[str, str]]:
    """Return where something is wrong and what, of errors as pydantic lists them."""
    return [
        {
            "where": ".".join(map(str, one["loc"])),
            "what": one["msg"].removeprefix("Value error, "),
        }
        for one in errors
    ]


def in_words(wrong: Iterable[dict[str, str]]) -> str:
    """Return what `wrong_fields` found as one line."""
    return "; ".join(f"{one['where']}: {one['what']}" for one in wrong)


def as_problem(error: Exception, folder: Path) -> Response:
    """Return the answer to an error of ours, of a service with that folder."""
    text = for_clients(error, folder)
    if isinstance(error, BusyError):
        return problem_response(429, text, headers={"Retry-After": f"{error.seconds:.0f}"})
    if isinstance(error, LostError):
        return problem_response(503, text, headers={"Retry-After": RETRY_SECONDS})
    is_strange = "is not an image" in text or "convert it to JPEG" in text
    if isinstance(error, MissingExtraError) or is_strange:
        return problem_response(415, text)
    return problem_response(422, text)


def methods_at(request: Request) -> set[str]:
    """Return the methods that the address of a request takes."""
    path = request.scope["path"]
    routes = [one for one in request.app.routes if isinstance(one, Route)]
    found = [one for one in routes if one.path_regex.match(path) and one.include_in_schema]
    return {way for one in found for way in one.methods or ()}


def add_handlers(app: FastAPI, folder: Path) -> None:
    """Answer every error with problem details; folder is that of the service."""

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        headers = dict(error.headers or {})
        if error.status_code == 405:  # of one route; others have the same address
            headers["Allow"] = ", ".join(sorted(methods_at(request)))
        return problem_response(error.status_code, str(error.detail), headers=headers)

    async def on_validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        wrong = wrong_fields(error.errors())
        return problem_response(422, in_words(wrong), errors=wrong)

    async def on_ours(request: Request, error: Exception) -> Response:
        return as_problem(error, folder)

    async def on_strange_text(request: Request, error: Exception) -> Response:
        return problem_response(400, "the form's text cannot be read")

    async def on_gone(request: Request, error: Exception) -> Response:
        return problem_response(400, "the upload broke off")

    async def on_system(request: Request, error: Exception) -> Response:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            log.error("no space is left for uploads")
            return problem_response(503, "no space is left here", headers={"Retry-After": "60"})
        return await on_bug(request, error)

    async def on_bug(request: Request, error: Exception) -> Response:
        log.error("unexpected: %s", type(error).__name__, exc_info=error)
        return problem_response(500, "something is broken here; the log of the service says what")

    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(FairweatherError, on_ours)
    app.add_exception_handler(UnicodeError, on_strange_text)
    app.add_exception_handler(LookupError, on_strange_text)  # of an encoding that there is not
    app.add_exception_handler(ClientDisconnect, on_gone)
    app.add_exception_handler(OSError, on_system)
    app.add_exception_handler(Exception, on_bug)
