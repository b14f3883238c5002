"""The schedule of webhooks, with time as an argument."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoicing.webhooks.retries import SCHEDULE, Attempt, Outcome, gives_up, next_attempt, paused_until, retry_after_s

NOW = datetime(2026, 1, 1, tzinfo=UTC)
statuses = st.none() | st.sampled_from([301, 307, 400, 401, 404, 429, 500, 502, 503, 504])


def test_the_schedule_is_ten_attempts_over_three_days() -> None:
    """75 hours, 35 minutes and 5 seconds, as the specification proposes."""
    assert len(SCHEDULE) == 10
    assert sum(SCHEDULE, timedelta(0)) == timedelta(hours=75, minutes=35, seconds=5)
    assert next_attempt([], NOW) == NOW


@given(statuses, st.none() | st.integers(0, 10**9), st.integers(1, 9), st.sampled_from("abcdefgh"))
def test_an_attempt_comes_when_the_schedule_says(status: int | None, asked: int | None, tried: int, seed: str) -> None:
    """Never sooner, at most a tenth later, or as late as an overloaded endpoint asks for, within a day; the same each time."""
    attempt = Attempt(NOW, status, asked)
    due = next_attempt([attempt] * tried, NOW, seed=seed)
    assert due == next_attempt([attempt] * tried, NOW, seed=seed)
    assert due
    delay, wanted = due - NOW, SCHEDULE[tried]
    overloaded = status in {429, 502, 504} or (status == 503 and asked)
    asks = timedelta(seconds=min(asked or 0, 86_400)) if overloaded else timedelta(0)
    assert max(wanted, asks) <= delay <= max(wanted * 1.1, asks)
    assert (paused_until(attempt, NOW) is None) != bool(overloaded)


@pytest.mark.parametrize("status", [200, 204, 299, 410])
def test_what_arrived_or_is_gone_is_over(status: int) -> None:
    """Nothing comes after it."""
    assert next_attempt([Attempt(NOW, 500), Attempt(NOW, status)], NOW) is None


def test_the_tenth_attempt_is_the_last() -> None:
    """Whatever it was answered."""
    assert next_attempt([Attempt(NOW, 500)] * 9, NOW) is not None
    assert next_attempt([Attempt(NOW, None)] * 10, NOW) is None


def test_webhooks_that_failed_together_come_back_apart() -> None:
    """By their seeds."""
    assert len({next_attempt([Attempt(NOW, 500)] * 3, NOW, seed=str(each)) for each in range(100)}) > 80


def test_an_endpoint_that_takes_others_is_not_given_up() -> None:
    """Only where nothing arrived since the delivery began."""
    history = [Attempt(NOW, 500), Attempt(NOW + timedelta(days=3), 500)]
    assert gives_up(history, None)
    assert gives_up(history, NOW - timedelta(seconds=1))
    assert not gives_up(history, NOW + timedelta(hours=1))


@pytest.mark.parametrize("header", [None, "", "soon", "-1", "1.5", "Wed, 21 Oct 2026 07:28:00 GMT", "²", "٣"])
def test_a_retry_after_that_is_no_number_is_none(header: str | None) -> None:
    """Whatever an endpoint sends."""
    assert retry_after_s(header) is None


def test_every_status_means_something() -> None:
    """Only 2xx is an arrival, only 410 is for ever."""
    outcomes = {status: Attempt(NOW, status).outcome for status in range(100, 600)}
    assert {status for status, outcome in outcomes.items() if outcome is Outcome.ARRIVED} == set(range(200, 300))
    assert {status for status, outcome in outcomes.items() if outcome is Outcome.GONE} == {410}
    assert {status for status, outcome in outcomes.items() if outcome is Outcome.OVERLOADED} == {429, 502, 504}
