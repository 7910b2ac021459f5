"""What the fuzzing tests share: how long they go on, and how a file is damaged."""

import os
import random

SECONDS = float(os.environ.get("FUZZ_SECONDS", "3"))  # of one test
MOST_CPU_SECONDS = 2.0  # for a file below 1 MB
MOST_MEMORY_BYTES = 1_500_000_000
_ODD = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


def mutated(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """Damage a file in one to four ways; `other` lends pieces."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 16, 200))
        way = rng.randrange(8)
        if way == 0 and data:
            data[min(at, len(data) - 1)] = rng.randrange(256)
        elif way == 1:
            data[at : at + length] = bytes([rng.choice(_ODD)]) * length
        elif way == 2:  # a number that is far too large, or not
            value = rng.choice((0, 1, 255, 65535, 2**31 - 1, 2**32 - 1, rng.randrange(2**16)))
            size = rng.choice((2, 4))
            number = (value % 256**size).to_bytes(size, rng.choice(("big", "little")))
            at = rng.randrange(min(len(data), 400) + 1)  # headers are where it hurts
            data[at : at + size] = number
        elif way == 3:
            del data[at:]
        elif way == 4:
            del data[at : at + length]
        elif way == 5:
            data[at:at] = rng.randbytes(length)
        elif way == 6:
            start = rng.randrange(len(other) + 1)
            data[at:at] = other[start : start + length]
        else:
            data[at:at] = data[at : at + length] * rng.randint(1, 30)
    return bytes(data)
