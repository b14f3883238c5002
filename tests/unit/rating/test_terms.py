"""What holds for a customer, as of an instant: version, plan, contract and amendments, by the customer's own days."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from rating.books import Books
from rating.terms import Terms, alike, change_instants, terms_as_of
from schemas.charges import FlatCharge, GraduatedCharge
from schemas.contract import Contracts, parse_contracts
from schemas.price_book import PriceBook, parse_price_book

VERSION_1 = """
book: cloud
version: 1
effective_at: 2025-01-01
currency: USD
currencies: [EUR]
pricing_units: [{id: credits, rate: {USD: 0.01, EUR: 0.009}}]
default_plan: free
plans:
  - id: free
    charges: [{id: calls, model: standard, meter: calls, unit_price: 0}]
  - id: pro
    trial_days: 14
    charges:
      - {id: base, model: flat, amount: {USD: 49, EUR: 45}, pay: advance}
      - {id: calls, model: graduated, meter: calls, priced_in: credits, tiers: [{up_to: 10, unit_price: 2}, {up_to: null, unit_price: 1, flat: 5}]}
      - {id: support, model: flat, amount: {USD: 10, EUR: 9}}
  - id: scale
    cycle: {every: year}
    charges: [{id: base, model: flat, amount: {USD: 490, EUR: 450}}]
"""
VERSION_2 = VERSION_1.replace("version: 1", "version: 2").replace("2025-01-01", "2026-02-01\nexisting_customers_at: 2026-04-01").replace("USD: 49,", "USD: 59,")  # fmt: skip
ACME = "{customer: acme, name: Acme, subjects: [a], plan: pro, starts_on: 2026-01-15}"


def books(*texts: str) -> Books:
    return Books(parse_price_book(text, "book.yaml", ["calls"]) for text in texts)


def contracts(*listed: str) -> Contracts:
    return parse_contracts(f"contracts: [{', '.join(listed)}]", "contracts.yaml")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def held(customer: str, instant: str, known: Books, agreed: Contracts) -> Terms:
    terms = terms_as_of(customer, at(instant), known, agreed)
    assert terms is not None
    return terms


def amounts(terms: Terms) -> dict[str, Decimal]:
    return {charge.id: charge.amount for charge in terms.plan.charges if isinstance(charge, FlatCharge)}


def test_a_version_holds_for_new_customers_before_it_does_for_existing_ones() -> None:
    """A contract that starts on the effective day or later has it at once; an older one on the day for existing ones."""
    known = books(VERSION_1, VERSION_2)
    agreed = contracts(ACME, ACME.replace("acme", "late").replace("[a]", "[b]").replace("2026-01-15", "2026-02-01"))
    assert held("late", "2026-02-01", known, agreed).book.version == 2
    assert held("acme", "2026-03-31T23:59:59.999999", known, agreed).book.version == 1
    assert held("acme", "2026-04-01", known, agreed).book.version == 2
    assert held("somebody", "2026-03-31", known, agreed).book.version == 1  # without a contract: an existing customer
    assert held("somebody", "2026-04-01", known, agreed).book.version == 2


def test_of_versions_with_one_date_the_highest_holds() -> None:
    """A correction has the date of what it corrects."""
    known = books(VERSION_1, VERSION_1.replace("version: 1", "version: 3"), VERSION_1.replace("version: 1", "version: 2"))  # fmt: skip
    assert held("acme", "2026-01-15", known, contracts(ACME)).book.version == 3


def test_a_pinned_version_stays() -> None:
    """A contract on a version keeps it, until an amendment names another."""
    pinned = ACME.replace("}", ", price_version: 1, amendments: [{on: 2026-06-01, price_version: 2}]}")
    known, agreed = books(VERSION_1, VERSION_2), contracts(pinned)
    assert [held("acme", f"2026-0{month}-01", known, agreed).book.version for month in (4, 5, 6)] == [1, 1, 2]
    instants = change_instants(agreed.contracts[0], known, at("2026-01-01"), at("2027-01-01"))
    assert instants == [at("2026-01-15"), at("2026-01-29"), at("2026-06-01")]


def test_days_are_the_customers() -> None:
    """A contract, an amendment and a version begin at the customer's midnight; clocks that jump at midnight do not hide it."""
    kept = ACME.replace("}", ", time_zone: America/New_York, ends_on: 2026-07-01, amendments: [{on: 2026-03-09, plan: scale}]}")  # fmt: skip
    known, agreed = books(VERSION_1, VERSION_2), contracts(kept)
    #      15 Jan 00:00 -05:00    trial ends             9 Mar 00:00 -04:00      version 2               1 Jul 00:00 -04:00
    assert change_instants(agreed.contracts[0], known, at("2025-01-01"), at("2027-01-01")) == [
        at("2026-01-15T05:00"), at("2026-01-29T05:00"), at("2026-03-09T04:00"), at("2026-04-01T04:00"), at("2026-07-01T04:00"),
    ]  # fmt: skip
    assert terms_as_of("acme", at("2026-01-15T04:59:59.999999"), known, agreed) is None
    assert held("acme", "2026-01-15T05:00", known, agreed).trial
    assert not held("acme", "2026-01-29T05:00", known, agreed).trial
    assert held("acme", "2026-03-09T03:59:59", known, agreed).plan.id == "pro"
    assert held("acme", "2026-03-09T04:00", known, agreed).cycle.every == "year"
    assert terms_as_of("acme", at("2026-07-01T04:00"), known, agreed) is None


def test_terms_change_at_no_other_instant() -> None:
    """Between two change instants terms are the same, and each of the instants lies strictly within what was asked."""
    kept = ACME.replace(
        "}", ", time_zone: Asia/Kathmandu, amendments: [{on: 2026-03-05, charges: {base: {amount: 1}}}]}"
    )
    known, agreed = books(VERSION_1, VERSION_2), contracts(kept)
    cuts = [at("2026-01-20"), *change_instants(agreed.contracts[0], known, at("2026-01-20"), at("2026-05-01")), at("2026-05-01")]  # fmt: skip
    assert cuts == sorted(set(cuts))
    assert len(cuts) == 5
    for hour in range(100 * 24):
        instant = datetime.fromtimestamp(at("2026-01-20").timestamp() + hour * 3600, UTC)
        segment = max(cut for cut in cuts if cut <= instant)
        assert terms_as_of("acme", instant, known, agreed) == terms_as_of("acme", segment, known, agreed)


def test_a_contract_lies_over_its_plan_and_amendments_over_it() -> None:
    """Keys replace keys, charges go and come, and what an amendment does not name stays."""
    kept = ACME.replace("}", """, charges: {base: {amount: 40}}, remove: [support], discounts: [{id: loyal, percent: 5}], minimum_spend: 500,
        add: [{id: extra, model: flat, amount: 10}],
        amendments: [
          {on: 2026-03-01, charges: {extra: {amount: 11.5}}, minimum_spend: 600},
          {on: 2026-04-01, charges: {base: {description: Base}, calls: {included: 7}}, discounts: [], add: [{id: support, model: flat, amount: 1}]},
          {on: 2026-05-01, plan: scale}]}""")  # fmt: skip
    known, agreed = books(VERSION_1), contracts(kept)
    first, second, third, fourth = (held("acme", day, known, agreed) for day in ("2026-02-28", "2026-03-01", "2026-04-01", "2026-05-01"))  # fmt: skip
    assert amounts(first) == {"base": 40, "extra": 10}
    assert amounts(second) == {"base": 40, "extra": Decimal("11.5")}
    assert amounts(third) == {"base": 40, "extra": Decimal("11.5"), "support": 1}
    assert amounts(fourth) == {"base": 40, "extra": Decimal("11.5"), "support": 1}
    assert [charge.title for charge in third.plan.charges] == ["Base", "calls", "extra", "support"]
    assert third.plan.charges[1].included == 7
    assert [terms.minimum_spend for terms in (first, second, third)] == [500, 600, 600]
    assert [len(terms.discounts) for terms in (first, second, third)] == [1, 1, 0]


def test_terms_are_in_the_contracts_currency() -> None:
    """Prices by currency, and credits at their rate; the digest is that of the book as it was applied."""
    known, agreed = books(VERSION_1), contracts(ACME.replace("}", ", currency: EUR}"))
    terms = held("acme", "2026-02-01", known, agreed)
    calls = terms.plan.charges[1]
    assert isinstance(calls, GraduatedCharge)
    assert amounts(terms) == {"base": 45, "support": 9}
    assert [(tier.unit_price, tier.flat) for tier in calls.tiers] == [(Decimal("0.018"), 0), (Decimal("0.009"), Decimal("0.045"))]  # fmt: skip
    assert (terms.currency, calls.priced_in) == ("EUR", "credits")
    assert terms.digest == parse_price_book(VERSION_1, "book.yaml", ["calls"]).digest


def test_customers_with_the_same_plan_share_it() -> None:
    """A million customers are few plans: the same version, currency and overrides give the same object."""
    other = ACME.replace("acme", "other").replace("[a]", "[b]")
    special = ", charges: {base: {amount: 40}}}"
    third, fourth = (other.replace("other", name).replace("[b]", f"[{name}]").replace("}", special) for name in ("third", "fourth"))  # fmt: skip
    known, agreed = books(VERSION_1), contracts(ACME, other, third, fourth)
    plans = {name: held(name, "2026-02-01", known, agreed).plan for name in ("acme", "other", "third", "fourth")}
    assert plans["acme"] is plans["other"]
    assert plans["third"] is plans["fourth"]
    assert plans["third"] is not plans["acme"]
    assert held("x", "2026-02-01", known, agreed).plan is held("y", "2026-02-02", known, agreed).plan


def test_contracts_that_are_alike_have_the_same_terms() -> None:
    """One call for each kind of contract is enough; whoever has something of its own is a kind of its own."""
    other = ACME.replace("acme", "other").replace("[a]", "[b]")
    own = [
        "price_version: 1", "time_zone: Asia/Tokyo", "currency: EUR", "ends_on: 2026-03-01", "trial_days: 3", "minimum_spend: 5",
        "maximum_spend: 5", "commitment: {amount: 5}", "cycle: {every: week}", "anchor_day: 5", "book: cloud", "remove: [support]",
        "discounts: [{id: d, percent: 5}]", "amendments: [{on: 2026-03-01, plan: scale}]", "charges: {base: {amount: 1}}",
        "add: [{id: x, model: flat, amount: 1}]",
    ]  # fmt: skip
    special = [ACME.replace("acme", f"s{n}").replace("[a]", f"[s{n}]").replace("}", f", {terms}}}", 1) for n, terms in enumerate(own)]  # fmt: skip
    known, agreed = books(VERSION_1, VERSION_2), contracts(ACME, other, *special)
    kinds = {contract.customer: alike(contract) for contract in agreed.contracts}
    assert kinds["acme"] == kinds["other"]
    assert len(set(kinds.values())) == len(kinds) - 1
    terms = [replace(held(name, "2026-05-01", known, agreed), contract=None) for name in ("acme", "other")]
    assert terms[0] == terms[1]


def test_without_a_version_or_plan_a_contract_is_an_error() -> None:
    """Nothing is rated by guess: what a contract names must be there."""
    known = books(VERSION_1)
    with pytest.raises(LookupError, match="no version of its price book is in force"):
        terms_as_of("acme", at("2024-06-01"), known, contracts(ACME.replace("2026-01-15", "2024-01-01")))
    with pytest.raises(LookupError, match="has no plan gold; allowed: free, pro, scale"):
        terms_as_of("acme", at("2026-06-01"), known, contracts(ACME.replace("pro", "gold")))
    with pytest.raises(LookupError, match="has no version 7; allowed: 1"):
        terms_as_of("acme", at("2026-06-01"), known, contracts(ACME.replace("}", ", price_version: 7}")))
    with pytest.raises(ValueError, match="GBP"):
        terms_as_of("acme", at("2026-06-01"), known, contracts(ACME.replace("}", ", currency: GBP}")))
    assert terms_as_of("somebody", at("2024-06-01"), known, contracts(ACME)) is None


def test_of_two_books_a_contract_must_name_one() -> None:
    """With several books in use, a contract says which; and only one of them may have the default plan."""
    other = VERSION_1.replace("book: cloud", "book: air").replace("default_plan: free\n", "")
    known = books(VERSION_1, other)
    with pytest.raises(LookupError, match="allowed: air, cloud"):
        terms_as_of("acme", at("2026-06-01"), known, contracts(ACME))
    assert held("acme", "2026-06-01", known, contracts(ACME.replace("}", ", book: air}"))).book.book == "air"
    assert held("somebody", "2026-06-01", known, contracts(ACME)).book.book == "cloud"
    with pytest.raises(ValueError, match="several price books have a default plan: air version 1, cloud version 1"):
        terms_as_of("x", at("2026-06-01"), books(VERSION_1, VERSION_1.replace("cloud", "air")), contracts(ACME))


def test_a_version_of_a_book_is_there_once() -> None:
    """Two books with the same name and version cannot both hold."""
    book: PriceBook = parse_price_book(VERSION_1, "book.yaml", ["calls"])
    with pytest.raises(ValueError, match="cloud version 1 is there twice"):
        Books([book, book])
