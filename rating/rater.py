"""The rater: usage, price books and contracts give the charges of billing periods, for all customers at once. Core.

Decides the order of the stages. Owns the invariants that the slices of a charge add up to its gross amount, that an
amount is rounded once, and that the order of the usage rows changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from rating.billionths import quantity_of
from rating.bills import Bills, bills_of
from rating.books import Books
from rating.chain import CHARGED, Chained, chain
from rating.combining import combined
from rating.customers import Customers, customers_of
from rating.levels import CARRIED
from rating.rows import Priced, priced_rows
from rating.schedules import Period, Scheduler
from rating.wanted import wants_of, wants_of_others
from rating.worded import charges_of, discounts_of, slices_of
from schemas.charges import Charge
from schemas.contract import Contract, Contracts
from schemas.wanted import Want


@dataclass(frozen=True)
class Basis:
    """What is rated, and what charges say they were rated from."""

    books: Books
    contracts: Contracts
    aggregations: Mapping[str, str]
    """How the rows of each meter are combined."""
    after: date
    through: date
    """Periods are rated whose end is on a day in (after, through], counted where the customer is."""
    cut: int = 0
    """The barrier: usage of the epochs below it."""
    advance: bool = False
    """Whether what is paid in advance of the period that has begun is rated as well."""


@dataclass(frozen=True)
class Rated:
    """What rating gives."""

    charges: pl.DataFrame
    """Columns `schemas.charge.CHARGES`, sorted by customer, period and the order of the invoice."""
    slices: pl.DataFrame
    """Columns `schemas.charge.SLICES`, in the order of the charges."""
    discounts: pl.DataFrame
    """Columns `schemas.charge.DISCOUNTS`, in the order of the charges."""
    unassigned: pl.DataFrame
    """Usage that nobody pays for: columns subject, meter, quantity (QUANTITY) and reason, sorted."""
    carried: pl.DataFrame
    """The levels that recurring charges end with: columns customer, charge, group, cell, quantity; sorted. Those that
    were carried to charges without a period here stay as they came. A level of 0 has no row."""


class Rater:
    """Rates customers of one basis: all at once with `rate`, or some at a time, so that memory stays bounded."""

    def __init__(self, basis: Basis) -> None:
        self.basis = basis
        self._wants: dict[int, tuple[Want, ...]] = {}  # by schedule: the scheduler keeps them
        self._scheduler = Scheduler(
            basis.books,
            basis.contracts,
            after=basis.after,
            through=basis.through,
            aggregations=basis.aggregations,
            advance=basis.advance,
        )

    @property
    def charges(self) -> list[Charge]:
        """The charges of all billing periods, as their terms have them."""
        return [segment.charge for period in self._periods for segment in period.segments]

    @property
    def span(self) -> tuple[datetime, datetime] | None:
        """From the first start to the last end of all billing periods; None when there is none."""
        bounds = [(period.start_at, period.end_at) for period in self._periods]
        return (min(start for start, _ in bounds), max(end for _, end in bounds)) if bounds else None

    @property
    def _periods(self) -> list[Period]:
        every = [*self.basis.contracts.contracts, None]
        schedules = {id(schedule): schedule for schedule in map(self._scheduler.of, every)}.values()
        return [period for schedule in schedules for period in schedule]

    def wants(self, contract: Contract) -> tuple[Want, ...]:
        """The usage that the charges of a contract look at; none where it has no billing period in question."""
        schedule = self._scheduler.of(contract)
        if id(schedule) not in self._wants:
            self._wants[id(schedule)] = wants_of(schedule)
        return self._wants[id(schedule)]

    def bills(self, contract: Contract) -> bool:
        """Whether a contract has a billing period in question."""
        return bool(self._scheduler.of(contract))

    def wants_of_others(self) -> tuple[Want, ...]:
        """The usage that is looked at of subjects that no contract names: of all meters."""
        basis = self.basis
        default = self._scheduler.of(None)
        return wants_of_others(default, basis.aggregations, after=basis.after, through=basis.through)

    def rate(
        self,
        usage: pl.DataFrame,
        contracts: Sequence[Contract] | None = None,
        *,
        carried: pl.DataFrame | None = None,
        prepaid: Mapping[str, int] | None = None,
    ) -> Rated:
        """The charges of some contracts, or of all; and of the subjects in the usage that no contract at all names.

        `usage` has the columns rating.frames.USAGE that the charges ask for, in any order. `carried` has the columns of
        `Rated.carried`, `prepaid` the prepaid credits of customers in minor units of their currency.

        In this order: (1) who pays: a contract for its subjects, and without usage too; any other subject with usage is
        a customer of its own on the default plan, if there is one and no contract's customer has that very name. (2)
        Rows are priced; (3) the chain makes amounts of them, and rounds; (4) rows get their words and ids.

        Raises LookupError and ValueError for what cannot be rated: a contract on a plan, version or currency that there
        is not, usage of a meter without aggregation, usage without a dimension that a charge asks for; OverflowError,
        or polars' error, where a quantity or an amount needs more than 17 whole digits.
        """
        basis = self.basis
        # 1. who pays
        taken = pl.Series(sorted(basis.contracts.names), dtype=pl.String)
        others = usage.lazy().select("subject", "at").filter(~pl.col("subject").is_in(taken.implode())).collect()
        customers = customers_of(basis.contracts.contracts if contracts is None else contracts, others, self._scheduler)
        # 2. price
        priced = priced_rows(usage, customers, basis.aggregations, _placed(carried, customers))
        # 3. chain
        bills = bills_of(customers, usage, basis.aggregations, prepaid or {})
        chained = _chained(priced, bills, customers)
        # 4. words
        charges, ids = charges_of(
            chained.lines, priced.rows, bills, customers, contracts_digest=basis.contracts.digest, cut=basis.cut
        )
        return Rated(
            charges,
            slices_of(priced, chained.lines, ids, customers),
            discounts_of(chained.applied, ids),
            pl.concat([_nobodys(usage, customers, basis.aggregations), priced.unassigned]),
            _carried_on(priced.carried, carried, customers),
        )


def _chained(priced: Priced, bills: Bills, customers: Customers) -> Chained:
    key = ("place", "period_start")
    of_bill = customers.billed.select(key).with_row_index("bill")
    rows = priced.rows.join(of_bill, on=key, how="left", maintain_order="left")
    buckets = priced.parts.filter(pl.col("bucket_at").is_not_null()).select("row", "bucket_at", "amount")
    return chain(
        rows.select(*CHARGED), bills.bills, customers.charges, bills.levels, bills.policies, buckets, bills.beside
    )


def _nobodys(usage: pl.DataFrame, customers: Customers, aggregations: Mapping[str, str]) -> pl.DataFrame:
    """The usage of subjects that nobody pays for (columns UNASSIGNED), sorted by subject and meter."""
    strangers = sorted(set(usage["meter"].unique()) - set(aggregations))
    if strangers:
        known = ", ".join(sorted(aggregations)) or "(none)"
        raise ValueError(f"usage of meters without an aggregation: {', '.join(strangers)}; allowed: {known}")
    lost = usage.join(customers.subjects, on="subject", how="anti")
    kinds = pl.col("meter").replace_strict(aggregations, return_dtype=pl.String)
    found = combined(lost.with_columns(aggregation=kinds), ["subject", "meter"]).sort("subject", "meter")
    reason = pl.lit("no contract in force names the subject, and there is no default plan for it")
    return found.select("subject", "meter", quantity=quantity_of(pl.col("billionths")), reason=reason)


def _placed(carried: pl.DataFrame | None, customers: Customers) -> pl.DataFrame | None:
    """Carried levels by place."""
    if carried is None or carried.is_empty():
        return None
    return carried.join(customers.names.with_row_index("place"), on="customer").select(*CARRIED)


def _carried_on(found: pl.DataFrame, carried: pl.DataFrame | None, customers: Customers) -> pl.DataFrame:
    """The levels at the end, by customer and charge; those of charges that were not rated stay as they came."""
    named = found.with_columns(customers.names["customer"].gather(found["place"]))
    named = named.select("customer", "charge", "group", "cell", "quantity")
    if carried is not None and not carried.is_empty():
        ids = pl.Series([term.charge.id for term in customers.charges], dtype=pl.String)
        rated = customers.segments.select("place", charge=pl.lit(ids).gather(pl.col("term"))).unique()
        rated = rated.with_columns(customers.names["customer"].gather(rated["place"]))
        kept = carried.join(rated, on=["customer", "charge"], how="anti").select(named.columns)
        named = pl.concat([named, kept])
    return named.sort("customer", "charge", "group", "cell")
