"""What fairweather raises: one tree, so that a caller can catch all of it or one kind.

A message names options as the command line has them, with Python's argument behind where that is
another word: `--overwrite (overwrite=True)`.
"""

TAKEN = "exists already; choose another name, or allow it with --overwrite (overwrite=True)"


class FairweatherError(Exception):
    """What fairweather refuses or cannot do; the message names the thing and the way out."""


class OptionError(FairweatherError, ValueError):
    """An option or argument outside of what is possible: a wrong call, not failed work."""


class ImageError(FairweatherError):
    """An image file or array that cannot be read, understood or written."""


class FileTakenError(ImageError):
    """A file that exists already, maybe only since another process has written it."""


class CheckpointError(FairweatherError):
    """A weights file that cannot be read safely or fits no architecture that fairweather knows."""


class RecipeError(FairweatherError):
    """A recipe that does not validate."""


class TrainingError(FairweatherError):
    """A training run that cannot go on."""


class DataError(FairweatherError):
    """Training or evaluation images that are missing or do not belong together."""


class ExportError(FairweatherError):
    """A model that cannot be exported, or an export that computes something else."""


class BenchmarkError(FairweatherError):
    """A contestant of a benchmark that failed."""


class MissingExtraError(FairweatherError, ImportError):
    """An optional part that is not installed; the message gives the command that installs it."""


def installing(extra: str) -> str:
    """Return the commands that install an extra."""
    return (
        f"pip install -c constraints/cpu.txt -e '.[{extra}]' in a clone of the repository, or"
        f" pip install 'fairweather[{extra}]' for a release"
    )
