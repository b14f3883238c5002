"""Who sells and who buys, as documents show them, and the seller's file. Read from YAML, stored as canonical JSON.

Owns what a legal party is. What is missing is no fault here: an e-invoice asks for more than a page does, and says so.
"""

from typing import Annotated, Any, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas.configuration import ConfigurationError, faults_of, parse_yaml
from schemas.identity import content_digest
from schemas.shown import Shown

Words = Annotated[Shown, Field(min_length=1, max_length=2000)]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Scheme = Annotated[str, StringConstraints(pattern=r"^[0-9]{4}$|^[A-Z]{2}$")]


class ElectronicAddress(BaseModel):
    """Where e-invoices go: an identifier, and the scheme of it (a code of EAS, such as 0204 or EM)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Scheme
    id: Words


class PartyDetails(BaseModel):
    """Where a party is and by which numbers it is known. All that a contract adds to the name of its customer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    street: Words | None = None
    street_more: Words | None = None
    postal_code: Words | None = None
    city: Words | None = None
    region: Words | None = None
    country: Country | None = None
    vat_id: Words | None = None
    """With the country's prefix: `DE123456789`."""
    tax_number: Words | None = None
    """The number at the local tax office, where it is another one."""
    registration: Words | None = None
    """The number in the register of companies."""
    email: Words | None = None
    electronic_address: ElectronicAddress | None = None


class Party(PartyDetails):
    """A seller or a buyer."""

    name: Words


class Seller(Party):
    """The seller, and what stands on every document of theirs."""

    payment_terms: Words | None = None
    due_days: Annotated[int, Field(ge=0, le=365)] | None = None
    """An invoice is due so many days after its issue."""
    notes: tuple[Words, ...] = ()

    @property
    def party(self) -> Party:
        """The seller without what is no part of a party."""
        return Party(**{name: getattr(self, name) for name in Party.model_fields})

    def canonical(self) -> str:
        """The seller as canonical JSON: keys sorted, those without a value left out."""
        return orjson.dumps(self.model_dump(mode="json", exclude_none=True), option=orjson.OPT_SORT_KEYS).decode()

    @classmethod
    def from_canonical(cls, canonical: str) -> Self:
        """The seller that `canonical` was made from."""
        return cls.model_validate(orjson.loads(canonical))

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON, as 64 hexadecimal digits."""
        return content_digest(self.canonical().encode())


def parse_seller(text: str, file: str) -> Seller:
    """The seller of a YAML text. Raises one ConfigurationError that lists all faults.

    >>> parse_seller("{name: Tin Can Metering, country: IE, due_days: 30}", "seller.yaml").country
    'IE'
    """
    parsed: Any = parse_yaml(text, file)
    try:
        return Seller.model_validate(parsed)
    except ValidationError as error:
        raise ConfigurationError(faults_of(error, file)) from error
