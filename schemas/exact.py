"""The plain values of price books and contracts: exact numbers, dates, names. Bounds that a fault can tell.

Owns that no float and no number that an amount could not hold gets into a price. A price that is one number is in the
book's own currency; a mapping gives one for each currency.
"""

import re
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    StringConstraints,
    Tag,
)

from schemas.event import number_text
from schemas.money import MINOR_UNITS

WHOLE_DIGITS_MAX = 17
"""Whole digits of a quantity or a price: those of an exact amount, `schemas.money.AMOUNT`."""


def exact_decimal(value: Any) -> Decimal:
    """A number of a configuration, exactly. Raises ValueError for a float, a boolean, and text that is no plain number.

    >>> exact_decimal("12.50"), exact_decimal(3)
    (Decimal('12.50'), Decimal('3'))
    """
    plain = isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?", value, re.ASCII)
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not plain and not whole and not (isinstance(value, Decimal) and value.is_finite()):
        raise ValueError("allowed: a plain decimal number such as 12.50, never a float")
    return Decimal(value) or Decimal(0)  # one zero, not -0 or 0E-500


def plain_date(value: Any) -> date:
    """A date of a configuration. Raises ValueError for what is no date of the form 2013-01-31.

    >>> plain_date("2013-01-31")
    datetime.date(2013, 1, 31)
    """
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        return date.fromisoformat(value)
    if type(value) is date:
        return value
    raise ValueError("allowed: a date such as 2013-01-31")


def some(values: Any) -> Any:
    """The list or tuple itself. Raises ValueError when it is none, or empty."""
    if not isinstance(values, list | tuple) or not values:
        raise ValueError("allowed: a list of at least one")
    return values


def _bounded(decimals: int) -> AfterValidator:
    def check(number: Decimal) -> Decimal:
        outside = number and not -decimals <= number.adjusted() < WHOLE_DIGITS_MAX
        if outside or len(number_text(number).partition(".")[2]) > decimals:
            raise ValueError(f"allowed: at most {WHOLE_DIGITS_MAX} digits before the point and {decimals} after it")
        return number

    return AfterValidator(check)


def _known_currency(code: str) -> str:
    if code not in MINOR_UNITS:
        raise ValueError(f"allowed: an ISO 4217 code, one of {', '.join(MINOR_UNITS)}")
    return code


def _written_as(value: Any) -> str:
    return "<by currency>" if isinstance(value, Mapping) else "<a number>"


class _HoldsPrices:
    """Marks the type of a field as prices."""


_Exact = BeforeValidator(exact_decimal)
_AsText = PlainSerializer(number_text, return_type=str, when_used="json")
Price = Annotated[Decimal, _Exact, Field(ge=0), _bounded(12), _AsText]
SignedPrice = Annotated[Decimal, _Exact, _bounded(12), _AsText]
Quantity = Annotated[Decimal, _Exact, Field(ge=0), _bounded(9), _AsText]
Size = Annotated[Decimal, _Exact, Field(gt=0), _bounded(9), _AsText]
Factor = Annotated[Decimal, _Exact, Field(ge=0), _bounded(9), _AsText]
Percent = Annotated[Decimal, _Exact, Field(ge=0, le=100), _bounded(10), _AsText]
PlainDate = Annotated[date, BeforeValidator(plain_date)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(?:[_-][a-z0-9]+)*$", max_length=64)]
Words = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=1024)]
Dimension = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z_][0-9a-zA-Z_]*$", max_length=64)]
Currency = Annotated[str, AfterValidator(_known_currency)]
Prices = Annotated[
    Annotated[Price, Tag("<a number>")] | Annotated[dict[Currency, Price], Tag("<by currency>")],
    Discriminator(_written_as),
    _HoldsPrices(),
]
"""A price: a number in the book's currency, or one for each currency. Always a Decimal in a book of one currency."""


class Frozen(BaseModel):
    """A part of a book or a contract: never changes, and knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def price_fields(cls) -> frozenset[str]:
        """The names of the fields that are Prices."""
        return frozenset(
            name for name, field in cls.model_fields.items() if _has_prices(field.annotation, field.metadata)
        )


def _has_prices(annotation: Any, metadata: list[Any]) -> bool:
    nested = (mark for choice in get_args(annotation) for mark in getattr(choice, "__metadata__", ()))
    return any(isinstance(mark, _HoldsPrices) for mark in (*metadata, *nested))
