"""Who counts how often work on a file was begun; light, since it gets a process of its own."""

import collections

import ray


@ray.remote(num_cpus=0)
class Register:
    """How often work on a file was begun and did not end, since its worker died."""

    def __init__(self) -> None:
        """Begin without any."""
        self.begun: collections.Counter[str] = collections.Counter()

    def begin(self, name: str) -> int:
        """Note that work on a file begins; return how often that was."""
        self.begun[name] += 1
        return self.begun[name]

    def end(self, name: str) -> None:
        """Note that it has ended, in whatever way."""
        del self.begun[name]
