"""Bills: a customer's billing period as the chain sees it, with what plan and contract say of its sum. Core."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import polars as pl

from rating.beside import Beside
from rating.billionths import quantity_of
from rating.chain import BILLS
from rating.combining import combined
from rating.customers import Customers
from rating.discounts import Level, plain
from rating.schedules import Period
from schemas.charge import ChargeKind
from schemas.contract import ManualLine, Sla
from schemas.invoice import Columns
from schemas.plan import Policies


@dataclass(frozen=True)
class Bills:
    """The bills of customers, in the order of their `billed` frame, and what they point into."""

    bills: pl.DataFrame
    """Columns rating.chain.BILLS."""
    levels: tuple[Level, ...]
    policies: tuple[Policies, ...]
    beside: tuple[Beside, ...]
    sources: tuple[ManualLine | Sla, ...]
    """What of a contract each line beside is from."""


def bills_of(
    customers: Customers, usage: pl.DataFrame, aggregations: Mapping[str, str], prepaid: Mapping[str, int]
) -> Bills:
    """The bills of all billing periods. `prepaid` are credits of customers, in minor units of their currency."""
    levels: list[Level] = []
    plans: list[int | None] = []
    contracts: list[int | None] = []
    for period in customers.periods:
        for places, level in ((plans, _plan_level(period)), (contracts, _contract_level(period))):
            places.append(len(levels) if level else None)
            levels += [level] if level else []
    own = pl.DataFrame(
        {
            "currency": [period.terms.currency for period in customers.periods],
            "plan": plans,
            "contract": contracts,
            "policies": list(range(len(customers.periods))),
            "numerator": [period.fraction[0] for period in customers.periods],
            "denominator": [period.fraction[1] for period in customers.periods],
        },
        schema={name: kind for name, kind in BILLS.items() if name not in {"owner", "prepaid_minor"}},
    )
    billed = customers.billed
    bills = billed.select(owner="place").hstack([column.gather(billed["period"]) for column in own])
    credits_ = pl.DataFrame({"customer": list(prepaid), "minor": list(prepaid.values())}, _CREDITS)
    owned = customers.names.join(credits_, on="customer", how="left", maintain_order="left")["minor"].fill_null(0)
    bills = bills.with_columns(prepaid_minor=owned.gather(billed["place"]))
    beside: list[tuple[Beside, ManualLine | Sla]] = [*_sla(customers, usage, aggregations), *_manual(customers)]
    return Bills(
        bills=bills.select(pl.col(name).cast(kind) for name, kind in BILLS.items()),
        levels=tuple(levels),
        policies=tuple(period.terms.book.policies for period in customers.periods),
        beside=tuple(each for each, _ in beside),
        sources=tuple(source for _, source in beside),
    )


_CREDITS: Columns = {"customer": pl.String, "minor": pl.Int64}


def _plan_level(period: Period) -> Level | None:
    plan = period.terms.plan
    return _said(period, Level(plan.discounts, plain(plan.minimum_spend), plain(plan.maximum_spend), plan.commitment))


def _contract_level(period: Period) -> Level | None:
    terms = period.terms
    return _said(period, Level(terms.discounts, terms.minimum_spend, terms.maximum_spend, terms.commitment))


def _said(period: Period, level: Level) -> Level | None:
    """What a level says of a bill; of one that is only of what is paid in advance, its percentages alone."""
    if not period.ended:
        level = Level(tuple(each for each in level.discounts if each.percent is not None))
    return level if level != Level() else None


def _contracts(customers: Customers) -> Iterator[tuple[int, int, Period]]:
    """The bill, place and period of those whose contracts have lines beside the charges: few of all."""
    wanted = [
        number
        for number, period in enumerate(customers.periods)
        if period.ended and period.terms.contract and (period.terms.contract.lines or period.terms.contract.sla)
    ]
    own = customers.billed.with_row_index("bill").filter(pl.col("period").is_in(wanted))
    for bill, place, number in own.select("bill", "place", "period").rows():
        yield bill, place, customers.periods[number]


def _manual(customers: Customers) -> Iterator[tuple[Beside, ManualLine]]:
    for bill, _, period in _contracts(customers):
        assert period.terms.contract
        for line in period.terms.contract.lines:
            if line.amount and period.days.start <= line.on < period.days.end:
                yield Beside(bill, ChargeKind.MANUAL, amount=line.amount), line


def _sla(customers: Customers, usage: pl.DataFrame, aggregations: Mapping[str, str]) -> Iterator[tuple[Beside, Sla]]:
    """The credits of promises that were not kept. Where a meter has no value, nothing was measured and is credited."""
    promises = [
        (bill, place, period, sla)
        for bill, place, period in _contracts(customers)
        for sla in (period.terms.contract.sla if period.terms.contract else ())
    ]
    if not promises:
        return
    schema: Columns = {"promise": pl.UInt32, "place": pl.UInt32, "meter": pl.String,
                       "start": usage.schema["at"], "end": usage.schema["at"]}  # fmt: skip
    wanted = pl.DataFrame(
        [(n, place, sla.meter, period.start_at, period.end_at) for n, (_, place, period, sla) in enumerate(promises)],
        schema=schema, orient="row",
    )  # fmt: skip
    measured = usage.join(customers.subjects, on="subject").join(wanted, on=["place", "meter"])
    measured = measured.filter(pl.col("at") >= pl.col("start"), pl.col("at") < pl.col("end"))
    kinds = pl.col("meter").replace_strict(aggregations, return_dtype=pl.String)
    values = combined(measured.with_columns(aggregation=kinds), ["promise"])
    values = values.select("promise", value=quantity_of(pl.col("billionths"))).sort("promise")
    for number, value in values.rows():
        bill, _, _, sla = promises[number]
        missed = [each for each in sla.credits if value < each.below]
        if missed:
            percent = min(missed, key=lambda each: each.below).percent
            yield Beside(bill, ChargeKind.SLA_CREDIT, percent=percent, charges=sla.charges), sla
