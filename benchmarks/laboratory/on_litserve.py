"""Photographs restored on LitServe (`pip install litserve`), for the comparison of services."""

import base64
import importlib
import io
from typing import Annotated, Any

import numpy as np
import typer
from fastapi import Response
from PIL import Image

from fairweather import Restorer
from fairweather.hardware import keep_freed_memory, use_threads
from laboratory.load import encoded

litserve: Any = importlib.import_module("litserve")


class Restoring(litserve.LitAPI):
    """JSON with a photograph in Base64 → a PNG, on one core of each process."""

    def setup(self, device: Any) -> None:
        """Load the weights, in each process."""
        use_threads(1)
        keep_freed_memory()
        self.restorer = Restorer("rain", device="cpu")

    def decode_request(self, request) -> np.ndarray:
        """Return the photograph."""
        with Image.open(io.BytesIO(base64.b64decode(request["photo"]))) as image:
            return np.asarray(image)

    def predict(self, photo: np.ndarray) -> np.ndarray:
        """Restore it."""
        return self.restorer.restore_pixels(photo)

    def encode_response(self, output: np.ndarray) -> Response:
        """Return the answer."""
        return Response(encoded(output), media_type="image/png")


def main(
    *,
    port: Annotated[int, typer.Option(help="To listen at.")],
    workers: Annotated[int, typer.Option(help="Processes that restore.")],
) -> None:
    """Serve until SIGTERM."""
    server = litserve.LitServer(
        Restoring(), accelerator="cpu", devices=1, workers_per_device=workers, timeout=600
    )
    server.run(host="127.0.0.1", port=port, generate_client_file=False)


if __name__ == "__main__":
    typer.run(main)
