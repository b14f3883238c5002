"""The oracle of rating, held to prices that billing engines publish."""

from datetime import datetime
from decimal import Decimal
from fractions import Fraction

import pytest

from schemas.money import MINOR_UNITS
from tests.golden.published_prices import AGGREGATIONS, PUBLISHED, Published
from tests.oracles.rating.kinds import Answer, Event
from tests.oracles.rating.rate import rate_slowly


def answer_of(price: Published) -> Answer:
    events = [
        Event(
            "acme", meter, datetime.fromisoformat(at), value if meter == "users" else Fraction(value), dimensions, place
        )
        for place, (meter, at, value, dimensions) in enumerate(price.usage)
    ]
    after, through = price.bounds
    return rate_slowly(events, [price.book], price.contracts, after=after, through=through, aggregations=AGGREGATIONS)


@pytest.mark.parametrize("price", PUBLISHED, ids=lambda price: f"{price.engine}: {price.name}")
def test_the_oracle_owes_what_is_published(price: Published) -> None:
    """Charges and taxes come to what the engine publishes, to the minor unit, under the policy that it has."""
    answer, scale = answer_of(price), Decimal(10) ** -MINOR_UNITS[price.currency]
    for key, expected in price.expected.items():
        charge, _, kind = key.partition("/")
        rows = [row for row in answer.rows if row.charge == charge and kind in {"", row.kind}]
        assert sum(row.left_minor for row in rows) * scale == Decimal(expected), (key, answer.rows)
    assert {tax.name: tax.tax_minor * scale for tax in answer.taxes} == {
        name: Decimal(tax) for name, tax in price.taxes.items()
    }
