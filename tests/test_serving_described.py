"""The REST service against its own description, with requests that are made up from it."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="NOT TESTED: the service, because the extra serve is missing")
if importlib.util.find_spec("schemathesis") is None:
    pytest.skip("NOT TESTED: the description, without schemathesis", allow_module_level=True)

from served import serving

# A description cannot say what makes bytes a photograph, so requests that fit it may be refused.
EXCLUDED = "positive_data_acceptance"


@pytest.mark.slow
def test_every_answer_is_as_described(tmp_path: Path) -> None:
    with serving(tmp_path, "--no-page") as served:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "schemathesis"), "run"),
                *(f"{served.url}/openapi.json", "--checks", "all", "--exclude-checks", EXCLUDED),
                *("-n", "100", "--phases", "examples,coverage,fuzzing", "--seed", "1"),
                *("--request-timeout", "100"),  # its default is short for a busy machine
            ],
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]
        statuses = [line.get("status") for line in served.lines if line.get("route")]
    assert len(statuses) > 500
    assert not {500, 501, 502, 504} & set(statuses)  # 503 is what it answers before it is ready
