"""The weights that come with the package, by name; listing them imports nothing heavy."""

from pathlib import Path

WEIGHTS_FOLDER = Path(__file__).parent.parent / "weights"
# In a folder of its own: what lies in WEIGHTS_FOLDER itself restores.
CLASSIFIER_WEIGHTS = WEIGHTS_FOLDER / "classifier" / "classifier.safetensors"


def list_weights() -> dict[str, Path]:
    """Return the bundled weights: name → file."""
    return {path.stem: path for path in sorted(WEIGHTS_FOLDER.glob("*.safetensors"))}
