"""Usage for rating: whose is read at once, and what of a meter is read as events."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from aggregation.metered import SAMPLED, SUBJECTS_BYTES_MAX, ranges, usage_for
from aggregation.plan import Statement
from schemas.log import LogConfig
from schemas.meter import Aggregation, Meter
from schemas.wanted import Want, together

METER = Meter(slug="bytes", event_type="call", aggregation=Aggregation.SUM, value_property="$.b")
START = datetime(2026, 1, 1, tzinfo=UTC)
JANUARY = Want("bytes", (START, START + timedelta(days=31)))


def asked(want: Want, subjects: Any = None) -> list[Statement]:
    """The statements that are run for a want."""
    statements: list[Statement] = []

    def read(statement: Statement) -> pl.DataFrame:
        statements.append(statement)
        names = ("at", "subject", "sum") if "FROM rollups" in statement.sql else ("day", "events")
        return pl.DataFrame(schema=dict.fromkeys(names, pl.Int64))

    usage_for(read, lambda _: LogConfig(), "t", [METER], [want], 1, subjects)
    return statements


def test_whole_hours_come_from_rollups_without_a_limit() -> None:
    """A month that begins on the hour is one statement, and a bill run gets all of its groups."""
    (statement,) = asked(JANUARY)
    assert "FROM rollups" in statement.sql
    assert "LIMIT" not in statement.sql


def test_an_hour_that_is_cut_comes_from_events() -> None:
    """Where a segment of Kathmandu begins, events are asked for besides."""
    cut = START + timedelta(days=3, hours=18, minutes=15)
    tables = [
        statement.sql.split(" FROM ")[1].split()[0]
        for statement in asked(together([JANUARY, Want("bytes", (START, cut))])[0])
    ]
    assert tables == ["rollups", "events"]


def test_many_subjects_are_read_in_pieces() -> None:
    """Every subject is in one statement, and no statement has more than a URL has room for."""
    names = [f"é{number}" * 20 for number in range(2_000)]
    pieces = [statement.bound["subjects"] for statement in asked(JANUARY, names)]
    assert [name for piece in pieces for name in piece] == names
    assert len(pieces) > 1
    assert all(sum(map(len, piece)) < SUBJECTS_BYTES_MAX for piece in pieces)


def test_ranges_are_all_subjects() -> None:
    """They follow each other without a gap; a sample of none is one range."""
    for sample in ([], ["a"], ["a", "b"], [*"abcdefg"]):
        found = list(ranges(sample, 2 * SAMPLED))
        assert (found[0].first, found[-1].end) == (None, None)
        assert [each.end for each in found[:-1]] == [each.first for each in found[1:]]
        assert len(found) == max(-(-len(sample) // 2), 1)


def test_a_meter_that_there_is_not_is_refused() -> None:
    """The message names it."""
    with pytest.raises(LookupError, match="other"):
        asked(Want("other", JANUARY.cuts))
