"""What `meterline invoices show` makes of stored invoices, over a real PostgreSQL."""

import base64
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import polars as pl
import pytest
import sqlalchemy as sa

from invoicing import store
from invoicing.assemble import assemble
from invoicing.ledger.journal import journal
from invoicing.rendering.store import apply_seller, seller_at
from meterline.operations import outputs_of
from meterline.output import Failure, File, Output, Text
from meterline.system import System
from schemas.contract import parse_contracts
from schemas.invoice import BOOKED, CHARGED, Basis, Tax
from schemas.party import Seller, parse_seller
from tests.documents.samples import exact

ISSUED = datetime(2026, 4, 1, tzinfo=UTC)
CONTRACTS = parse_contracts(
    """
contracts:
  - {customer: aeroe, name: Ærø & Søn, subjects: [a], plan: p, starts_on: 2026-01-01,
     party: {street: Havnen 1, city: Ærøskøbing, country: DK, vat_id: DK12345674}}
  - {customer: bo, name: Bo, subjects: [b], plan: p, starts_on: 2026-01-01}
""",
    "contracts.yaml",
)
SELLER = """
name: Tin Can Metering GmbH
country: DE
vat_id: DE123456789
due_days: 30
payment_terms: Within 30 days
"""
BASIS = Basis(cut=3, book="b", book_version=1, book_digest="book", contracts_digest=CONTRACTS.digest)


@pytest.fixture
def app(database: sa.Engine) -> System:
    """INV-000001 for aeroe, whose contract has an address, and INV-000002 for bo, whose has none."""
    rows: list[dict[str, Any]] = [
        {
            "customer": customer, "period": "2026-03", "charge": "calls", "description": "Calls", "model": "standard",
            "meter": "calls", "quantity": exact(100), "amount": exact(10), "amount_minor": 1000, "currency": "EUR",
            "slices": [{"label": "", "up_to": None, "quantity": exact(100), "unit_price": exact("0.1"), "flat": exact(0), "amount": exact(10)}],
            **vars(BASIS),
        }
        for customer in ("aeroe", "bo")
    ]  # fmt: skip
    assembled = assemble(
        pl.DataFrame(rows, schema=CHARGED), pl.DataFrame(schema=BOOKED), tenant="default", run_period="2026-03",
        bases={"2026-03": BASIS}, customer_names={each.customer: each.name for each in CONTRACTS.contracts},
        tax=Tax("VAT", exact(19)), next_number=1, issued_at=ISSUED,
    )  # fmt: skip
    posted = journal(assembled.invoices, booked_at=ISSUED)
    with database.begin() as connection:
        store.apply_price_book(connection, "default", book="b", version=1, digest="book", body="{}", applied_at=ISSUED)
        store.apply_contracts(
            connection, "default", digest=CONTRACTS.digest, body=CONTRACTS.canonical(), applied_at=ISSUED
        )
        run = store.start_run(connection, "default", "2026-03", BASIS, started_at=ISSUED)
        store.post(connection, assembled.invoices, assembled.lines, posted.entries, posted.postings)
        store.finish_run(connection, run, {"2026-03": BASIS}, posted_at=ISSUED)
    return System(database, *cast("Any", (None, None, None)))


def asked(app: System, operation: str, **parameters: Any) -> Output:
    """The one output of an operation."""
    (output,) = outputs_of(app, operation, parameters)
    return output


def content(output: Output) -> bytes:
    """The bytes of a file."""
    assert isinstance(output, File), output
    return base64.b64decode(output.content)


def test_every_format_of_a_stored_invoice(app: System) -> None:
    """With the seller of the file and the buyer of the contract, in the locale that was asked for."""
    applied = asked(app, "apply_seller", text=SELLER, file="seller.yaml")
    assert isinstance(applied, Text)
    assert "in force for what is issued from now on" in applied.text
    text = asked(app, "show_invoice", number="INV-000001")
    assert isinstance(text, Text)
    assert "Billed to   Ærø & Søn (aeroe), Havnen 1, Ærøskøbing, DK, VAT DK12345674" in text.text
    parsed = orjson.loads(content(asked(app, "show_invoice", number="INV-000001", form="json")))
    assert (parsed["totals"]["due"], parsed["due_on"], parsed["seller"]["name"]) == (
        "11.90",
        "2026-05-01",
        "Tin Can Metering GmbH",
    )
    page = content(asked(app, "show_invoice", number="INV-000001", form="html", locale="de_DE")).decode()
    assert "11,90\xa0€" in page
    ubl = content(asked(app, "show_invoice", number="INV-000001", form="ubl")).decode()
    assert '<cbc:PayableAmount currencyID="EUR">11.90</cbc:PayableAmount>' in ubl
    assert '<cbc:PriceAmount currencyID="EUR">0.1</cbc:PriceAmount>' in ubl
    for form in ("pdf", "facturx"):
        output = asked(app, "show_invoice", number="INV-000001", form=form, locale="de_DE")
        assert isinstance(output, File)
        assert output.name == "INV-000001.pdf"
        assert content(output).startswith(b"%PDF-1.7")


@pytest.mark.parametrize(
    ("number", "form", "locale", "message"),
    [
        ("INV-000001", "ubl", "en_US", "there is no seller; store one with `meterline seller apply FILE`"),
        ("INV-000002", "facturx", "en_US", "the buyer has no country"),
        ("INV-000001", "docx", "en_US", "format 'docx'; allowed: text, json, html, pdf, ubl, facturx"),
        ("INV-000001", "html", "xx", "locale 'xx'; allowed: one of CLDR"),
        ("INV-000009", "pdf", "en_US", "tenant default has no invoice INV-000009"),
    ],
)
def test_what_cannot_be_shown_is_said(app: System, number: str, form: str, locale: str, message: str) -> None:
    """In one message, by the one who asked."""
    if "no seller" not in message:
        asked(app, "apply_seller", text=SELLER, file="seller.yaml")
    output = asked(app, "show_invoice", number=number, form=form, locale=locale)
    assert isinstance(output, Failure)
    assert message in output.message


def test_a_document_keeps_the_seller_of_its_issue(database: sa.Engine) -> None:
    """The newest one that was applied before it; the first one, where it was issued before there was any."""
    days = [datetime(2026, month, 1, tzinfo=UTC) for month in (1, 2, 3, 4)]
    sellers = [parse_seller(f"name: {name}", "seller.yaml") for name in ("First", "Second", "Third")]
    with database.begin() as connection:
        assert seller_at(connection, "default", days[0]) is None
        for seller, day in zip(sellers, days[1:], strict=True):
            assert apply_seller(connection, "default", seller, applied_at=day)
        assert not apply_seller(connection, "default", sellers[-1], applied_at=days[3])
        assert apply_seller(connection, "other", Seller(name="Other"), applied_at=days[0])
        found = [seller_at(connection, "default", day) for day in days]
    assert [each and each.name for each in found] == ["First", "First", "Second", "Third"]


@pytest.mark.parametrize("verb", ["UPDATE sellers SET digest = ''", "DELETE FROM sellers", "TRUNCATE sellers"])
def test_an_applied_seller_never_changes(database: sa.Engine, verb: str) -> None:
    """Not even by plain SQL."""
    with database.begin() as connection:
        apply_seller(connection, "default", Seller(name="First"), applied_at=ISSUED)
    with pytest.raises(sa.exc.DBAPIError, match="an applied seller never changes"), database.begin() as connection:
        connection.exec_driver_sql(verb)
