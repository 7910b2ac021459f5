"""Restore photographs spoiled by rain, raindrops, haze, snow, shadows or moiré.

import fairweather as fw

fw.restore("rainy.jpg", "restored.png")
restorer = fw.Restorer("rain")
restored = restorer(image)

The networks are AST, the Adaptive Sparse Transformer (Zhou et al., CVPR 2024). Names are imported
when they are first used; `__init__.pyi` lists where they come from.
"""

import os
import sys

import lazy_loader

# Nobody is told what is done here. These libraries would look up a host as soon as they are
# imported, so this stands before every import of them: it is how each of them is told not to.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # OpenVINO and NNCF

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __getattr__(name: str) -> object:
    """Import a public name, or work out one that no module holds."""
    if name == "__version__":
        from importlib.metadata import version

        return version("fairweather")
    if name == "classify_damage":
        import warnings

        message = "fairweather.classify_damage is now called fairweather.classify_degradation"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        name = "classify_degradation"
    return _load(name)
