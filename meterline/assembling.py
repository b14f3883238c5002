"""The charges of a run become drafts, a range of customers at a time: lines, their taxes, and invoices of them.

Owns the order: what is billed is compared with what is booked, then taxed, then added up. Rating's taxes stand between
two steps of invoicing here, because the stages know nothing of each other.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import polars as pl
import sqlalchemy as sa

from invoicing.invoices.drafts import Drafts, drafted, periodic_heads
from invoicing.invoices.lines import lines_of
from invoicing.invoices.store import booked, issued_before_their_run
from meterline.charged import Charged
from meterline.taxing import with_taxes
from schemas.invoice import INVOICE_SERIES, Basis
from schemas.plan import Policies

ArrivedLate = Callable[[pl.DataFrame], pl.DataFrame]
"""Of the customers of some charges, whose usage arrived late: see `meterline.late_usage.arrived_late`."""


@dataclass(frozen=True)
class Part:
    """What a range of customers is billed."""

    charges: pl.DataFrame
    """Columns `schemas.invoice.CHARGED`."""
    lines: pl.DataFrame
    """Columns DRAFTED."""
    late: pl.DataFrame
    """Whose usage of billed periods arrived late, and its policy."""
    drafts: Drafts | None
    """None where late usage has a say in what the lines are."""


@dataclass(frozen=True)
class Assembly:
    """What a run's invoices are made of, beside the charges."""

    tenant: str
    period: str
    bases: Mapping[str, Basis]
    """By every period that was rated, also one without charges."""
    customer_names: Mapping[str, str]
    policies: Policies
    """Where and how taxes are rounded."""

    def parts(self, connection: sa.Connection, charged: Charged, arrived_late: ArrivedLate) -> Iterator[Part]:
        """What is billed, by ranges of customers, in their order.

        Whose invoice of the period was issued before its run has what came since on a later one. The connection reads
        what is booked, and may be used in another thread than the one that writes; nothing is locked.
        """
        early = issued_before_their_run(connection, self.tenant, self.period)
        for customers in charged.ranges():
            charges = charged.of(customers)
            before = booked(connection, self.tenant, sorted(self.bases), above=customers.above, up_to=customers.up_to)
            lines = lines_of(charges, before, run_period=self.period, bases=self.bases)
            lines = lines.join(early, on=["customer", "currency"], how="anti", maintain_order="left")
            late = arrived_late(charges)
            yield Part(charges, lines, late, None if late.height else self.drafted(lines))

    def drafted(self, lines: pl.DataFrame) -> Drafts:
        """The drafts of lines, by customer and currency."""
        heads = periodic_heads(
            lines, tenant=self.tenant, run_period=self.period, basis=self.bases[self.period], series=INVOICE_SERIES,
            customer_names=self.customer_names,
        )  # fmt: skip
        taxed = with_taxes(lines, self.policies)
        return drafted(taxed.lines, taxed.groups, heads)
