"""The rater, held to prices that billing engines publish."""

from datetime import datetime
from decimal import Decimal
from fractions import Fraction

import polars as pl
import pytest

from rating.books import Books
from rating.rater import Basis, Rated, Rater
from rating.tax import taxed
from schemas.money import MINOR_UNITS
from tests.golden.published_prices import AGGREGATIONS, PUBLISHED, Published
from tests.oracles.rating.kinds import Event
from tests.simulation.rating_cases import usage_of


def rated(price: Published) -> Rated:
    events = [
        Event(
            "acme", meter, datetime.fromisoformat(at), value if meter == "users" else Fraction(value), dimensions, place
        )
        for place, (meter, at, value, dimensions) in enumerate(price.usage)
    ]
    dimensions = sorted({name for event in events for name in event.dimensions} | {"region", "size"})
    basis = Basis(Books([price.book]), price.contracts, AGGREGATIONS, *price.bounds)
    return Rater(basis).rate(usage_of(events, dimensions))


def taxes_of(charges: pl.DataFrame, price: Published) -> dict[str, int]:
    """The taxes of one invoice, by the name of the rate."""
    book, policies = price.book, price.book.policies
    rules = {code: rule for code, rule in [(None, book.tax), *book.taxes.items()] if rule}
    numbers = [list(rules).index(code) if code in rules else None for code in charges["tax_code"]]
    lines = charges.select("tax_base_minor", invoice=pl.lit(0), tax_rule=pl.Series(numbers, dtype=pl.UInt32))
    totals = taxed(lines, list(rules.values()), policies.tax_position, policies.rounding).totals
    return dict(totals.group_by("name").agg(pl.col("tax_minor").sum()).rows())


@pytest.mark.parametrize("price", PUBLISHED, ids=lambda price: f"{price.engine}: {price.name}")
def test_the_rater_owes_what_is_published(price: Published) -> None:
    """Charges and taxes come to what the engine publishes, to the minor unit, under the policy that it has."""
    charges, scale = rated(price).charges, Decimal(10) ** -MINOR_UNITS[price.currency]
    of_charges = [
        (name.split("{")[0].split(".")[-1 if name.startswith(("line.", "sla.")) else 0], kind, amount + shared)
        for name, kind, amount, shared in charges.select("charge", "kind", "amount_minor", "shared_minor").rows()
    ]
    for key, expected in price.expected.items():
        charge, _, kind = key.partition("/")
        names = {charge} if charge else {"plan", "contract"}
        owed = sum(minor for name, own, minor in of_charges if name in names and kind in {"", own})
        assert owed * scale == Decimal(expected), (key, of_charges)
    taxes = {name: tax * scale for name, tax in taxes_of(charges, price).items()}
    assert taxes == {name: Decimal(tax) for name, tax in price.taxes.items()}
