"""SHA-256 of many texts at once, against the standard library's."""

import hashlib
import random

import numpy as np

from schemas.sha256 import pad, sha256_rows


def test_digests_are_those_of_any_other_sha256() -> None:
    """Texts of every length around the blocks' bounds, in groups of mixed lengths, and none at all."""
    chance = random.Random(7)
    texts = [chance.randbytes(length) for length in [*range(200), 1000, 4096, 5] * 2]
    chance.shuffle(texts)
    for count in (0, 1, 15, 16, 17, len(texts)):
        buffer, at, ends = np.full(sum(len(text) + 72 for text in texts), 0xAA, np.uint8), 0, []
        for text in texts[:count]:
            buffer[at : at + len(text)] = np.frombuffer(text, np.uint8)
            at = pad(buffer, at, at + len(text))
            ends.append(at)
        found = sha256_rows(buffer, np.array(ends, np.int64))
        assert [row.tobytes() for row in found] == [hashlib.sha256(text).digest() for text in texts[:count]]
