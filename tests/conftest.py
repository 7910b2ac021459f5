"""What all tests share: real images where there are some, and Hypothesis without deadlines."""

import os
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for parity.py, which is no test

hypothesis.settings.register_profile(
    "fairweather", deadline=None, print_blob=True, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("fairweather")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images; without it the test is skipped, and says so."""
    folder = os.environ.get("FAIRWEATHER_DATA")
    if not folder:
        pytest.skip("set FAIRWEATHER_DATA to a folder of real images to run this test")
    return Path(folder)


@pytest.fixture(scope="session")
def fk() -> Any:
    """The Keras wing, which is an extra and takes seconds to import."""
    import fairweather.keras

    return fairweather.keras
