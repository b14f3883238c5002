"""Prices that billing engines publish, in their documents and tests, as data: each under the policy that the engine has.

Every row is a book of one plan, a contract, usage and what is owed, so that any rater can be held to it. `rule` says that
an engine publishes the rule, and that the numbers are worked out by hand from it; `example` that the numbers are its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Literal

from schemas.configuration import parse_yaml
from schemas.contract import Contracts
from schemas.price_book import PriceBook

AGGREGATIONS = {
    "total": "SUM", "calls": "COUNT", "least": "MIN", "peak": "MAX", "mean": "AVG", "latest": "LATEST",
    "users": "UNIQUE_COUNT",
}  # fmt: skip

Used = tuple[str, str, str, Mapping[str, str]]  # meter, instant (RFC 3339), value, dimensions


@dataclass(frozen=True)
class Published:
    """A published price. `expected` maps a charge, or `charge/kind`, to the sum of its rows in the currency's major unit."""

    name: str
    engine: str
    what: Literal["example", "rule"]
    charges: str
    expected: Mapping[str, str]
    usage: Sequence[Used] = ()
    plan: str = "{}"
    policies: str = "{}"
    contract: str = "{}"
    beside: str = "{}"  # what else the book says: taxes, for one
    currency: str = "USD"
    period: tuple[str, str] = ("2024-01-01", "2024-02-01")
    taxes: Mapping[str, str] = field(default_factory=dict)  # by the rate's name

    @property
    def book(self) -> PriceBook:
        """The price book: version 1 of one plan, `p`, and whatever else is said beside it."""
        charges = parse_yaml(f"charges: {self.charges}", self.name)["charges"]
        plan = {"id": "p", "charges": charges, **parse_yaml(self.plan, self.name)}
        return PriceBook.model_validate({
            "book": "b", "version": 1, "effective_at": "2000-01-01", "currency": self.currency, "plans": [plan],
            "policies": parse_yaml(self.policies, self.name), **parse_yaml(self.beside, self.name),
        })  # fmt: skip

    @property
    def contracts(self) -> Contracts:
        """One contract, of the customer `acme` with the subject `acme`."""
        given = parse_yaml(self.contract, self.name)
        agreed = {"customer": "acme", "name": "Acme", "subjects": ["acme"], "plan": "p", "starts_on": "2020-01-01"}
        return Contracts.model_validate({"contracts": [{**agreed, **given}]})

    @property
    def bounds(self) -> tuple[date, date]:
        """The days that the billed periods end after, and on at the latest."""
        start, end = self.period
        return date.fromisoformat(start), date.fromisoformat(end)


def used(meter: str, *values: object, at: str = "2024-01-15T12:00:00Z", **dimensions: str) -> tuple[Used, ...]:
    """Usage of a meter at one instant."""
    return tuple((meter, at, str(value), dimensions) for value in values)


def _graduated(*tiers: str, more: str = "") -> str:
    return f"[{{id: c, model: graduated, meter: total, tiers: [{', '.join(tiers)}]{more}}}]"


def _volume(*tiers: str) -> str:
    return _graduated(*tiers).replace("graduated", "volume")


FONTS = ("{up_to: 5, unit_price: 7}", "{up_to: 10, unit_price: 6.5}", "{up_to: null, unit_price: 6}")
STEPS = (
    "{up_to: 5, unit_price: 5}", "{up_to: 10, unit_price: 4}", "{up_to: 15, unit_price: 3}", "{up_to: 20, unit_price: 2}",
    "{up_to: null, unit_price: 1}",
)  # fmt: skip
FLATS = ("{up_to: 5, unit_price: 1, flat: 10}", "{up_to: null, unit_price: 0.5, flat: 3}")
FALLING = ("{up_to: 15, unit_price: 10}", "{up_to: null, unit_price: 5}")
PERCENTAGES = (
    "{up_to: 1000, rate_percent: 1, flat: 200}", "{up_to: 10000, rate_percent: 2, flat: 300}",
    "{up_to: null, rate_percent: 3, flat: 400}",
)  # fmt: skip
BASE = "[{id: base, model: flat, amount: %s}]"
STANDARD = "[{id: c, model: standard, meter: total, unit_price: %s%s}]"

TIERS = [
    *[Published(f"graduated fonts, {used_}", "Stripe", "example", _graduated(*FONTS), {"c": owed}, used("total", used_))
      for used_, owed in ((1, "7.00"), (5, "35.00"), (6, "41.50"), (20, "127.50"), (25, "157.50"))],
    *[Published(f"volume fonts, {used_}", "Stripe", "example", _volume(*FONTS), {"c": owed}, used("total", used_))
      for used_, owed in ((1, "7.00"), (5, "35.00"), (6, "39.00"), (20, "120.00"), (25, "150.00"))],
    *[Published(f"volume of five tiers, {used_}", "Stripe", "example", _volume(*STEPS), {"c": owed}, used("total", used_))
      for used_, owed in ((5, "25.00"), (6, "24.00"), (20, "40.00"), (25, "25.00"))],
    Published("graduated of five tiers, 6", "Stripe", "example", _graduated(*STEPS), {"c": "29.00"}, used("total", 6)),
    Published("per unit, 25", "Stripe", "example", STANDARD % ("5", ""), {"c": "125.00"}, used("total", 25)),
    Published("volume falls with one unit more: 15", "OpenMeter", "example", _volume(*FALLING), {"c": "150.00"}, used("total", 15)),
    Published("volume falls with one unit more: 16", "OpenMeter", "example", _volume(*FALLING), {"c": "80.00"}, used("total", 16)),
    Published("a fraction enters the second tier", "OpenMeter", "rule", _graduated(*FLATS), {"c": "18.00"}, used("total", "5.001")),
    Published("the bound itself does not", "OpenMeter", "rule", _graduated(*FLATS), {"c": "15.00"}, used("total", 5)),
    Published("first tier's flat amount at zero", "Lago", "rule", _graduated(*FLATS), {"c": "10.00"}),
    Published("no flat amount at zero", "flexprice", "rule", _graduated(*FLATS), {"c": "0"}, policies="{zero_usage_flat: none}"),
    Published("volume of 100.5 is beyond 100", "Lago", "rule", _volume("{up_to: 100, unit_price: 2}", "{up_to: null, unit_price: 1}"),
              {"c": "100.50"}, used("total", "100.5")),
    Published("volume of 99.5 has a tier", "Meteroid", "rule", _volume("{up_to: 99, unit_price: 2}", "{up_to: null, unit_price: 1}"),
              {"c": "99.50"}, used("total", "99.5")),
    Published("a tier's cap", "Meteroid", "rule", _graduated("{up_to: 10, unit_price: 5, cap: 30}", "{up_to: null, unit_price: 1}"),
              {"c": "32.00"}, used("total", 12)),
]  # fmt: skip

UNITS = [
    Published("free units come off before packages", "Lago", "example",
              "[{id: c, model: package, meter: total, size: 10, price: 1, free_units: 10}]", {"c": "12.00"}, used("total", 121)),
    Published("no usage, no package", "Lago", "rule", "[{id: c, model: package, meter: total, size: 10, price: 5}]", {"c": "0"}),
    Published("begun packages only when full", "Stripe", "rule",
              "[{id: c, model: package, meter: total, size: 10, price: 1, round: down}]", {"c": "12.00"}, used("total", 129)),
    Published("thousands rounded up, then tiers", "OpenMeter", "example",
              _graduated("{up_to: 5, unit_price: 1}", "{up_to: null, unit_price: 0.5}",
                         more=", unit: {divide_by: 1000, round: up, decimals: 0}"), {"c": "6.50"}, used("total", 7400)),
    Published("packages of each hour", "OpenMeter", "example",
              "[{id: c, model: package, meter: total, size: 10, price: 1, buckets: {window: hour, take: each}}]", {"c": "2.00"},
              (*used("total", 9, at="2024-01-15T12:00:00Z"), *used("total", 10, at="2024-01-15T13:00:00Z"))),
    Published("fractions of a cent, once", "Lago", "example", STANDARD % ("0.0005", ""), {"c": "0.02"}, used("total", 30)),
    Published("money that events carry", "OpenMeter", "example",
              "[{id: c, model: dynamic, meter: total, multiplier: 1.33333}]", {"c": "13.33"}, used("total", 10)),
    *[Published(f"graduated percentage of {sum(events)}", "Lago", "example",
                f"[{{id: c, model: graduated_percentage, meter: total, tiers: [{', '.join(PERCENTAGES)}]}}]", {"c": owed},
                used("total", *events)) for events, owed in (((500,), "205.00"), ((500, 550), "511.00"), ((500, 550, 4000), "591.00"))],
    Published("2.9 % and 0.30 of each card payment", "Lago", "rule",
              "[{id: c, model: percentage, meter: total, rate_percent: 2.9, fixed: 0.3}]", {"c": "9.60"}, used("total", 100, 150, 50, 0)),
    Published("the first three payments are free", "Lago", "rule",
              "[{id: c, model: percentage, meter: total, rate_percent: 1, fixed: 1, free_events: 3, free_amount: 500}]",
              {"c": "2.00"}, used("total", 100, 100, 100, 100)),
    Published("500 of payments are free, one in part", "Lago", "rule",
              "[{id: c, model: percentage, meter: total, rate_percent: 1, fixed: 1, free_amount: 500}]", {"c": "3.00"},
              used("total", 400, 300)),
    Published("at least and at most for a payment", "Lago", "rule",
              "[{id: c, model: percentage, meter: total, rate_percent: 1, event_minimum: 2, event_maximum: 5}]", {"c": "10.00"},
              used("total", 100, 300, 900)),
    Published("no payment, no fee", "Lago", "rule", "[{id: c, model: percentage, meter: total, rate_percent: 1, fixed: 1}]", {"c": "0"}),
    Published("negative usage is none", "Lago", "rule", STANDARD % ("5", ""), {"c": "0"}, used("total", -3)),
    Published("the 95th percentile of two days", "flexprice", "rule",
              STANDARD % ("1", ", buckets: {window: day, take: percentile, percent: 95}"), {"c": "4.00"},
              (*used("total", 4, at="2024-01-03T00:00:00Z"), *used("total", 9, at="2024-01-04T00:00:00Z"))),
    Published("half of the time", "Lago", "rule", STANDARD % ("1", ", recurring: true, buckets: {window: hour, take: time_weighted}"),
              {"c": "5.00"}, used("total", 10, at="2024-01-16T12:00:00Z")),
]  # fmt: skip

CHAIN = [
    Published("percentage, then maximum", "OpenMeter", "rule",
              STANDARD % ("1", ", discounts: [{id: d, percent: 10}], maximum_spend: 80"), {"c": "80.00"}, used("total", 100)),
    Published("minimum as a row", "OpenMeter", "rule", STANDARD % ("1", ", minimum_spend: 100"),
              {"c/usage": "20.00", "c/minimum_spend": "80.00"}, used("total", 20)),
    Published("minimum of 25 of 28 days", "Lago", "example", STANDARD % ("1", ", minimum_spend: 10"),
              {"c/usage": "8.00", "c/minimum_spend": "0.93"}, used("total", 8, at="2023-02-20T00:00:00Z"),
              policies="{proration: days_half_open}", contract="{starts_on: 2023-02-04}", period=("2023-02-01", "2023-03-01")),
    Published("commitment of 2 of 29 days", "Lago", "example", STANDARD % ("1", ""), {"c": "36.90", "/commitment": "652.76"},
              used("total", "36.90", at="2024-02-28T00:00:00Z"), plan="{commitment: {amount: 10000}}",
              policies="{proration: days_half_open}", contract="{starts_on: 2024-02-28}", period=("2024-02-01", "2024-03-01")),
    Published("commitments of hours: used, above and missing", "flexprice", "rule",
              STANDARD % ("1", ", buckets: {window: hour, take: each}, commitment: {amount: 10, overage_factor: 1.5, per: bucket}"),
              {"c/usage": "18.00", "c/overage": "2.00", "c/commitment": "6.00"},
              (*used("total", 14, at="2024-01-15T12:00:00Z"), *used("total", 4, at="2024-01-15T13:00:00Z"))),
    Published("a hundred shared out by largest remainder", "OpenMeter", "rule",
              "[{id: a, model: flat, amount: 10}, {id: b, model: flat, amount: 10}, {id: c, model: flat, amount: 10}]",
              {"a": "6.66", "b": "6.67", "c": "6.67"}, plan="{discounts: [{id: d, amount: 10}]}"),
]  # fmt: skip

PRORATION = [
    Published("14 of 31 days", "Kill Bill", "example", BASE % "10", {"base": "4.52"}, policies="{proration: days_half_open}",
              contract="{starts_on: 2024-01-18}"),
    Published("22 of 30 fixed days", "Kill Bill", "example", BASE % "10", {"base": "7.33"}, policies="{proration: fixed_30}",
              contract="{starts_on: 2023-05-23, ends_on: 2023-06-15, anchor_day: 23, cycle: {every: month, anchor: anniversary}}",
              period=("2023-06-01", "2023-07-01")),
    Published("349 of 365 days", "Kill Bill", "example", BASE % "365", {"base": "349.00"}, plan="{cycle: {every: year}}",
              policies="{proration: days_half_open}", contract="{starts_on: 2023-01-17}", period=("2023-01-31", "2024-01-01")),
    Published("a price that changes within the month", "Kill Bill", "example", BASE % "49.95", {"base": "54.62"},
              policies="{proration: days_half_open}", contract="{amendments: [{'on': 2023-04-17, charges: {base: {amount: 59.95}}}]}",
              period=("2023-04-01", "2023-05-01")),
    Published("6 of 30 days are kept", "Kill Bill", "example", BASE % "29.95", {"base": "5.99"}, policies="{proration: days_half_open}",
              contract="{ends_on: 2023-04-07}", period=("2023-04-01", "2023-05-01")),
    Published("the other 24 are credited", "Kill Bill", "example", BASE % "29.95", {"base": "23.96"},
              policies="{proration: days_half_open}", contract="{starts_on: 2023-04-07}", period=("2023-04-01", "2023-05-01")),
    Published("17 of 31 days, the last included: old", "flexprice", "example", BASE % "10", {"base": "5.48"},
              policies="{proration: days_inclusive}", contract="{starts_on: 2024-01-15}"),
    Published("17 of 31 days, the last included: new", "flexprice", "example", BASE % "20", {"base": "10.97"},
              policies="{proration: days_inclusive}", contract="{starts_on: 2024-01-15}"),
    Published("15 of 31 days by duration", "OpenMeter", "example", BASE % "100", {"base": "48.39"}, contract="{starts_on: 2024-01-17}"),
    Published("10 of 31 days in yen", "OpenMeter", "rule", BASE % "1000", {"base": "323"}, contract="{starts_on: 2024-01-22}",
              currency="JPY"),
    Published("32 of 91 days", "Lago", "example", BASE % "910", {"base": "320.00"}, plan="{cycle: {every: quarter}}",
              policies="{proration: days_half_open}", contract="{starts_on: 2024-05-30}", period=("2024-06-30", "2024-07-01")),
    Published("from 10 to 20 in the middle", "Stripe", "example", BASE % "10", {"base": "15.00"},
              contract="{amendments: [{'on': 2023-04-16, charges: {base: {amount: 20}}}]}", period=("2023-04-01", "2023-05-01")),
    Published("the last day of thirty", "Meteroid", "example", BASE % "300", {"base": "310.00"},
              policies="{proration: days_half_open}", contract="{amendments: [{'on': 2023-04-30, charges: {base: {amount: 600}}}]}",
              period=("2023-04-01", "2023-05-01")),
    Published("the 31st comes back after February", "Kill Bill", "rule", BASE % "10", {"base": "10.00"},
              contract="{starts_on: 2024-01-31, cycle: {every: month, anchor: anniversary}}", period=("2024-02-29", "2024-03-31")),
    Published("no proration: the whole amount", "Stripe", "rule", BASE % "10", {"base": "10.00"}, policies="{proration: none}",
              contract="{starts_on: 2024-01-30}"),
    Published("a trial of 14 days", "Stripe", "rule", BASE % "31", {"base": "17.00"}, plan="{trial_days: 14}",
              contract="{starts_on: 2024-01-01}"),
    Published("the day of the customer, not of UTC", "Kill Bill", "rule", BASE % "31", {"base": "14.00"},
              policies="{proration: days_half_open}", contract="{starts_on: 2023-10-18, time_zone: Europe/Berlin}",
              period=("2023-10-01", "2023-11-01")),
]  # fmt: skip

FEES = "[{id: a, model: flat, amount: 17.5}, {id: b, model: flat, amount: 17.5}, {id: c, model: flat, amount: 17.5}, {id: d, model: flat, amount: 17.5}]"
SEVEN = "{tax: {mode: exclusive, name: GST, rate_percent: 7}}"
TAXES = [
    Published("three rates, each rounded", "Stripe", "example", BASE % "99.99", {"base": "99.99"}, taxes={"a": "8.87", "b": "2.12", "c": "0.50"},
              beside="{tax: {mode: exclusive, rates: [{name: a, rate_percent: 8.875}, {name: b, rate_percent: 2.125}, {name: c, rate_percent: 0.5}]}}"),
    Published("21 % in the price", "eenvoudigfactureren", "example", BASE % "100", {"base": "100.00"}, taxes={"VAT": "17.36"},
              beside="{tax: {mode: inclusive, name: VAT, rate_percent: 21}}"),
    Published("a line at a time, half to even", "Stax", "example", FEES, {"a": "17.50"}, taxes={"GST": "4.88"},
              policies="{tax_position: line, rounding: half_even}", beside=SEVEN),
    Published("the whole invoice", "Stax", "example", FEES, {"a": "17.50"}, taxes={"GST": "4.90"}, policies="{tax_position: invoice}", beside=SEVEN),
    Published("the sum of the rate", "EN 16931", "rule", FEES, {"a": "17.50"}, taxes={"GST": "4.90"}, beside=SEVEN),
    Published("a tax on a tax", "Lago", "rule", BASE % "100", {"base": "100.00"}, taxes={"GST": "5.00", "QST": "10.47"},
              beside="{tax: {mode: exclusive, rates: [{name: GST, rate_percent: 5}, {name: QST, rate_percent: 9.975, compound: true}]}}"),
]  # fmt: skip

PUBLISHED = [*TIERS, *UNITS, *CHAIN, *PRORATION, *TAXES]
