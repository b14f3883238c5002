"""Price books: versioned plans of charges, read from YAML, stored as canonical JSON.

Decides what a legal price book is and says all that is wrong with one at once. Owns the digest of a version: it depends
on what the book means, not on how it is written (comments, order of keys, 1.50 or 1.5). What stands at its default is
left out of the canonical JSON, so that a later optional key changes no digest of a stored book; so a default, once
released, never changes.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, Self

import orjson
from pydantic import BeforeValidator, Field, ValidationError

from schemas.charges import MODELS
from schemas.configuration import ConfigurationError, Fault, faults_of, parse_yaml
from schemas.event import number_text
from schemas.exact import Currency, Frozen, Name, PlainDate, exact_decimal, some
from schemas.identity import content_digest
from schemas.plan import Feature, Plan, Policies, PricingUnit, TaxRule

_MODEL_STEP = re.compile(rf"(charges\[\d+\])\.(?:{'|'.join(MODELS)})(?=\.)")


class PriceBook(Frozen):
    """One immutable version of a price book. In force for the periods that start at or after `effective_at`."""

    book: Name
    version: int = Field(ge=1, lt=2**31, strict=True)
    effective_at: PlainDate
    existing_customers_at: PlainDate | None = None
    currency: Currency
    currencies: tuple[Currency, ...] = ()
    tax: TaxRule | None = None
    taxes: dict[Name, TaxRule] = Field(default_factory=dict)
    pricing_units: tuple[PricingUnit, ...] = ()
    features: tuple[Feature, ...] = ()
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
