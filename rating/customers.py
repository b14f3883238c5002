"""Who pays, for which subjects, under which segments: the frames that rating starts from. Core.

Owns that a subject has one payer or none, and that the frames of a million customers are made by joins, not one by one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import polars as pl

from rating.books import local_midnight
from rating.frames import SEGMENTS
from rating.prices import Term
from rating.schedules import Period, Scheduler
from rating.terms import Terms
from schemas.charge import INSTANT
from schemas.contract import Contract
from schemas.invoice import Columns

BILLED: Columns = {
    "place": pl.UInt32,
    "period": pl.UInt32,  # the place in the list of periods
    "period_start": INSTANT,
    "period_end": INSTANT,
}
"""Columns of a frame of the billing periods of customers, sorted by place and period_start."""


@dataclass(frozen=True)
class Customers:
    """The customers of a rating, sorted by name: a customer's place is its row."""

    names: pl.DataFrame
    """Columns customer, name (of the contract, or the customer's own), and contracted."""
    subjects: pl.DataFrame
    """Columns subject and place."""
    billed: pl.DataFrame
    """Columns BILLED."""
    segments: pl.DataFrame
    """Columns SEGMENTS, of all charges."""
    charges: tuple[Term, ...]
    """What the segments' `term` points into, with the policies of the period's end."""
    charge_terms: tuple[Terms, ...]
    """For each of them, the terms that it is of."""
    periods: tuple[Period, ...]
    """What `period` points into. Customers whose contracts say the same share their periods."""


def customers_of(contracts: Iterable[Contract], others: pl.DataFrame, scheduler: Scheduler) -> Customers:
    """The customers with a contract, and subjects on the default plan, each of them its own customer.

    `others` has the columns subject and at: when each of them was used. They are billed for the periods in which they
    were; contracts are billed for all. Customers without a billing period in question are left out.
    """
    numbers: dict[int, int] = {}
    schedules: list[tuple[Period, ...]] = []

    def number_of(schedule: tuple[Period, ...]) -> int:
        if id(schedule) not in numbers:
            numbers[id(schedule)] = len(schedules)
            schedules.append(schedule)
        return numbers[id(schedule)]

    contracted = [(each, number_of(scheduler.of(each))) for each in contracts]
    schema: Columns = {
        "customer": pl.String, "name": pl.String, "contracted": pl.Boolean, "schedule": pl.UInt32,
        "subject": pl.List(pl.String),
    }  # fmt: skip
    customers = pl.DataFrame(
        {
            "customer": [each.customer for each, _ in contracted],
            "name": [each.name for each, _ in contracted],
            "contracted": [True] * len(contracted),
            "schedule": [number for _, number in contracted],
            "subject": [list(each.subjects) for each, _ in contracted],
        },
        schema=schema,
    )
    default = scheduler.of(None) if others.height else ()
    used = _used(others, default)
    if used.height:
        own = used.select(customer="subject").unique().with_columns(
            name="customer", contracted=False, schedule=pl.lit(number_of(default), pl.UInt32),
            subject=pl.concat_list("customer"),
        )  # fmt: skip
        customers = pl.concat([customers, own.select(*schema)])
    having = [number for number, schedule in enumerate(schedules) if schedule]
    customers = customers.filter(pl.col("schedule").is_in(having)).sort("customer").with_row_index("place")
    made = _frames(customers, schedules)
    return made if len(default) < 2 else _where_used(made, used)


def _used(others: pl.DataFrame, periods: Sequence[Period]) -> pl.DataFrame:
    """In which of the periods each subject was used: columns subject and period_start, each once."""
    if not periods:
        return pl.DataFrame(schema={"subject": pl.String, "period_start": INSTANT})
    starts = pl.DataFrame(
        {"period_start": [each.start_at for each in periods], "period_end": [each.end_at for each in periods]},
        schema={"period_start": INSTANT, "period_end": INSTANT},
    )
    if len(periods) == 1:
        start, end = starts.row(0)
        held = others.lazy().filter(pl.col("at") >= start, pl.col("at") < end).select("subject").unique()
        return held.with_columns(period_start=pl.lit(start, INSTANT)).collect()
    placed = others.select("subject", "at").sort("at").join_asof(starts, left_on="at", right_on="period_start")
    return placed.filter(pl.col("at") < pl.col("period_end")).select("subject", "period_start").unique()


def _where_used(made: Customers, used: pl.DataFrame) -> Customers:
    """Without the periods in which a subject on the default plan was not used."""
    contracted = made.names.with_row_index("place").filter("contracted").select("place")
    of_others = used.join(made.subjects, on="subject").select("place", "period_start")
    names = made.names.with_row_index("place").filter(~pl.col("contracted")).select("place", "customer")
    of_others = of_others.join(names, on="place", how="semi")

    def kept(frame: pl.DataFrame, *order: str) -> pl.DataFrame:
        own = frame.join(contracted, on="place", how="semi")
        others = frame.join(of_others, on=["place", "period_start"], how="semi")
        return pl.concat([own, others]).sort("place", "period_start", *order)

    return replace(made, billed=kept(made.billed), segments=kept(made.segments, "slot", "from_at"))


def _frames(customers: pl.DataFrame, schedules: Sequence[tuple[Period, ...]]) -> Customers:
    charges: dict[tuple[int, int, int], int] = {}
    held: list[tuple[Term, Terms]] = []
    segments: list[tuple[object, ...]] = []
    billed: list[tuple[object, ...]] = []
    periods: list[Period] = []
    runs = 0
    for number, schedule in enumerate(schedules):
        run = 0
        for period in schedule:
            billed.append((number, len(periods), period.start_at, period.end_at))
            periods.append(period)
            for each in period.segments:
                key = (id(each.charge), id(each.terms.book), id(period.terms.book))
                if key not in charges:
                    charges[key] = len(held)
                    held.append((Term(each.charge, period.terms.book.policies), each.terms))
                from_at, to_at = (local_midnight(day, period.zone) for day in each.days)
                segments.append((
                    number, each.slot, charges[key], period.start_at, period.end_at, from_at, to_at,
                    each.numerator, each.denominator, run + each.run, each.trial,
                ))  # fmt: skip
            run += max((each.run for each in period.segments), default=0)
        runs = max(runs, run + 1)
    assert customers.height * runs < 2**32, "too many customers at once"
    places = customers.select("place", "schedule")

    def of_customers(rows: list[tuple[object, ...]], columns: Columns) -> pl.DataFrame:
        schema = {"schedule": pl.UInt32, **{name: kind for name, kind in columns.items() if name != "place"}}
        frame = pl.DataFrame(rows, schema=schema, orient="row")
        return places.join(frame, on="schedule", maintain_order="left_right").select(*columns)

    run_of_all = (pl.col("place") * runs + pl.col("run")).cast(pl.UInt32)
    return Customers(
        names=customers.select("customer", "name", "contracted"),
        subjects=customers.select("subject", "place").explode("subject", empty_as_null=False, keep_nulls=False),
        billed=of_customers(billed, BILLED),
        segments=of_customers(segments, SEGMENTS).with_columns(run=run_of_all),
        charges=tuple(term for term, _ in held),
        charge_terms=tuple(own for _, own in held),
        periods=tuple(periods),
    )
