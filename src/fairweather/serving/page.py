"""The page: a photograph in, before and after, and the file that the command would write."""

import asyncio
import contextlib
import dataclasses
import functools
import html
import math
import os
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when Gradio is imported

import gradio as gr
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fairweather.data import degrade_pixels
from fairweather.errors import FairweatherError
from fairweather.imaging import (
    HEAD_BYTES,
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Photo,
    has_video,
    read_image,
    suffix_of,
    write_image,
)
from fairweather.restoration import Restored
from fairweather.serving.guard import UPLOAD
from fairweather.serving.jobs import JobFile, shown_name, zip_files
from fairweather.serving.problems import Problem, for_clients, problem_response
from fairweather.serving.service import Service
from fairweather.serving.studio import BusyError, Ticket
from fairweather.serving.uploads import RestoreOptions, clip_suffix, restore_upload
from fairweather.serving.workplace import PAGE, RESULTS

PREVIEW_QUALITY = 92
KEPT_SECONDS, SWEEP_SECONDS = 3600, 300
TITLE = "fairweather"
INTRODUCTION = """
# fairweather

Takes rain, raindrops, haze, snow, shadows and moiré out of photographs. Everything happens on this
machine; nothing is sent anywhere.
"""
DEGRADATIONS = {
    "Find out": "auto",
    "Rain": "rain",
    "Raindrops": "raindrop",
    "Haze": "haze",
    "Snow": "snow",
    "Shadow": "shadow",
    "Moiré": "moire",
    "Weather of any kind": "weather",
}
EXAMPLES = {"rain": "rocket", "haze": "coffee", "snow": "chelsea"}
EXAMPLE_SEED = 1
FIRST_BYTES = re.compile(r" \(its first bytes are .*?\)(?=;)")  # for programmers
# With enough contrast to be read, light and dark.
COLOURS = {
    **dict.fromkeys(("button_primary_background_fill", "slider_color"), "#1d4ed8"),
    "button_primary_background_fill_dark": "#1d4ed8",
    "button_primary_background_fill_hover": "#1e40af",
    "button_primary_background_fill_hover_dark": "#1e40af",
    "block_info_text_color": "#4b5563",
    "block_info_text_color_dark": "#d1d5db",
    "body_text_color_subdued": "#4b5563",
    "body_text_color_subdued_dark": "#d1d5db",
}
WAITING = "The restored photograph appears here."
WAITING_MANY = "What becomes of each file appears here."
STYLE = """
.gradio-container { max-width: 1100px !important; margin: auto; }
body:not(.dark) button[role=tab].selected { color: #1d4ed8 !important; }
input[type=range]::-webkit-slider-thumb { border: 2px solid #1d4ed8; }
input[type=range]::-moz-range-thumb { border: 2px solid #1d4ed8; }
.told { min-height: 4rem; }
:focus-visible { outline: 3px solid #2563eb !important; outline-offset: 2px; }
"""


def as_uploaded(payload: Any) -> str | None:
    """Hand on the file of an image input as it is; Gradio would open and write it again."""
    return None if payload is None else payload.path


def refuse_addresses(component: gr.File | gr.Image) -> None:
    """Let an input take what was uploaded alone: Gradio would fetch an address."""
    move = component.async_move_resource_to_block_cache

    async def move_local(url_or_file_path: str | Path | None) -> str | None:
        if "://" in str(url_or_file_path):
            raise refused("Upload the file itself; addresses are not fetched.")
        return await move(url_or_file_path)

    component.async_move_resource_to_block_cache = move_local


def mount_page(app: FastAPI, service: Service) -> FastAPI:
    """Put the page at the root of an application."""
    os.environ["GRADIO_TEMP_DIR"] = str(service.folder / PAGE)
    theme = gr.themes.Default(  # type: ignore[reportPrivateImportUsage]
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    ).set(**COLOURS)
    page = make_page(service)
    page.has_launched = True  # or else Gradio takes any path of this machine for an upload
    app.add_middleware(Uploads, folder=service.folder / PAGE)
    return gr.mount_gradio_app(
        app,
        page,
        path="",
        theme=theme,
        css=STYLE,
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=service.limits.upload_bytes,
    )


class Uploads:
    """ASGI middleware: remove what is left of uploads that broke off; Gradio keeps it.

    It writes into loose files, and moves those of a whole upload into folders.
    """

    def __init__(self, app: ASGIApp, *, folder: Path):
        """Stand before an application whose uploads lie in a folder."""
        self.app = app
        self.folder = folder
        self.begun: list[float] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if not scope.get("path", "").startswith(UPLOAD):
            await self.app(scope, receive, send)
            return
        is_gone = False

        async def watched() -> Message:
            nonlocal is_gone
            message = await receive()
            is_gone = is_gone or message["type"] == "http.disconnect"
            return message

        async def answer(message: Message) -> None:
            if not is_gone:
                await send(message)

        begun = time.time() - 1  # clocks of files are coarser
        self.begun.append(begun)
        try:
            await self.app(scope, watched, answer)
        except Exception:
            if not is_gone:
                raise
            await problem_response(400, "the upload broke off")(scope, receive, send)
        finally:
            self.begun.remove(begun)
            oldest = min(self.begun, default=math.inf)
            for path in self.folder.glob("*"):
                with contextlib.suppress(OSError):
                    if path.is_file() and path.stat().st_mtime < oldest:
                        path.unlink()


def make_page(service: Service) -> gr.Blocks:
    """Make the page."""
    with gr.Blocks(
        title=TITLE, analytics_enabled=False, delete_cache=(SWEEP_SECONDS, KEPT_SECONDS)
    ) as page:
        gr.Markdown(INTRODUCTION)
        with gr.Tab("One photograph"):
            one_photograph(service)
        with gr.Tab("Several files"):
            several_files(service)
    page.queue(
        default_concurrency_limit=service.studio.workers, max_size=max(1, service.limits.queue)
    )
    return page


def choices() -> tuple[gr.Dropdown, gr.Slider]:
    """Return the controls of how to restore."""
    task = gr.Dropdown(list(DEGRADATIONS.items()), value="auto", label="What spoils it")
    strength = gr.Slider(
        0, 1, value=1, step=0.05, label="Strength", info="0 leaves it, 1 restores it fully"
    )
    return task, strength


def one_photograph(service: Service) -> None:
    """Lay out the tab for one photograph."""
    with gr.Row():
        with gr.Column():
            photo = gr.Image(
                sources=["upload", "clipboard", "webcam"],
                label="Photograph",
                image_mode=None,
                height=320,
            )
            photo.preprocess = as_uploaded
            refuse_addresses(photo)
            task, strength = choices()
            start = gr.Button("Restore", variant="primary")
        with gr.Column():
            slider = gr.ImageSlider(
                label="Before and after",
                type="filepath",
                interactive=False,
                max_height=520,
                visible=False,
                buttons=["fullscreen"],  # a download would be that of a preview
            )
            found = gr.Markdown(WAITING, elem_id="found", elem_classes="told")
            download = gr.DownloadButton("Download the result", variant="primary", visible=False)
    # Not gr.Examples: what that asks for is refused, and its answer would make a new `photo`.
    examples = gr.Dataset(
        components=[photo, task],
        samples=make_examples(service.folder / "examples"),
        label="Examples",
        type="values",
    )
    examples.click(tuple, examples, [photo, task], api_visibility="private", show_progress="hidden")

    async def restore(path: str | None, task: str, strength: float) -> tuple[Any, ...]:
        if path is None:
            raise refused("Choose a photograph first.")
        options = RestoreOptions(task=task, strength=strength)
        result = await restore_for_page(service, Path(path), options)
        previews = await asyncio.to_thread(make_previews, result)
        shown = gr.ImageSlider(value=previews, visible=True)
        file = gr.DownloadButton(value=result.target, visible=True)
        return shown, describe(result, options), file

    def clear() -> tuple[Any, ...]:
        """Show no result, since it is that of another photograph."""
        slider = gr.ImageSlider(value=None, visible=False)
        return slider, WAITING, gr.DownloadButton(value=None, visible=False)

    outputs = [slider, found, download]
    start.click(restore, [photo, task, strength], outputs, api_visibility="private")
    photo.change(clear, outputs=outputs, api_visibility="private", show_progress="hidden")


def several_files(service: Service) -> None:
    """Lay out the tab for several files."""
    suffixes = sorted(IMAGE_SUFFIXES) + (list(VIDEO_SUFFIXES) if has_video() else [])
    files = gr.File(file_count="multiple", file_types=suffixes, label="Photographs or clips")
    refuse_addresses(files)
    task, strength = choices()
    start = gr.Button("Restore all", variant="primary")
    outcome = gr.Markdown(WAITING_MANY, elem_classes="told")
    download = gr.DownloadButton("Download all as a zip", variant="primary", visible=False)

    async def restore(
        paths: list[str] | None,
        task: str,
        strength: float,
        progress: Any = gr.Progress(),  # noqa: B008
    ) -> tuple[str, Any]:
        if not paths:
            raise refused("Choose some files first.")
        if len(paths) > service.limits.job_files:
            raise refused(f"At most {service.limits.job_files} files at once, please.")
        options = RestoreOptions(task=task, strength=strength)
        rows: list[str] = []
        done: list[JobFile] = []
        for path in progress.tqdm([Path(one) for one in paths], unit="files"):
            try:
                result = await restore_for_page(service, path, options)
                done.append(JobFile(path, path.name, restored=result))
                told = describe(result, options).replace("\n- ", " ").replace("\n", " ")
                rows.append(f"- {escaped(path.name)}: {told}")
            except gr.Error as error:
                rows.append(f"- {escaped(path.name)}: **not restored**, {escaped(error.message)}")
        if not done:
            return "\n".join(rows), gr.DownloadButton(value=None, visible=False)
        archive = Path(tempfile.mkdtemp(prefix=RESULTS, dir=service.folder), "restored.zip")
        await asyncio.to_thread(zip_files, done, archive)
        return "\n".join(rows), gr.DownloadButton(value=archive, visible=True)

    def clear() -> tuple[Any, ...]:
        """Show no result, since it is that of other files."""
        return WAITING_MANY, gr.DownloadButton(value=None, visible=False)

    outputs = [outcome, download]
    start.click(restore, [files, task, strength], outputs, api_visibility="private")
    files.change(clear, outputs=outputs, api_visibility="private", show_progress="hidden")


async def restore_for_page(service: Service, path: Path, options: RestoreOptions) -> Restored:
    """Restore an upload in its turn.

    Raises:
        gr.Error: what a person may be told, if it cannot be.
    """
    try:
        service.must_be_open()
    except Problem as problem:
        raise refused(f"Try again in a moment: {problem.detail}.") from problem
    folder = Path(tempfile.mkdtemp(prefix=RESULTS, dir=service.folder))
    ticket = Ticket(seconds=service.limits.seconds)
    try:
        work = functools.partial(restore_copy, service, folder, path, ticket, options)
        return await service.studio.run(work, ticket)
    except BusyError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise refused(f"Many people wait; try again in {error.seconds:.0f} seconds.") from error
    except (FairweatherError, OSError, MemoryError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        text = FIRST_BYTES.sub("", for_clients(error, service.folder))
        raise refused(text) from error


def restore_copy(
    service: Service, folder: Path, path: Path, ticket: Ticket, options: RestoreOptions
) -> Restored:
    """Restore a copy of an upload whose name we chose; the result is called as the upload is."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    suffix = clip_suffix(head, path.name) or suffix_of(head, name="the file")
    source = (folder / "upload").with_suffix(suffix)
    shutil.copyfile(path, source)
    restored = restore_upload(service, folder / "results", source, ticket, options)
    name = shown_name(path.name, 1, suffix=restored.target.suffix)
    target = restored.target.rename(restored.target.with_name(name))
    return dataclasses.replace(restored, target=target)


def make_previews(restored: Restored) -> tuple[str, str]:
    """Return before and after as files that every browser shows, in full size."""
    paths = []
    for name, path in (("before", restored.source), ("after", restored.target)):
        photo = read_image(path)
        preview = restored.target.parent / f"{name}.jpg"
        write_image(
            preview, Photo(photo.pixels, photo.alpha), quality=PREVIEW_QUALITY, overwrite=True
        )
        paths.append(str(preview))
    return paths[0], paths[1]


def describe(restored: Restored, options: RestoreOptions) -> str:
    """Return what a person is told of a result."""
    lines = []
    told, said = restored.diagnosis, "Found"
    while told is not None:
        lines.append(f"{said}: **{told.degradation}**, {told.probability:.0%} certain.")
        told, said = told.then, "Then in the result"
    size = f"{restored.width} × {restored.height} px"
    lines.append(f"{size}, at {options.strength:.0%} strength, in {restored.seconds:.1f} s.")
    if restored.levels:
        lines.append(f"Restored coarse to fine, from 1/{2**restored.levels} of its size on.")
    for note in restored.notes:
        text = note.replace("--task restores", "choosing it above restores").rstrip(".")
        lines.append(f"- {text[:1].upper()}{text[1:]}.")
    return "\n".join(lines)


def refused(text: str) -> gr.Error:
    """Return an error that a person is told of; the log needs none of it."""
    return gr.Error(text, print_exception=False)


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is."""
    return re.sub(r"([\\`*_{}\[\]<>()#+!|~-])", r"\\\1", html.escape(text, quote=False))


def make_examples(folder: Path) -> list[list[str]]:
    """Write photographs of scikit-image, which are free, under synthetic degradations."""
    import skimage.data

    folder.mkdir(exist_ok=True)
    rows = []
    for task, name in EXAMPLES.items():
        path = folder / f"{name} in {task}.png"
        clean = getattr(skimage.data, name)()
        with contextlib.suppress(FileExistsError):
            write_image(path, Photo(degrade_pixels(clean, task=task, seed=EXAMPLE_SEED)))
        rows.append([str(path), task])
    return rows
