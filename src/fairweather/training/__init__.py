"""Recipe → checkpoint. What trains needs the extra `train`; reading recipes does not."""

import lazy_loader

from fairweather.errors import MissingExtraError, installing

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    """Import a public name; if what it needs is missing, say what installs it."""
    try:
        return _load(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.startswith("fairweather"):
            raise
        raise MissingExtraError(
            f"training needs {missing.name}; install it with: {installing('train')}"
        ) from missing
