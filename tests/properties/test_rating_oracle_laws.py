"""Laws that the oracle of rating keeps itself, over random books, contracts and usage."""

from datetime import UTC, datetime
from fractions import Fraction

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from schemas.charges import GraduatedCharge
from schemas.money import MINOR_UNITS
from schemas.price_book import PriceBook
from tests.oracles.rating.kinds import Answer, Row
from tests.oracles.rating.models import Part, slices_of
from tests.oracles.rating.rate import rate_slowly
from tests.strategies.charges import filled
from tests.strategies.rating import RatingCase, rating_cases

few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
LAST_DIGIT = Fraction(1, 2 * 10**21)


def answer_of(case: RatingCase) -> Answer:
    return rate_slowly(case.events, case.books, case.contracts, **case.arguments)


def adds_up(row: Row) -> bool:
    """Whether the parts of a row make the row."""
    sold = sum(part.amount for part in row.slices)
    exactly = sold == row.gross if row.kind == "usage" else abs(sold - row.gross) <= LAST_DIGIT
    rounded = abs(row.amount * 10 ** MINOR_UNITS[row.currency] - row.amount_minor) <= Fraction(1, 2)
    priced = row.kind not in {"usage", "flat"} or (
        exactly and row.amount == row.gross - sum(off for _, off in row.discounts)
    )
    return priced and rounded and row.quantity >= 0 and row.shared_minor >= 0 and row.credit_minor >= 0


@few
@given(rating_cases(contested=True))
def test_rows_and_taxes_add_up(case: RatingCase) -> None:
    """Slices add up to gross, gross less discounts is the amount, rows' taxes are the invoices'; nothing goes below zero."""
    answer = answer_of(case)
    for row in answer.rows:
        assert adds_up(row), row
        assert row.net_minor >= 0 or row.amount_minor < 0, row
    for bill in {(tax.customer, tax.billed_at) for tax in answer.taxes}:
        of_rows = sum(row.tax_minor for row in answer.rows if (row.customer, row.billed_at) == bill)
        assert of_rows == sum(tax.tax_minor for tax in answer.taxes if (tax.customer, tax.billed_at) == bill)
    for customer, available in case.credits.items():
        assert sum(row.credit_minor for row in answer.rows if row.customer == customer) <= available


@few
@given(rating_cases())
def test_neither_order_nor_the_cut_of_bills_changes_anything(case: RatingCase) -> None:
    """Events in another order, and bills asked for in two goes, give the same rows.

    Not of recurring quantities: their levels are handed over, and not found in the events.
    """
    charges = [charge for book in case.books for plan in book.plans for charge in plan.charges]
    assume(not any(getattr(charge, "recurring", False) for charge in charges))
    case.credits = {}
    whole, middle = answer_of(case), case.after + (case.through - case.after) / 3
    assert rate_slowly(case.events[::-1], case.books, case.contracts, **case.arguments) == whole
    first = rate_slowly(case.events, case.books, case.contracts, **{**case.arguments, "through": middle})
    second = rate_slowly(case.events, case.books, case.contracts, **{**case.arguments, "after": middle})
    by_bill = sorted([*first.rows, *second.rows], key=lambda row: (row.customer, row.billed_at))
    assert by_bill == sorted(whole.rows, key=lambda row: (row.customer, row.billed_at))


@few
@given(rating_cases())
def test_spend_stays_within_its_bounds(case: RatingCase) -> None:
    """A subject's charge never costs more than its maximum, and its rows never come to less than its minimum."""
    answer = answer_of(case)
    for row in answer.rows:
        capped = [off for name, off in row.discounts if name == "maximum_spend"]
        assert all(off > 0 for off in capped), row
        if row.kind in {"minimum_spend", "commitment"}:
            assert row.amount > 0, row


@few
@given(rating_cases())
def test_a_stored_book_rates_the_same(case: RatingCase) -> None:
    """Books that went through their canonical JSON are equal, and rate the same."""
    stored = [PriceBook.from_canonical(book.canonical()) for book in case.books]
    assert stored == case.books
    assert rate_slowly(case.events, stored, case.contracts, **case.arguments) == answer_of(case)


@few
@given(st.data(), st.integers(0, 40), st.integers(0, 40))
def test_graduated_is_monotone_and_may_be_sold_in_two_goes(data: st.DataObject, one: int, more: int) -> None:
    """More usage never costs less, and two parts of a run cost what the whole does, flat amounts and caps included."""
    shape = {"id": "c", "model": "graduated", "meter": "total"}
    charge = GraduatedCharge.model_validate(data.draw(filled(shape, None, contested=False)))

    def cost(before: int, after: int, total: int) -> Fraction:
        part = Part(case_at, Fraction(before), Fraction(after), Fraction(total), opens=before == 0)
        return sum((sold.amount for sold in slices_of(charge, part, "none")), Fraction(0))

    case_at, whole = datetime(2024, 1, 1, tzinfo=UTC), one + more
    assert cost(0, one, one) <= cost(0, whole, whole)
    assert cost(0, one, whole) + cost(one, whole, whole) == cost(0, whole, whole)
