"""What is decided for the whole of an image, and may hold for others."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Decisions:
    """What is decided for the whole of an image, for others to be restored as it was.

    Attributes:
        levels: how often it is halved.
        contexts: what the network knows of the whole, (1, 1, 1, C), of each version from the
            smallest on; empty for a network that knows nothing of it.
        certainty: how much of a change counts that was found on a proxy; None without a proxy.
    """

    levels: int = 0
    contexts: tuple[np.ndarray, ...] = ()
    certainty: float | None = None

    def toward(self, other: "Decisions", share: float) -> "Decisions":
        """Return what lies between, with 0 for these and 1 for the others, of as many levels."""
        pairs = zip(self.contexts, other.contexts, strict=True)
        certainty = self.certainty
        if certainty is not None and other.certainty is not None:
            certainty += share * (other.certainty - certainty)
        return Decisions(
            self.levels,
            tuple(one + np.float32(share) * (two - one) for one, two in pairs),
            certainty,
        )
