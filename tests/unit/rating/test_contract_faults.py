"""Contracts against the books that they are of: whatever they name must be there when it holds."""

import pytest

from rating.books import Books
from rating.contract_faults import contract_faults
from rating.terms import change_instants, starts_at, terms_as_of
from schemas.contract import parse_contracts
from schemas.price_book import parse_price_book

METERS = {"calls": "SUM", "availability": "AVG"}
FIRST = """
book: cloud
version: 1
effective_at: 2026-01-01
currency: USD
currencies: [EUR]
taxes: {reduced: {mode: exclusive, name: VAT, rate_percent: 10}}
features: [{id: sso}]
plans:
  - id: pro
    charges:
      - {id: base, model: flat, amount: {USD: 49, EUR: 45}}
      - {id: calls, model: graduated, meter: calls, tiers: [{up_to: null, unit_price: {USD: 1, EUR: 2}}]}
      - {id: support, model: flat, amount: 0}
  - id: scale
    cycle: {anchor: anniversary}
    charges: [{id: base, model: flat, amount: {USD: 490, EUR: 450}}]
"""
SECOND = FIRST.replace("version: 1", "version: 2").replace("2026-01-01", "2026-06-01").replace("      - {id: support, model: flat, amount: 0}\n", "").replace("  - id: scale", "  - id: enterprise\n    charges: [{id: seat, model: flat, amount: 0}]\n  - id: scale")  # fmt: skip
BOOKS = Books(parse_price_book(text, "book.yaml", METERS) for text in (FIRST, SECOND))


def faults(terms: str, books: Books = BOOKS, start: str = "2026-02-01") -> dict[str, str]:
    """Key and what is allowed, of each fault of a contract on the plan pro with these further terms."""
    plan = "" if "plan: gold" in terms else "plan: pro, "
    text = f"contracts: [{{customer: acme, name: Acme, subjects: [a], {plan}starts_on: {start}, {terms}}}]"
    found = contract_faults(parse_contracts(text, "contracts.yaml"), books, "contracts.yaml", METERS)
    return {fault.key.removeprefix("contracts.acme."): fault.allowed for fault in found}


@pytest.mark.parametrize(
    "terms",
    [
        "charges: {base: {amount: 40}, calls: {tiers: [{up_to: 5, unit_price: 1}, {up_to: null, unit_price: 0.5}], included: 5}}",
        "currency: EUR, price_version: 1, remove: [support], add: [{id: extra, model: flat, amount: 10, tax_code: reduced}]",
        "amendments: [{on: 2026-03-01, charges: {support: {amount: 3}}}, {on: 2026-07-01, plan: enterprise, charges: {seat: {amount: 2}}}]",
        "amendments: [{on: 2026-03-01, remove: [support]}, {on: 2026-04-01, add: [{id: support, model: flat, amount: 2}]}, {on: 2026-05-01, charges: {support: {amount: 1}}}]",
        "discounts: [{id: d, percent: 5, charges: [support]}], sla: [{id: up, meter: availability, credits: [{below: 99, percent: 5}], charges: [base]}]",
        "charges: {calls: {buckets: {window: hour, take: each}, commitment: {amount: 5, per: bucket}}}",
        "cycle: {anchor: anniversary}, anchor_day: 31",
        "amendments: [{on: 2026-03-01, plan: scale}], anchor_day: 31",
        "lines: [{id: setup, description: Set-up, amount: -5, on: 2026-02-01, tax_code: reduced}]",
    ],
)
def test_what_passes_can_be_rated(terms: str) -> None:
    """A contract without faults has terms at each of its instants."""
    assert faults(terms) == {}
    text = f"contracts: [{{customer: acme, name: Acme, subjects: [a], plan: pro, starts_on: 2026-02-01, {terms}}}]"
    contracts = parse_contracts(text, "contracts.yaml")
    start = starts_at(contracts.contracts[0])
    for instant in (start, *change_instants(contracts.contracts[0], BOOKS, start, start.replace(year=2028))):
        assert terms_as_of("acme", instant, BOOKS, contracts) is not None


@pytest.mark.parametrize(
    ("terms", "key", "allowed"),
    [
        ("plan: gold", "plan", "allowed: a plan of cloud version 1: pro, scale"),
        ("book: air", "book", "allowed: a price book that is applied: cloud"),
        ("price_version: 9", "price_version", "allowed: a version of cloud: 1, 2"),
        ("currency: GBP", "currency", "allowed: a currency of cloud version 1: USD, EUR"),
        ("amendments: [{on: 2026-03-01, plan: enterprise}]", "amendments[0].plan", "allowed: a plan of cloud version 1: pro, scale"),
        ("amendments: [{on: 2026-03-01, price_version: 9}]", "amendments[0].price_version", "allowed: a version of cloud: 1, 2"),
        ("charges: {bass: {amount: 1}}", "charges.bass", "allowed: a charge of the plan: base, calls, support"),
        ("remove: [bass]", "remove[0]", "allowed: a charge of the plan: base, calls, support"),
        ("add: [{id: base, model: flat, amount: 1}]", "add[0].id", "allowed: an id that no charge has; charges changes one"),
        ("amendments: [{on: 2026-07-01, charges: {support: {amount: 1}}}]", "amendments[0].charges.support", "allowed: a charge of the plan: base, calls"),
        ("amendments: [{on: 2026-07-01, add: [{id: calls, model: flat, amount: 1}]}]", "amendments[0].add[0].id", "allowed: an id that no charge has; charges changes one"),
        ("charges: {base: {included: 5}}", "charges.base.included", "Extra inputs are not permitted"),
        ("charges: {calls: {tiers: [{up_to: null, rate_percent: 5}]}}", "charges.calls.tiers[0].unit_price", "Field required"),
        ("charges: {calls: {commitment: {amount: 5, per: bucket}}}", "charges.calls.commitment.per", "allowed: bucket only on a charge with buckets that take each"),
        ("charges: {calls: {meter: falls}}", "charges.calls.meter", "allowed: a known meter: availability, calls"),
        ("charges: {calls: {features: [sms]}}", "charges.calls.features[0]", "allowed: a feature of the book: sso"),
        ("add: [{id: x, model: flat, amount: 1, tax_code: zero}]", "add[0].tax_code", "allowed: a tax code of the book: reduced"),
        ("discounts: [{id: d, percent: 5, charges: [bass]}]", "discounts[0].charges[0]", "allowed: a charge of the contract: base, calls, support"),
        ("amendments: [{on: 2026-03-01, discounts: [{id: d, percent: 5, charges: [bass]}]}]", "amendments[0].discounts[0].charges[0]", "allowed: a charge of the contract: base, calls, support"),
        ("sla: [{id: up, meter: uptime, credits: [{below: 99, percent: 5}]}]", "sla[0].meter", "allowed: a known meter: availability, calls"),
        ("sla: [{id: up, meter: availability, charges: [bass], credits: [{below: 99, percent: 5}]}]", "sla[0].charges[0]", "allowed: a charge of the contract: base, calls, support"),
        ("lines: [{id: s, description: S, amount: 1, on: 2026-02-01, tax_code: zero}]", "lines[0].tax_code", "allowed: a tax code of cloud version 1: reduced"),
        ("anchor_day: 31", "anchor_day", "allowed: only with a cycle whose anchor is anniversary"),
    ],
)  # fmt: skip
def test_a_fault_is_told_at_its_key(terms: str, key: str, allowed: str) -> None:
    """What a contract names and its books lack is a fault that names the customer, the key and what there is."""
    found = faults(terms)
    assert key in found, found
    assert found[key].startswith(allowed)
    if "rate_percent" not in terms:  # a key too much is told beside the key that is missing
        assert list(found) == [key]


def test_a_version_that_comes_later_may_lack_a_charge() -> None:
    """What is said of it says nothing then; a contract that starts with that version must not name it."""
    assert faults("charges: {support: {amount: 5}}") == {}
    assert list(faults("charges: {support: {amount: 5}}", start="2026-06-01")) == ["charges.support"]


def test_all_contracts_with_a_fault_are_told() -> None:
    """Contracts that are alike are checked once, and each has its own fault."""
    listed = ", ".join(
        f"{{customer: c{n}, name: C, subjects: [s{n}], plan: gold, starts_on: 2026-02-01}}" for n in range(3)
    )
    found = contract_faults(parse_contracts(f"contracts: [{listed}]", "contracts.yaml"), BOOKS, "contracts.yaml")
    keys = ["contracts.c0.plan", "contracts.c1.plan", "contracts.c2.plan"]
    assert [fault.key for fault in found] == keys
    assert str(found[0]) == "contracts.yaml: contracts.c0.plan: 'gold': allowed: a plan of cloud version 1: pro, scale"


def test_with_several_books_a_contract_must_name_one() -> None:
    """Without a name it would be a guess."""
    both = Books(parse_price_book(text, "book.yaml", METERS) for text in (FIRST, FIRST.replace("book: cloud", "book: air")))  # fmt: skip
    assert faults("trial_days: 1", both) == {"book": "allowed: a price book that is applied: air, cloud"}
    assert faults("book: air", both) == {}
