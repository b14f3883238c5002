"""Usage out of the rollups, as of a cut."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from schemas.meter import Aggregation, Meter
from schemas.money import QUANTITY
from stores.clickhouse import Client, query

_MEASURE = {
    Aggregation.COUNT: pl.col("count").cast(QUANTITY),
    Aggregation.SUM: pl.col("sum"),
    Aggregation.MIN: pl.col("min"),
    Aggregation.MAX: pl.col("max"),
}


def usage_between(
    client: Client, tenant: str, meters: Sequence[Meter], start: datetime, end: datetime, cut: int
) -> pl.DataFrame:
    """What each subject used of each meter in whole hours of [start, end), of the epochs before the cut.

    Columns subject, meter, quantity (Decimal(38, 9)) and uniques: a UNIQUE_COUNT meter has its distinct values there
    and no quantity, so that several subjects can still be counted together; for other meters uniques is null.
    """
    rows = query(
        client,
        "SELECT subject, meter, sum(count) AS count, sum(sum) AS sum, min(min) AS min, max(max) AS max,"
        " arraySort(groupUniqArrayArray(uniques)) AS uniques FROM rollups"
        " WHERE tenant = {tenant:String} AND window_start >= {start:DateTime64(3, 'UTC')}"
        " AND window_start < {end:DateTime64(3, 'UTC')} AND epoch < {cut:UInt32}"
        " GROUP BY subject, meter ORDER BY subject, meter",
        tenant=tenant,
        start=start,
        end=end,
        cut=cut,
    )
    by_aggregation = {kind: [m.slug for m in meters if m.aggregation is kind] for kind in Aggregation}
    quantity = pl.coalesce(
        pl.when(pl.col("meter").is_in(by_aggregation[kind])).then(measure.cast(QUANTITY))
        for kind, measure in _MEASURE.items()
    )
    unique = pl.col("meter").is_in(by_aggregation[Aggregation.UNIQUE_COUNT])
    known = pl.col("meter").is_in([meter.slug for meter in meters])
    return rows.filter(known).select(
        "subject", "meter", quantity=quantity, uniques=pl.when(unique).then(pl.col("uniques"))
    )


def has_late_usage(client: Client, tenant: str, start: datetime, end: datetime, since_cut: int, cut: int) -> bool:
    """Whether usage of [start, end) arrived in the epochs from one cut to the next."""
    found = query(
        client,
        "SELECT count() > 0 AS late FROM (SELECT 1 FROM rollups WHERE tenant = {tenant:String}"
        " AND window_start >= {start:DateTime64(3, 'UTC')} AND window_start < {end:DateTime64(3, 'UTC')}"
        " AND epoch >= {since_cut:UInt32} AND epoch < {cut:UInt32} LIMIT 1)",
        tenant=tenant,
        start=start,
        end=end,
        since_cut=since_cut,
        cut=cut,
    )
    return bool(found.item())
