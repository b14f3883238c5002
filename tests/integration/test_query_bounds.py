"""How many rows an answer may have: measured on the real engine, from rollups and from events."""

from typing import Any

import pytest

from aggregation.answer import ROWS_MAX, answer
from aggregation.plan import GROUPS_MAX, Scope, Statement
from schemas.log import LogConfig
from schemas.meter import Meter
from schemas.usage_query import InvalidQueryError, usage_query
from stores.clickhouse import Client, query

CALLS = Meter(slug="calls", event_type="call", aggregation="COUNT", group_by={"region": "$.region"})
RANGE = {"from": "2013-01-31T00:00:00Z", "to": "2013-02-01T00:00:00Z"}


def answered(client: Client, **asked: Any) -> int:
    """How many rows a query of the tenant's usage has."""

    def read(statement: Statement) -> Any:
        return query(client, statement.sql, **statement.bound)

    scope = Scope("default", CALLS, usage_query({**RANGE, **asked}))
    found = answer(scope, read, lambda _: LogConfig(meters=(CALLS,)))
    return len(found.rows)


def use(client: Client, subjects: int) -> None:
    """Rollups of so many subjects, by hour."""
    client.command(
        "INSERT INTO rollups (tenant, meter, subject, dimensions, window_start, epoch, count)"
        " SELECT 'default', 'calls', toString(number), map('region', 'eu'),"
        f" toDateTime64('2013-01-31 00:00:00', 3, 'UTC') + INTERVAL number % 24 HOUR, 0, 1 FROM numbers({subjects})"
    )


def test_an_answer_has_at_most_so_many_rows(clickhouse: Client) -> None:
    """One more is refused with what would make it fewer; a filter, windows of the same groups or a range do."""
    use(clickhouse, ROWS_MAX)
    assert answered(clickhouse, groupBy=["subject"]) == ROWS_MAX
    use(clickhouse, ROWS_MAX + 1)
    for asked in ({"groupBy": ["subject"]}, {"groupBy": ["subject", "region"], "windowSize": "HOUR"}):
        with pytest.raises(InvalidQueryError, match=f"more than {ROWS_MAX} rows; allowed: a shorter range"):
            answered(clickhouse, **asked)
    assert answered(clickhouse, groupBy=["subject"], to="2013-01-31T12:00:00Z") == ROWS_MAX // 2 + 4
    assert answered(clickhouse, groupBy=["region"]) == 1


def test_the_engine_stops_where_nobody_reads_on(clickhouse: Client) -> None:
    """Of many more groups than an answer may have, not even all are put together."""
    use(clickhouse, GROUPS_MAX * 2)
    with pytest.raises(InvalidQueryError, match=f"more than {GROUPS_MAX} rows"):
        answered(clickhouse, groupBy=["subject"])
    assert answered(clickhouse) == 1
