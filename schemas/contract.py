"""Contracts: which customer pays for which subjects, on which plan. Read from YAML, stored as canonical JSON.

Owns that a subject has at most one payer. Their order in the file means nothing: contracts are kept sorted by
customer, and their digest does not depend on it.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Annotated, Any, Self

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError

from schemas.configuration import ConfigurationError, Fault, faults_of, parse_yaml
from schemas.identity import content_digest
from schemas.party import PartyDetails
from schemas.price_book import Name, PlainDate, PriceBook, some

Text = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=512)]
Subject = Annotated[str, StringConstraints(pattern=r"^[^\x00]+$", max_length=512)]


def _sorted_subjects(subjects: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(subjects))


class Contract(BaseModel):
    """A customer's contract. In force for every period that ends after `starts_on` has begun."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    customer: Text
    name: Text
    subjects: Annotated[tuple[Subject, ...], BeforeValidator(some), AfterValidator(_sorted_subjects)]
    plan: Name
    starts_on: PlainDate
    party: PartyDetails | None = None
    """What documents say of the customer beside the name."""

    def in_force(self, period_end: date) -> bool:
        """Whether the contract holds for a period: if it starts before the first day after the period, `period_end`.

        A contract that starts within a period holds for the whole of it.

        >>> contract = Contract(customer="UA", name="United", subjects=("UA",), plan="airline", starts_on="2013-01-31")
        >>> contract.in_force(date(2013, 1, 1)), contract.in_force(date(2013, 2, 1))
        (False, True)
        """
        return self.starts_on < period_end


def _sorted_contracts(contracts: tuple[Contract, ...]) -> tuple[Contract, ...]:
    return tuple(sorted(contracts, key=lambda contract: contract.customer))


class Contracts(BaseModel):
    """All contracts of a tenant at one time, sorted by customer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contracts: Annotated[tuple[Contract, ...], AfterValidator(_sorted_contracts)]

    def canonical(self) -> str:
        """The contracts as canonical JSON: sorted by customer, subjects and keys sorted, nothing without a value."""
        return orjson.dumps(self.model_dump(mode="json", exclude_none=True), option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def from_canonical(cls, canonical: str) -> Self:
        """The contracts that `canonical` was made from. Raises ConfigurationError for what is none."""
        return cls.model_validate(_legal(orjson.loads(canonical), "canonical contracts"))

    @property
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


def contract_faults(contracts: Contracts, book: PriceBook, file: str) -> list[Fault]:
    """A fault for each contract whose plan the book lacks; its key names the customer: `contracts.UA.plan`."""
    plans = [plan.id for plan in book.plans]
    allowed = f"allowed: a plan of {book.book} version {book.version}: {', '.join(plans)}"
    return [
        Fault(file, f"contracts.{contract.customer}.plan", repr(contract.plan), allowed)
        for contract in contracts.contracts
        if contract.plan not in plans
    ]


def _legal(parsed: Any, file: str) -> Any:
    faults: list[Fault] = []
    try:
        Contracts.model_validate(parsed)
    except ValidationError as error:
        faults += faults_of(error, file)
    faults += [Fault(file, key, repr(value), allowed) for key, value, allowed in _cross_faults(parsed)]
    if faults:
        raise ConfigurationError(faults)
    return parsed


def _cross_faults(parsed: Any) -> Iterator[tuple[str, str, str]]:
    """Repeated customers and subjects. Takes what was read, because it may have faults of single keys as well."""
    listed = parsed.get("contracts") if isinstance(parsed, Mapping) else None
    owners: dict[str, str] = {}
    payers: dict[str, str] = {}
    for at, contract in enumerate(listed if isinstance(listed, list) else []):
        if not isinstance(contract, Mapping):
            continue
        here, customer, subjects = f"contracts[{at}]", contract.get("customer"), contract.get("subjects")
        if isinstance(customer, str) and owners.setdefault(customer, here) != here:
            yield f"{here}.customer", customer, f"allowed: a customer once; {owners[customer]} has it already"
        for place, subject in enumerate(subjects if isinstance(subjects, list) else []):
            if isinstance(subject, str):
                if subject in payers:
                    yield (
                        f"{here}.subjects[{place}]",
                        subject,
                        f"allowed: a subject once; {payers[subject]} has it already",
                    )
                payers.setdefault(subject, here)
