"""Folding events: windows, dimensions, and the errors of values that a meter cannot use."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from aggregation.fold import rollup_deltas, validation_errors
from schemas.meter import Aggregation, Meter
from schemas.tables import ROLLUPS

AT = datetime(2013, 1, 31, 10, tzinfo=UTC)
MS = Meter(
    slug="ms", event_type="call", aggregation="SUM", value_property="$.ms", group_by={"zone": "$.zone", "api": "$.api"}
)
USERS = Meter(slug="users", event_type="call", aggregation="UNIQUE_COUNT", value_property="$.user")


def events(*rows: dict[str, Any]) -> pl.DataFrame:
    schema: dict[str, Any] = {"tenant": pl.String, "type": pl.String, "subject": pl.String, "time": pl.Datetime("us", "UTC"),
              "appended_at": pl.Datetime("ms", "UTC"), "partition": pl.UInt16, "offset": pl.UInt64, "line": pl.UInt32,
              "$.ms": pl.String, "$.zone": pl.String, "$.api": pl.String, "$.user": pl.String}  # fmt: skip
    default = {"tenant": "default", "type": "call", "subject": "a", "time": AT, "appended_at": AT,
               "partition": 0, "offset": 0, "line": 0, "$.ms": "1", "$.user": "u"}  # fmt: skip
    return pl.DataFrame([{**default, **row} for row in rows], schema=schema)


def test_an_event_at_the_window_end_opens_the_next_window() -> None:
    """Windows are closed at the start and open at the end."""
    #        10:00            11:00            12:00
    #          [--- window A --)[--- window B --)
    #          ^               ^^ the last microsecond of A, and the first instant of B
    hour = timedelta(hours=1)
    rollups = rollup_deltas(events({}, {"time": AT + hour - timedelta(microseconds=1)}, {"time": AT + hour}), [MS], 0)
    assert rollups.select("window_start", "count").rows() == [(AT, 2), (AT + hour, 1)]


def test_dimensions_are_sorted_and_missing_ones_are_empty() -> None:
    """Each combination is a row of its own; a missing property is the empty text."""
    rollups = rollup_deltas(events({"$.zone": "eu"}, {"$.zone": "eu", "$.api": "v1"}, {"$.zone": "eu"}), [MS], 7)
    assert [(row["dimensions"], row["count"], row["epoch"]) for row in rollups.to_dicts()] == [
        ([{"key": "api", "value": ""}, {"key": "zone", "value": "eu"}], 2, 7),
        ([{"key": "api", "value": "v1"}, {"key": "zone", "value": "eu"}], 1, 7),
    ]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("0.000000001", None), ("999999999999999", None), ("-1.500000000000", None), ("007", None),
        (None, "is missing or null"), ("seven", 'is "seven": allowed is a decimal number'), ("", "allowed is a decimal number"),
        ("NaN", "allowed is a decimal number"), ("Infinity", "allowed is a decimal number"), ("1e3", "allowed is a decimal number"),
        (" 1", "allowed is a decimal number"), ("true", "allowed is a decimal number"), (".5", "allowed is a decimal number"),
        ("0.0000000001", "is 0.0000000001: allowed are 15 digits before the point and 9 after it"),
        ("1000000000000000", "allowed are 15 digits before the point"),
    ],
)  # fmt: skip
def test_a_value_counts_exactly_or_not_at_all(value: str | None, error: str | None) -> None:
    """A value that can be counted is counted to its last digit; another one leaves an error and no zero."""
    one = events({"$.ms": value})
    rollups, errors = rollup_deltas(one, [MS], 0), validation_errors(one, [MS]).to_list()[0]
    if error is None:
        assert (rollups["sum"].to_list(), errors) == ([Decimal(value or "")], [])
    else:
        assert rollups.is_empty()
        assert error in errors[0]
        assert errors[0].startswith('ms: the value property "$.ms" ')


def test_an_event_may_count_for_one_meter_and_not_for_another() -> None:
    """Each meter judges for itself, and every complaint is kept."""
    one = events({"$.ms": "x", "$.user": None}, {"$.ms": "x"}, {"type": "other"})
    assert [len(errors) for errors in validation_errors(one, [MS, USERS])] == [2, 1, 1]
    assert rollup_deltas(one, [MS, USERS], 0).select("meter", "uniques").rows() == [("users", ["u"])]


def test_no_events_and_no_meters_give_an_empty_frame() -> None:
    """The columns are there all the same."""
    for meters in ([], [MS, USERS]):
        assert rollup_deltas(events(), meters, 0).schema == pl.Schema(ROLLUPS.frame)
    assert validation_errors(events({}), []).to_list() == [['no meter wants the event type "call"']]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"time": AT}, {"time": AT + timedelta(microseconds=1), "appended_at": AT - timedelta(days=1)}),
        ({"appended_at": AT, "partition": 9}, {"appended_at": AT + timedelta(milliseconds=1)}),
        ({"partition": 1, "offset": 9}, {"partition": 2}), ({"offset": 1, "line": 9}, {"offset": 2}), ({"line": 1}, {"line": 2}),
    ],
)  # fmt: skip
def test_the_latest_value_is_last_in_time_then_in_arrival(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Event time to its microsecond, then the log's time, partition, offset and line; in whatever order they stand."""
    meter = MS.model_copy(update={"aggregation": Aggregation.LATEST})
    for rows in ([first, second], [second, first]):
        valued = [{**row, "$.ms": "2" if row is second else "10"} for row in rows]
        (latest,) = rollup_deltas(events(*valued), [meter], 0)["latest"].to_list()[0]
        assert latest["value"] == Decimal(2)


def test_an_average_keeps_the_sum_and_the_count_of_usable_values() -> None:
    """What cannot be used is in neither."""
    meter = MS.model_copy(update={"aggregation": Aggregation.AVG})
    rollups = rollup_deltas(events({"$.ms": "1"}, {"$.ms": "x"}, {"$.ms": "2.5"}), [meter], 0)
    assert rollups.select("count", "sum").rows() == [(2, Decimal("3.5"))]


def test_filters_compare_the_text_at_a_path() -> None:
    """All of them must let an event pass; one that has nothing at the path has the empty text there."""
    kinds = [{"$.zone": zone, "$.user": user} for zone in ("eu", "us", None) for user in ("200", "")]
    cases = {
        (("$.zone", "in", ("eu",)),): 2, (("$.zone", "not_in", ("eu",)),): 4, (("$.zone", "in", ("", "us")),): 4,
        (("$.zone", "not_in", ("",)),): 4, (("$.zone", "in", ("EU", "e")),): 0, (("$.user", "in", ("200",)),): 3,
        (("$.zone", "in", ("eu", "us")), ("$.user", "in", ("200",))): 2,
    }  # fmt: skip
    for filters, count in cases.items():
        terms = {path: {operator: list(texts)} for path, operator, texts in filters}
        meter = Meter(slug="calls", event_type="call", aggregation="COUNT", filters=terms)
        assert rollup_deltas(events(*kinds), [meter], 0)["count"].sum() == count, filters
        assert validation_errors(events(*kinds), [meter]).list.len().sum() == 0


def test_events_count_from_an_instant_on() -> None:
    """The instant itself is in; what was before it is not the meter's, and no error."""
    meter = Meter(slug="calls", event_type="call", aggregation="COUNT", event_from=AT)
    both = events({"time": AT - timedelta(microseconds=1)}, {})
    assert rollup_deltas(both, [meter], 0).select("window_start", "count").rows() == [(AT, 1)]
    assert validation_errors(both, [meter]).to_list() == [[], []]


def test_events_out_of_a_meters_time_are_not_counted_and_say_so() -> None:
    """A limit itself is allowed; a microsecond beyond it the error names the meter and the limit."""
    #    AT - 2 d                    AT (arrival)        AT + 1 h
    #    [------- eventAgeMax --------|--- eventAheadMax ---]
    tick = timedelta(microseconds=1)
    meter = Meter(slug="calls", event_type="call", aggregation="COUNT", event_age_max=2, event_ahead_max="PT1H")
    times = [
        AT - timedelta(days=2) - tick,
        AT - timedelta(days=2),
        AT + timedelta(hours=1),
        AT + timedelta(hours=1) + tick,
    ]
    four = events(*({"time": time} for time in times))
    assert rollup_deltas(four, [meter], 0)["count"].sum() == 2
    assert validation_errors(four, [meter, USERS]).to_list() == [
        ["calls: the event time lies more than P2D before its arrival (eventAgeMax)"], [], [],
        ["calls: the event time lies more than PT1H after its arrival (eventAheadMax)"],
    ]  # fmt: skip
    assert rollup_deltas(four, [USERS], 0)["count"].sum() == 4
