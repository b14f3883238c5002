"""The rater as a whole: who pays, for which periods, and what of a plan and a contract becomes a charge."""

from datetime import UTC, date, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from rating.books import Books
from rating.rater import Basis, Rated, Rater
from schemas.configuration import parse_yaml
from schemas.contract import Contracts, parse_contracts
from schemas.price_book import PriceBook
from tests.oracles.rating.kinds import Event
from tests.simulation.rating_cases import usage_of

AGGREGATIONS = {"calls": "SUM", "seats": "SUM", "uptime": "MIN"}
CALLS = "{id: calls, model: standard, meter: calls, unit_price: %s}"
BASE = "{id: base, model: flat, amount: 31}"


def book(charges: str, version: int = 1, effective_at: str = "2020-01-01", more: str = "") -> PriceBook:
    plans = f"[{{id: p, charges: [{charges}]}}, {{id: q, charges: [{BASE}, {charges}]}}]"
    head = f"book: b, version: {version}, effective_at: {effective_at}, currency: USD{more}"
    return PriceBook.model_validate(parse_yaml(f"{{{head}, plans: {plans}}}", "book"))


def contract(more: str = "") -> Contracts:
    terms = f"customer: acme, name: A, subjects: [a, b], plan: p, starts_on: 2023-06-01{more}"
    return parse_contracts(f"contracts: [{{{terms}}}]", "contracts")


def use(day: str, value: Any, subject: str = "a", meter: str = "calls") -> Event:
    return Event(subject, meter, datetime.fromisoformat(day).replace(tzinfo=UTC), Fraction(value), {}, 0)


def rated(
    books: list[PriceBook],
    contracts: Contracts,
    *events: Event,
    days: tuple[str, str] = ("2024-01-01", "2024-02-01"),
    advance: bool = False,
    **more: Any,
) -> Rated:
    after, through = map(date.fromisoformat, days)
    basis = Basis(Books(books), contracts, AGGREGATIONS, after, through, advance=advance)
    return Rater(basis).rate(usage_of(events), **more)


def owed(result: Rated) -> list[tuple[str, str, int]]:
    return result.charges.select("customer", "charge", "net_minor").rows()


def test_a_price_version_holds_from_its_day_on() -> None:
    """The subjects of a customer together; each use at the price of its day."""
    books = [book(CALLS % 1), book(CALLS % 2, 2, "2024-01-15")]
    result = rated(books, contract(), use("2024-01-14", 3), use("2024-01-15", 4, "b"))
    assert owed(result) == [("acme", "calls", 11_00)]
    assert result.slices.select("book_version", "quantity", "amount").rows() == [(1, 3, 3), (2, 4, 8)]


def test_a_change_of_plan_brings_its_charges() -> None:
    """The flat charge of the later plan for half of the month; the one that both have stays one row."""
    amended = contract(", amendments: [{on: 2024-01-17, plan: q}]")
    assert owed(rated([book(CALLS % 1)], amended, use("2024-01-02", 1), use("2024-01-30", 1))) == [
        ("acme", "calls", 2_00),
        ("acme", "base", 15_00),
    ]


def test_the_default_plan_bills_the_periods_with_usage() -> None:
    """January and March, not February."""
    of_all = book(f"{BASE}, {CALLS % 1}", more=", default_plan: p")
    result = rated(
        [of_all], Contracts(contracts=()), use("2024-01-05", 1, "z"), use("2024-03-05", 2, "z"),
        days=("2024-01-01", "2024-04-01"),
    )  # fmt: skip
    assert owed(result) == [("z", "base", 31_00), ("z", "calls", 1_00), ("z", "base", 31_00), ("z", "calls", 2_00)]


def test_a_credit_stands_before_a_manual_line() -> None:
    """Both stand outside of the minimum; the lowest bound that was missed says how much."""
    more = """, sla: [{id: up, meter: uptime, credits: [{below: 99.9, percent: 10}, {below: 99, percent: 50}]}],
              lines: [{id: setup, description: Set-up, amount: 5, on: 2024-01-20}], minimum_spend: 40"""
    result = rated([book(BASE)], contract(more), use("2024-01-03", 98, meter="uptime"))
    assert owed(result) == [
        ("acme", "base", 31_00), ("acme", "contract.minimum_spend", 9_00), ("acme", "sla.up", -15_50),
        ("acme", "line.setup", 5_00),
    ]  # fmt: skip


def test_prepaid_credits_are_spent_from_the_first_bill_on() -> None:
    """40 dollars pay January whole and 9 of February."""
    result = rated([book(BASE)], contract(), days=("2024-01-01", "2024-03-01"), prepaid={"acme": 40_00})
    assert result.charges["credit_minor"].to_list() == [-31_00, -9_00]


def test_in_advance_the_period_that_has_begun() -> None:
    """Only what is paid in advance of it."""
    plan = book(f"{BASE}, {{id: rent, model: flat, amount: 10, pay: advance}}")
    result = rated([plan], contract(), advance=True)
    assert result.charges.select("period_start", "charge").rows() == [
        (datetime(2024, 1, 1, tzinfo=UTC), "base"),
        (datetime(2024, 1, 1, tzinfo=UTC), "rent"),
        (datetime(2024, 2, 1, tzinfo=UTC), "rent"),
    ]


def test_usage_that_nobody_pays_for_is_told() -> None:
    """Of a subject without contract, where there is no default plan."""
    result = rated([book(CALLS % 1)], contract(), use("2024-01-05", 2, "z"), use("2024-01-06", 3, "z"))
    assert result.charges.is_empty()
    assert result.unassigned.select("subject", "meter", "quantity").rows() == [("z", "calls", Decimal(5))]


def test_two_ratings_are_as_one_over_both_periods() -> None:
    """Seats go on into the next period, also past a change of plan; ids are the same."""
    seats = book("{id: seats, model: standard, meter: seats, unit_price: 1, recurring: true}")
    amended = contract(", amendments: [{on: 2024-02-01, plan: q}]")
    events = [use("2024-01-05", 3, meter="seats"), use("2024-02-05", 1, meter="seats")]
    whole = rated([seats], amended, *events, days=("2024-01-01", "2024-03-01"))
    first = rated([seats], amended, events[0])
    second = rated([seats], amended, events[1], days=("2024-02-01", "2024-03-01"), carried=first.carried)
    assert owed(whole) == [("acme", "seats", 3_00), ("acme", "base", 31_00), ("acme", "seats", 4_00)]
    assert first.charges.vstack(second.charges).equals(whole.charges)
    assert second.carried.equals(whole.carried)


def test_levels_without_a_period_stay() -> None:
    """A charge that is billed by the year keeps its level through a month's rating."""
    seats = book("{id: seats, model: standard, meter: seats, unit_price: 1, recurring: true}")
    first = rated([seats], contract(), use("2024-01-05", 3, meter="seats"))
    yearly = rated([seats], contract(", cycle: {every: year}"), carried=first.carried)
    assert yearly.charges.is_empty()
    assert yearly.carried.equals(first.carried)


def test_what_cannot_be_rated_is_an_error() -> None:
    """A plan that there is not; usage of a meter without aggregation."""
    with pytest.raises(LookupError):
        rated([book(BASE)], contract(", amendments: [{on: 2024-01-10, plan: none}]"))
    with pytest.raises(ValueError, match="usage of meters without an aggregation: other"):
        rated([book(BASE)], contract(), use("2024-01-10", 1, meter="other"))
