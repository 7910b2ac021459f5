"""Where Ray runs: on this machine, started for the purpose, or on a cluster that is there."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator

import ray

from fairweather.errors import OptionError

ADDRESS = "RAY_ADDRESS"  # Ray's own variable
AUTO = "auto"


@contextlib.contextmanager
def connected(*, cores: int, address: str | None = None, quiet: bool = False) -> Iterator[None]:
    """Use a cluster, or start a Ray of this machine and end it in the end.

    Args:
        cores: that a Ray of this machine may use.
        address: of a cluster; `auto` for the one that this machine belongs to. By default as
            RAY_ADDRESS says, and if that is not set, Ray is started.
        quiet: whether what workers print is not printed here. Otherwise it goes to standard error,
            as does what Ray says.

    Raises:
        OptionError: if there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell others of its use
    address = address or os.environ.get(ADDRESS)
    kept = signal.getsignal(signal.SIGTERM)
    with contextlib.redirect_stdout(sys.stderr):
        try:
            if address:
                ray.init(address, log_to_driver=not quiet)
            else:
                ray.init("local", num_cpus=cores, include_dashboard=False, log_to_driver=not quiet)
        except (OSError, ValueError, RuntimeError) as error:
            raise OptionError(f"Ray at {address or 'this machine'}: {error}") from error
        try:
            if callable(kept):  # Ray's own handler ends with a status of its own
                signal.signal(signal.SIGTERM, kept)
            yield
        finally:
            ray.shutdown()
