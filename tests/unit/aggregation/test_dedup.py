"""The dedup index against a plain dictionary."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from aggregation.dedup import DedupIndex

word = st.integers(min_value=0, max_value=2) | st.integers(min_value=2**64 - 2, max_value=2**64 - 1)
key = st.tuples(word, word)


@given(st.lists(st.lists(key, max_size=8, unique=True), max_size=12), st.integers(min_value=0, max_value=4))
def test_the_index_is_a_dictionary_of_last_accepted_days(batches: list[list[tuple[int, int]]], horizon: int) -> None:
    """For any batches, one a day, equal high words included: seen says what a dictionary says."""
    index, last_day = DedupIndex(horizon), {}
    for day, keys in enumerate(batches):
        hashes = np.array(keys, dtype=np.uint64).reshape(-1, 2)
        days = np.full(len(keys), day, dtype=np.uint16)
        expected = [key in last_day and last_day[key] >= day - horizon for key in keys]
        seen = index.seen(hashes, days)
        assert seen.tolist() == expected
        index.add(hashes[~seen], days[~seen])
        last_day |= {key: day for key, known in zip(keys, expected, strict=True) if not known}


def test_a_key_costs_eighteen_bytes() -> None:
    """Memory is 16 bytes of hash and 2 of day, whatever the number of runs."""
    index = DedupIndex(35)
    random = np.random.default_rng(1)
    for _ in range(20):
        index.add(random.integers(0, 2**63, (1000, 2), dtype=np.uint64), np.ones(1000, dtype=np.uint16))
    assert (len(index), index.nbytes) == (20_000, 360_000)
