"""Usage as rating wants it, from the stores."""

from collections.abc import Sequence

import polars as pl

from aggregation.store import usage_between
from meterline.system import System
from rating.rater import Rater
from schemas.meter import Meter
from schemas.tenant import DEFAULT_TENANT


def usage_for(app: System, meters: Sequence[Meter], rater: Rater, cut: int) -> pl.DataFrame:
    """The usage of the epochs before a cut that a rater's billing periods have (columns rating.frames.USAGE)."""
    start, end = rater.span or (None, None)
    if start is None or end is None:
        raise LookupError("no contract has a billing period that ends in this month, and no book has a default plan")
    usage = usage_between(app.clickhouse, DEFAULT_TENANT, meters, start, end, cut)
    return usage.with_columns(at=pl.lit(start).cast(pl.Datetime("us", "UTC")))
