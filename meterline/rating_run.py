"""Rating in chunks: usage from the store to charges, some customers at a time, so that memory stays bounded.

Owns that the chunks together are what rating all at once gives: every contract is in one chunk, and every subject that
no contract names in another.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import polars as pl

from aggregation.plan import SubjectRange
from aggregation.recount import Backfill
from aggregation.store import metered_usage, subject_ranges
from meterline.rollups import backfills_of
from meterline.system import System
from rating.rater import Rated, Rater
from schemas.contract import Contract
from schemas.meter import Meter
from schemas.tenant import DEFAULT_TENANT
from schemas.wanted import Want, together

CONTRACTS_AT_ONCE = 5_000
SUBJECTS_AT_ONCE = 100_000

Usage = Callable[[Sequence[Want], Sequence[str] | SubjectRange], pl.DataFrame]
"""Reads the usage that is wanted of some subjects, as of the cut: see `aggregation.store.metered_usage`."""
Ranges = Callable[[Sequence[Want], int], Sequence[SubjectRange]]
"""Finds ranges of about so many subjects with such usage: see `aggregation.store.subject_ranges`."""


def rated_chunks(app: System, meters: Sequence[Meter], rater: Rater) -> Iterator[Rated]:
    """The charges of all customers of a rater, chunk by chunk; of the usage before its cut."""
    backfills: dict[str, list[Backfill]] = {}
    for each in backfills_of(app.database, app.log):
        backfills.setdefault(each.meter.slug, []).append(each)
    cut = rater.basis.cut
    usage = partial(metered_usage, app.clickhouse, app.log.config, DEFAULT_TENANT, meters, backfills=backfills)

    def ranges(wants: Sequence[Want], subjects_at_once: int) -> Sequence[SubjectRange]:
        return subject_ranges(app.clickhouse, DEFAULT_TENANT, wants, cut, subjects_at_once)

    return rated_in_chunks(rater, lambda wants, subjects: usage(wants, cut, subjects), ranges)


def rated_in_chunks(
    rater: Rater,
    usage: Usage,
    ranges: Ranges,
    *,
    contracts_at_once: int = CONTRACTS_AT_ONCE,
    subjects_at_once: int = SUBJECTS_AT_ONCE,
    carried: pl.DataFrame | None = None,
    prepaid: Mapping[str, int] | None = None,
) -> Iterator[Rated]:
    """The charges of all contracts, then of subjects without one; each chunk is sorted as `Rater.rate` sorts.

    1. Contracts that want the same usage come together, because each of a chunk has its usage cut for all of them.
    Subjects of contracts without a billing period in question are looked at only for usage that nobody pays for.
    2. Subjects without a contract come by ranges of their names. `carried` and `prepaid` are as `Rater.rate` has them.
    """
    of_others = rater.wants_of_others()
    # 1. contracts
    wanted = [(rater.wants(contract), contract) for contract in rater.basis.contracts.contracts]
    kinds = {wants: number for number, wants in enumerate(dict.fromkeys(wants for wants, _ in wanted))}
    wanted.sort(key=lambda pair: kinds[pair[0]])
    billed = [pair for pair in wanted if rater.bills(pair[1])]
    for at in range(0, len(billed), contracts_at_once):
        chunk = billed[at : at + contracts_at_once]
        contracts = [contract for _, contract in chunk]
        wants = together(want for own, _ in chunk for want in own)
        own = _levels_of(carried, contracts)
        yield rater.rate(usage(wants, _subjects(contracts)), contracts, carried=own, prepaid=prepaid)
    idle = [contract for _, contract in wanted if not rater.bills(contract)]
    for at in range(0, len(idle), contracts_at_once):
        contracts = idle[at : at + contracts_at_once]
        own = _levels_of(carried, contracts)
        yield rater.rate(usage(of_others, _subjects(contracts)), contracts, carried=own, prepaid=prepaid)
    # 2. subjects without a contract
    names = pl.Series(sorted(rater.basis.contracts.names), dtype=pl.String).implode()
    for each in ranges(of_others, subjects_at_once):
        used = usage(of_others, each).filter(~pl.col("subject").is_in(names))
        own = None if carried is None else carried.filter(pl.col("customer").is_in(used["subject"].implode()))
        yield rater.rate(used, [], carried=own, prepaid=prepaid)


def _levels_of(carried: pl.DataFrame | None, contracts: Sequence[Contract]) -> pl.DataFrame | None:
    """Of carried levels, those of these contracts: a rating gives back what it was given and did not use."""
    if carried is None:
        return None
    customers = pl.Series([contract.customer for contract in contracts], dtype=pl.String)
    return carried.filter(pl.col("customer").is_in(customers.implode()))


def _subjects(contracts: Sequence[Contract]) -> list[str]:
    return [subject for contract in contracts for subject in contract.subjects]
