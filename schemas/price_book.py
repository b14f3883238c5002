"""Price books: versioned plans of charges, read from YAML, stored as canonical JSON.

Decides what a legal price book is and says all that is wrong with one at once. Owns the digest of a version: it depends
on what the book means, not on how it is written (comments, order of keys, 1.50 or 1.5). What stands at its default is
left out of the canonical JSON, so that a later optional key changes no digest of a stored book; so a default, once
released, never changes.
"""

from datetime import date
from functools import cached_property
from typing import Annotated, Any, Self

import orjson
from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError

from schemas.charge_faults import shown
from schemas.configuration import ConfigurationError, Fault, faults_of, parse_yaml
from schemas.currencies import currency_faults, in_one_currency
from schemas.exact import Currency, Frozen, Name, PlainDate, some
from schemas.identity import content_digest
from schemas.plan import Feature, Plan, Policies, PricingUnit, TaxRule
from schemas.price_book_faults import KnownMeters, book_faults


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

    _applied_digest: str | None = PrivateAttr(default=None)

    def canonical(self) -> str:
        """The book as canonical JSON: books that mean the same give the same text. Sorted keys; numbers are texts."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def from_canonical(cls, canonical: str) -> Self:
        """The book that `canonical` was made from. Raises ConfigurationError for what is no legal book."""
        return cls.model_validate(_legal(orjson.loads(canonical), "canonical price book", None))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hexadecimal digits; of a book `in_currency`, that of the whole book."""
        return self._applied_digest or content_digest(self.canonical().encode())

    def plan(self, name: str) -> Plan | None:
        """The plan with this id."""
        return self._plans.get(name)

    @cached_property
    def _plans(self) -> dict[str, Plan]:
        return {plan.id: plan for plan in self.plans}

    def holds_from(self, starts_on: date | None) -> date:
        """The day from which the version holds for contracts that start then; None stands for long ago.

        >>> flat = {"id": "rent", "model": "flat", "amount": 1}
        >>> book = PriceBook(book="b", version=2, effective_at="2026-02-01", existing_customers_at="2026-04-01",
        ...                  currency="USD", plans=({"id": "p", "charges": (flat,)},))
        >>> str(book.holds_from(date(2026, 1, 31))), str(book.holds_from(date(2026, 2, 1)))
        ('2026-04-01', '2026-02-01')
        """
        new = starts_on is not None and starts_on >= self.effective_at
        return self.effective_at if new else self.existing_customers_at or self.effective_at

    def in_currency(self, currency: str) -> "PriceBook":
        """The book in one of its currencies: every price is one number, also those in a pricing unit.

        Its digest stays that of the whole book, which is what was applied. Raises ConfigurationError where a price is
        missing in that currency, or needs more digits than a price has.
        """
        content = self.model_dump(exclude_defaults=True)
        if currency not in {self.currency, *self.currencies}:
            allowed = f"allowed: {', '.join([self.currency, *self.currencies])}"
            raise ConfigurationError([Fault(str(self), "currency", currency, allowed)])
        found = currency_faults(content, [currency])
        if faults := [Fault(str(self), key, shown(value), allowed) for key, value, allowed in found]:
            raise ConfigurationError(faults)
        converted = in_one_currency(content, currency)
        if converted == content:
            return self
        book = PriceBook.model_validate(converted)
        book._applied_digest = self.digest  # noqa: SLF001  its own
        return book

    def __str__(self) -> str:
        return f"{self.book} version {self.version}"


def parse_price_book(text: str, file: str, meters: KnownMeters | None) -> PriceBook:
    """The price book of a YAML text. `meters` holds the slugs that it may charge for, or maps them to their meters.

    Without `meters` nothing is checked of those.
    Raises one ConfigurationError that lists all faults: those of single keys, then those between keys.

    >>> charge = "{id: rent, model: flat, amount: 2500.00}"
    >>> plans = f"[{{id: airline, charges: [{charge}]}}]"
    >>> text = f"{{book: b, version: 1, effective_at: 2013-01-01, currency: USD, plans: {plans}}}"
    >>> parse_price_book(text, "book.yaml", []).plans[0].charges[0].amount
    Decimal('2500.00')
    """
    return PriceBook.model_validate(_legal(parse_yaml(text, file), file, meters))


def _legal(parsed: Any, file: str, meters: KnownMeters | None) -> Any:
    faults: list[Fault] = []
    try:
        PriceBook.model_validate(parsed)
    except ValidationError as error:
        faults += faults_of(error, file)
    faults += [Fault(file, key, shown(value), allowed) for key, value, allowed in book_faults(parsed, meters)]
    if faults:
        raise ConfigurationError(faults)
    return parsed
