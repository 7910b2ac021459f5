"""What a benchmark of speed writes, made up, for the tests of what reads it."""

from typing import Any


def contestant(name: str, *, role: str, times: dict[str, float], peak_bytes: int) -> dict[str, Any]:
    return {
        "name": name,
        "role": role,
        "processor_s": {"median": 1.0, "best": 0.9},
        "wall_s": {"median": 2.0, "best": 1.8},
        "peak_bytes": peak_bytes,
        "megapixels_per_s": 3.0,
        "gflop_per_s": 4.0,
        "share_of_matrix_ceiling": 0.25,
        "largest_difference": 1e-6,
        "faster_than": times,
    }


OFFICIAL = "official, as shipped"
EXAMPLE: dict[str, Any] = {
    "format": "fairweather speed 1",
    "kind": "restore",
    "date": "2026-01-02",
    "command": "fairweather benchmark restore",
    "machine": {
        "processor": "A", "instructions": "B", "cores": 2, "memory_bytes": 2**30, "gpu": None,
        "system": "Linux", "python": "3.11", "load_average": [0.5, 1.0, 2.0],
    },
    "versions": {"torch": "2"},
    "setting": {
        "device": "cpu", "precision": "fp32", "threads": 1, "rounds": 2, "official": None,
    },
    "model": {"name": "ast_t", "weights": "drawn with seed 0", "parameters": 1_000_000},
    "runs": [
        {
            "shape": [1, 720, 1280],
            "official_shape": [1, 1280, 1280],
            "official_checked_at": [256, 256],
            "load": {"gflop": 5.0, "gbytes": 0.5, "megapixels": 0.9},
            "ceiling": {"matrix_gflop_per_s": {"median": 9.0, "best": 9.5},
                        "matrix_routine": "oneDNN", "matrix_side": 2048},
            "contestants": [
                contestant("torch", role="engine", times={OFFICIAL: 12.0}, peak_bytes=500),
                contestant(OFFICIAL, role="official", times={"torch": 1 / 12}, peak_bytes=3500),
            ],
            "largest_change": 0.3,
            "faults": ["onnxruntime: ended"],
        }
    ],
}  # fmt: skip
