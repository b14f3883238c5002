"""The dedup index against a plain dictionary."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregation.dedup import DedupIndex
from aggregation.store import index_memory

word = st.integers(min_value=0, max_value=2) | st.integers(min_value=2**64 - 2, max_value=2**64 - 1)
key = st.tuples(word, word)
keyed = st.tuples(key, st.integers(min_value=0, max_value=2))  # and days since the event before it
batches = st.lists(st.lists(keyed, max_size=8), max_size=12)


@given(batches, st.integers(min_value=0, max_value=4))
def test_the_index_is_a_dictionary_of_last_accepted_days(
    drawn: list[list[tuple[tuple[int, int], int]]], horizon: int
) -> None:
    """For any batches, be they of one day or of many, equal high words included: fresh is what a dictionary says."""
    index, accepted_day, today = DedupIndex(horizon), {}, 0
    for batch in drawn:
        keys, expected, days = [each for each, _ in batch], [], []
        for each, later in batch:
            today += later
            days.append(today)
            expected.append(each not in accepted_day or today - accepted_day[each] > horizon)
            accepted_day |= {each: today} if expected[-1] else {}
        hashes = np.array(keys, dtype=np.uint64).reshape(-1, 2)
        fresh = index.fresh(hashes, np.array(days, dtype=np.uint16))
        assert fresh.tolist() == expected
        index.add(hashes[fresh], np.array(days, dtype=np.uint16)[fresh])


def test_a_copy_in_the_same_batch_is_an_event_again_behind_the_horizon() -> None:
    """A batch that nobody ended for days, since no worker ran."""
    #    day    0        1          2            2
    #         first  duplicate  counted again  duplicate
    hashes = np.ones((4, 2), dtype=np.uint64)
    days = np.array([0, 1, 2, 2], dtype=np.uint16)
    assert DedupIndex(1).fresh(hashes, days).tolist() == [True, False, True, False]


def test_large_runs_are_the_same_in_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where runs are mapped from files, every key is found again, and no other; no file has a name."""
    monkeypatch.setattr("aggregation.store.MAPPED_BYTES", 20_000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    index, random = DedupIndex(35, index_memory), np.random.default_rng(1)
    known = random.integers(0, 2**64, (20_000, 2), dtype=np.uint64)
    other = random.integers(0, 2**64, (20_000, 2), dtype=np.uint64)
    for batch in np.split(known, 40):
        index.add(batch, np.full(len(batch), 7, dtype=np.uint16))
    days = np.full(40_000, 8, dtype=np.uint16)
    assert index.fresh(np.concatenate((known, other)), days).tolist() == [False] * 20_000 + [True] * 20_000
    assert f"{tmp_path}/" in Path("/proc/self/maps").read_text()
    assert not list(tmp_path.iterdir())


def test_a_key_costs_eighteen_bytes() -> None:
    """Memory is 16 bytes of hash and 2 of day, whatever the number of runs."""
    index = DedupIndex(35)
    random = np.random.default_rng(1)
    for _ in range(20):
        index.add(random.integers(0, 2**63, (1000, 2), dtype=np.uint64), np.ones(1000, dtype=np.uint16))
    assert (len(index), index.nbytes) == (20_000, 360_000)
