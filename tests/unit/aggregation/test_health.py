"""A worker that is alive but does not do its work is neither healthy nor ready, and says why."""

import pytest
from prometheus_client import REGISTRY

from aggregation.health import STUCK_AFTER_S, UNKNOWN_AFTER_S, Health


@pytest.fixture
def health() -> Health:
    """A worker that took up two partitions at the second 1000, and heard where they end."""
    started = Health()
    started.assigned({0: 50, 1: 70}, 1000.0)
    started.watched({0: 50, 1: 70}, 1000.0)
    return started


def lag(name: str, partition: int) -> float | None:
    return REGISTRY.get_sample_value(f"meterline_lag_{name}", {"partition": str(partition)})


def watch(health: Health, ends: dict[int, int], start_s: float, end_s: float) -> None:
    """The broker tells these ends every two seconds."""
    for now_s in range(int(start_s), int(end_s) + 1, 2):
        health.watched(ends, float(now_s))


def test_a_worker_without_partitions_is_healthy_but_not_ready() -> None:
    """It is alive, and a supervisor must not end it; but it does no work yet."""
    assert Health().faults(1000.0) == []
    assert Health().faults(1000.0, ready=True) == ["no partitions are assigned yet"]


def test_a_worker_that_has_stored_all_is_ready_for_ever(health: Health) -> None:
    """Silence is no fault."""
    watch(health, {0: 50, 1: 70}, 1000, 9000)
    assert health.faults(9000.0, ready=True) == []


def test_a_worker_that_stores_is_healthy_however_far_behind(health: Health) -> None:
    """A backlog of an hour, a batch every fifty seconds."""
    for batch in range(72):
        watch(health, {0: 10_000, 1: 70}, 1000 + 50 * batch, 1050 + 50 * batch)
        health.stored(0, 60 + 10 * batch, 900.0, 1050.0 + 50 * batch)
        assert health.faults(1050.0 + 50 * batch, ready=True) == []


def test_a_worker_is_stuck_where_records_wait_and_nothing_is_stored(health: Health) -> None:
    """One partition is enough: the other one, which is stored all the time, does not hide it."""
    #   1000     1002                      1062  1064
    #   idle     records in partition 0          stuck
    for now_s in range(1002, 1066, 2):
        health.watched({0: 58, 1: now_s}, float(now_s))
        health.stored(1, now_s, float(now_s), float(now_s))
    assert health.faults(1002.0 + STUCK_AFTER_S) == []
    for ready in (False, True):
        (fault,) = health.faults(1064.0, ready=ready)
        assert fault == "partition 0: stored up to offset 50 of 58, and nothing for 62 s"
    health.stored(0, 58, 1002.0, 1065.0)
    assert health.faults(1066.0, ready=True) == []


def test_a_broker_that_says_nothing_takes_readiness_first_and_then_health(health: Health) -> None:
    """A short silence is the broker's; a long one may be ours, and a restart does no harm."""
    after_s = [1000 + UNKNOWN_AFTER_S, 1000 + UNKNOWN_AFTER_S + 1, 1000 + STUCK_AFTER_S, 1000 + STUCK_AFTER_S + 1]
    assert [bool(health.faults(now_s, ready=True)) for now_s in after_s] == [False, True, True, True]
    assert [bool(health.faults(now_s)) for now_s in after_s] == [False, False, False, True]
    assert health.faults(1090.0) == ["the broker has not said where the log ends for 90 s"]


def test_a_worker_that_loads_partitions_for_minutes_is_healthy(health: Health) -> None:
    """Between two assignments it has none: what waited in the old ones is for others to store."""
    watch(health, {0: 58, 1: 70}, 1002, 1010)
    watch(health, {}, 1012, 1300)
    assert health.faults(1300.0) == []
    health.assigned({1: 70}, 1300.0)
    watch(health, {1: 70}, 1302, 1400)
    assert health.faults(1400.0, ready=True) == []


def test_the_lag_is_that_of_the_records_that_wait(health: Health) -> None:
    """In records, and in seconds since the oldest of them can have come."""
    #   1000      4600      4602            4604             4606
    #   idle ...  idle      eight waiting   five are stored  all are stored
    watch(health, {0: 50, 1: 70}, 1000, 4600)
    health.watched({0: 58, 1: 70}, 4602.0)
    assert (lag("records", 0), lag("seconds", 0)) == (8, 2)
    health.stored(0, 55, 4601.5, 4603.0)
    health.watched({0: 58, 1: 70}, 4604.0)
    assert (lag("records", 0), lag("seconds", 0)) == (3, 2.5)
    assert (lag("records", 1), lag("seconds", 1)) == (0, 0)
    health.stored(0, 58, 4603.0, 4605.0)
    health.watched({0: 58, 1: 70}, 4606.0)
    assert (lag("records", 0), lag("seconds", 0)) == (0, 0)


def test_the_lag_of_a_backlog_is_the_age_of_what_was_stored_last() -> None:
    """A worker that starts over a backlog does not know its age before the first batch."""
    health = Health()
    health.assigned({0: 50}, 1000.0)
    health.watched({0: 9000}, 1002.0)
    assert lag("seconds", 0) == 0
    health.stored(0, 60, 400.0, 1003.0)
    health.watched({0: 9000}, 1004.0)
    assert lag("seconds", 0) == 604


def test_a_partition_that_went_to_another_worker_has_no_lag_here(health: Health) -> None:
    """Its last value would stand in the metrics for ever."""
    health.watched({0: 58, 1: 90}, 1002.0)
    health.assigned({1: 70}, 1003.0)
    health.watched({1: 90}, 1004.0)
    assert (lag("records", 0), lag("seconds", 0)) == (None, None)
    assert lag("records", 1) == 20
