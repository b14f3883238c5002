"""Manual invoices from writing to posting, over a real PostgreSQL: drafts, taxes, postings, renderings, HTTP."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import polars as pl
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from invoicing import store as books
from invoicing.invoices import store
from invoicing.ledger.store import entries
from meterline.access import guarded
from meterline.manual_invoices_api import PATH, manual_invoice_routes
from meterline.operations import outputs_of
from meterline.output import Failure, File, Table, Text
from meterline.verification import verified
from schemas.contract import parse_contracts
from schemas.price_book import parse_price_book

NOW = datetime(2026, 3, 1, tzinfo=UTC)
BOOK = """
book: b
version: 1
effective_at: 2026-01-01
currency: EUR
tax: {mode: exclusive, name: VAT, rate_percent: 19}
taxes:
  reduced: {mode: exclusive, name: VAT, rate_percent: 7}
  shop: {mode: inclusive, name: VAT, rate_percent: 19}
plans:
  - {id: p, charges: [{id: base, model: flat, amount: 1}]}
"""
CONTRACTS = """
contracts:
  - {customer: acme, name: Acme Ltd, subjects: [a], plan: p, starts_on: 2026-01-01,
     party: {street: Road 1, city: Town, country: DE, vat_id: DE123456789}}
"""
SELLER = "{name: Tin Can Metering GmbH, country: DE, registration: HRB 1, vat_id: DE123456789, email: a@example.com, due_days: 30, payment_terms: Within 30 days}"
LINES = """
  - {description: Onboarding, quantity: 1.5, unit_price: 333.333}
  - {description: Book, unit_price: 10, tax_code: reduced}
  - {description: Goodwill, quantity: 2, unit_price: -5, taxed: false}
"""


def written(lines: str = LINES, **keys: str) -> str:
    head = {"reference": "setup-7", "customer": "acme", "currency": "EUR", "period": "2026-03", **keys}
    return "\n".join(f"{name}: {value}" for name, value in head.items()) + f"\nlines:{lines}"


@pytest.fixture
def app(database: sa.Engine) -> Any:
    """A database with a price book, a contract and a seller."""
    book, contracts = parse_price_book(BOOK, "b", None), parse_contracts(CONTRACTS, "c")
    with database.begin() as connection:
        books.apply_price_book(
            connection, "default", book="b", version=1, digest=book.digest, body=book.canonical(), applied_at=NOW
        )
        books.apply_contracts(
            connection, "default", digest=contracts.digest, body=contracts.canonical(), applied_at=NOW
        )
    system: Any = SimpleNamespace(database=database)
    said(system, "apply_seller", text=SELLER, file="seller.yaml")
    return system


def said(app: Any, operation: str, **parameters: Any) -> str:
    """What an operation says, also why it fails."""
    outputs = list(outputs_of(app, operation, parameters))
    return "\n".join(
        each.text if isinstance(each, Text) else f"failed: {each.message}"
        for each in outputs if isinstance(each, Text | Failure)
    )  # fmt: skip


def made(app: Any, text: str, *, finalize: bool = False) -> str:
    return said(app, "create_invoices", text=text, file="invoice.yaml", finalize=finalize)


def stored(app: Any) -> pl.DataFrame:
    with app.database.connect() as connection:
        return store.invoices_of(connection, "default")


def postings(app: Any) -> list[tuple[str, list[tuple[int, str, str, int]]]]:
    """The entries by template, each with account, dimension, currency and amount of its postings."""
    with app.database.connect() as connection:
        heads, legs = entries(connection, "default")
    return [
        (head["template"], legs.filter(pl.col("entry_id") == head["id"]).select("account", "dimension", "currency", "amount_minor").rows())
        for head in heads.iter_rows(named=True)
    ]  # fmt: skip


def events(app: Any) -> list[str]:
    with app.database.connect() as connection:
        return list(connection.execute(sa.text("SELECT type FROM outbox ORDER BY sequence")).scalars())


def test_a_draft_follows_what_is_written_until_it_is_finalised(app: Any) -> None:
    """The same again changes nothing; other content is the draft's next version; afterwards it is refused."""
    created = list(outputs_of(app, "create_invoices", {"text": written(), "file": "invoice.yaml"}))
    assert isinstance(created[0], Text)
    assert created[0].text.startswith("setup-7: created; invoice")
    assert isinstance(created[1], Table)
    assert created[1].rows[0][1:] == ["acme", "Acme Ltd", "EUR", "500.00", "95.70", "595.70"]
    assert "unchanged" in made(app, "# a comment\n" + written())
    assert "replaced" in made(app, written("\n  - {description: Less, amount: 3}"))
    assert "replaced" in made(app, written())
    draft = stored(app).row(0, named=True)
    assert (draft["kind"], draft["state"], draft["number"], draft["version"]) == ("manual", "draft", None, 3)
    assert (draft["customer_name"], draft["subtotal_minor"], draft["cut"]) == ("Acme Ltd", 50000 + 1000 - 1000, None)
    assert draft["tax_minor"] == 9500 + 70
    assert postings(app) == []
    assert "INV-000001" in made(app, written(), finalize=True)
    issued = stored(app).row(0, named=True)
    assert (issued["id"], issued["content_digest"]) == (draft["id"], draft["content_digest"])
    assert (issued["state"], issued["version"], issued["number"]) == ("open", 4, "INV-000001")
    assert "unchanged" in made(app, written(), finalize=True)
    assert "is issued and says something else" in made(app, written("\n  - {description: Less, amount: 3}"))
    assert said(app, "delete_invoice", invoice="INV-000001").startswith("failed: invoice INV-000001 is open")
    assert stored(app).row(0, named=True) == issued
    assert postings(app) == [
        ("P02", [(1100, "", "EUR", 59570), (4000, "", "EUR", -50000), (2000, "VAT 19%", "EUR", -9500), (2000, "VAT 7%", "EUR", -70)])
    ]  # fmt: skip
    assert events(app) == ["invoice.created", "invoice.finalized"]
    assert all(finding is None for _, _, finding in verified(app.database))


def test_a_draft_can_be_deleted_and_written_again(app: Any) -> None:
    """Nothing is left of it; a number is never lost to it."""
    made(app, written())
    draft = stored(app)["id"].item()
    assert said(app, "delete_invoice", invoice=draft) == f"{draft}: deleted"
    assert stored(app).is_empty()
    assert "has no invoice" in said(app, "delete_invoice", invoice=draft)
    assert "created" in made(app, written("\n  - {description: Something else, amount: 7}"))
    assert said(app, "delete_invoice", invoice=draft) == f"{draft}: deleted"
    assert "created" in made(app, written(reference="another"), finalize=True)
    assert stored(app)["number"].to_list() == ["INV-000001"]


def test_what_a_line_is_for_decides_where_it_is_posted(app: Any) -> None:
    """Advance is unearned, a commitment earns its own account, and a price with tax in it is posted by P04."""
    for number, (line, template, account) in enumerate([
        ("{description: Year, amount: 100, revenue: advance, taxed: false}", "P03", 2200),
        ("{description: Missing, amount: 100, revenue: commitment, taxed: false}", "P06", 4020),
        ("{description: Calls, amount: 100, revenue: usage, taxed: false}", "P02", 4010),
        ("{description: Back, amount: -100, taxed: false}", "P02", 4000),
    ]):  # fmt: skip
        made(app, written(f"\n  - {line}", reference=f"r{number}"), finalize=True)
        posted_by, legs = postings(app)[-1]
        assert posted_by == template
        assert account in {leg[0] for leg in legs}
        assert (1100 if number < 3 else 2100) in {leg[0] for leg in legs}
    assert stored(app).filter(pl.col("total_minor") < 0)["state"].to_list() == ["paid"]
    made(app, written("\n  - {description: Shop, amount: 119, tax_code: shop}", reference="shop"), finalize=True)
    assert postings(app)[-1][0] == "P14"  # the credit of the invoice before settles a part of it
    assert postings(app)[-2] == ("P04", [(1100, "", "EUR", 11900), (4000, "", "EUR", -10000), (2000, "VAT 19%", "EUR", -1900)])  # fmt: skip


def test_a_customer_has_invoices_in_several_currencies(app: Any) -> None:
    """Each invoice has one, with its own minor unit; their numbers follow each other, and each currency balances."""
    for currency, amount in (("EUR", "1.25"), ("JPY", "125"), ("KWD", "1.255"), ("CLF", "1.2555")):
        made(app, written(f"\n  - {{description: x, amount: {amount}, taxed: false}}", reference=currency, currency=currency), finalize=True)  # fmt: skip
    found = stored(app).sort("number").select("number", "currency", "total_minor", "minor_units").rows()
    assert found == [("INV-000001", "EUR", 125, 2), ("INV-000002", "JPY", 125, 0), ("INV-000003", "KWD", 1255, 3), ("INV-000004", "CLF", 12555, 4)]  # fmt: skip
    for _, legs in postings(app):
        assert len({leg[2] for leg in legs}) == 1
        assert sum(leg[3] for leg in legs) == 0


def test_unknown_tax_codes_keep_all_invoices_out(app: Any) -> None:
    """The fault says which codes the book in force has; where no book is in force, there is none."""
    bad = written("\n  - {description: x, amount: 1, tax_code: luxury}", reference="bad")
    both = orjson.dumps({"invoices": [_parsed(written()), _parsed(bad)]}).decode()
    message = made(app, both)
    assert (
        "invoices[1].lines[0].tax_code: luxury: allowed for 2026-03: a tax code of b version 1: reduced, shop"
        in message
    )
    assert stored(app).is_empty()
    early = written("\n  - {description: x, amount: 1, tax_code: reduced}", customer="other", period="2025-01")
    assert "no tax code: no book is in force" in made(app, early)


def _parsed(text: str) -> dict[str, Any]:
    from schemas.configuration import parse_yaml

    return {name: _json(value) for name, value in parse_yaml(text, "f").items()}


def _json(value: Any) -> Any:
    if isinstance(value, list):
        return [_json(each) for each in value]
    if isinstance(value, dict):
        return {name: _json(each) for name, each in value.items()}
    return value if isinstance(value, bool | int | None) else str(value)


def test_a_manual_invoice_is_rendered_in_each_format(app: Any) -> None:
    """Its lines show what was sold at which price; the buyer's address is the contract's in force at its issue."""
    made(app, written())
    draft = stored(app)["id"].item()
    [shown] = outputs_of(app, "show_invoice", {"number": draft})
    assert isinstance(shown, Text)
    assert "DRAFT" in shown.text
    made(app, written(), finalize=True)
    made(app, written(LINES.replace(", taxed: false", ""), reference="all taxed"), finalize=True)
    changed = CONTRACTS.replace("Road 1", "Street 2").replace("Acme Ltd", "Acme Inc")
    contracts = parse_contracts(changed, "c")
    with app.database.begin() as connection:
        books.apply_contracts(
            connection, "default", digest=contracts.digest, body=contracts.canonical(), applied_at=datetime.now(UTC)
        )
    assert "unchanged" in made(app, written())
    [shown] = outputs_of(app, "show_invoice", {"number": "INV-000001"})
    assert isinstance(shown, Text)
    for part in ("1.5 x 333.333 = 499.9995", "2 x -5.00 = -10.00", "VAT 19 % on 500.00", "Total EUR", "595.70"):
        assert part in shown.text, shown.text
    for form, part in (("html", "333.333"), ("json", "333.333"), ("pdf", "%PDF"), ("ubl", "<cbc:StreetName>Road 1</cbc:StreetName>"),
                       ("ubl", '<cbc:InvoicedQuantity unitCode="C62">1.5</cbc:InvoicedQuantity>')):  # fmt: skip
        [file] = outputs_of(app, "show_invoice", {"number": "INV-000002", "form": form})
        assert isinstance(file, File), file
        assert part in base64.b64decode(file.content).decode("utf-8", "replace")


@asynccontextmanager
async def nothing(_: Starlette) -> AsyncIterator[None]:
    yield


def ask(app: Any, method: str, path: str, **request: Any) -> httpx.Response:
    async def answer() -> httpx.Response:
        routes = guarded(manual_invoice_routes(app.database), None, lifespan=nothing)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(routes), base_url="http://here") as client:
            return await client.request(method, path, **request)

    return asyncio.run(answer())


def test_invoices_are_written_replaced_and_deleted_over_http(app: Any) -> None:
    """201 with an ETag for a new one, 200 for its next version, 412 for a stale one; 409 for what is issued."""
    body = _parsed(written())
    keyed = {"Idempotency-Key": "k1"}
    first = ask(app, "POST", PATH, json=body, headers=keyed)
    assert (first.status_code, first.headers["etag"]) == (201, '"1"')
    document = first.json()
    assert first.headers["location"] == f"{PATH}/{document['id']}"
    assert (document["total_minor"], document["state"], document["number"]) == (59570, "draft", None)
    assert [line["net_minor"] for line in document["lines"]] == [50000, 1000, -1000]
    assert document["lines"][0]["explanation"]["slices"][0]["amount"] == "499.9995"
    again = ask(app, "POST", PATH, json=body, headers=keyed)
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert ask(app, "POST", PATH, json={**body, "name": "x"}, headers=keyed).status_code == 422
    path = f"{PATH}/{document['id']}"
    assert ask(app, "PUT", path, json={**body, "name": "x"}, headers={"If-Match": '"7"'}).status_code == 412
    put = ask(app, "PUT", path, json={**body, "name": "x"}, headers={"If-Match": '"1"'})
    assert (put.status_code, put.json()["customer_name"], put.headers["etag"]) == (200, "x", '"2"')
    assert ask(app, "POST", PATH, json=body, headers={"If-Match": '"1"'}).status_code == 412
    assert ask(app, "POST", PATH, json=body).json()["version"] == 3
    assert ask(app, "POST", PATH, json=body).json()["version"] == 3
    assert ask(app, "PUT", path, json={**body, "reference": "y"}).status_code == 400
    assert ask(app, "DELETE", path, headers={"If-Match": '"1"'}).status_code == 412
    assert ask(app, "DELETE", path).status_code == 204
    assert ask(app, "DELETE", path).status_code == 404
    assert ask(app, "PUT", path, json=body).status_code == 404
    assert stored(app).is_empty()
    bad = ask(app, "POST", PATH, content=b'{"reference": "r", "lines": [{"amount": 0.1}]}', headers={"Content-Type": "application/json"})  # fmt: skip
    assert bad.status_code == 400, bad.text
    fields = {each["field"] for each in bad.json()["extensions"]["validationErrors"]}
    assert fields == {"customer", "currency", "period", "lines[0].description"}
    made(app, written(), finalize=True)
    assert ask(app, "POST", PATH, json=body).status_code == 200
    assert ask(app, "POST", PATH, json={**body, "name": "x"}).status_code == 409
    assert ask(app, "DELETE", path).status_code == 409


def test_one_reference_written_by_many_at_once_is_one_invoice(app: Any) -> None:
    """One of them makes it, and the others find it; none fails."""

    async def all_at_once() -> list[int]:
        routes = guarded(manual_invoice_routes(app.database), None, lifespan=nothing)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(routes), base_url="http://here") as client:
            return [each.status_code for each in await asyncio.gather(*(client.post(PATH, json=_parsed(written())) for _ in range(6)))]  # fmt: skip

    assert sorted(asyncio.run(all_at_once())) == [200] * 5 + [201]
    assert stored(app)["version"].to_list() == [1]
