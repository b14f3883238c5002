"""What rating says of one customer's month, as text that a person can review: charges, and slices that made them."""

from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path

from rating.books import Books
from rating.rater import Basis, Rated, Rater
from schemas.contract import parse_contracts
from schemas.price_book import parse_price_book
from tests.oracles.rating.kinds import Event
from tests.simulation.rating_cases import usage_of

GOLDEN = Path(__file__).parent / "explanation.txt"
AGGREGATIONS = {"calls": "SUM", "seats": "SUM", "gb": "SUM", "paid": "SUM", "uptime": "MIN"}
BOOK = """
book: cloud
version: 1
effective_at: 2023-01-01
currency: USD
plans:
  - id: pro
    charges:
      - {id: base, model: flat, description: Platform, amount: 49}
      - {id: calls, model: graduated, meter: calls, included: 100, tiers: [{up_to: 1000, unit_price: 0.01, flat: 5}, {up_to: null, unit_price: 0.002}]}
      - {id: seats, model: standard, meter: seats, unit_price: 8, recurring: true, buckets: {window: hour, take: time_weighted}}
      - {id: egress, model: package, meter: gb, group_by: [region], size: 10, price: 2, minimum_spend: 5}
      - {id: fee, model: percentage, meter: paid, rate_percent: 2.9, fixed: 0.3, free_events: 1}
    discounts: [{id: launch, percent: 10, charges: [calls]}]
    maximum_spend: 120
"""
CONTRACTS = """
contracts:
  - customer: acme
    name: Acme
    subjects: [a]
    plan: pro
    starts_on: 2023-06-01
    amendments: [{on: 2024-01-17, charges: {base: {amount: 80}, seats: {unit_price: 10}}}]
    minimum_spend: 100
    lines: [{id: setup, description: Set-up, amount: 25, on: 2024-01-20}]
    sla: [{id: up, meter: uptime, credits: [{below: 99.9, percent: 10}], charges: [base]}]
"""


def use(meter: str, day: int, value: object, region: str = "") -> Event:
    return Event("a", meter, datetime(2024, 1, day, tzinfo=UTC), Fraction(str(value)), {"region": region}, day)


def text_of(result: Rated) -> str:
    lines = []
    for row in result.charges.iter_rows(named=True):
        lines.append(
            f"{row['charge']:<24} {row['quantity'].normalize():f} for {row['gross'].normalize():f}, discount {row['discount'].normalize():f}: "
            f"{row['amount_minor']} cents, shared {row['shared_minor']}, credit {row['credit_minor']}, tax base {row['tax_base_minor']}"
        )
        for part in result.slices.filter(charge_id=row["id"]).iter_rows(named=True):
            numbers = [f"{part[name].normalize():f}" for name in ("quantity", "unit_price", "flat", "amount")]
            sold = "{} x {} + {} = {}".format(*numbers)
            lines.append(f"    {part['from_at']:%d %b}..{part['to_at']:%d %b}  {part['label']:<6} {sold}")
    return "\n".join([*lines, ""])


def test_the_explanation_of_a_month_is_as_reviewed() -> None:
    """A price change on the 17th, included units, groups, fees, a maximum, an SLA credit, a line, prepaid credits."""
    book = parse_price_book(BOOK, "book.yaml", list(AGGREGATIONS))
    contracts = parse_contracts(CONTRACTS, "contracts.yaml")
    basis = Basis(Books([book]), contracts, AGGREGATIONS, date(2024, 1, 1), date(2024, 2, 1))
    events = [
        use("calls", 3, 900), use("calls", 20, 700), use("seats", 1, 3), use("seats", 17, 1), use("gb", 5, 12, "eu"),
        use("gb", 6, 31, "us"), use("paid", 8, 100), use("paid", 9, 200), use("uptime", 9, 99.5),
    ]  # fmt: skip
    assert text_of(Rater(basis).rate(usage_of(events), prepaid={"acme": 2000})) == GOLDEN.read_text()
