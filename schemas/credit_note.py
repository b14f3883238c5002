"""Credit notes: why one is written, what is asked for, and the columns of the tables.

Amounts on a credit note are what is given back, so they are positive where the invoice's were.
"""

from enum import StrEnum
from typing import Annotated, Self

import polars as pl
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from schemas.invoice import Columns

CREDIT_SERIES = "CN"
"""The series of credit notes."""
COMMENT_LENGTH_MAX = 500


class Reason(StrEnum):
    """Why something of an invoice is taken back."""

    DUPLICATE = "duplicate"
    PRODUCT_UNSATISFACTORY = "product_unsatisfactory"
    ORDER_CHANGE = "order_change"
    FRAUDULENT = "fraudulent"
    BILLING_ERROR = "billing_error"
    GOODWILL = "goodwill"
    REBILL = "rebill"
    """The invoice is billed again, from usage that was not known to it."""
    OTHER = "other"


class _Asked(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("allowed: printable characters, without line ends")
    return text


Minor = Annotated[int, Field(ge=-(2**62), le=2**62)]
MinorAbove0 = Annotated[int, Field(gt=0, le=2**62)]


class CreditedLine(_Asked):
    """A line of the invoice: what of it is taken back. Without an amount: all that is left of it."""

    position: Annotated[int, Field(gt=0, lt=2**31)]
    """The line's place on the invoice, from 1."""
    net_minor: Minor | None = None
    gross_minor: Minor | None = None

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if self.net_minor is not None and self.gross_minor is not None:
            raise ValueError("allowed: net_minor or gross_minor, or neither for what is left of the line")
        return self


class Wanted(_Asked):
    """What a credit note is to take back: lines, an amount of the whole invoice, or else all that is left."""

    reason: Annotated[Reason, Field(strict=False)]
    comment: Annotated[str, Field(max_length=COMMENT_LENGTH_MAX), AfterValidator(_printable)] = ""
    lines: Annotated[tuple[CreditedLine, ...], Field(min_length=1, strict=False)] | None = None
    net_minor: MinorAbove0 | None = None
    """Without tax, spread over what is left of the lines."""
    gross_minor: MinorAbove0 | None = None
    """With tax."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(each is not None for each in (self.lines, self.net_minor, self.gross_minor)) > 1:
            raise ValueError("allowed: one of lines, net_minor and gross_minor, or none for all that is left")
        positions = [line.position for line in self.lines or ()]
        if len(set(positions)) < len(positions):
            raise ValueError("lines: allowed: each position once")
        return self


class NewCreditNote(Wanted):
    """A credit note that is to be written, and the invoice that it is about."""

    invoice: Annotated[str, Field(min_length=1, max_length=255)]
    """Its id or number."""


CREDIT_NOTES: Columns = {
    "id": pl.String,  # digest of the invoice and how many notes were before
    "tenant": pl.String,
    "invoice_id": pl.String,
    "customer": pl.String,
    "series": pl.String,
    "number": pl.String,  # "CN-000001", without gaps per tenant and series
    "reason": pl.String,  # Reason
    "comment": pl.String,
    "currency": pl.String,
    "minor_units": pl.Int64,
    "subtotal_minor": pl.Int64,
    "tax_minor": pl.Int64,
    "total_minor": pl.Int64,
    "applied_minor": pl.Int64,  # took that much off what was due of the invoice
    "excess_minor": pl.Int64,  # the rest, which became the customer's credit
    "taxes": pl.String,  # JSON, as an invoice's
    "entry_id": pl.String,  # the journal entry that posts it; null where its postings cancel
    "issued_at": pl.Datetime("us", "UTC"),
}
"""Columns of a frame of credit notes."""

CREDITED: Columns = {
    "tenant": pl.String,
    "credit_note_id": pl.String,
    "position": pl.Int64,  # from 1
    "invoice_line_id": pl.String,
    "net_minor": pl.Int64,
    "tax_minor": pl.Int64,
    "taxes": pl.String,  # JSON, as an invoice line's; null without tax
    "earned_minor": pl.Int64,  # of a line in advance: what of the net amount was earned by then
}
"""Columns of the lines of credit notes: what each took of its invoice line."""
