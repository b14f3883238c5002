"""Which hours of a query come from rollups, and which stretches from events."""

from datetime import datetime
from zoneinfo import ZoneInfo

from aggregation.plan import MICROS, Scope, events_statement, plan, rollups_statement
from aggregation.windows import HOUR_S, boundaries
from schemas.meter import Aggregation, Meter
from schemas.usage_query import WindowSize, usage_query

METER = Meter(slug="bytes", event_type="call", aggregation=Aggregation.SUM, value_property="$.b", group_by={"k": "$.k"})
DAY = int(datetime.fromisoformat("2013-01-10T00:00Z").timestamp())


def test_whole_hours_come_from_rollups_alone() -> None:
    """Days of UTC, and of New York, begin on the hour."""
    for zone in ("UTC", "America/New_York"):
        windows = boundaries(DAY, DAY + 30 * 24 * HOUR_S, WindowSize.DAY, ZoneInfo(zone))
        planned = plan(DAY * MICROS, (DAY + 30 * 24 * HOUR_S) * MICROS, windows)
        assert (planned.spans, planned.cut_hours) == ((), ())
        assert (planned.end_hour - planned.first_hour) // HOUR_S == 720


def test_a_cut_hour_is_read_from_events_and_not_from_rollups() -> None:
    """A day in Kathmandu begins at a quarter past six in the evening, UTC; `to` is within an hour as well."""
    #        18:00   18:15   19:00              10:00   10:30
    #          [ events -------)[ rollups ...      )[ events )
    end = DAY + 34 * HOUR_S + 1800
    windows = boundaries(DAY, end, WindowSize.DAY, ZoneInfo("Asia/Kathmandu"))
    planned = plan(DAY * MICROS, end * MICROS, windows)
    cut = [DAY + 18 * HOUR_S, DAY + 34 * HOUR_S]
    assert planned.cut_hours == tuple(cut)
    assert planned.spans == ((cut[0] * MICROS, (cut[0] + HOUR_S) * MICROS), (cut[1] * MICROS, end * MICROS))


def test_minutes_and_hours_of_kathmandu_are_read_from_events() -> None:
    """No hour is whole, so one stretch has it all."""
    end = DAY + 24 * HOUR_S
    for size in (WindowSize.MINUTE, WindowSize.HOUR):
        planned = plan(DAY * MICROS, end * MICROS, boundaries(DAY, end, size, ZoneInfo("Asia/Kathmandu")))
        assert planned.spans == ((DAY * MICROS, end * MICROS),)
        assert not planned.from_rollups


def test_what_a_user_says_is_bound_and_the_tenant_is_always_there() -> None:
    """No text of a query stands in a statement."""
    evil = "x' OR 1 = 1 --"
    asked = usage_query({"subject": [evil], "groupBy": ["k"], "filterGroupBy": {"k": [evil]}})
    scope = Scope(evil, METER, asked)
    planned = plan(DAY * MICROS, (DAY + HOUR_S) * MICROS, None)
    for statement in (rollups_statement(scope, planned, ("sum",)), events_statement(scope, ((0, 1),))):
        assert "tenant = {tenant:String}" in statement.sql
        assert evil not in statement.sql
        assert (statement.bound["tenant"], statement.bound["subjects"]) == (evil, [evil])
