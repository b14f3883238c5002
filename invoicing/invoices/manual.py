"""Invoices that somebody writes, as YAML or JSON: what one may say, and what it becomes. Core.

Decides that an invoice is known by its reference: its id is a digest of it, so that sending it again makes no second
one. Owns that every fault of every invoice is told at once, that one fault keeps all of them out, and that each line
explains its amount.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any

import orjson
import polars as pl
from pydantic import BeforeValidator, Field, StringConstraints, ValidationError

from schemas.charge_faults import Found, entries, exactly_one, repeated, shown
from schemas.configuration import ConfigurationError, Fault, faults_of, parse_yaml
from schemas.contract import Text
from schemas.event import number_text
from schemas.exact import Currency, Frozen, Name, PlainDate, Quantity, SignedPrice, Words, some
from schemas.identity import content_digest, digest
from schemas.invoice import DRAFTED, HEADS, INVOICE_SERIES, InvoiceKind, LineKind, Revenue
from schemas.money import MINOR_UNITS
from schemas.plan import Rounding, TaxRule
from schemas.price_book_faults import tax_rule_faults

INVOICES_MAX = 1_000
LINES_MAX = 1_000
_MINOR_MAX = 2**53  # as of a document: sums of many stay within 64 bits
_EXACT = Context(prec=80)  # more digits than a quantity and a price have together
_ROUNDINGS = {Rounding.HALF_UP: ROUND_HALF_UP, Rounding.HALF_EVEN: ROUND_HALF_EVEN}

Reference = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]+$", max_length=200)]
Month = Annotated[str, StringConstraints(pattern=r"^[12][0-9]{3}-(0[1-9]|1[0-2])$")]


class Earns(StrEnum):
    """What a line is paid for, and so which account earns it."""

    FEE = "fee"
    USAGE = "usage"
    ADVANCE = "advance"
    """A service that is still to come: unearned until it is given."""
    COMMITMENT = "commitment"


_REVENUES = {
    Earns.FEE: Revenue.FEES,
    Earns.USAGE: Revenue.USAGE,
    Earns.ADVANCE: Revenue.ADVANCE,
    Earns.COMMITMENT: Revenue.COMMITMENT,
}


class ManualLine(Frozen):
    """A quantity at a unit price, or an amount. May be below zero."""

    id: Name | None = None
    description: Annotated[Words, Field(min_length=1)]
    quantity: Quantity | None = None
    unit_price: SignedPrice | None = None
    amount: SignedPrice | None = None
    revenue: Earns = Earns.FEE
    tax_code: Name | None = None
    tax: TaxRule | None = None
    taxed: Annotated[bool, Field(strict=True)] = True
    """False: no tax at all. Else the rule, that of the tax code, or the price book's own."""
    service_start: PlainDate | None = None
    service_end: PlainDate | None = None
    """Half-open. What is not said is the invoice's month."""

    @property
    def sold(self) -> tuple[Decimal, Decimal]:
        """The quantity and the unit price.

        >>> ManualLine(description="Setup", amount=500).sold
        (Decimal('1'), Decimal('500'))
        """
        if self.amount is not None:
            return Decimal(1), self.amount
        assert self.unit_price is not None, "a line without an amount has a price"
        return Decimal(1) if self.quantity is None else self.quantity, self.unit_price

    @property
    def exact(self) -> Decimal:
        """Quantity times price."""
        return _EXACT.multiply(*self.sold)


class ManualInvoice(Frozen):
    """An invoice that somebody wrote."""

    reference: Reference
    """What it is known by: the same one is the same invoice."""
    customer: Text
    name: Text | None = None
    """The customer's; without it, the contract's."""
    currency: Currency
    period: Month
    """The month that it is listed under."""
    lines: Annotated[tuple[ManualLine, ...], BeforeValidator(some), Field(max_length=LINES_MAX)]

    def id_of(self, tenant: str) -> str:
        """The invoice's id: that of its reference."""
        return invoice_id(tenant, self.reference)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what it says, however it was written."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        return content_digest(orjson.dumps(content, option=orjson.OPT_SORT_KEYS))

    @property
    def month(self) -> tuple[date, date]:
        """The first day of its period, and the first one after it.

        >>> line = {"description": "Setup", "amount": 1}
        >>> invoice = ManualInvoice(reference="r", customer="c", currency="EUR", period="2012-12", lines=[line])
        >>> [str(day) for day in invoice.month]
        ['2012-12-01', '2013-01-01']
        """
        first = date.fromisoformat(f"{self.period}-01")
        return first, (first + timedelta(days=31)).replace(day=1)


def invoice_id(tenant: str, reference: str) -> str:
    """The id of the manual invoice with this reference."""
    return digest("invoice", tenant, "manual", reference)


def parse_invoices(text: str, file: str) -> list[ManualInvoice]:
    """The invoices of a YAML or JSON text, `invoices: [...]` or one. Raises ConfigurationError with all faults."""
    parsed = parse_yaml(text, file)
    if set(parsed) != {"invoices"}:
        return invoices_of([parsed], file, "")
    return invoices_of(parsed["invoices"], file, "invoices[{}].")


def invoices_of(given: Any, source: str, prefix: str = "") -> list[ManualInvoice]:
    """The invoices of a list of mappings. Raises ConfigurationError that lists all faults, keys after the prefix."""
    if not isinstance(given, list) or not 0 < len(given) <= INVOICES_MAX:
        raise ConfigurationError([Fault(source, "invoices", "", f"allowed: a list of 1 to {INVOICES_MAX} invoices")])
    found: list[ManualInvoice] = []
    faults: list[Fault] = []
    for place, fields in enumerate(given):
        own = prefix.format(place)
        try:
            found.append(ManualInvoice.model_validate(fields))
        except ValidationError as error:
            faults += faults_of(error, source, own)
        faults += [Fault(source, own + key, shown(value), allowed) for key, value, allowed in _faults(fields)]
    for key, value, _ in repeated("invoices", entries({"invoices": given}, "invoices"), "reference"):
        faults.append(Fault(source, key, shown(value), "allowed: a reference once; another one before it has it too"))
    if faults:
        raise ConfigurationError(faults)
    return found


def lines_of(invoice: ManualInvoice, rules: Sequence[TaxRule | None], rounding: Rounding) -> pl.DataFrame:
    """The lines of an invoice (columns `schemas.invoice.DRAFTED`), each with its rule, rounded once."""
    assert len(rules) == len(invoice.lines), "each line has a rule, or none"
    units = MINOR_UNITS[invoice.currency]
    rows = []
    for place, (line, rule) in enumerate(zip(invoice.lines, rules, strict=True), start=1):
        quantity, _ = line.sold
        rows.append(
            {
                "document": 0, "kind": LineKind.MANUAL.value, "customer": invoice.customer,
                "currency": invoice.currency, "usage_period": invoice.period, "charge": line.id or f"line {place}",
                "description": line.description, "model": "manual", "meter": None, "quantity": quantity,
                "amount": line.exact, "amount_minor": _minor(line.exact, units, rounding),
                "tax_rule": rule and rule.model_dump_json(exclude_defaults=True),
                "revenue": _REVENUES[line.revenue].value, "service_start": line.service_start or invoice.month[0],
                "service_end": line.service_end or invoice.month[1], "explanation": _explanation(invoice, line),
            }
        )  # fmt: skip
    return pl.DataFrame(rows, schema=DRAFTED)


def head_of(invoice: ManualInvoice, *, tenant: str, customer_name: str) -> pl.DataFrame:
    """The invoice's head (columns `schemas.invoice.HEADS`). It is rated from nothing, so it has no basis."""
    head = {
        "document": 0, "id": invoice.id_of(tenant), "tenant": tenant, "kind": InvoiceKind.MANUAL.value,
        "customer": invoice.customer, "customer_name": customer_name, "period": invoice.period,
        "series": INVOICE_SERIES, "currency": invoice.currency,
    }  # fmt: skip
    return pl.DataFrame([{**dict.fromkeys(HEADS), **head}], schema=HEADS)


def document_digest(explanation: str) -> str:
    """The digest of the manual invoice that a stored line is of, from its explanation."""
    return str(orjson.loads(explanation)["document"])


def _explanation(invoice: ManualInvoice, line: ManualLine) -> str:
    quantity, price = line.sold
    slice_ = {
        "label": "", "up_to": None, "quantity": number_text(quantity), "unit_price": number_text(price),
        "flat": "0", "amount": number_text(line.exact),
    }  # fmt: skip
    said = {"reference": invoice.reference, "document": invoice.digest, "slices": [slice_]}
    return orjson.dumps(said).decode()


def _minor(exact: Decimal, units: int, rounding: Rounding) -> int:
    """Whole minor units of an exact amount.

    >>> _minor(Decimal("-0.125"), 2, Rounding.HALF_UP), _minor(Decimal("0.125"), 2, Rounding.HALF_EVEN)
    (-13, 12)
    """
    return int(exact.scaleb(units, _EXACT).quantize(Decimal(1), _ROUNDINGS[rounding], _EXACT))


def _faults(fields: Any) -> Iterator[Found]:
    """What is wrong between the keys of lines that have no fault by themselves."""
    currency = fields.get("currency") if isinstance(fields, Mapping) else None
    units = MINOR_UNITS.get(currency) if isinstance(currency, str) else None
    listed = entries(fields, "lines")
    yield from repeated("lines", listed)
    whole = Decimal(0)
    for at, written in listed:
        key = f"lines[{at}]"
        if isinstance(rule := written.get("tax"), Mapping):
            yield from tax_rule_faults(rule, f"{key}.tax")
        yield from exactly_one(key, written, ("unit_price", "amount"))
        if written.get("amount") is not None and written.get("quantity") is not None:
            yield f"{key}.quantity", written["quantity"], "allowed: with unit_price; an amount is for the whole line"
        said = [name for name in ("tax", "tax_code") if written.get(name) is not None]
        said += ["taxed: false"] if written.get("taxed") is False else []
        if len(said) > 1:
            yield key, " and ".join(said), "allowed: at most one of tax, tax_code and taxed: false"
        try:
            line = ManualLine.model_validate(written)
        except ValidationError:
            continue
        if line.service_start and line.service_end and line.service_end <= line.service_start:
            yield f"{key}.service_end", str(line.service_end), f"allowed: a day after {line.service_start}"
        if units is not None and (line.amount is not None) != (line.unit_price is not None):
            whole = _EXACT.add(whole, abs(line.exact.scaleb(units, _EXACT)))
            if line.amount is not None and line.amount.scaleb(units, _EXACT) % 1:
                yield f"{key}.amount", line.amount, f"allowed: at most {units} decimals of {currency}"
    if whole > _MINOR_MAX:
        yield "lines", f"{whole:f} minor units", f"allowed: at most {_MINOR_MAX} of all lines together"
