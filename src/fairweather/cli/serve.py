"""`fairweather serve`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from fairweather.cli.options import Device, Precision, Threads
from fairweather.errors import MissingExtraError, OptionError, installing


def serve_command(
    *,
    host: Annotated[
        str,
        typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at.")] = 7860,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help="File with a key that programs must show; there is no page then."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="A page elsewhere that may ask, as https://example.org; repeatable."),
    ] = None,
    page: Annotated[bool, typer.Option(help="Whether there is a page.")] = True,
    device: Device = "auto",
    engine: Annotated[str, typer.Option(help="What runs the network; see restore.")] = "auto",
    precision: Precision = "fp32",
    threads: Threads = None,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait.")] = 32,
    max_upload_mib: Annotated[int, typer.Option(min=1, help="Of one request.")] = 200,
    max_pixels: Annotated[int, typer.Option(min=1, help="Of one photograph.")] = 100_000_000,
    max_seconds: Annotated[
        float, typer.Option(min=1, help="Work on one request; jobs may take longer.")
    ] = 600,
    folder: Annotated[
        Path | None, typer.Option(help="Where temporary files go.", show_default="the system's")
    ] = None,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray",
            help="Restore in processes of Ray Serve, here or on the cluster of RAY_ADDRESS.",
        ),
    ] = False,
    replicas: Annotated[
        int | None,
        typer.Option(min=1, help="Of these processes.", show_default="one for each core or GPU"),
    ] = None,
) -> None:
    """Serve a page and a REST service from this machine.

    Open http://127.0.0.1:7860, or post photographs to /v1/restore. Nothing leaves the machine.
    SIGTERM and Ctrl-C finish what was accepted. The log goes to standard error as JSON lines.
    """
    try:
        from fairweather.serving import Limits, log_as_json, read_key, serve
    except ModuleNotFoundError as missing:
        raise MissingExtraError(
            "the service needs FastAPI and Gradio, which are missing; install them with:"
            f" {installing('serve')}"
        ) from missing
    from fairweather.hardware import keep_freed_memory, use_threads

    if replicas is not None and not ray:
        raise OptionError("--replicas goes with --ray; without it --threads says how many cores")
    key = None if api_key_file is None else read_key(api_key_file)
    keep_freed_memory()
    use_threads(threads)
    log_as_json()
    limits = Limits(
        queue=queue, upload_bytes=max_upload_mib * 2**20, pixels=max_pixels, seconds=max_seconds
    )
    if ray:
        start_on_ray(
            host=host,
            port=port,
            replicas=replicas,
            limits=limits,
            api_key=key,
            origins=allow_origin or [],
            page=page,
            folder=folder,
            device=device,
            engine=engine,
            precision=precision,
        )
        return
    serve(
        host=host,
        port=port,
        limits=limits,
        api_key=key,
        origins=allow_origin or (),
        page=page,
        folder=folder,
        device=device,
        engine=engine,
        precision=precision,
    )


def start_on_ray(
    *, host: str, port: int, replicas: int | None, device: str, **settings: Any
) -> None:
    """Serve on Ray, with one restorer for each core or GPU unless it is told how many."""
    try:
        from fairweather.serving import Settings, serve_on_ray
    except ModuleNotFoundError as missing:
        raise MissingExtraError(
            f"--ray needs Ray, which is missing; install it with: {installing('ray')}"
        ) from missing
    import torch

    from fairweather.hardware import pick_device

    on_gpu = pick_device(device).type == "cuda"
    found = torch.cuda.device_count() if on_gpu else torch.get_num_threads()
    made = Settings(replicas=replicas or max(1, found), gpus=int(on_gpu), device=device, **settings)
    serve_on_ray(made, host=host, port=port)
