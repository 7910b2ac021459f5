"""Numbered image files as the frames of one clip: `frame_%06d.png`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fairweather.errors import TAKEN, FileTakenError, ImageError
from fairweather.imaging import Chroma, Photo, check_writable, read_image, write_image
from fairweather.restoration.options import Existing
from fairweather.restoration.shots import FrameRestorer, RestoredClip, restore_frames
from fairweather.restoration.tiled import OnTile

NUMBER = re.compile(r"%(0\d+)?d")


def is_sequence(path: Path) -> bool:
    """Return whether a path stands for numbered files, as FFmpeg writes it: `%06d` or `%d`."""
    return len(NUMBER.findall(path.name)) == 1 and not path.exists()


def numbered(name: str, number: int) -> str:
    """Return a name with one `%06d` that stands for a number."""
    return NUMBER.sub(lambda found: str(number).zfill(int(found[1] or 0)), name)


def find_frames(pattern: Path) -> dict[int, Path]:
    """Return the files that a path with one `%06d` stands for, by their number.

    Raises:
        ImageError: if there are none, one is missing between them, or two have the same number.
    """
    before, width, after = NUMBER.split(pattern.name)
    name = re.compile(f"{re.escape(before)}([0-9]{{{max(1, int(width or 1))},}}){re.escape(after)}")
    found: dict[int, Path] = {}
    folder = pattern.parent
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if match := name.fullmatch(path.name):
            number = int(match[1])
            if number in found:
                raise ImageError(f"'{pattern}': '{found[number]}' and '{path}' have one number")
            found[number] = path
    if not found:
        raise ImageError(f"'{pattern}' matches no image")
    for number in range(min(found), max(found)):
        if number not in found:
            raise ImageError(
                f"'{pattern}' has no number {number}; frames follow one another without gaps"
            )
    return dict(sorted(found.items()))


def restore_sequence(
    restorer: FrameRestorer,
    pattern: Path,
    target: Path,
    *,
    existing: Existing = "refuse",
    calm: bool = False,
    on_frame: OnTile | None = None,
    reading: dict[str, Any] | None = None,
    quality: int | None = None,
    chroma: Chroma | None = None,
) -> RestoredClip:
    """Restore numbered files as the frames of a clip; each target appears whole or not at all.

    Args:
        restorer: what restores a frame.
        pattern: of the files, with one `%d` or `%06d`.
        target: of the files that are written, with one too; numbers stay.
        existing: what to do where a target exists; `skip` goes on behind those that are there.
        calm: as for `restore_frames`.
        on_frame: called with (frames done, frames in all).
        reading: options of `read_image`.
        quality: of `write_image`.
        chroma: the same.

    Raises:
        ImageError: if a frame cannot be read or written, or has another size than the first.
    """
    if len(NUMBER.findall(target.name)) != 1:
        raise ImageError(
            f"'{target}': the frames of '{pattern}' are written to numbered files; name them with"
            " one %06d"
        )
    files = find_frames(pattern)
    targets = [target.with_name(numbered(target.name, number)) for number in files]
    if clash := {path.resolve() for path in targets} & {path.resolve() for path in files.values()}:
        raise ImageError(f"'{min(clash)}' would be overwritten by its own result; use another -o")
    there = [path for path in targets if path.exists()]
    if there and existing == "refuse":
        raise FileTakenError(f"'{there[0]}' {TAKEN}")
    done = next((i for i, path in enumerate(targets) if not path.exists()), len(targets))
    skip = done if existing == "skip" else 0
    check_writable(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    size: tuple[int, int] = (0, 0)

    def photos() -> Iterator[Photo]:
        nonlocal size
        for path in files.values():
            photo = read_image(path, **(reading or {}))
            size = size if any(size) else photo.pixels.shape[:2]
            if photo.pixels.shape[:2] != size:
                raise ImageError(
                    f"'{path}': is {photo.pixels.shape[1]} × {photo.pixels.shape[0]}, and those"
                    f" before it are {size[1]} × {size[0]}; frames of a clip have one size"
                )
            yield photo

    notes: dict[str, None] = {}
    coding: dict[str, Any] = {"quality": quality, "chroma": chroma}
    restored = restore_frames(restorer, photos(), calm=calm, skip=skip)
    for count, (path, photo) in enumerate(zip(targets[skip:], restored, strict=True), skip + 1):
        is_new = existing != "skip" or not path.exists()
        if is_new:
            written = write_image(path, photo, **coding, overwrite=existing == "overwrite")
            notes |= dict.fromkeys((*photo.notes, *written))
        if on_frame is not None:
            on_frame(count, len(targets))
    return RestoredClip(*size, len(targets), tuple(notes))
