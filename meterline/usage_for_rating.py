"""Usage as rating wants it, from the stores."""

from collections.abc import Sequence

import polars as pl

from aggregation.store import metered_usage
from meterline.rollups import backfills_of
from meterline.system import System
from rating.rater import Rater
from schemas.meter import Meter
from schemas.tenant import DEFAULT_TENANT
from schemas.wanted import together


def usage_for(app: System, meters: Sequence[Meter], rater: Rater, cut: int) -> pl.DataFrame:
    """The usage of the epochs before a cut that a rater looks at, of all customers (columns rating.frames.USAGE)."""
    of_contracts = [want for contract in rater.basis.contracts.contracts for want in rater.wants(contract)]
    wants = together([*of_contracts, *rater.wants_of_others()])
    backfills: dict[str, list[object]] = {}
    for each in backfills_of(app.database):
        backfills.setdefault(each.meter, []).append(each)
    return metered_usage(app.clickhouse, app.log.config, DEFAULT_TENANT, meters, wants, cut, backfills=backfills)
