"""Who pays for what, and what of a plan becomes a charge."""

from decimal import Decimal
from typing import Any

import polars as pl
import pytest

from rating.rater import Rated, rate
from schemas.charge import CHARGES
from schemas.contract import Contracts, parse_contracts
from schemas.money import QUANTITY
from schemas.price_book import PriceBook, parse_price_book

AGGREGATIONS = {"calls": "COUNT", "bytes": "SUM", "peak": "MAX", "least": "MIN", "users": "UNIQUE_COUNT"}

BOOK = """
book: cloud
version: 3
effective_at: 2013-01-01
currency: USD
plans:
  - id: team
    charges:
      - {id: seat, model: flat, description: Platform fee, amount: 20}
      - {id: calls, model: graduated, meter: calls, tiers: [{up_to: 100, unit_price: 1}, {up_to: null, unit_price: 0.5}]}
      - {id: users, model: volume, meter: users, tiers: [{up_to: null, unit_price: 2}]}
  - id: solo
    charges:
      - {id: peak, model: package, meter: peak, size: 10, price: 4}
      - {id: least, model: graduated, meter: least, tiers: [{up_to: null, unit_price: 1, flat: 3}]}
"""

Row = tuple[str, str, int | None, list[str] | None]


def book(default_plan: str | None = None) -> PriceBook:
    return parse_price_book(BOOK + (f"default_plan: {default_plan}" if default_plan else ""), "book.yaml", AGGREGATIONS)


def contracts(*each: str) -> Contracts:
    listed = ", ".join(f"{{name: N, starts_on: 2013-01-15, {contract}}}" for contract in each)
    return parse_contracts(f"contracts: [{listed}]", "contracts.yaml")


def rated(rows: list[Row], by: PriceBook, under: Contracts, period: str = "2013-01") -> Rated:
    text = pl.String()
    schema = {"subject": text, "meter": text, "quantity": QUANTITY, "uniques": pl.List(text)}
    usage = pl.DataFrame(rows, schema=schema, orient="row")
    return rate(usage, by, under, period=period, cut=9, aggregations=AGGREGATIONS)


def amounts(result: Rated) -> list[tuple[Any, ...]]:
    rows = result.charges.select("customer", "charge", "quantity", "amount_minor").rows()
    return [(customer, charge, int(quantity), minor) for customer, charge, quantity, minor in rows]


def test_the_subjects_of_a_customer_are_combined_before_rating() -> None:
    """Tiers are the customer's: 60 and 60 calls are 120, and a user of two subjects is one user."""
    under = contracts("customer: acme, plan: team, subjects: [a, b]")
    rows: list[Row] = [
        ("a", "calls", 60, None), ("b", "calls", 60, None),
        ("a", "users", None, ["ann", "bob"]), ("b", "users", None, ["bob", "cy"]),
    ]  # fmt: skip
    assert amounts(rated(rows, book(), under)) == [
        ("acme", "seat", 1, 2000),
        ("acme", "calls", 120, 11000),
        ("acme", "users", 3, 600),
    ]


def test_extremes_are_combined_as_extremes() -> None:
    """The peak of two subjects is the higher one, the least the lower one, never their sum."""
    under = contracts("customer: acme, plan: solo, subjects: [a, b]")
    rows: list[Row] = [
        ("a", "peak", 8, None),
        ("b", "peak", 11, None),
        ("a", "least", 5, None),
        ("b", "least", 2, None),
    ]
    assert amounts(rated(rows, book(), under)) == [("acme", "peak", 11, 800), ("acme", "least", 2, 500)]


def test_a_contract_is_charged_without_usage() -> None:
    """A flat charge and the first tier's flat amount are owed without usage; other empty charges are left out."""
    under = contracts("customer: acme, plan: team, subjects: [a]", "customer: zed, plan: solo, subjects: [z]")
    assert amounts(rated([], book(), under)) == [("acme", "seat", 1, 2000), ("zed", "least", 0, 300)]


def test_a_contract_is_in_force_from_the_period_it_starts_in() -> None:
    """A contract that starts on the 15th holds for the whole of its month, and not for the month before."""
    #   2012-12          2013-01          2013-02
    #     [----------------[-------^--------[------
    #                              starts on 2013-01-15
    under = contracts("customer: acme, plan: team, subjects: [a]")
    rows: list[Row] = [("a", "calls", 1, None)]
    assert rated(rows, book(), under, "2012-12").charges.height == 0
    assert rated(rows, book(), under, "2012-12").unassigned.rows() == [("a", "calls", Decimal(1))]
    assert rated(rows, book(), under, "2013-01").charges.height == 2
    assert rated(rows, book(), under, "2013-02").charges.height == 2


def test_a_subject_without_contract_is_a_customer_on_the_default_plan() -> None:
    """With a default plan every subject with usage has a payer: itself."""
    under = contracts("customer: acme, plan: team, subjects: [a]")
    result = rated([("b", "calls", 2, None)], book("team"), under)
    assert amounts(result) == [("acme", "seat", 1, 2000), ("b", "seat", 1, 2000), ("b", "calls", 2, 200)]
    assert result.unassigned.height == 0


def test_usage_without_a_payer_is_told() -> None:
    """Without a default plan the usage of a subject without contract is unassigned, not lost."""
    rows: list[Row] = [("b", "users", None, ["x", "y"]), ("b", "calls", 2, None), ("b", "calls", 3, None)]
    result = rated(rows, book(), contracts())
    assert result.charges.height == 0
    assert result.unassigned.rows() == [("b", "calls", Decimal(5)), ("b", "users", Decimal(2))]


def test_a_subject_named_like_a_customer_is_not_charged_to_it() -> None:
    """A subject that has a contract's customer name but is not among its subjects is unassigned: nobody agreed to pay."""
    under = contracts("customer: acme, plan: team, subjects: [a]")
    result = rated([("acme", "calls", 5, None)], book("team"), under)
    assert amounts(result) == [("acme", "seat", 1, 2000)]
    assert result.unassigned.rows() == [("acme", "calls", Decimal(5))]


def test_a_negative_quantity_is_rated_as_zero() -> None:
    """A correction that exceeds the usage gives no negative charge."""
    under = contracts("customer: acme, plan: team, subjects: [a]")
    assert amounts(rated([("a", "calls", -5, None)], book(), under)) == [("acme", "seat", 1, 2000)]


def test_a_charge_tells_what_it_was_rated_from() -> None:
    """Every charge carries its words, slices, book, contracts and cut."""
    under = contracts("customer: acme, plan: team, subjects: [a]")
    by = book()
    result = rated([("a", "calls", 101, None)], by, under).charges
    assert dict(result.schema) == CHARGES
    flat, calls = result.rows(named=True)
    assert (flat["description"], flat["model"], flat["meter"]) == ("Platform fee", "flat", None)
    assert (calls["description"], calls["model"], calls["meter"], calls["period"]) == (
        "calls",
        "graduated",
        "calls",
        "2013-01",
    )
    assert (calls["book"], calls["book_version"], calls["book_digest"]) == ("cloud", 3, by.digest)
    assert (calls["contracts_digest"], calls["cut"], calls["currency"]) == (under.digest, 9, "USD")
    assert [tuple(part.values()) for part in calls["slices"]] == [
        (100, 100, 1, 0, 100),
        (None, 1, Decimal("0.5"), 0, Decimal("0.5")),
    ]


def test_unusable_input_is_refused() -> None:
    """An unknown plan, a meter without aggregation and a month that is none raise; nothing is guessed."""
    with pytest.raises(ValueError, match="acme on gold"):
        rated([], book(), contracts("customer: acme, plan: gold, subjects: [a]"))
    with pytest.raises(ValueError, match="without an aggregation: unheard"):
        rated([("a", "unheard", 1, None)], book(), contracts())
    with pytest.raises(ValueError, match="2013-13"):
        rated([], book(), contracts(), "2013-13")


@pytest.mark.parametrize("quantities", [[10**17], [6 * 10**16, 6 * 10**16], [10**28 * 9] * 2])
def test_quantities_that_do_not_fit_are_an_error(quantities: list[int]) -> None:
    """A group's decimals are added by polars without a look at overflow; the rater looks."""
    under = contracts("customer: acme, plan: team, subjects: [a, b]")
    rows: list[Row] = [(subject, "calls", quantity, None) for subject, quantity in zip("ab", quantities, strict=False)]
    with pytest.raises(OverflowError, match="17 whole digits"):
        rated(rows, book(), under)


def test_amounts_that_do_not_fit_together_are_an_error() -> None:
    """Slices that each fit, but not together, raise as well."""
    huge = "unit_price: 1, flat: 90000000000000000"
    charge = f"{{id: c, model: graduated, meter: calls, tiers: [{{up_to: 1, {huge}}}, {{up_to: null, {huge}}}]}}"
    head = "book: b, version: 1, effective_at: 2013-01-01, currency: USD"
    by = parse_price_book(f"{{{head}, plans: [{{id: p, charges: [{charge}]}}]}}", "book.yaml", AGGREGATIONS)
    with pytest.raises(OverflowError, match="17 whole digits"):
        rated([("a", "calls", 2, None)], by, contracts("customer: acme, plan: p, subjects: [a]"))
