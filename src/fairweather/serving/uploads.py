"""Requests → files with names of our own, and what is asked of them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Request
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
)
from starlette.datastructures import UploadFile

from fairweather.errors import ImageError, OptionError
from fairweather.imaging import HEAD_BYTES, VIDEO_SUFFIXES, suffix_of
from fairweather.models import list_weights
from fairweather.restoration import Restored, list_finishes
from fairweather.serving.problems import Problem, in_words, wrong_fields
from fairweather.serving.service import Service
from fairweather.serving.studio import Ticket

CHUNK = 1 << 20
OTHER_FIELDS = 4  # of a form, which are not read
UPLOAD = "upload"  # what errors call a file
MULTIPART = "multipart/form-data"
IDENTITY = "identity"  # no Content-Encoding
# Of what is written, by suffix.
MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".avif": "image/avif",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
    ".heic": "image/heic",
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
}
CLIP_SIGNATURES = {b"\x1aE\xdf\xa3": ".mkv", b"RIFF": ".avi"}
FTYP = slice(4, 8)

Format = Literal["jpg", "png", "webp", "tif", "avif", "bmp", "gif", "heic"]
Levels = Literal["auto", "0", "1", "2", "3"]


def one_of(*names: str) -> Any:
    """Return a type of pydantic: text that is one of some names, which are found at run time."""

    def check(name: str) -> str:
        if name not in names:
            raise ValueError(f"is none of {', '.join(names)}")
        return name

    return Annotated[str, AfterValidator(check), WithJsonSchema({"enum": list(names)})]


if TYPE_CHECKING:
    Task = Finish = str
else:
    Task, Finish = one_of("auto", *list_weights()), one_of(*list_finishes())


class RestoreOptions(BaseModel):
    """How a photograph is restored; the names and the defaults of `fairweather restore`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: Task = Field(default="rain", description="The degradation; `auto` finds it.")
    strength: float = Field(default=1.0, ge=0, le=1, description="0, the input, to 1.")
    levels: Levels = Field(default="auto", description="How often it is halved, coarse to fine.")
    fast: bool = Field(default=False, description="A quick preview of one megapixel, handed on.")
    finish: Finish | None = Field(default=None, description="A last touch.")
    self_ensemble: bool = Field(default=False, description="Average over flips: better, slower.")
    format: Format | None = Field(
        default=None, description="Of the result; by default that of the upload."
    )
    quality: int | None = Field(
        default=None, ge=1, le=100, description="Of JPEG, WebP, AVIF and HEIC."
    )
    chroma: Literal["4:4:4", "4:2:2", "4:2:0"] | None = Field(
        default=None, description="Resolution of the colours in JPEG, AVIF, HEIC."
    )

    @classmethod
    def of(cls, given: dict[str, Any], *, where: str = "") -> "RestoreOptions":
        """Return options that a person gave.

        Args:
            given: by their names.
            where: what errors begin with.

        Raises:
            OptionError: if one is wrong.
        """
        try:
            return cls(**given)
        except ValidationError as error:
            raise OptionError(where + in_words(wrong_fields(error.errors()))) from error

    def of_restorer(self) -> dict[str, Any]:
        """Return what `Restorer.with_options` takes."""
        levels = "auto" if self.levels == "auto" else int(self.levels)
        names = ("strength", "fast", "finish", "self_ensemble")
        return {"levels": levels, **{name: getattr(self, name) for name in names}}

    def of_file(self) -> dict[str, Any]:
        """Return how the result is written."""
        return {name: getattr(self, name) for name in ("format", "quality", "chroma")}


async def receive_files(
    request: Request, folder: Path, *, most: int, clips: bool = False
) -> list[tuple[Path, str]]:
    """Write what was uploaded to files.

    Args:
        request: its body is one file, or a form of files.
        folder: where; names are numbers and suffixes of what the files hold.
        most: how many there may be.
        clips: whether clips are taken.

    Returns:
        The files, and what they were called: for the user, never for a path.

    Raises:
        Problem: if there is none, or there are too many.
        ImageError: if one is no image.
    """
    if request.headers.get("Content-Encoding", IDENTITY).lower() != IDENTITY:
        raise Problem(415, "send the file as it is, without a Content-Encoding")
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind != MULTIPART:
        return [(await write_upload(request.stream(), folder / "0", "", clips=clips), "")]
    found: list[tuple[Path, str]] = []
    async with request.form(max_files=most, max_fields=OTHER_FIELDS) as form:  # or status 400
        uploads = [one for _, one in form.multi_items() if isinstance(one, UploadFile)]
        for index, upload in enumerate(uploads):
            name = (upload.filename or "").encode("utf-8", "replace").decode()
            path = await write_upload(chunks_of(upload), folder / str(index), name, clips=clips)
            found.append((path, name))
    if not found:
        raise Problem(422, "the form holds no file; name its field `file`")
    return found


async def chunks_of(upload: UploadFile) -> AsyncIterator[bytes]:
    """Yield the bytes of a file in a form."""
    while chunk := await upload.read(CHUNK):
        yield chunk


async def write_upload(chunks: AsyncIterator[bytes], path: Path, name: str, *, clips: bool) -> Path:
    """Write one file and give it the suffix of what it holds.

    Raises:
        ImageError: if it is no image, nor a clip where these are taken.
    """
    head = b""
    with path.open("wb") as file:
        async for chunk in chunks:
            head += chunk[: max(0, HEAD_BYTES - len(head))]
            file.write(chunk)
    suffix = clip_suffix(head, name) if clips else None
    return path.rename(path.with_suffix(suffix or suffix_of(head, name=UPLOAD)))


def clip_suffix(head: bytes, name: str) -> str | None:
    """Return the suffix of a clip, by what it holds and is called; None if it is none."""
    try:
        suffix_of(head, name="")
    except ImageError:
        told = next((s for magic, s in CLIP_SIGNATURES.items() if head.startswith(magic)), None)
        told = told or (".mp4" if head[FTYP] == b"ftyp" else None)
        given = Path(name).suffix.lower()
        return given if told and given in VIDEO_SUFFIXES else told
    return None


def choose_format(asked: str, *, source: Path) -> str | None:
    """Return the format that an Accept header asks for; None for that of the upload.

    Raises:
        Problem: 406 if none of them is written.
    """
    kinds = (one.partition(";")[0].strip().lower() for one in asked.split(","))
    wanted = [kind for kind in kinds if kind]
    own = MEDIA_TYPES.get(source.suffix)
    if not wanted or any(one in ("*/*", "image/*", own) for one in wanted):
        return None
    known = {media: suffix[1:] for suffix, media in MEDIA_TYPES.items() if media[:5] == "image"}
    for one in wanted:
        if one in known:
            return known[one]
    raise Problem(406, f"none of {', '.join(wanted[:8])} is written; {', '.join(known)} are")


def restore_upload(
    service: Service, folder: Path, source: Path, ticket: Ticket, options: RestoreOptions
) -> Restored:
    """Restore an uploaded file as it is asked for."""
    return service.studio.restore_file(
        source,
        folder,
        ticket,
        task=options.task,
        changes=options.of_restorer(),
        pixels=service.limits.pixels,
        **options.of_file(),
    )
