"""Charges as the invoices that a run makes of them, for tests: lines, taxes, drafts, and what is issued."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import polars as pl

from invoicing.invoices.drafts import Drafts, drafted, finalised, periodic_heads
from invoicing.invoices.lines import lines_of
from meterline.taxing import with_taxes
from schemas.invoice import BOOKED, CHARGED, Basis
from schemas.plan import Policies, TaxMode, TaxRule

ISSUED = datetime(2013, 3, 1, tzinfo=UTC)


def tax_rule(name: str = "VAT", rate: str = "20", mode: TaxMode = TaxMode.EXCLUSIVE) -> str:
    """A tax of one rate as charges have it."""
    return TaxRule(mode=mode, name=name, rate_percent=Decimal(rate)).model_dump_json(exclude_defaults=True)


def days_of(period: str) -> dict[str, date]:
    """The service days of a month."""
    first = date.fromisoformat(f"{period}-01")
    return {"service_start": first, "service_end": (first + timedelta(days=31)).replace(day=1)}


def charged(basis: Basis, **given: Any) -> dict[str, Any]:
    """A row of charges: usage of a meter without slices and tax, unless given otherwise."""
    plain = {"kind": "usage", "revenue": "subtotal", "description": given["charge"], "model": "standard",
             "quantity": Decimal(1), "slices": [], "currency": "USD", "amount": Decimal(given["amount_minor"]).scaleb(-2)}  # fmt: skip
    return {**plain, **days_of(given["period"]), **vars(basis), **given}


def was_booked(**given: Any) -> dict[str, Any]:
    """A row of what is booked, like it."""
    plain = {"revenue": "subtotal", "description": given["charge"], "model": "standard", "quantity": Decimal(1),
             "currency": "USD", "amount": Decimal(given["amount_minor"]).scaleb(-2)}  # fmt: skip
    return {**plain, **days_of(given["usage_period"]), **given}


def drafts_of(
    charges: pl.DataFrame | list[dict[str, Any]],
    booked: pl.DataFrame | list[dict[str, Any]] | None = None,
    *,
    bases: dict[str, Basis],
    run_period: str,
    customer_names: dict[str, str] | None = None,
    policies: Policies | None = None,
) -> Drafts:
    """The drafts of a run."""
    lines = lines_of(
        pl.DataFrame(charges, schema=CHARGED), pl.DataFrame(booked, schema=BOOKED), run_period=run_period, bases=bases
    )
    heads = periodic_heads(lines, tenant="default", run_period=run_period, basis=bases[run_period], series="INV",
                           customer_names=customer_names or {})  # fmt: skip
    taxed = with_taxes(lines, policies)
    return drafted(taxed.lines, taxed.groups, heads)


def issued(drafts: Drafts, *, at: datetime = ISSUED, last_number: int = 0) -> Drafts:
    """The drafts with numbers."""
    return Drafts(finalised(drafts.invoices, last_number=last_number, issued_at=at), drafts.lines)
