"""The charges of a run become drafts, a range of customers at a time: lines, their taxes, and invoices of them.

Owns the order: what is billed is compared with what is booked, then taxed, then added up. Rating's taxes stand between
two steps of invoicing here, because the stages know nothing of each other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from invoicing.invoices.drafts import Drafts, drafted, periodic_heads
from invoicing.invoices.lines import lines_of
from invoicing.invoices.store import booked, issued_before_their_run
from meterline.charged import Charged
from meterline.taxing import with_taxes
from schemas.invoice import INVOICE_SERIES, Basis
from schemas.plan import Policies


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

    def drafts(self, connection: sa.Connection, charged: Charged) -> Iterator[Drafts]:
        """The drafts of all customers, by customer and currency.

        Whose invoice of the period was issued before its run has what came since on a later one. The connection reads
        what is booked, and may be used in another thread than the one that writes.
        """
        early = issued_before_their_run(connection, self.tenant, self.period)
        for customers in charged.ranges():
            before = booked(connection, self.tenant, sorted(self.bases), above=customers.above, up_to=customers.up_to)
            lines = lines_of(charged.of(customers), before, run_period=self.period, bases=self.bases)
            lines = lines.join(early, on=["customer", "currency"], how="anti", maintain_order="left")
            heads = periodic_heads(
                lines, tenant=self.tenant, run_period=self.period, basis=self.bases[self.period],
                series=INVOICE_SERIES, customer_names=self.customer_names,
            )  # fmt: skip
            taxed = with_taxes(lines, self.policies)
            yield drafted(taxed.lines, taxed.groups, heads)
