"""Documents that come from outside, as JSON or YAML: payments, refunds, disputes, write-offs. Core.

Owns what a document may say. It names a template and the template's amounts, in units of their currency; every fault of
every document is told at once, and one fault keeps all of them out.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Annotated, Any

import polars as pl
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from invoicing.ledger.journal import AMOUNTS, DOCUMENTS
from schemas.configuration import ConfigurationError, Fault, faults_of, parse_yaml
from schemas.journal import REVERSAL
from schemas.money import MINOR_UNITS
from schemas.templates import TEMPLATES

DOCUMENTS_MAX = 10_000
WITH_A_SOURCE = {
    "P01", "P02", "P03", "P04", "P06", "P07", "P12", "P13", "P14", "P16", "P17", "P22", "P23", "P24", "P25", "P30",
    "P31",
}  # fmt: skip
"""Templates of accruals, invoices, credit notes, schedules, wallets and closings: what makes those posts them."""
POSTABLE = tuple(code for code in TEMPLATES if code not in WITH_A_SOURCE)

_MINOR_MAX = 2**53  # nine hundred trillion cents; sums of many stay within 64 bits


def _day(value: Any) -> Any:
    return date.fromisoformat(value) if isinstance(value, str) else value


Text = Annotated[str, Field(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Amount = str | int | Decimal


class Document(BaseModel):
    """One event that is to be posted."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    template: str
    document: Name
    """The document's own id, such as a payment provider's."""
    kind: Name | None = None
    version: Annotated[int, Field(ge=1, lt=2**31)] = 1
    part: Annotated[int, Field(ge=1, lt=2**31)] = 1
    customer: Text = ""
    currency: str
    effective_at: Annotated[date, BeforeValidator(_day)]
    amounts: dict[str, Amount | dict[str, Amount]]
    """By name: "12.50", or of another currency "12.50 EUR"; or such amounts by the dimension that they are split by."""
    dimension: Text = ""
    """The payout, wallet, tax or feature of all amounts that name none."""
    description: Text | None = None
    relates_to: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    relates_to_period: Annotated[str, Field(pattern=r"^[0-9]{4}-(0[1-9]|1[0-2])$")] | None = None


def parse_documents(text: str, file: str) -> list[Document]:
    """The documents of a YAML or JSON text, `documents: [...]` or one. Raises ConfigurationError with all faults."""
    parsed = parse_yaml(text, file)
    return documents_of(parsed.get("documents", [parsed]), file)


def documents_of(given: Any, source: str) -> list[Document]:
    """The documents of a list of mappings. Raises ConfigurationError that lists all faults."""
    if not isinstance(given, list) or not 0 < len(given) <= DOCUMENTS_MAX:
        raise ConfigurationError([Fault(source, "documents", "", f"allowed: a list of 1 to {DOCUMENTS_MAX} documents")])
    found: list[Document] = []
    faults: list[Fault] = []
    seen = set()
    for place, fields in enumerate(given):
        prefix = f"documents[{place}]."
        try:
            document = Document.model_validate(fields)
        except ValidationError as error:
            faults += faults_of(error, source, prefix)
            continue
        faults += [Fault(source, prefix + key, value, allowed) for key, value, allowed in _faults(document)]
        found.append(document)
        identity = (document.template, document.document, document.version, document.part)
        if identity in seen:
            allowed = "allowed: each document once; a new version or part of it has another number"
            faults.append(Fault(source, prefix + "document", document.document, allowed))
        seen.add(identity)
    if faults:
        raise ConfigurationError(faults)
    return found


def frames_of(documents: Sequence[Document], tenant: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Documents without faults, as the frames that `invoicing.ledger.journal.entries_of` takes."""
    heads = [
        {
            "tenant": tenant, "template": each.template, "customer": each.customer, "document_id": each.document,
            "document_kind": each.kind or TEMPLATES[each.template].kind, "document_version": each.version,
            "part": each.part, "relates_to": each.relates_to, "relates_to_period": each.relates_to_period,
            "effective_at": each.effective_at,
            "description": each.description or f"{TEMPLATES[each.template].name}: {each.document}",
        }
        for each in documents
    ]  # fmt: skip
    amounts = [
        {"document": place, "amount": name, "currency": currency, "dimension": dimension, "amount_minor": minor}
        for place, each in enumerate(documents)
        for name, dimension, currency, minor in _amounts(each)
    ]
    return pl.DataFrame(heads, schema=DOCUMENTS), pl.DataFrame(amounts, schema=AMOUNTS)


def minor_of(written: Amount, currency: str) -> tuple[str, int]:
    """The currency and the minor units of an amount. Raises ValueError that says what is allowed.

    >>> minor_of("12.50", "EUR"), minor_of("7 JPY", "EUR")
    (('EUR', 1250), ('JPY', 7))
    """
    text, _, own = str(written).partition(" ")
    currency = own or currency
    if currency not in MINOR_UNITS:
        raise ValueError(f"allowed: a currency such as {', '.join(list(MINOR_UNITS)[:3])}")
    units = MINOR_UNITS[currency]
    try:
        minor = Decimal(text).scaleb(units)
        whole = int(minor)
    except (ArithmeticError, ValueError):
        raise ValueError(
            f"allowed: an amount of {currency} such as 12{'.50000'[: units + 1] if units else ''}"
        ) from None
    if minor != whole or abs(whole) > _MINOR_MAX:
        raise ValueError(f"allowed: at most {units} decimals of {currency}, and at most {_MINOR_MAX} minor units")
    return currency, whole


def _faults(document: Document) -> Iterator[tuple[str, str, str]]:
    if document.template not in POSTABLE:
        yield "template", document.template, f"allowed: {', '.join(POSTABLE)}"
        return
    if document.kind == REVERSAL:
        yield "kind", REVERSAL, "allowed: any other; an entry is reversed with `meterline ledger reverse`"
    template = TEMPLATES[document.template]
    for name in document.amounts:
        if name not in template.amounts:
            yield f"amounts.{name}", "unknown", f"allowed for {template.code}: {', '.join(template.amounts)}"
    try:
        if not any(minor for *_, minor in _amounts(document)):
            yield "amounts", "zero", f"allowed for {template.code}: {', '.join(template.amounts)}, not all of them zero"
    except ValueError as error:
        yield "amounts", str(dict(document.amounts))[:80], str(error)


def _amounts(document: Document) -> Iterator[tuple[str, str, str, int]]:
    for name, given in document.amounts.items():
        split: Mapping[str, Amount] = given if isinstance(given, dict) else {document.dimension: given}
        for dimension, written in split.items():
            currency, minor = minor_of(written, document.currency)
            yield name, dimension, currency, minor
