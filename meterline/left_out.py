"""What of the usage of a file is not charged for, and why: by its periods, its meters and its dimensions. Core."""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from typing import NamedTuple

import polars as pl

from rating.schedules import Period, Scheduler
from schemas.charge import INSTANT
from schemas.charges import Charge, MatrixCharge, MeteredCharge
from schemas.configuration import Fault
from schemas.contract import Contract, Contracts
from schemas.invoice import Columns

Payer = tuple[Contract | None, tuple[Period, ...]]
"""A contract, None for the default plan, and its billing periods."""


class Charged(NamedTuple):
    """What a subject's usage is asked for."""

    charges: tuple[Charge, ...]
    promised: frozenset[str]
    """Meters of service levels."""


def payers_of(
    usage: pl.DataFrame, contracts: Contracts, schedules: Mapping[str, tuple[Period, ...]], scheduler: Scheduler
) -> dict[str, Payer]:
    """The contract and the billing periods of each subject in the usage; no contract: the default plan's."""
    of_subject = {subject: each for each in contracts.contracts for subject in each.subjects}
    payers: dict[str, Payer] = {}
    for subject in usage["subject"].unique().sort():
        contract = of_subject.get(subject)
        payers[subject] = (contract, schedules[contract.customer] if contract else scheduler.of(None))
    return payers


def by_periods(
    usage: pl.DataFrame, payers: Mapping[str, Payer], after: date, through: date, file: str
) -> tuple[pl.DataFrame, list[str]]:
    """The rows within the periods that are rated; and how many are not, with the reason.

    Usage that nobody pays for is within: the rater tells it.
    """
    never = datetime.max.replace(tzinfo=UTC)
    spans = []
    for subject, (contract, periods) in payers.items():
        ends_on = contract.ends_on if contract else None
        first, last = (periods[0].start_at, periods[-1].end_at) if periods else (never, never)
        if contract is None and not periods:  # no default plan
            first = datetime.min.replace(tzinfo=UTC)
        ended = bool(periods and ends_on == periods[-1].days.end)
        spans.append((subject, first, last, ended, bool(periods) or contract is None))
    schema: Columns = {
        "subject": pl.String,
        "first": INSTANT,
        "last": INSTANT,
        "ended": pl.Boolean,
        "billed": pl.Boolean,
    }
    placed = usage.join(pl.DataFrame(spans, schema=schema, orient="row"), on="subject", maintain_order="left")
    at = pl.col("at")
    unbilled = f"of customers without a billing period that ends after {after} and by {through}"
    reason = (
        pl.when(~pl.col("billed")).then(pl.lit(unbilled))
        .when(at < pl.col("first")).then(pl.lit(f"of periods that end by {after}, or from before a contract begins"))
        .when((at >= pl.col("last")) & pl.col("ended")).then(pl.lit("from after a contract has ended"))
        .when(at >= pl.col("last")).then(pl.lit(f"of periods that end after {through}"))
    )  # fmt: skip
    placed = placed.with_columns(reason=reason)
    counts = placed.filter(pl.col("reason").is_not_null()).group_by("reason").len().sort("reason").rows()
    told = [f"{rows_of(count)} of {file} not rated: {why}" for why, count in counts]
    return placed.filter(pl.col("reason").is_null()).drop("first", "last", "ended", "billed", "reason"), told


def charged(payers: Mapping[str, Payer]) -> dict[str, Charged]:
    """What the usage of each subject is asked for; nothing of those that nobody pays for."""
    known: dict[int, tuple[Charge, ...]] = {}
    found = {}
    for subject, (contract, periods) in payers.items():
        if periods:
            if id(periods) not in known:
                distinct = {id(each.charge): each.charge for period in periods for each in period.segments}
                known[id(periods)] = tuple(distinct.values())
            promised = frozenset(sla.meter for sla in contract.sla) if contract else frozenset()
            found[subject] = Charged(known[id(periods)], promised)
    return found


def lacking_dimensions(usage: pl.DataFrame, charges: Mapping[str, Charged], file: str) -> Iterable[Fault]:
    """Dimensions that charges of used meters ask for, and no row of the file has."""
    used = set(usage.select("subject", "meter").unique().rows())
    lacking: dict[str, tuple[str, str]] = {}
    for subject, own in charges.items():
        for charge in own.charges:
            if isinstance(charge, MeteredCharge) and (subject, charge.meter) in used:
                asked = {*charge.filters, *charge.group_by}
                asked |= set(charge.dimensions) if isinstance(charge, MatrixCharge) else set()
                lacking |= {
                    name: (charge.id, charge.meter) for name in asked if f"dimension.{name}" not in usage.columns
                }
    for name, (charge_id, meter) in sorted(lacking.items()):
        allowed = f"allowed: a value in rows of {meter}, as charge {charge_id} asks for it"
        yield Fault(file, f"dimensions.{name}", "missing in all rows", allowed)


def unused(usage: pl.DataFrame, charges: Mapping[str, Charged]) -> Iterable[str]:
    """A sentence for each meter with usage that no charge of its customer takes."""
    taken = {
        (subject, meter)
        for subject, own in charges.items()
        for meter in {*own.promised, *(getattr(charge, "meter", None) for charge in own.charges)}
    }
    counts = usage.group_by("meter", "subject").len().sort("meter", "subject")
    lost: dict[str, dict[str, int]] = {}
    for meter, subject, count in counts.rows():
        if subject in charges and (subject, meter) not in taken:
            lost.setdefault(meter, {})[subject] = count
    for meter, of_subjects in lost.items():
        yield f"no charge uses meter {meter}: {rows_of(sum(of_subjects.values()))} of {some(list(of_subjects))}"


def rows_of(count: int) -> str:
    """How many rows."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def some(names: list[str], most: int = 5) -> str:
    """Names, or the first of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
