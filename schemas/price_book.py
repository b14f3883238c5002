"""Price books: versioned plans of charges, read from YAML, stored as canonical JSON.

Decides what a legal price book is and says all that is wrong with one at once. Owns the digest of a version: it depends
on what the book means, not on how it is written (comments, order of keys, 1.50 or 1.5). What stands at its default is
left out of the canonical JSON, so that a later optional key changes no digest of a stored book; so a default, once
released, never changes.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from datetime import date
from decimal import Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import orjson
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
    ValidationError,
)

from schemas.configuration import ConfigurationError, Fault, faults_of, parse_yaml
from schemas.event import number_text
from schemas.identity import content_digest
from schemas.meter import Slug
from schemas.money import MINOR_UNITS

WHOLE_DIGITS_MAX = 17
"""Whole digits of a quantity or a price: those of an exact amount, `schemas.money.AMOUNT`."""

_MODELS = ("flat", "graduated", "volume", "package")
_MODEL_STEP = re.compile(rf"(charges\[\d+\])\.(?:{'|'.join(_MODELS)})(?=\.)")


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


def _exclusive(mode: Any) -> Any:
    if mode != "exclusive":
        raise ValueError("allowed: exclusive; prices that include the tax are not supported")
    return mode


def _known_currency(code: str) -> str:
    if code not in MINOR_UNITS:
        raise ValueError(f"allowed: an ISO 4217 code, one of {', '.join(MINOR_UNITS)}")
    return code


_Exact = BeforeValidator(exact_decimal)
_AsText = PlainSerializer(number_text, return_type=str, when_used="json")
Price = Annotated[Decimal, _Exact, Field(ge=0), _bounded(12), _AsText]
Quantity = Annotated[Decimal, _Exact, Field(ge=0), _bounded(9), _AsText]
Size = Annotated[Decimal, _Exact, Field(gt=0), _bounded(9), _AsText]
Percent = Annotated[Decimal, _Exact, Field(ge=0, le=100), _bounded(10), _AsText]
PlainDate = Annotated[date, BeforeValidator(plain_date)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(?:[_-][a-z0-9]+)*$", max_length=64)]
Words = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=1024)]
Currency = Annotated[str, AfterValidator(_known_currency)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Tier(_Frozen):
    """A range of quantities `(up_to of the tier before, up_to]`, its unit price, and the flat amount of entering it."""

    up_to: Size | None
    unit_price: Price
    flat: Price = Decimal(0)


class _Charge(_Frozen):
    id: Name
    description: Words = ""

    @property
    def title(self) -> str:
        """What stands on an invoice: the description, or the id where there is none."""
        return self.description or self.id


class FlatCharge(_Charge):
    """The same amount every period."""

    model: Literal["flat"]
    amount: Price


class GraduatedCharge(_Charge):
    """Each part of the quantity is sold at the price of the tier that it falls in."""

    model: Literal["graduated"]
    meter: Slug
    tiers: Annotated[tuple[Tier, ...], BeforeValidator(some)]


class VolumeCharge(_Charge):
    """The whole quantity is sold at the price of the tier that it falls in."""

    model: Literal["volume"]
    meter: Slug
    tiers: Annotated[tuple[Tier, ...], BeforeValidator(some)]


class PackageCharge(_Charge):
    """Packages of `size` units, begun ones whole (`round: up`) or full ones only, after the free units came off."""

    model: Literal["package"]
    meter: Slug
    size: Size
    price: Price
    free_units: Quantity = Decimal(0)
    round: Literal["up", "down"] = "up"


def _model_of(charge: Any) -> str | None:
    model = charge.get("model") if isinstance(charge, Mapping) else getattr(charge, "model", None)
    return model if isinstance(model, str) else None


Charge = Annotated[
    Annotated[FlatCharge, Tag("flat")]
    | Annotated[GraduatedCharge, Tag("graduated")]
    | Annotated[VolumeCharge, Tag("volume")]
    | Annotated[PackageCharge, Tag("package")],
    Discriminator(
        _model_of,
        custom_error_type="charge_model",
        custom_error_message=f"allowed: a charge whose model is {', '.join(_MODELS[:-1])} or {_MODELS[-1]}",
    ),
]
"""A charge of a plan, of one of the four models."""


class Plan(_Frozen):
    """What a customer on this plan pays for, in the order of the invoice."""

    id: Name
    name: Words = ""
    charges: Annotated[tuple[Charge, ...], BeforeValidator(some)]


class TaxRule(_Frozen):
    """A tax that comes on top of the amounts (exclusive)."""

    mode: Annotated[Literal["exclusive"], BeforeValidator(_exclusive)]
    name: Annotated[Words, Field(min_length=1)]
    rate_percent: Percent


class ZeroUsageFlat(StrEnum):
    """Whether the flat amount of the first tier is owed when nothing was used."""

    FIRST_TIER = "first_tier"
    NONE = "none"


class Policies(_Frozen):
    """Answers to what billing engines disagree on."""

    zero_usage_flat: ZeroUsageFlat = ZeroUsageFlat.FIRST_TIER


class PriceBook(_Frozen):
    """One immutable version of a price book. In force for the periods that start at or after `effective_at`."""

    book: Name
    version: int = Field(ge=1, lt=2**31, strict=True)
    effective_at: PlainDate
    currency: Currency
    tax: TaxRule | None = None
    default_plan: Name | None = None
    plans: Annotated[tuple[Plan, ...], BeforeValidator(some)]
    policies: Policies = Policies()

    def canonical(self) -> str:
        """The book as canonical JSON: books that mean the same give the same text. Sorted keys; numbers are texts."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def from_canonical(cls, canonical: str) -> Self:
        """The book that `canonical` was made from. Raises ConfigurationError for what is no legal book."""
        return cls.model_validate(_legal(orjson.loads(canonical), "canonical price book", None))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
        return content_digest(self.canonical().encode())


def parse_price_book(text: str, file: str, meters: Collection[str]) -> PriceBook:
    """The price book of a YAML text; `meters` holds the slugs that it may charge for (a mapping from slugs will do).

    Raises one ConfigurationError that lists all faults: those of single keys, then those between keys.

    >>> charge = "{id: rent, model: flat, amount: 2500.00}"
    >>> plans = f"[{{id: airline, charges: [{charge}]}}]"
    >>> text = f"{{book: b, version: 1, effective_at: 2013-01-01, currency: USD, plans: {plans}}}"
    >>> parse_price_book(text, "book.yaml", []).plans[0].charges[0].amount
    Decimal('2500.00')
    """
    return PriceBook.model_validate(_legal(parse_yaml(text, file), file, meters))


def _legal(parsed: Any, file: str, meters: Collection[str] | None) -> Any:
    faults: list[Fault] = []
    try:
        PriceBook.model_validate(parsed)
    except ValidationError as error:
        found = faults_of(error, file)
        faults += [Fault(file, _MODEL_STEP.sub(r"\1", fault.key), fault.value, fault.allowed) for fault in found]
    faults += [Fault(file, key, _shown(value), allowed) for key, value, allowed in _cross_faults(parsed, meters)]
    if faults:
        raise ConfigurationError(faults)
    return parsed


def _cross_faults(book: Any, meters: Collection[str] | None) -> Iterator[tuple[str, Any, str]]:
    """What is wrong between keys. Takes the book as it was read, because it may have faults of single keys as well."""
    plans = _entries(book, "plans")
    yield from _repeated("plans", plans)
    ids = [plan["id"] for _, plan in plans if isinstance(plan.get("id"), str)]
    default = book.get("default_plan") if isinstance(book, Mapping) else None
    if isinstance(default, str) and default not in ids:
        yield "default_plan", default, f"allowed: the id of a plan: {', '.join(ids)}"
    for at, plan in plans:
        charges = _entries(plan, "charges")
        yield from _repeated(f"plans[{at}].charges", charges)
        for place, charge in charges:
            key = f"plans[{at}].charges[{place}]"
            meter = charge.get("meter")
            if meters is not None and isinstance(meter, str) and meter not in meters:
                yield f"{key}.meter", meter, f"allowed: a known meter: {', '.join(sorted(meters)) or '(there is none)'}"
            if charge.get("model") in {"graduated", "volume"}:
                yield from _tier_faults(f"{key}.tiers", _entries(charge, "tiers"))


def _tier_faults(key: str, tiers: list[tuple[int, Mapping[str, Any]]]) -> Iterator[tuple[str, Any, str]]:
    known = [(at, tier["up_to"]) for at, tier in tiers if "up_to" in tier]
    last = max((at for at, _ in tiers), default=0)
    for at, up_to in known:
        if up_to is None and at != last:
            yield f"{key}[{at}].up_to", None, "allowed: a number; only the last tier is without end"
        if up_to is not None and at == last:
            yield f"{key}[{at}].up_to", up_to, "allowed: null; the last tier is without end"
    ends = [(at, end) for at, up_to in known if (end := _number(up_to)) is not None]
    for (_, before), (at, end) in pairwise(ends):
        if end <= before:
            yield f"{key}[{at}].up_to", end, f"allowed: more than {number_text(before)}, where the tier before it ends"


def _repeated(key: str, entries: list[tuple[int, Mapping[str, Any]]]) -> Iterator[tuple[str, Any, str]]:
    seen: set[str] = set()
    for at, entry in entries:
        name = entry.get("id")
        if isinstance(name, str):
            if name in seen:
                yield f"{key}[{at}].id", name, "allowed: an id once; another one before it has it too"
            seen.add(name)


def _entries(parent: Any, key: str) -> list[tuple[int, Mapping[str, Any]]]:
    listed = parent.get(key) if isinstance(parent, Mapping) else None
    return [
        (at, entry) for at, entry in enumerate(listed if isinstance(listed, list) else []) if isinstance(entry, Mapping)
    ]


def _number(value: Any) -> Decimal | None:
    try:
        return exact_decimal(value)
    except ValueError:
        return None


def _shown(value: Any) -> str:
    return number_text(value) if isinstance(value, Decimal) else repr(value)
