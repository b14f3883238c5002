"""What is wrong between the keys of a price book, each told at its key; and books that are right."""

from pathlib import Path

import pytest

from schemas.configuration import ConfigurationError
from schemas.meter import parse_meters
from schemas.price_book import PriceBook, parse_price_book

ROOT = Path(__file__).parents[3]
METERS = {
    meter.slug: meter
    for meter in parse_meters(
        "meters: [{slug: calls, eventType: c, aggregation: COUNT, groupBy: {region: $.region, size: $.size}},"
        " {slug: gb, eventType: c, aggregation: SUM, valueProperty: $.gb, groupBy: {region: $.region}},"
        " {slug: peak, eventType: c, aggregation: MAX, valueProperty: $.gb}]",
        "meters.yaml",
    )
}
BOOK = """
book: cloud
version: 3
effective_at: 2026-02-01
existing_customers_at: 2026-04-01
currency: USD
currencies: [EUR]
tax: {mode: exclusive, name: VAT, rate_percent: 20}
taxes: {reduced: {mode: exclusive, rates: [{name: VAT, rate_percent: 10}, {name: City, rate_percent: 1, compound: true}]}}
pricing_units: [{id: credits, name: Credits, rate: {USD: 0.01, EUR: 0.009}}]
features: [{id: sso, name: Single sign-on}, {id: seats, name: Seats}]
default_plan: free
plans:
  - id: free
    charges: [{id: gb, model: standard, meter: gb, unit_price: 0}]
  - id: pro
    cycle: {every: month, anchor: calendar}
    trial_days: 14
    features: [sso, {id: seats, limit: 10}]
    discounts: [{id: launch, percent: 10, charges: [calls]}, {id: fixed, amount: {USD: 5, EUR: 4}}]
    minimum_spend: {USD: 100.00, EUR: 90}
    maximum_spend: {USD: 5000.00, EUR: 4500}
    commitment: {amount: {USD: 1000, EUR: 900}, overage_factor: 1.2}
    charges:
      - {id: base, model: flat, amount: {USD: 49.00, EUR: 45.00}, pay: advance, features: [seats], tax_code: reduced}
      - {id: calls, model: graduated, meter: calls, priced_in: credits, group_by: [region], tiers: [{up_to: 10000, unit_price: 0}, {up_to: null, unit_price: 0.0004}]}
      - {id: egress, model: standard, meter: gb, unit_price: 0, filters: {region: [eu]}, recurring: true, unit: {divide_by: 1000, round: up}, discounts: [{id: some, units: 5}]}
      - {id: hourly, model: standard, meter: gb, unit_price: 0, buckets: {window: hour, take: each}, commitment: {amount: 0, per: bucket}}
      - {id: burst, model: volume, meter: peak, buckets: {window: minute, take: percentile, percent: 95}, tiers: [{up_to: null, unit_price: 0}]}
      - {id: fee, model: percentage, meter: gb, rate_percent: 2.9, fixed: {USD: 0.30, EUR: 0.25}, free_events: 3, event_minimum: {USD: 0.5, EUR: 0.4}, event_maximum: {USD: 10, EUR: 9}}
      - {id: steps, model: graduated_percentage, meter: gb, tiers: [{up_to: 1000, rate_percent: 3}, {up_to: null, rate_percent: 1}]}
      - {id: pass, model: dynamic, meter: gb, multiplier: 1.1}
      - {id: room, model: capacity, meter: peak, capacity: 10, amount: {USD: 10, EUR: 9}, overage_price: {USD: 2, EUR: 2}}
      - {id: grid, model: matrix, meter: calls, dimensions: [region, size], default_price: 0, cells: [{when: {region: eu, size: [l, xl]}, unit_price: {USD: 1, EUR: 1}}]}
"""


def faults(text: str) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as caught:
        parse_price_book(text, "book.yaml", METERS)
    return {fault.key: fault.allowed for fault in caught.value.faults}


def test_a_book_with_everything_is_legal_in_each_of_its_currencies() -> None:
    """All charge models and keys go together, come back from the canonical form, and have prices in both currencies."""
    book = parse_price_book(BOOK, "book.yaml", METERS)
    assert PriceBook.from_canonical(book.canonical()) == book
    for currency in ("USD", "EUR"):
        assert book.in_currency(currency).currency == currency
    with pytest.raises(ConfigurationError, match="allowed: USD, EUR"):
        book.in_currency("GBP")


PRO = "plans[1]"


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        # dates and tax
        ("existing_customers_at: 2026-04-01", "existing_customers_at: 2026-01-31", "existing_customers_at"),
        ("name: VAT, rate_percent: 20}", "name: VAT}", "tax.rate_percent"),
        ("name: VAT, rate_percent: 20}", "name: VAT, rate_percent: 20, rates: [{name: VAT, rate_percent: 1}]}", "tax.name"),
        ("mode: exclusive, name: VAT, rate_percent: 20}", "mode: inclusive}", "tax.rates"),
        # names that nothing has
        ("features: [seats], tax", "features: [chairs], tax", f"{PRO}.charges[0].features[0]"),
        ("features: [sso, ", "features: [ssh, ", f"{PRO}.features[0]"),
        ("features: [sso, ", "features: [seats, ", f"{PRO}.features[1]"),
        ("tax_code: reduced", "tax_code: none", f"{PRO}.charges[0].tax_code"),
        ("priced_in: credits", "priced_in: coins", f"{PRO}.charges[1].priced_in"),
        ("charges: [calls]}", "charges: [call]}", f"{PRO}.discounts[0].charges[0]"),
        ("group_by: [region]", "group_by: [zone]", f"{PRO}.charges[1].group_by[0]"),
        ("group_by: [region]", "group_by: [region, region]", f"{PRO}.charges[1].group_by[1]"),
        ("filters: {region: [eu]}", "filters: {size: [l]}", f"{PRO}.charges[2].filters.size"),
        ("{id: sso, name: Single sign-on}", "{id: sso}, {id: sso}", "features[1].id"),
        # rules of a charge
        ("{divide_by: 1000, round: up}", "{divide_by: 1000, multiply_by: 2}", f"{PRO}.charges[2].unit"),
        ("{divide_by: 1000, round: up}", "{round: up}", f"{PRO}.charges[2].unit"),
        ("meter: gb, unit_price: 0, filters", "meter: calls, unit_price: 0, filters", f"{PRO}.charges[2].recurring"),
        ("default_price: 0", "default_price: 0, buckets: {window: hour, take: time_weighted}", f"{PRO}.charges[9].buckets.take"),
        ("meter: calls, dimensions: [region, size], default_price: 0, cells: [{when: {region: eu, size: [l, xl]}", "meter: gb, recurring: true, dimensions: [region], default_price: 0, cells: [{when: {region: eu}", f"{PRO}.charges[9].recurring"),
        ("take: percentile, percent: 95", "take: percentile", f"{PRO}.charges[4].buckets.percent"),
        ("take: percentile, percent: 95", "take: percentile, percent: 0", f"{PRO}.charges[4].buckets.percent"),
        ("take: percentile, percent: 95", "take: max, percent: 95", f"{PRO}.charges[4].buckets.percent"),
        ("window: hour, take: each", "window: hour, take: max", f"{PRO}.charges[3].commitment.per"),
        ("overage_factor: 1.2", "per: bucket", f"{PRO}.commitment.per"),
        ("{id: some, units: 5}", "{id: some, units: 5, percent: 1}", f"{PRO}.charges[2].discounts[0]"),
        ("{id: some, units: 5}", "{id: some}", f"{PRO}.charges[2].discounts[0]"),
        ("{id: some, units: 5}", "{id: some, units: 5, charges: [base]}", f"{PRO}.charges[2].discounts[0].charges"),
        ("{id: launch, percent: 10", "{id: launch, units: 10", f"{PRO}.discounts[0].units"),
        ("{id: fixed,", "{id: launch,", f"{PRO}.discounts[1].id"),
        ("up_to: 1000, rate_percent", "up_to: null, rate_percent", f"{PRO}.charges[6].tiers[0].up_to"),
        ("{up_to: 1000, rate_percent: 3},", "{up_to: 9, rate_percent: 3}, {up_to: 9, rate_percent: 1},", f"{PRO}.charges[6].tiers[1].up_to"),
        ("dimensions: [region, size]", "dimensions: [region]", f"{PRO}.charges[9].cells[0].when.size"),
        ("event_maximum: {USD: 10, EUR: 9}", "event_maximum: {USD: 10, EUR: 0.3}", f"{PRO}.charges[5].event_maximum"),
        ("maximum_spend: {USD: 5000.00", "maximum_spend: {USD: 50", f"{PRO}.maximum_spend"),
        # currencies
        ("currencies: [EUR]", "currencies: [EUR, USD]", "currencies[1]"),
        ("{USD: 49.00, EUR: 45.00}", "{USD: 49.00}", f"{PRO}.charges[0].amount"),
        ("{USD: 49.00, EUR: 45.00}", "49.00", f"{PRO}.charges[0].amount"),
        ("{USD: 49.00, EUR: 45.00}", "{USD: 49.00, EUR: 45.00, GBP: 40}", f"{PRO}.charges[0].amount.GBP"),
        ("{USD: 49.00, EUR: 45.00}", "{USD: 49.00, EUR: -45.00}", f"{PRO}.charges[0].amount.EUR"),
        ("{amount: {USD: 1000, EUR: 900}", "{amount: {EUR: 900}", f"{PRO}.commitment.amount"),
        ("rate: {USD: 0.01, EUR: 0.009}", "rate: {USD: 0.01}", "pricing_units[0].rate"),
        ("rate: {USD: 0.01, EUR: 0.009}", "rate: {USD: 0.01, EUR: 0.009, JPY: 1}", "pricing_units[0].rate.JPY"),
        ("unit_price: 0.0004", "unit_price: {USD: 1, EUR: 1}", f"{PRO}.charges[1].tiers[1].unit_price"),
        ("unit_price: 0.0004", "unit_price: 0.0000000001", f"{PRO}.charges[1].tiers[1].unit_price"),
    ],
)  # fmt: skip
def test_one_fault_is_told_alone(old: str, new: str, key: str) -> None:
    """A single change that makes the book illegal gives faults at its key alone."""
    assert old in BOOK
    assert list(faults(BOOK.replace(old, new, 1))) == [key]


def test_prices_of_a_pricing_unit_are_never_rounded() -> None:
    """A rate may take a price to more digits than a price has: that is a fault, which says the price."""
    text = BOOK.replace("unit_price: 0.0004", "unit_price: 0.00000000012")
    assert faults(text) == {
        f"{PRO}.charges[1].tiers[1].unit_price": "allowed: a number that in EUR has at most 17 digits before the point and 12 after it; it is 0.00000000000108"
    }


def test_the_examples_keep_their_digests() -> None:
    """Invoices name them: what is released as an example is the same book for ever."""
    meters = parse_meters((ROOT / "examples/flights/meters.yaml").read_text(), "meters.yaml")
    book = parse_price_book(
        (ROOT / "examples/flights/prices.yaml").read_text(), "prices.yaml", {m.slug: m for m in meters}
    )
    assert book.digest == "b94eb585bc956a07fd9df8bb09c0be60b83937d86761425ab0ffee8cc06f3c0d"
    assert book.in_currency("USD") is book


def test_a_book_in_one_currency_keeps_the_digest_of_the_whole() -> None:
    """A charge names the book as it was applied, whatever its customer pays in."""
    book = parse_price_book(BOOK, "book.yaml", METERS)
    assert book.in_currency("EUR").digest == book.digest
    assert book.in_currency("EUR").canonical() != book.canonical()
