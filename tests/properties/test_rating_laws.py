"""Laws of rating, over random price books, contracts and usage."""

import json
from fractions import Fraction
from typing import Any

import polars as pl
from hypothesis import HealthCheck, given, settings

from rating.books import Books
from rating.frames import INSTANT
from rating.rater import Basis, Rated, Rater
from schemas.charge import CHARGES
from schemas.money import QUANTITY
from schemas.tables import LATEST
from tests.oracles.rating.kinds import Event, Row
from tests.oracles.rating.rate import rate_slowly
from tests.strategies.rating import AGGREGATIONS, RatingCase, rating_cases

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def usage_of(events: list[Event]) -> pl.DataFrame:
    """A row an event, in the order given."""
    rows = [
        {
            "subject": event.subject, "meter": event.meter, "at": event.at, "count": 1, "position": event.position,
            "uniques": [event.value] if isinstance(event.value, str) else None,
            "quantity": None if isinstance(event.value, str) else decimal(event.value),
            "sum": None if isinstance(event.value, str) else decimal(event.value),
            "latest": {"time": event.at, "appended_at": event.at, "partition": 0, "offset": event.position, "line": 0,
                       "value": None if isinstance(event.value, str) else decimal(event.value)},
            "dimension.region": event.dimensions.get("region", ""), "dimension.size": event.dimensions.get("size"),
        }
        for event in events
    ]  # fmt: skip
    latest: Any = LATEST.inner  # type: ignore[attr-defined]
    schema = {
        "subject": pl.String, "meter": pl.String, "at": INSTANT, "count": pl.Int64, "position": pl.UInt64,
        "uniques": pl.List(pl.String), "quantity": QUANTITY, "sum": QUANTITY, "latest": latest,
        "dimension.region": pl.String, "dimension.size": pl.String,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema)


def decimal(number: Fraction) -> Any:
    from decimal import Decimal

    return Decimal(number.numerator) / Decimal(number.denominator)


def rated(case: RatingCase, events: list[Event] | None = None) -> Rated:
    basis = Basis(Books(case.books), case.contracts, AGGREGATIONS, case.after, case.through, cut=7)
    carried = pl.DataFrame(
        [(customer, charge, "", 0, decimal(level)) for (customer, charge, _), level in case.carried.items()],
        schema={"customer": pl.String, "charge": pl.String, "group": pl.String, "cell": pl.Int32, "quantity": QUANTITY},
        orient="row",
    )
    usage = usage_of(case.events if events is None else events)
    return Rater(basis).rate(usage, carried=carried, prepaid=case.credits)


def key_of(row: Row) -> str:
    if row.kind == "manual":
        return f"line.{row.charge}"
    if row.kind == "sla_credit":
        return f"sla.{row.charge}"
    group = json.dumps(row.group, separators=(",", ":"), ensure_ascii=False) if row.group else ""
    base = (row.charge or row.level) + group
    return base if row.kind in {"usage", "flat"} else f"{base}.{row.kind}"


def as_told(result: Rated) -> list[Any]:
    return [
        (
            row["customer"], row["period_start"], row["period_end"], row["charge"], row["kind"],
            Fraction(row["quantity"]) if row["kind"] == "usage" else None,
            Fraction(row["gross"]) if row["kind"] in {"usage", "flat"} else None,
            Fraction(row["amount"]), row["amount_minor"], row["shared_minor"], row["net_minor"], row["credit_minor"],
            row["tax_base_minor"], row["currency"], row["tax_code"],
        )
        for row in result.charges.iter_rows(named=True)
    ]  # fmt: skip


def expected(rows: list[Row]) -> list[Any]:
    return [
        (
            row.customer, row.start, row.end, key_of(row), row.kind,
            row.quantity if row.kind == "usage" else None,
            row.gross if row.kind in {"usage", "flat"} else None,
            row.amount, row.amount_minor, -row.shared_minor, row.net_minor, -row.credit_minor,
            row.tax_base_minor, row.currency, row.tax_code,
        )
        for row in rows
    ]  # fmt: skip


@few
@given(rating_cases())
def test_the_rater_is_the_oracle(case: RatingCase) -> None:
    """All customers at once give what one at a time gives with fractions, to the last digit."""
    answer = rate_slowly(case.events, case.books, case.contracts, **case.arguments)
    result = rated(case)
    assert as_told(result) == expected(answer.rows)
    assert dict(result.charges.schema) == CHARGES
