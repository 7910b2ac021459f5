"""fairweather restores photographs spoiled by rain with AST, the Adaptive Sparse Transformer.

import fairweather as fw

fw.restore("rainy.jpg", "restored.png")
restorer = fw.Restorer("rain")
restored = restorer(image)
"""

from importlib.metadata import version

from fairweather.errors import FairweatherError
from fairweather.models import create_model, list_models, load_model
from fairweather.restoration import Restorer, classify_degradation, restore

__version__ = version("fairweather")

__all__ = [
    "FairweatherError",
    "Restorer",
    "__version__",
    "classify_degradation",
    "create_model",
    "list_models",
    "load_model",
    "restore",
]
