"""Token buckets: what is let through over any stretch of time, and what a refusal says."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.rate_limit import SECOND_NS, Rate, RateLimits, take
from ingest.request import RefusedError


def refused(limits: RateLimits, tenant: str, events: int, own: int | None = None) -> RefusedError:
    with pytest.raises(RefusedError) as error:
        limits.take(tenant, own, events)
    return error.value


@given(
    st.integers(1, 2_000_000),
    st.integers(1, 1000),
    st.lists(st.tuples(st.integers(0, 3 * SECOND_NS), st.integers(1, 500)), max_size=60),
)
def test_over_any_time_no_more_than_burst_and_rate(per_second: int, burst: int, steps: list[tuple[int, int]]) -> None:
    """Between any two requests, what was let through is at most a burst and what was filled in meanwhile."""
    rate, full_at_ns, now_ns = Rate(per_second, burst), 0, 0
    taken: list[tuple[int, int]] = []
    for later_ns, events in steps:
        now_ns += later_ns
        full_at_ns, wait_ns = take(full_at_ns, rate, events, now_ns)
        if not wait_ns:
            taken.append((now_ns, events))
        elif events <= burst:  # the wait that is named is long enough, and no shorter one is
            assert take(full_at_ns, rate, events, now_ns + wait_ns)[1] == 0
            assert take(full_at_ns, rate, events, now_ns + wait_ns - 1)[1] == 1
    for first, (start_ns, _) in enumerate(taken):
        for last in range(first, len(taken)):
            through = sum(events for _, events in taken[first : last + 1])
            assert through * SECOND_NS <= burst * SECOND_NS + per_second * (taken[last][0] - start_ns)


def test_a_tenant_waits_and_another_does_not() -> None:
    """Each tenant has a bucket; the refusal says the limit and how long to wait, in whole seconds, rounded up."""
    now_ns = [5 * SECOND_NS]
    limits = RateLimits(lambda: now_ns[0], events_per_second=10)
    limits.take("a", None, 100)  # a burst: ten seconds of it
    error = refused(limits, "a", 11)
    assert error.status.value == 429
    assert error.headers == {"Retry-After": "2"}
    assert error.extensions == {"eventsPerSecond": 10}
    assert "the tenant a may send 10 events a second, 100 of them in a burst" in error.detail
    assert refused(limits, "a", 0).status.value == 429  # before a body is read
    limits.take("b", None, 100)
    now_ns[0] += 1_100_000_000
    limits.take("a", None, 0)
    limits.take("a", None, 11)
    refused(limits, "a", 1)


def test_what_never_fits_is_told_so() -> None:
    """To try again would not help, so the status is another and there is no time to wait."""
    error = refused(RateLimits(lambda: 0, events_per_second=10), "a", 101)
    assert error.status.value == 413
    assert error.headers == {}
    assert "no more than 100 at once" in error.detail


def test_a_tenants_own_rate_wins() -> None:
    """Over that of all, higher or lower; without any, everything goes through."""
    limits = RateLimits(lambda: 0, events_per_second=10)
    limits.take("a", 100, 1000)
    assert "100 events a second" in refused(limits, "a", 1, own=100).detail
    assert "1 events a second" in refused(limits, "b", 11, own=1).detail
    unlimited = RateLimits(lambda: 0)
    unlimited.take("a", None, 100_000)
    unlimited.take("a", None, 100_000)


def test_full_buckets_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tenants cost no more memory than those that sent lately; those that must wait still do."""
    monkeypatch.setattr("ingest.rate_limit.TENANTS_MAX", 3)
    now_ns = [0]
    limits = RateLimits(lambda: now_ns[0], events_per_second=1)
    limits.take("slow", None, 10)
    for number in range(10):
        limits.take(f"t{number}", None, 1)
        now_ns[0] += SECOND_NS // 2
    assert len(limits._full_at_ns) < 8
    assert refused(limits, "slow", 6).headers == {"Retry-After": "1"}
