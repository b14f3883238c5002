"""Laws of schedules: they agree with the slow oracle, and add up, for any amount, period, method and time zone."""

from datetime import UTC, date, datetime, timedelta

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from invoicing.recognition.changes import FUTURE, credited
from invoicing.recognition.schedules import SERVICE, Method, schedule
from tests.oracles.recognition_oracle import schedule_slowly

ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Chatham", "Europe/Berlin")
instants = st.integers(1_546_300_800, 1_988_150_400).map(lambda second: datetime.fromtimestamp(second, UTC))
whole_days = instants.map(lambda at: at.replace(hour=0, minute=0, second=0, microsecond=0))
lengths = st.timedeltas(timedelta(0), timedelta(days=800)) | st.integers(0, 1200).map(lambda days: timedelta(days=days))
amounts = st.integers(-200, 200) | st.integers(-(10**15), 10**15)
lines = st.lists(
    st.tuples(amounts, whole_days | instants, lengths, st.sampled_from([method.value for method in Method])),
    min_size=1, max_size=12,
)  # fmt: skip


def frame(rows: list[tuple[int, datetime, timedelta, str]]) -> pl.DataFrame:
    return pl.DataFrame(
        [(str(place), amount, at, at + length, method) for place, (amount, at, length, method) in enumerate(rows)],
        schema=SERVICE, orient="row",
    )  # fmt: skip


@given(lines, st.sampled_from(ZONES))
@settings(max_examples=120)
def test_schedules_are_what_the_oracle_says(rows: list[tuple[int, datetime, timedelta, str]], zone: str) -> None:
    """The fast schedule of every line is the slow one: same months, same minor units."""
    fast: dict[str, list[tuple[object, int]]] = {str(place): [] for place in range(len(rows))}
    for line_id, month, amount in schedule(frame(rows), zone).select("line_id", "month", "amount_minor").rows():
        fast[line_id].append((month, amount))
    slow = {
        str(place): schedule_slowly(amount, at, at + length, method, zone)
        for place, (amount, at, length, method) in enumerate(rows)
    }
    assert fast == slow


@given(lines, st.sampled_from(ZONES))
@settings(max_examples=40)
def test_a_schedule_adds_up_to_its_line_and_never_turns_around(
    rows: list[tuple[int, datetime, timedelta, str]], zone: str
) -> None:
    """Law I12: the months sum to the line, and so what is recognised is never more than what was billed."""
    months = schedule(frame(rows), zone)
    sums = dict(months.group_by("line_id").agg(pl.col("amount_minor").sum()).rows())
    assert sums == {str(place): amount for place, (amount, *_) in enumerate(rows) if amount}
    signs = {str(place): amount > 0 for place, (amount, *_) in enumerate(rows)}
    assert all((amount > 0) == signs[line_id] for line_id, amount in months.select("line_id", "amount_minor").rows())


futures = st.dictionaries(st.integers(0, 30), st.integers(1, 10**9), max_size=12)


@given(st.lists(st.tuples(futures, st.integers(0, 10**10), st.integers(0, 10**10)), min_size=1, max_size=8))
@settings(max_examples=40)
def test_a_credit_takes_what_is_deferred_first(cases: list[tuple[dict[int, int], int, int]]) -> None:
    """Deferred and recognised parts add up to the credit; the future shrinks by the deferred part, none below zero."""
    rows = [
        (str(place), date(2024 + number // 12, number % 12 + 1, 1), minor)
        for place, (future, *_) in enumerate(cases)
        for number, minor in sorted(future.items())
    ]
    future = pl.DataFrame(rows, schema=FUTURE, orient="row")
    recognised = {str(place): done for place, (_, done, _) in enumerate(cases)}
    wanted = {
        str(place): min(credit, done + sum(future.values())) for place, (future, done, credit) in enumerate(cases)
    }
    notes = pl.DataFrame(
        {"line_id": list(wanted), "credit_minor": list(wanted.values()), "recognised_minor": list(recognised.values())},
        schema_overrides={"credit_minor": pl.Int64, "recognised_minor": pl.Int64},
    )
    answer = credited(future, notes)
    for line_id, deferred, from_recognised in answer.parts.rows():
        before = sum(minor for owner, _, minor in rows if owner == line_id)
        after = answer.future.filter(pl.col("line_id") == line_id)["amount_minor"].to_list()
        assert deferred == min(wanted[line_id], before)
        assert deferred + from_recognised == wanted[line_id]
        assert sum(after) == before - deferred
        assert all(minor > 0 for minor in after)
    minus = credited(
        future.with_columns(-pl.col("amount_minor")), notes.with_columns(-pl.col("credit_minor", "recognised_minor"))
    )
    assert minus.parts.equals(answer.parts.with_columns(-pl.col("deferred_minor", "recognised_minor")))
    assert minus.future.equals(answer.future.with_columns(-pl.col("amount_minor")))
