"""Laws of rating, over random price books, contracts and usage."""

from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rating.books import Books
from rating.rater import Basis, Rated, Rater
from schemas.charge import CHARGES, DISCOUNTS, SLICES
from schemas.contract import Contracts
from schemas.price_book import PriceBook
from tests.oracles.rating.kinds import Event
from tests.oracles.rating.rate import rate_slowly
from tests.simulation.rated_cases import (
    expected,
    rated,
    slices_expected,
    slices_told,
    taxes_expected,
    taxes_told,
    told,
)
from tests.simulation.rating_cases import usage_of
from tests.strategies.charges import filled
from tests.strategies.rating import RatingCase, rating_cases

checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
few = settings(max_examples=25, deadline=None, suppress_health_check=checks)
fewer = settings(max_examples=8, deadline=None, suppress_health_check=checks)
ORDER = ("customer", "period_start")


def same(one: Rated, other: Rated) -> None:
    """Both answers, byte for byte."""
    for name in ("charges", "slices", "discounts", "unassigned", "carried"):
        assert getattr(one, name).equals(getattr(other, name)), name


@few
@given(rating_cases())
def test_the_rater_is_the_oracle(case: RatingCase) -> None:
    """All customers at once give what one at a time gives with fractions, to the last digit; slices and taxes too."""
    answer = rate_slowly(case.events, case.books, case.contracts, **case.arguments)
    result = rated(case)
    assert told(result) == expected(answer)
    assert slices_told(result) == slices_expected(answer)
    assert taxes_told(result, case.books[0]) == taxes_expected(answer)


@fewer
@given(rating_cases(contested=True))
def test_amounts_add_up(case: RatingCase) -> None:
    """Slices are their charge's gross amount; gross and discounts its amount; shares and credits take it to its net."""
    result = rated(case)
    schemas = [dict(frame.schema) for frame in (result.charges, result.slices, result.discounts)]
    assert schemas == [CHARGES, SLICES, DISCOUNTS]
    charges = result.charges
    assert charges["id"].is_unique().all()
    sums = result.slices.group_by("charge_id").agg(sold=pl.col("amount").sum())
    own = charges.filter(pl.col("kind").is_in(["usage", "flat"])).join(
        sums, left_on="id", right_on="charge_id", how="left"
    )
    assert own.filter(pl.col("sold").fill_null(0) != pl.col("gross")).is_empty()
    off = result.discounts.filter(level="charge").group_by("charge_id").agg(off=pl.col("amount").sum())
    assert own.filter(pl.col("gross") + pl.col("discount") != pl.col("amount")).is_empty()
    assert set(off["charge_id"]) <= set(charges["id"])
    assert charges.filter(
        pl.sum_horizontal("amount_minor", "shared_minor", "credit_minor") != pl.col("net_minor")
    ).is_empty()
    assert charges.filter((pl.col("shared_minor") > 0) | (pl.col("credit_minor") > 0)).is_empty()
    assert charges.filter((pl.col("net_minor") < 0) & (pl.col("amount_minor") >= 0)).is_empty()
    for customer, most in case.credits.items():
        assert -charges.filter(customer=customer)["credit_minor"].sum() <= most


@fewer
@given(rating_cases(), st.randoms(use_true_random=False))
def test_neither_order_nor_chunks_change_anything(case: RatingCase, chance: Any) -> None:
    """Rows in another order give the same bytes, and so do some customers after the others."""
    usage, whole = usage_of(case.events), rated(case)
    same(rated(case, usage_of(chance.sample(case.events, len(case.events)))), whole)
    contracts = case.contracts.contracts
    first, second = contracts[:1], contracts[1:]
    others = sorted({event.subject for event in case.events} - case.contracts.names)
    halves = [
        {subject for contract in first for subject in contract.subjects} | set(others[::2]),
        {subject for contract in second for subject in contract.subjects} | set(others[1::2]),
    ]
    parts = [
        rated(case, usage.filter(pl.col("subject").is_in(sorted(subjects))), chosen)
        for subjects, chosen in zip(halves, (first, second), strict=True)
    ]
    charges = pl.concat(part.charges for part in parts).sort(ORDER, maintain_order=True)
    assert charges.equals(whole.charges)
    assert pl.concat(part.slices for part in parts).sort(pl.all()).equals(whole.slices.sort(pl.all()))


@fewer
@given(rating_cases())
def test_a_stored_book_rates_the_same(case: RatingCase) -> None:
    """Books that went through their canonical JSON give the same bytes, digests and ids too."""
    stored = [PriceBook.from_canonical(book.canonical()) for book in case.books]
    same(rated(case, books=Books(stored)), rated(case))


@fewer
@given(rating_cases())
def test_a_sum_may_be_told_in_two_rows(case: RatingCase) -> None:
    """Where no single event matters, a row of a SUM and two rows that add up to it are the same."""
    whole = [event._replace(dimensions={}) for event in case.events if event.meter == "total"]
    halves = [event._replace(value=value) for event in whole for value in (event.number - 1, event.number * 0 + 1)]
    same(rated(_without_percentages(case), usage_of(halves)), rated(_without_percentages(case), usage_of(whole)))


def _without_percentages(case: RatingCase) -> RatingCase:
    """The case on plans without charges of single events."""
    books = []
    for book in case.books:
        plans = [
            plan.model_copy(update={"charges": tuple(each for each in plan.charges if each.model != "percentage")})
            for plan in book.plans
        ]
        books.append(book.model_copy(update={"plans": tuple(plans)}))
    return RatingCase(case.events, books, Contracts(contracts=()), case.after, case.through)


MONTH = (date(2024, 1, 1), date(2024, 2, 1))
EVENT = Event("a", "total", datetime(2024, 1, 10, tzinfo=UTC), Fraction(1), {}, 0)


def bill_of(charge: Any, quantities: list[Any], currency: str = "USD") -> Rated:
    """One subject on the default plan with one charge of the meter `total`."""
    book = PriceBook.model_validate(
        {
            "book": "b", "version": 1, "effective_at": "2000-01-01", "currency": currency, "default_plan": "p",
            "plans": [{"id": "p", "charges": [charge]}],
        }
    )  # fmt: skip
    basis = Basis(Books([book]), Contracts(contracts=()), {"total": "SUM"}, *MONTH)
    usage = usage_of([EVENT]).clear()
    rows = [usage_of([EVENT]).with_columns(quantity=pl.lit(each, usage.schema["quantity"])) for each in quantities]
    return Rater(basis).rate(pl.concat([usage, *rows]))


@settings(max_examples=10, deadline=None)
@given(st.data(), st.sampled_from(["standard", "graduated", "package"]), st.integers(0, 40), st.integers(0, 40))
def test_more_usage_never_costs_less(data: st.DataObject, model: str, used: int, more: int) -> None:
    """Of a standard, graduated or package charge, as it is before discounts."""
    charge = data.draw(filled({"id": "c", "model": model, "meter": "total"}, None, contested=False))
    costs = [
        bill_of(charge, [Decimal(each)]).charges.filter(kind="usage")["gross"].sum() for each in (used, used + more)
    ]
    assert costs[0] <= costs[1]


@settings(max_examples=10, deadline=None)
@given(st.data(), st.lists(st.integers(-9, 0), min_size=1, max_size=3))
def test_nothing_and_less_are_as_no_usage(data: st.DataObject, quantities: list[int]) -> None:
    """What was given back is never paid out."""
    model = data.draw(st.sampled_from(["standard", "graduated", "volume", "package", "capacity", "dynamic"]))
    charge = data.draw(filled({"id": "c", "model": model, "meter": "total"}, None, contested=False))
    less = bill_of(charge, [Decimal(each) for each in quantities])
    nothing = bill_of(charge, [Decimal(0)])
    assert less.charges.equals(nothing.charges)
    assert less.charges.filter(pl.col("amount_minor") < 0).is_empty()


@pytest.mark.parametrize(
    ("currency", "minor"), [("JPY", 98765), ("USD", 9876543), ("KWD", 98765432), ("CLF", 987654321)]
)
def test_the_smallest_price_of_the_largest_quantity(currency: str, minor: int) -> None:
    """12 decimals by 17 digits and 9 decimals, exactly, then rounded once: to yen, cents, mills, ten-thousandths."""
    price = {"id": "c", "model": "standard", "meter": "total", "unit_price": "0.000000000001"}
    charges = bill_of(price, [Decimal("98765432109876543.123456789")], currency).charges
    assert charges.select("amount", "amount_minor").row(0) == (Decimal("98765.432109876543123456789"), minor)


@pytest.mark.parametrize("quantities", [["9" * 29], ["1" + "0" * 17], ["9" * 17] * 2, ["-" + "9" * 29]])
def test_quantities_that_do_not_fit_are_errors(quantities: list[str]) -> None:
    """Up to the 38 digits that the column holds, of one row or in all: an error, never a wrong bill."""
    price = {"id": "c", "model": "standard", "meter": "total", "unit_price": "0.000000000001"}
    with pytest.raises(OverflowError, match="17 whole digits"):
        bill_of(price, [Decimal(each) for each in quantities])


@pytest.mark.parametrize("currency", ["JPY", "KWD", "CLF"])
@pytest.mark.parametrize("more", [{}, {"discounts": [{"id": "d", "percent": "33.3"}]}])
def test_amounts_that_do_not_fit_are_errors(currency: str, more: dict[str, Any]) -> None:
    """A million for each of 10 ** 16 units."""
    price = {"id": "c", "model": "standard", "meter": "total", "unit_price": "1000000", **more}
    with pytest.raises((OverflowError, pl.exceptions.PolarsError)):
        bill_of(price, [Decimal(10) ** 16], currency)
