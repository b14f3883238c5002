"""Contracts: which customer pays for which subjects, on which plan. Read from YAML, stored as canonical JSON.

Owns that a subject has at most one payer. Their order in the file means nothing: contracts are kept sorted by
customer, and their digest does not depend on it.
"""

from functools import cached_property
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from schemas.charge_faults import shown
from schemas.charges import Charge, Commitment, Discount
from schemas.configuration import ConfigurationError, Fault, faults_of, parse_yaml
from schemas.contract_faults import contracts_faults
from schemas.exact import Currency, Frozen, Name, Percent, PlainDate, Price, Quantity, SignedPrice, Words, some
from schemas.identity import content_digest
from schemas.meter import Slug
from schemas.overrides import Layer, Override
from schemas.party import PartyDetails
from schemas.plan import Cycle, LateUsage, ProgressiveBilling

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=512)]
Subject = Annotated[str, StringConstraints(pattern=r"^[^\x00]+$", max_length=512)]

Version = Annotated[int, Field(ge=1, lt=2**31, strict=True)]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise ValueError("allowed: a time zone of the IANA list, such as Europe/Berlin") from None
    return name


TimeZone = Annotated[str, StringConstraints(max_length=64), AfterValidator(_known_zone)]


def _sorted_subjects(subjects: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(subjects))


class Amendment(Frozen):
    """A change of a contract from a day on. What it does not name stays as it was."""

    on: PlainDate
    plan: Name | None = None
    price_version: Version | None = None
    charges: dict[Name, Override] = Field(default_factory=dict)
    remove: tuple[Name, ...] = ()
    add: tuple[Charge, ...] = ()
    discounts: tuple[Discount, ...] | None = None
    minimum_spend: Price | None = None
    maximum_spend: Price | None = None
    commitment: Commitment | None = None

    @property
    def layer(self) -> Layer:
        """What it changes of the plan's charges."""
        return Layer(self.charges, self.remove, self.add)


class ManualLine(Frozen):
    """An amount that someone decided, on the period that holds a day. May be below zero."""

    id: Name
    description: Words
    amount: SignedPrice
    on: PlainDate
    tax_code: Name | None = None


class SlaCredit(Frozen):
    """A percentage that is credited when a meter's value is below a bound."""

    below: Quantity
    percent: Percent


class Sla(Frozen):
    """A promised level of service: the lowest bound that the meter's value is below gives the percentage."""

    id: Name
    description: Words = ""
    meter: Slug
    credits: Annotated[tuple[SlaCredit, ...], BeforeValidator(some)]
    charges: tuple[Name, ...] = ()


class Contract(Frozen):
    """A customer's contract: who pays for which subjects, on which plan, and what is agreed beside it."""

    customer: Text
    name: Text
    subjects: Annotated[tuple[Subject, ...], BeforeValidator(some), AfterValidator(_sorted_subjects)]
    plan: Name
    book: Name | None = None
    starts_on: PlainDate
    ends_on: PlainDate | None = None
    currency: Currency | None = None
    time_zone: TimeZone = "UTC"
    cycle: Cycle | None = None
    anchor_day: int | None = Field(default=None, ge=1, le=31, strict=True)
    trial_days: int | None = Field(default=None, ge=0, le=3660, strict=True)
    price_version: Version | None = None
    charges: dict[Name, Override] = Field(default_factory=dict)
    remove: tuple[Name, ...] = ()
    add: tuple[Charge, ...] = ()
    discounts: tuple[Discount, ...] = ()
    minimum_spend: Price | None = None
    maximum_spend: Price | None = None
    commitment: Commitment | None = None
    progressive_billing: ProgressiveBilling | None = None
    """In place of the plan's; without thresholds, nothing is billed before the period's end."""
    amendments: tuple[Amendment, ...] = ()
    lines: tuple[ManualLine, ...] = ()
    sla: tuple[Sla, ...] = ()
    late_usage: LateUsage | None = None
    """Instead of the price book's policy."""
    party: PartyDetails | None = None
    """What documents say of the customer beside the name."""

    @property
    def layer(self) -> Layer:
        """What it changes of the plan's charges, amendments apart."""
        return Layer(self.charges, self.remove, self.add)

    @cached_property
    def zone(self) -> ZoneInfo:
        """Where its days are counted."""
        return ZoneInfo(self.time_zone)


def _sorted_contracts(contracts: tuple[Contract, ...]) -> tuple[Contract, ...]:
    return tuple(sorted(contracts, key=lambda contract: contract.customer))


class Contracts(BaseModel):
    """All contracts of a tenant at one time, sorted by customer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contracts: Annotated[tuple[Contract, ...], AfterValidator(_sorted_contracts)]

    def of(self, customer: str) -> Contract | None:
        """The contract of a customer."""
        return self._by_customer.get(customer)

    @cached_property
    def names(self) -> frozenset[str]:
        """All customers and all subjects that they pay for, whenever."""
        subjects = {subject for contract in self.contracts for subject in contract.subjects}
        return frozenset(subjects | self._by_customer.keys())

    @cached_property
    def _by_customer(self) -> dict[str, Contract]:
        return {contract.customer: contract for contract in self.contracts}

    def canonical(self) -> str:
        """The contracts as canonical JSON: sorted by customer, subjects and keys sorted."""
        return orjson.dumps(self.model_dump(mode="json", exclude_defaults=True), option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def from_canonical(cls, canonical: str) -> Self:
        """The contracts that `canonical` was made from. Raises ConfigurationError for what is none."""
        return cls.model_validate(_legal(orjson.loads(canonical), "canonical contracts"))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
        return content_digest(self.canonical().encode())


def parse_contracts(text: str, file: str) -> Contracts:
    """The contracts of a YAML text. Raises one ConfigurationError that lists all faults.

    >>> text = "contracts: [{customer: UA, name: United, subjects: [UA], plan: airline, starts_on: 2013-01-01}]"
    >>> parse_contracts(text, "contracts.yaml").contracts[0].starts_on
    datetime.date(2013, 1, 1)
    """
    return Contracts.model_validate(_legal(parse_yaml(text, file), file))


def _legal(parsed: Any, file: str) -> Any:
    faults: list[Fault] = []
    try:
        Contracts.model_validate(parsed)
    except ValidationError as error:
        faults += faults_of(error, file)
    faults += [Fault(file, key, shown(value), allowed) for key, value, allowed in contracts_faults(parsed)]
    if faults:
        raise ConfigurationError(faults)
    return parsed
