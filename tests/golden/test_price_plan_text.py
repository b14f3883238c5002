"""What `meterline price plan` says, as a text that a person can review."""

from pathlib import Path

from rating.book_changes import changes, concerned
from schemas.contract import parse_contracts
from schemas.price_book import parse_price_book

GOLDEN = Path(__file__).parent / "price_plan.txt"
BEFORE = """
book: cloud
version: 3
effective_at: 2026-01-01
currency: USD
currencies: [EUR]
tax: {mode: exclusive, name: VAT, rate_percent: 20}
policies: {proration: days_half_open}
plans:
  - id: free
    charges: [{id: calls, model: standard, meter: calls, unit_price: 0}]
  - id: pro
    trial_days: 14
    charges:
      - {id: base, model: flat, amount: {USD: 49, EUR: 45}, pay: advance}
      - {id: calls, model: graduated, meter: calls, tiers: [{up_to: 10000, unit_price: 0}, {up_to: null, unit_price: {USD: 0.0004, EUR: 0.0004}}]}
      - {id: support, model: flat, amount: {USD: 10, EUR: 9}}
  - id: legacy
    charges: [{id: base, model: flat, amount: 0}]
"""
AFTER = """
book: cloud
version: 4
effective_at: 2026-06-01
existing_customers_at: 2026-09-01
currency: USD
currencies: [EUR]
tax: {mode: exclusive, name: VAT, rate_percent: 21}
default_plan: free
plans:
  - id: pro
    charges:
      - {id: base, model: flat, amount: {USD: 59, EUR: 45}, pay: advance}
      - {id: egress, model: package, meter: gb, size: 1000, price: {USD: 2, EUR: 2}}
      - {id: calls, model: graduated, meter: calls, included: 100, tiers: [{up_to: 20000, unit_price: 0}, {up_to: null, unit_price: {USD: 0.0004, EUR: 0.0004}}]}
    discounts: [{id: launch, percent: 10}]
  - id: free
    charges: [{id: calls, model: standard, meter: calls, unit_price: 0}]
  - id: scale
    cycle: {every: year}
    charges: [{id: base, model: flat, amount: {USD: 490, EUR: 450}}]
"""
CONTRACTS = """
contracts:
  - {customer: a, name: A, subjects: [a], plan: pro, starts_on: 2026-01-01}
  - {customer: b, name: B, subjects: [b], plan: pro, starts_on: 2026-05-31, amendments: [{on: 2026-08-01, plan: scale}]}
  - {customer: c, name: C, subjects: [c], plan: pro, starts_on: 2026-06-01}
  - {customer: d, name: D, subjects: [d], plan: pro, starts_on: 2026-01-01, price_version: 3}
  - {customer: e, name: E, subjects: [e], plan: pro, starts_on: 2026-01-01, ends_on: 2026-09-01}
  - {customer: f, name: F, subjects: [f], plan: pro, book: other, starts_on: 2026-01-01}
  - {customer: g, name: G, subjects: [g], plan: free, starts_on: 2026-01-01}
"""


def test_the_text_of_a_plan_is_as_reviewed() -> None:
    """Every kind of change, and whom it concerns: contracts that come, begin, are pinned, gone or of another book."""
    before, after = (parse_price_book(text, "book.yaml", ["calls", "gb"]) for text in (BEFORE, AFTER))
    contracts = parse_contracts(CONTRACTS, "contracts.yaml")
    assert "\n".join([changes(before, after), concerned(after, contracts), ""]) == GOLDEN.read_text()


def test_a_book_changes_nothing_of_itself() -> None:
    """The same content under another version has no changes, and a first version is all new."""
    before = parse_price_book(BEFORE, "book.yaml", ["calls"])
    again = parse_price_book(BEFORE.replace("version: 3", "version: 4"), "book.yaml", ["calls"])
    assert changes(before, again).splitlines()[2:] == ["  no changes"]
    first = changes(None, before).splitlines()
    assert first[0] == "cloud: version 3, the first"
    assert all(line.lstrip().startswith("+") for line in first[2:])
