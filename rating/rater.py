"""The rater: usage, a price book and contracts give the charges of a period, for all customers at once. Core.

Decides who pays for a subject, and what of a plan becomes a charge. Owns the invariants that the slices of a charge
add up to its exact amount, that an amount is rounded once, and that the order of the usage rows changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import reduce
from typing import Any

import polars as pl

from rating.slices import Step, billable, slice_amount, steps_of, terms_of
from schemas.charge import CHARGES, SLICE
from schemas.charges import FlatCharge
from schemas.contract import Contracts
from schemas.exact import WHOLE_DIGITS_MAX
from schemas.money import MINOR_UNITS, QUANTITY, average, rounded_minor
from schemas.price_book import PriceBook
from schemas.tables import LATEST_ORDER

_LIMIT = 10**WHOLE_DIGITS_MAX
_SUM_LIMIT = 10**29  # what a QUANTITY holds


@dataclass(frozen=True)
class Rated:
    """What rating a period gives."""

    charges: pl.DataFrame
    """Columns `schemas.charge.CHARGES`, sorted by customer and the charge's place in its plan."""
    unassigned: pl.DataFrame
    """Usage that nobody pays for: columns subject, meter and quantity (QUANTITY), sorted by subject and meter."""


def rate(
    usage: pl.DataFrame,
    book: PriceBook,
    contracts: Contracts,
    *,
    period: str,
    cut: int,
    aggregations: Mapping[str, str],
) -> Rated:
    """The charges of a period (a calendar month, "2013-01") with their slices, and the usage that nobody pays for.

    `usage` has the columns subject, meter, quantity (QUANTITY) and uniques (list of strings, for UNIQUE_COUNT meters,
    which have no quantity), in any order, also with several rows for a subject and meter; where there are AVG meters
    also sum and count, and where there are LATEST meters latest, a struct with LATEST_ORDER. `aggregations` says how
    the rows of a meter are combined: SUM and COUNT add, MIN and MAX take the extreme, AVG divides the sum of the sums
    by that of the counts, LATEST takes the quantity that is last in LATEST_ORDER, UNIQUE_COUNT counts the distinct
    strings. `cut`, the barrier whose earlier epochs the usage is of, is only recorded.

    In this order: (1) A contract in force (`Contract.in_force`) pays for its subjects, and is charged for its plan also
    without usage. Any other subject with usage is a customer of its own on the book's default plan; if there is none,
    or if a contract's customer has that very name, its usage is unassigned. (2) The usage of all subjects of a customer
    is combined before it is rated, because tiers are the customer's. (3) A quantity below 0 is rated as 0. Every charge
    of the plan gives a line, except one whose quantity and amount are 0. (4) Lines are split into slices; (5) amounts
    are the sums of slices, rounded last, because a price may be a fraction of a cent.

    Raises ValueError for a contract on a plan that the book lacks and for usage of a meter without aggregation;
    OverflowError, or polars' error, where a quantity or an amount needs more than 17 whole digits.
    """
    # 1. who pays
    customers = _customers(usage, book, contracts, period_end(period))
    subjects = customers.explode("subjects", empty_as_null=False, keep_nulls=False)
    owned = usage.join(subjects.select("place", subject="subjects"), on="subject", how="left")
    # 2. combine
    quantities = _combined(owned.filter(pl.col("place").is_not_null()), "place", aggregations)
    unassigned = _combined(owned.filter(pl.col("place").is_null()), "subject", aggregations)
    # 3. lines
    lines, steps = _lines(customers, quantities, book)
    # 4. slices
    slices = _slices(steps)
    # 5. amounts
    assert lines["line"].equals(slices["line"]), "a line without slices, or slices without a line"
    rated = lines.hstack(slices.drop("line").get_columns())
    charges = _worded(rated, customers, book).with_columns(
        amount_minor=rounded_minor(pl.col("amount"), MINOR_UNITS[book.currency]),
        period=pl.lit(period),
        contracts_digest=pl.lit(contracts.digest),
        cut=pl.lit(cut, pl.Int64),
    )
    return Rated(charges.select(*CHARGES), unassigned.sort("subject", "meter"))


def period_end(period: str) -> date:
    """The first day after a calendar month. Raises ValueError for what is none.

    >>> period_end("2013-12")
    datetime.date(2014, 1, 1)
    """
    try:
        start = date.fromisoformat(f"{period}-01")
    except ValueError:
        raise ValueError(f"period {period!r}; allowed: a month such as 2013-01") from None
    return date(start.year + start.month // 12, start.month % 12 + 1, 1)


def _customers(usage: pl.DataFrame, book: PriceBook, contracts: Contracts, end: date) -> pl.DataFrame:
    """Who is charged in the period, sorted: columns customer, plan, subjects, and place, the row's number."""
    in_force = [contract for contract in contracts.contracts if contract.in_force(end)]
    plans = {plan.id for plan in book.plans}
    lost = [f"{contract.customer} on {contract.plan}" for contract in in_force if contract.plan not in plans]
    if lost:
        known = f"allowed: a plan of {book.book} version {book.version}: {', '.join(sorted(plans))}"
        raise ValueError(f"contracts on plans that the price book lacks: {', '.join(lost)}; {known}")
    customers = pl.DataFrame(
        {
            "customer": [contract.customer for contract in in_force],
            "plan": [contract.plan for contract in in_force],
            "subjects": [contract.subjects for contract in in_force],
        },
        schema={"customer": pl.String, "plan": pl.String, "subjects": pl.List(pl.String)},
    )
    if book.default_plan is not None:
        taken = pl.concat([customers["subjects"].explode(empty_as_null=False, keep_nulls=False), customers["customer"]])
        others = usage.select(customer=pl.col("subject").unique())
        others = others.join(taken.to_frame("customer"), on="customer", how="anti")
        plan = pl.lit(book.default_plan)
        customers = pl.concat([customers, others.with_columns(plan=plan, subjects=pl.concat_list("customer"))])
    return customers.sort("customer").with_row_index("place")


def _combined(usage: pl.DataFrame, owner: str, aggregations: Mapping[str, str]) -> pl.DataFrame:
    """Columns owner, meter and quantity: one row for each owner and meter that has usage, in no order."""
    strangers = sorted(set(usage["meter"].unique()) - set(aggregations))
    if strangers:
        raise ValueError(f"usage of meters without an aggregation: {', '.join(strangers)}")
    _refuse_overflow(usage["quantity"], "a quantity")
    if "sum" in usage.columns:
        _refuse_overflow(usage["sum"], "the sum of an average's values", terms=len(usage), limit=_SUM_LIMIT)
    quantity = pl.col("quantity")
    uniques = pl.col("uniques").explode(empty_as_null=False, keep_nulls=False)
    combine = {
        "SUM": quantity.sum(),
        "COUNT": quantity.sum(),
        "MIN": quantity.min(),
        "MAX": quantity.max(),
        "AVG": average(pl.col("sum").sum(), pl.col("count").sum()).alias("quantity"),
        "LATEST": quantity.sort_by([*(pl.col("latest").struct.field(name) for name in LATEST_ORDER), quantity]).last(),
        "UNIQUE_COUNT": uniques.n_unique().cast(QUANTITY).alias("quantity"),
    }
    parts = [pl.LazyFrame(schema={owner: usage.schema[owner], "meter": pl.String, "quantity": QUANTITY})]
    for kind, expression in combine.items():
        if meters := [meter for meter, aggregation in aggregations.items() if aggregation == kind]:
            parts.append(usage.lazy().filter(pl.col("meter").is_in(meters)).group_by(owner, "meter").agg(expression))
    combined = pl.concat(pl.collect_all(parts))
    _refuse_overflow(combined["quantity"], "the sum of a customer's quantities")
    return combined


def _lines(
    customers: pl.DataFrame, quantities: pl.DataFrame, book: PriceBook
) -> tuple[pl.DataFrame, list[tuple[Step, pl.LazyFrame]]]:
    """The lines (columns line and quantity), sorted; and each step of each charge with the lines that it sells to.

    The number of a line is its place in the result if every customer had every charge of the book: so it sorts by
    customer, then by place in the plan, and tells both.
    """
    slots = [(plan.id, charge) for plan in book.plans for charge in plan.charges]
    every = {plan.id: customers.lazy().filter(pl.col("plan") == plan.id).select("place") for plan in book.plans}
    possible = [steps_of(charge, pl.col("quantity"), book.policies.zero_usage_flat) for _, charge in slots]
    wanted = []
    for slot, ((plan, charge), of_charge) in enumerate(zip(slots, possible, strict=True)):
        line = (pl.col("place").cast(pl.Int64) * len(slots) + slot).alias("line")
        if isinstance(charge, FlatCharge):
            used = every[plan].select(line, quantity=pl.lit(1).cast(QUANTITY))
        else:
            of_meter = quantities.lazy().filter(pl.col("meter") == charge.meter)
            used = every[plan].join(of_meter, on="place", how="left").select(line, billable(pl.col("quantity")))
        owed = [step.sold for step in of_charge if step.flat > 0]
        wanted.append(used.filter(reduce(pl.Expr.or_, owed, pl.col("quantity") > 0)))
    lines = pl.collect_all(wanted)
    sold = [
        (step, used.lazy().filter(step.sold).select("line", quantity=step.quantity))
        for used, of_charge in zip(lines, possible, strict=True)
        for step in of_charge
    ]
    return pl.concat(lines).sort("line"), sold


def _slices(steps: list[tuple[Step, pl.LazyFrame]]) -> pl.DataFrame:
    """Columns line, slices and amount, sorted by line.

    Slices are sorted while they are narrow, and packed into lists last: polars moves lists of structs about slowly.
    """
    terms = terms_of([step for step, _ in steps])
    sold = pl.concat([lines.with_columns(term=pl.lit(at, pl.UInt32)) for at, (_, lines) in enumerate(steps)])
    slices = sold.collect().sort("line", maintain_order=True)
    slices = slices.select("line", "quantity", *[column.gather(slices["term"]) for column in terms])
    amount = slice_amount(pl.col("quantity"), pl.col("billionth_price"), pl.col("flat_amount"))
    slices = slices.with_columns(amount=amount)
    by_line = slices.lazy().group_by("line", maintain_order=True)
    explanation = pl.struct(field.name for field in SLICE.fields)
    packed, sums = pl.collect_all([by_line.agg(explanation.alias("slices")), by_line.agg(pl.col("amount").sum())])
    # Amounts are not negative, so no sum is above the largest amount times the most slices.
    _refuse_overflow(slices["amount"], "the sum of a charge's slices", terms=packed["slices"].list.len().max())
    return packed.hstack([sums["amount"]])


def _worded(rated: pl.DataFrame, customers: pl.DataFrame, book: PriceBook) -> pl.DataFrame:
    """The rated lines with the customer's name, the words of the charge, and the book that they were rated by."""
    charges = [charge for plan in book.plans for charge in plan.charges]
    words = pl.DataFrame(
        [(charge.id, charge.title, charge.model, getattr(charge, "meter", None)) for charge in charges],
        schema={name: CHARGES[name] for name in ("charge", "description", "model", "meter")},
        orient="row",
    )
    slots = rated["line"] % len(charges)
    return rated.with_columns(
        customers["customer"].gather(rated["line"] // len(charges)),
        *[column.gather(slots) for column in words],
        currency=pl.lit(book.currency),
        book=pl.lit(book.book),
        book_version=pl.lit(book.version, pl.Int64),
        book_digest=pl.lit(book.digest),
    )


def _refuse_overflow(numbers: pl.Series, what: str, terms: Any = 1, limit: int = _LIMIT) -> None:
    """Raises OverflowError unless any sum of so many of the numbers is below the limit, of 17 whole digits as a rule.

    group_by adds decimals as 128-bit integers without a look at overflow; so this looks for it.
    """
    extremes = [abs(number) for number in (numbers.min(), numbers.max()) if isinstance(number, Decimal)]
    if extremes and max(extremes) * terms >= limit:
        digits = len(str(limit)) - 1
        raise OverflowError(f"{what} may need more than {digits} whole digits: {terms} of up to {max(extremes)}")
