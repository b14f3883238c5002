"""Issued invoices for tests that go on with them: a few lines of a kind of revenue and a tax, without prices or usage."""

from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

import polars as pl
import sqlalchemy as sa

from invoicing.invoices.app import issue
from invoicing.invoices.drafts import drafted
from meterline.taxing import with_taxes
from schemas.identity import digest
from schemas.invoice import DRAFTED, HEADS, InvoiceKind, LineKind, Revenue

ISSUED = datetime(2026, 2, 3, 12, tzinfo=UTC)
VAT = '{"mode":"exclusive","name":"VAT","rate_percent":"20"}'
INCLUSIVE = '{"mode":"inclusive","name":"VAT","rate_percent":"19"}'
TWO = '{"mode":"exclusive","rates":[{"name":"GST","rate_percent":"5"},{"name":"PST","rate_percent":"7"}]}'

Line = tuple[int, str | None, Revenue]
"""An amount in minor units, its tax rule as JSON, and its revenue."""


def issued(
    database: sa.Engine, lines: Sequence[Line], *, customer: str = "UA", tenant: str = "acme", name: str = "one",
    currency: str = "EUR", period: str = "2026-01", at: datetime = ISSUED, service_end: date = date(2026, 2, 1),
) -> str:  # fmt: skip
    """Issue an invoice of these lines; returns its id. One without tax, revenue of fees and so on, as they are given."""
    rows = [
        {
            "document": 0, "kind": LineKind.MANUAL.value, "customer": customer, "currency": currency, "usage_period": period,
            "charge": f"charge-{place}", "description": f"Charge {place}", "model": "", "meter": None,
            "quantity": Decimal(1), "amount": Decimal(amount) / 100, "amount_minor": amount, "tax_rule": rule,
            "revenue": revenue.value, "service_start": date(2026, 1, 1), "service_end": service_end,
            "explanation": "{}",
        }
        for place, (amount, rule, revenue) in enumerate(lines)
    ]  # fmt: skip
    frame = pl.DataFrame(rows, schema=DRAFTED)
    head = {
        "document": 0, "id": digest("test", tenant, customer, name), "tenant": tenant, "kind": InvoiceKind.MANUAL.value,
        "customer": customer, "customer_name": f"{customer} Ltd", "period": period, "series": "INV", "currency": currency,
    }  # fmt: skip
    taxed = with_taxes(frame)
    drafts = drafted(taxed.lines, taxed.groups, pl.DataFrame([head], schema=HEADS))
    with database.begin() as connection:
        return str(issue(connection, drafts, at=at)["id"].item())
