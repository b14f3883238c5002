"""Documents for those who ask: an invoice in each format, and the seller that stands on it."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl
import sqlalchemy as sa

from invoicing import store as books
from invoicing.invoices.store import invoice as invoice_of
from invoicing.invoices.store import lines_of
from invoicing.rendering.as_html import render_html
from invoicing.rendering.as_json import render_json
from invoicing.rendering.as_text import render_text
from invoicing.rendering.as_ubl import render_ubl
from invoicing.rendering.store import apply_seller as store_seller
from invoicing.rendering.store import seller_at
from invoicing.rendering.stored import document_of
from meterline.formats import DEFAULT_FORMAT, DEFAULT_LOCALE, ENDINGS, FORMATS
from meterline.output import File, Output, Text
from meterline.system import System
from schemas.contract import Contracts
from schemas.document import Document
from schemas.party import PartyDetails, parse_seller
from schemas.tenant import DEFAULT_TENANT


def apply_seller(app: System, *, text: str, file: str) -> Iterator[Output]:
    """Put a seller's YAML text in force, for the documents that are issued from now on."""
    seller = parse_seller(text, file)
    with app.database.begin() as connection:
        new = store_seller(connection, DEFAULT_TENANT, seller, applied_at=datetime.now(UTC))
    state = "in force for what is issued from now on" if new else "in force already"
    yield Text(text=f"{seller.name}: {state}, digest {seller.digest}")


def show_invoice(
    app: System, *, number: str, form: str = DEFAULT_FORMAT, locale: str = DEFAULT_LOCALE
) -> Iterator[Output]:
    """An invoice in a format; the text has the explanation of each line."""
    if form not in FORMATS:
        raise ValueError(f"format {form!r}; allowed: {', '.join(FORMATS)}")
    with app.database.connect() as connection:
        document = document_of_invoice(connection, DEFAULT_TENANT, invoice_of(connection, DEFAULT_TENANT, number))
    if form == "text":
        yield Text(text=render_text(document))
        return
    content = base64.b64encode(rendered(document, form, locale)).decode()
    yield File(name=f"{document.number}.{ENDINGS[form]}", content=content)


def rendered(document: Document, form: str, locale: str) -> bytes:
    """The bytes of a document in a format. E-invoices raise ValueError for what they cannot express."""
    match form:
        case "text":
            return render_text(document).encode()
        case "json":
            return render_json(document)
        case "html":
            return render_html(document, locale).encode()
        case "ubl":
            return render_ubl(document).encode()
        case _:
            return _pdf(document, form, locale)


def _pdf(document: Document, form: str, locale: str) -> bytes:
    # each start of a server or a command would load them: a fifth of the CPU time that its imports take
    from invoicing.rendering.app import typeface  # noqa: PLC0415
    from invoicing.rendering.as_facturx import render_facturx  # noqa: PLC0415
    from invoicing.rendering.as_pdf import render_pdf  # noqa: PLC0415

    render = render_pdf if form == "pdf" else render_facturx
    return render(document, locale, typeface())


def document_of_invoice(connection: sa.Connection, tenant: str, invoice: pl.DataFrame) -> Document:
    """The document of a tenant's invoice (a frame of one row), as it is rendered."""
    lines = lines_of(connection, invoice["id"].item())
    now = datetime.now(UTC)
    seller = seller_at(connection, tenant, invoice["issued_at"].item() or now)
    return document_of(invoice, lines, seller, buyer_of(connection, tenant, invoice, now), shown_at=now)


def buyer_of(connection: sa.Connection, tenant: str, invoice: pl.DataFrame, now: datetime) -> PartyDetails | None:
    """What the contract that the invoice was made from says of its customer, or the one in force at its issue."""
    digest = invoice["contracts_digest"].item()
    stored = (
        books.contracts_of(connection, tenant, digest) if digest
        else books.contracts_at(connection, tenant, invoice["issued_at"].item() or now)
    )  # fmt: skip
    contracts = Contracts.from_canonical(stored.body).contracts if stored else ()
    customer = invoice["customer"].item()
    return next((contract.party for contract in contracts if contract.customer == customer), None)
