"""Who pays, for which subjects, under which segments: the frames that rating starts from. Core.

Owns that a subject has one payer or none, and that the frames of a million customers are made by joins, not one by one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl

from rating.books import local_midnight
from rating.frames import INSTANT, SEGMENTS
from rating.prices import Term
from rating.schedules import Period, Scheduler
from rating.terms import Terms
from schemas.contract import Contract
from schemas.invoice import Columns

PERIODS: Columns = {
    "place": pl.UInt32,
    "period_start": INSTANT,
    "period_end": INSTANT,
    "terms": pl.UInt32,  # the place in the list of terms at the period's end
    "numerator": pl.Int64,  # the period's fraction of a full one
    "denominator": pl.Int64,
}
"""Columns of a frame of the billing periods of customers, sorted by place and period_start."""


@dataclass(frozen=True)
class Customers:
    """The customers of a rating, sorted by name: a customer's place is its row."""

    customers: pl.DataFrame
    """Columns customer, and name: of the contract, or the customer's own."""
    subjects: pl.DataFrame
    """Columns subject and place."""
    periods: pl.DataFrame
    """Columns PERIODS."""
    segments: pl.DataFrame
    """Columns SEGMENTS, of all charges."""
    charges: tuple[Term, ...]
    """What the segments' `term` points into."""
    charge_terms: tuple[Terms, ...]
    """For each of them, the terms that it is of."""
    terms: tuple[Terms, ...]
    """What the periods' `terms` points into."""


def customers_of(contracts: Iterable[Contract], others: pl.Series, scheduler: Scheduler) -> Customers:
    """The customers with a contract, and `others`: subjects on the default plan, each of them its own customer.

    A customer without a billing period in question is left out.
    """
    numbers: dict[int, int] = {}
    schedules: list[tuple[Period, ...]] = []

    def number_of(schedule: tuple[Period, ...]) -> int:
        if id(schedule) not in numbers:
            numbers[id(schedule)] = len(schedules)
            schedules.append(schedule)
        return numbers[id(schedule)]

    contracted = [(each, number_of(scheduler.of(each))) for each in contracts]
    schema: Columns = {"customer": pl.String, "name": pl.String, "schedule": pl.UInt32, "subject": pl.List(pl.String)}
    customers = pl.DataFrame(
        {
            "customer": [each.customer for each, _ in contracted],
            "name": [each.name for each, _ in contracted],
            "schedule": [number for _, number in contracted],
            "subject": [each.subjects for each, _ in contracted],
        },
        schema=schema,
    )
    default = scheduler.of(None) if len(others) else ()
    if default:
        own = pl.DataFrame({"customer": others}).with_columns(
            name="customer", schedule=pl.lit(number_of(default), pl.UInt32), subject=pl.concat_list("customer")
        )
        customers = pl.concat([customers, own.select(*schema)])
    having = [number for number, schedule in enumerate(schedules) if schedule]
    customers = customers.filter(pl.col("schedule").is_in(having)).sort("customer").with_row_index("place")
    return _frames(customers, schedules)


def _frames(customers: pl.DataFrame, schedules: Sequence[tuple[Period, ...]]) -> Customers:
    charges: dict[tuple[int, int, int], int] = {}
    held: list[tuple[Term, Terms]] = []
    terms: dict[int, tuple[int, Terms]] = {}
    segments, periods = [], []
    for number, schedule in enumerate(schedules):
        run = 0
        for period in schedule:
            at_end = terms.setdefault(id(period.terms), (len(terms), period.terms))[0]
            whole = period.fraction
            periods.append((number, period.start_at, period.end_at, at_end, *whole))
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
            run += len(period.segments) + 1
    places = customers.select("place", "schedule")
    of_schedule = _frame(segments, {"schedule": pl.UInt32, **{n: k for n, k in SEGMENTS.items() if n != "place"}})
    runs = max((row[9] for row in segments), default=0) + 1
    joined = places.join(of_schedule, on="schedule", maintain_order="left_right")
    assert customers.height * runs < 2**32, "too many customers at once"
    of_period = _frame(periods, {"schedule": pl.UInt32, **{n: k for n, k in PERIODS.items() if n != "place"}})
    return Customers(
        customers=customers.select("customer", "name"),
        subjects=customers.select("subject", "place").explode("subject", empty_as_null=False, keep_nulls=False),
        periods=places.join(of_period, on="schedule", maintain_order="left_right").select(*PERIODS),
        segments=joined.with_columns(run=pl.col("place") * runs + pl.col("run")).select(*SEGMENTS),
        charges=tuple(term for term, _ in held),
        charge_terms=tuple(own for _, own in held),
        terms=tuple(each for _, each in terms.values()),
    )


def _frame(rows: Sequence[tuple[object, ...]], schema: Columns) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=schema, orient="row")
