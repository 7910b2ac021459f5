"""The sheets in docs are what the code beside them makes of scikit-image's own photographs."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["degradations", "gallery"])
def test_sheets_are_what_their_code_makes(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DOCS / f"{page}.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    shown = {Path(path).name for path in re.findall(r"!\[.+?\]\((images/.+?)\)", text)}
    monkeypatch.chdir(tmp_path)
    exec(compile(code, f"{page}.md", "exec"), {})
    assert {path.name for path in tmp_path.glob("*.jpg")} == shown
    for name in shown:
        made, ours = (read(folder / name) for folder in (tmp_path, DOCS / "images"))
        assert made.shape == ours.shape, name
        assert np.abs(made - ours).mean() < 1, name  # of 255; another sheet differs by tens


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float32)
