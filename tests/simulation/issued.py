"""Drafts to issue, as bill runs and people make them: lines of some amounts, with their taxes."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts, drafted
from invoicing.invoices.store import write
from invoicing.settlement.app import Act
from meterline.taxing import with_taxes
from schemas.identity import digest
from schemas.invoice import DRAFTED, HEADS, InvoiceKind
from schemas.plan import TaxRule

ISSUED_AT = datetime(2026, 2, 1, 9, tzinfo=UTC)
LATER = datetime(2026, 2, 10, 9, tzinfo=UTC)
VAT = TaxRule.model_validate(
    {"mode": "exclusive", "rates": [{"name": "VAT", "rate_percent": Decimal(20)}]}
).model_dump_json()
"""A fifth comes on top: a net of 100.00 is 120.00."""


def drafts_of(
    *nets: Sequence[int], tenant: str = "default", customer: str | None = None, kind: str = "periodic",
    period: str = "2026-01", currency: str = "EUR", tax: str | None = VAT, first: int = 0,
) -> Drafts:  # fmt: skip
    """A draft for each list of net amounts in minor units; of the customers c0, c1 ... unless one is named."""
    rows = [
        {
            "document": document, "kind": "usage", "customer": customer or f"c{document + first}", "currency": currency,
            "usage_period": period, "charge": f"charge-{place}", "description": f"Usage {place}", "model": "standard",
            "meter": "calls", "quantity": Decimal(1), "amount": Decimal(net), "amount_minor": net, "tax_rule": tax,
            "revenue": "subtotal", "service_start": date(2026, 1, 1), "service_end": date(2026, 2, 1),
            "explanation": "{}",
        }
        for document, lines in enumerate(nets)
        for place, net in enumerate(lines)
    ]  # fmt: skip
    lines = pl.DataFrame(rows, schema=DRAFTED)
    manual = kind == InvoiceKind.MANUAL
    heads = [
        {
            "document": document, "id": digest("issued", tenant, customer or "", kind, period, currency, document + first),
            "tenant": tenant, "kind": kind, "customer": customer or f"c{document + first}", "customer_name": "Somebody",
            "period": period, "series": "INV", "currency": currency, "cut": None if manual else 1,
            "book": None if manual else "b", "book_version": None if manual else 1,
            "book_digest": None if manual else "d", "contracts_digest": None if manual else "d",
        }
        for document in range(len(nets))
    ]  # fmt: skip
    taxed = with_taxes(lines)
    return drafted(taxed.lines, taxed.groups, pl.DataFrame(heads, schema=HEADS))


def issued(database: sa.Engine, *nets: Sequence[int], at: datetime = ISSUED_AT, **more: Any) -> list[str]:
    """Issue invoices of these net amounts; their ids."""
    with database.begin() as connection:
        return issue(connection, drafts_of(*nets, **more), at=at)["id"].to_list()


def stored(database: sa.Engine, *nets: Sequence[int], **more: Any) -> list[str]:
    """Store drafts of these net amounts; their ids."""
    drafts = drafts_of(*nets, **more)
    with database.begin() as connection:
        write(connection, drafts.invoices, drafts.lines)
    return drafts.invoices["id"].to_list()


def act(now: datetime = LATER, tenant: str = "default") -> Act:
    """Somebody who acts for a tenant."""
    return Act(tenant, "Ada", now)
