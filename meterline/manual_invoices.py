"""Manual invoices: drafts that follow what somebody writes, until they are finalised.

Owns that one reference is one invoice: while it is a draft, what is written takes its place; afterwards the same again
changes nothing, and anything else is refused.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

import polars as pl
import sqlalchemy as sa

from invoicing import store as books
from invoicing.invoices import store
from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts, drafted
from invoicing.invoices.manual import ManualInvoice, document_digest, head_of, lines_of, parse_invoices
from invoicing.ledger.store import OtherContentError
from invoicing.outbox.events import created
from invoicing.outbox.store import emit_frame, untold
from meterline.output import Output, Text
from meterline.system import System
from meterline.tables import invoice_table
from meterline.taxing import with_taxes
from rating.books import Books, book_in_force, local_midnight
from rating.terms import starts_at, version_as_of
from schemas.configuration import ConfigurationError, Fault
from schemas.contract import Contract, Contracts
from schemas.invoice import State
from schemas.plan import Policies, TaxRule
from schemas.price_book import PriceBook
from schemas.tenant import DEFAULT_TENANT


class Fate(StrEnum):
    """What became of an invoice that was written."""

    CREATED = "created"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


class Kept(NamedTuple):
    """An invoice as it is stored now, with its lines, and what became of it."""

    invoices: pl.DataFrame
    lines: pl.DataFrame
    fate: Fate


def create_invoices(app: System, *, text: str, file: str, finalize: bool = False) -> Iterator[Output]:
    """Keep the invoices of a YAML or JSON text as drafts, all or none; with `finalize`, issue those that are drafts."""
    now = datetime.now(UTC)
    written = parse_invoices(text, file)
    with app.database.begin() as connection:
        kept = keep(connection, DEFAULT_TENANT, written, source=file, at=now)
        if finalize:
            drafts = [each.invoices["id"].item() for each in kept if _state(each.invoices) is State.DRAFT]
            issue(connection, store.drafts_of(connection, DEFAULT_TENANT, drafts), at=now, stored_by="command line")
        ids = [each.invoices["id"].item() for each in kept]
        shown = pl.concat([store.invoice(connection, DEFAULT_TENANT, each) for each in ids])
    for invoice, each, row in zip(written, kept, shown.iter_rows(named=True), strict=True):
        yield Text(text=f"{invoice.reference}: {each.fate}; invoice {row['id']}, {row['number'] or 'a draft'}")
    yield invoice_table(", ".join(sorted({invoice.period for invoice in written})), shown)


def delete_invoice(app: System, *, invoice: str) -> Iterator[Output]:
    """Delete a draft that somebody wrote."""
    with app.database.begin() as connection:
        found = store.invoice(connection, DEFAULT_TENANT, invoice)
        remove(connection, DEFAULT_TENANT, found)
    yield Text(text=f"{invoice}: deleted")


def keep(
    connection: sa.Connection, tenant: str, written: Sequence[ManualInvoice], *, source: str, at: datetime
) -> list[Kept]:
    """Keep invoices as drafts, in the caller's transaction; what they became stands in their order.

    The drafts of their references are replaced, and their versions go on. Raises ConfigurationError for tax codes that
    nothing has, and OtherContentError where a reference is of an invoice that is no draft and says something else.
    """
    terms = _Terms.of(connection, tenant)
    prefix = "invoices[{}]." if len(written) > 1 else ""
    faults = [fault for at, each in enumerate(written) for fault in terms.faults(each, source, prefix.format(at))]
    if faults:
        raise ConfigurationError(faults)
    for invoice_id in sorted({each.id_of(tenant) for each in written}):
        lock(connection, invoice_id)
    kept = [_keep(connection, tenant, each, terms) for each in written]
    new = [each.invoices for each in kept if each.fate is Fate.CREATED]
    if new:
        emit_frame(connection, untold(connection, created(pl.concat(new), at=at)))
    return kept


def lock(connection: sa.Connection, invoice_id: str) -> None:
    """Wait for whoever writes the invoice with this id, which may not be there yet; then they wait for us."""
    query = "SELECT pg_advisory_xact_lock(hashtextextended('invoice ' || :id, 0))"
    connection.execute(sa.text(query), {"id": invoice_id})


def remove(connection: sa.Connection, tenant: str, invoice: pl.DataFrame) -> None:
    """Delete a manual draft (a frame of one row). Raises ValueError for any other invoice."""
    head = invoice.row(0, named=True)
    if head["kind"] != "manual":
        raise ValueError(
            f"invoice {head['id']} is {head['kind']}; allowed: a manual one. `meterline bill` makes others"
        )
    if not store.remove_draft(connection, tenant, head["id"]):
        raise ValueError(f"invoice {head['number'] or head['id']} is {head['state']}; allowed: a draft")


def _keep(connection: sa.Connection, tenant: str, invoice: ManualInvoice, terms: "_Terms") -> Kept:
    new = terms.drafts(invoice, tenant)
    try:
        before = store.invoice(connection, tenant, invoice.id_of(tenant))
    except LookupError:
        store.write(connection, *_both(new))
        return Kept(*_both(new), Fate.CREATED)
    if _state(before) is not State.DRAFT:
        lines = store.lines_of(connection, invoice.id_of(tenant))
        if document_digest(lines["explanation"][0]) == invoice.digest:
            return Kept(before, lines, Fate.UNCHANGED)
        said = f"invoice {before['number'].item()}, which has the reference {invoice.reference!r},"
        raise OtherContentError(f"{said} is issued and says something else; a new invoice needs a new reference")
    if before["content_digest"].item() == new.invoices["content_digest"].item():
        return Kept(before, new.lines, Fate.UNCHANGED)
    if not store.remove_draft(connection, tenant, invoice.id_of(tenant)):
        raise store.ChangedMeanwhileError(f"the draft of {invoice.reference!r} was finalised meanwhile; read it again")
    next_one = new.invoices.with_columns(version=pl.lit(before["version"].item() + 1, pl.Int64))
    store.write(connection, next_one, new.lines)
    return Kept(next_one, new.lines, Fate.REPLACED)


def _both(drafts: Drafts) -> tuple[pl.DataFrame, pl.DataFrame]:
    return drafts.invoices, drafts.lines


def _state(invoice: pl.DataFrame) -> State:
    return State(invoice["state"].item())


class _Terms(NamedTuple):
    """The price books and contracts in force, of which an invoice takes its taxes, its rounding and a name."""

    books: tuple[PriceBook, ...]
    contracts: Contracts | None

    @classmethod
    def of(cls, connection: sa.Connection, tenant: str) -> "_Terms":
        contracts = books.latest_contracts(connection, tenant)
        versions = [PriceBook.from_canonical(row["body"]) for row in books.price_books(connection, tenant)]
        return cls(tuple(versions), Contracts.from_canonical(contracts.body) if contracts else None)

    def book(self, invoice: ManualInvoice) -> PriceBook | None:
        """The version in force for the invoice's month: of the contract's book, or of any where there is none."""
        contract, first = self._contract(invoice), invoice.month[0]
        try:
            if contract is None:
                return book_in_force(self.books, first)
            instant = max(local_midnight(first, contract.zone), starts_at(contract))
            return version_as_of(contract, instant, Books(self.books))
        except LookupError:
            return None

    def drafts(self, invoice: ManualInvoice, tenant: str) -> Drafts:
        """The draft that an invoice without faults becomes."""
        book, contract = self.book(invoice), self._contract(invoice)
        policies = book.policies if book else Policies()
        lines = lines_of(invoice, _rules(invoice, book), policies.rounding)
        taxed = with_taxes(lines, policies)
        name = invoice.name or (contract.name if contract else invoice.customer)
        return drafted(taxed.lines, taxed.groups, head_of(invoice, tenant=tenant, customer_name=name))

    def faults(self, invoice: ManualInvoice, source: str, prefix: str) -> Iterator[Fault]:
        """Tax codes that the book in force lacks."""
        book = self.book(invoice)
        known = ", ".join(book.taxes) if book else ""
        for at, line in enumerate(invoice.lines):
            if line.tax_code is not None and (book is None or line.tax_code not in book.taxes):
                what = (
                    f"a tax code of {book}: {known or '(it has none)'}" if book else "no tax code: no book is in force"
                )
                yield Fault(
                    source, f"{prefix}lines[{at}].tax_code", line.tax_code, f"allowed for {invoice.period}: {what}"
                )

    def _contract(self, invoice: ManualInvoice) -> Contract | None:
        return self.contracts.of(invoice.customer) if self.contracts else None


def _rules(invoice: ManualInvoice, book: PriceBook | None) -> list[TaxRule | None]:
    """The tax rule of each line: its own, its code's, or the book's; none where it says so, or where no book does."""
    own = book.tax if book else None
    codes = book.taxes if book else {}
    return [
        None if not line.taxed else line.tax or (codes[line.tax_code] if line.tax_code is not None else own)
        for line in invoice.lines
    ]
