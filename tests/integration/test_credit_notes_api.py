"""Credit notes over HTTP and as commands, on a real database: each answer, whose it is, and that a dry run leaves nothing."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any, cast

import httpx
import orjson
import sqlalchemy as sa

from invoicing.rendering.store import apply_seller
from meterline.access import Keys, guarded
from meterline.credit_notes_api import credit_note_routes
from meterline.keys import make_key
from meterline.known_keys import KnownKeys
from meterline.operations import outputs_of
from meterline.output import Failure, Table, Text
from meterline.system import System
from schemas.api_key import ApiKey, NewKey
from schemas.invoice import Revenue
from schemas.party import parse_seller
from tests.integration.invoice_stage import VAT, issued

NOW = datetime(2026, 2, 10, 9, tzinfo=UTC)
NOTES = "/api/v1/billing/credit_notes"
KEYS = {
    tenant: make_key(NewKey(tenant=tenant, scopes=("admin",)), NOW) for tenant in ("acme", "other", "default")
} | {"query": make_key(NewKey(tenant="acme", scopes=("query",)), NOW)}  # fmt: skip
COUNTS = ("credit_notes", "credit_note_lines", "applications", "journal_entries", "outbox", "invoice_changes")


def look_up(ids: Sequence[str]) -> dict[str, ApiKey]:
    return {key.id: key for _, key in KEYS.values() if key.id in ids}


def ask(database: sa.Engine, method: str, path: str = "", who: str = "acme", **options: Any) -> httpx.Response:
    """The answer to a request with somebody's key."""

    async def answered() -> httpx.Response:
        routes = credit_note_routes(database, now=lambda: NOW)
        application = guarded(routes, Keys(KnownKeys(look_up)), lifespan=lambda _: nullcontext())  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {KEYS[who][0]}", **options.pop("headers", {})}
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, NOTES + path, headers=headers, **options)

    return asyncio.run(answered())


def stored(database: sa.Engine) -> list[int]:
    """How many rows there are of what a note writes, and the last number of its series."""
    with database.connect() as connection:
        counts = [connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() for table in COUNTS]
        numbers = "SELECT coalesce(max(last), 0) FROM number_series WHERE series = 'CN'"
        return [*counts, connection.exec_driver_sql(numbers).scalar_one()]


def test_a_note_is_tried_written_once_and_shown(database: sa.Engine) -> None:
    """A dry run says what the real one does and leaves nothing; the same key again gives the same note."""
    one = issued(database, [(10000, VAT, Revenue.USAGE), (5000, None, Revenue.FEES)])
    before = stored(database)
    body = {"invoice": "INV-000001", "reason": "goodwill", "comment": "sorry", "gross_minor": 1700}
    tried = ask(database, "POST", "?dry_run=true", json=body)
    assert tried.status_code == 200, tried.text
    assert stored(database) == before
    headers = {"Idempotency-Key": "k", "If-Match": '"1"'}
    made = ask(database, "POST", json=body, headers=headers)
    assert (made.status_code, made.headers["ETag"]) == (201, '"2"'), made.text
    note = made.json()
    assert tried.json() == note | {"id": None, "number": None, "issued_at": None}
    assert (note["subtotal_minor"], note["tax_minor"], note["total_minor"], note["credited_minor"]) == (
        1500,
        200,
        1700,
        0,
    )
    assert note["invoice"] == {"number": "INV-000001", "state": "open", "due_minor": 15300, "version": 2}
    again = ask(database, "POST", json=body, headers=headers)
    assert (again.content, again.headers["Idempotent-Replayed"]) == (made.content, "true")
    assert ask(database, "POST", json=body | {"gross_minor": 1}, headers=headers).status_code == 422
    assert ask(database, "POST", json=body, headers={"If-Match": '"1"'}).status_code == 412
    assert ask(database, "GET", made.headers["Location"].removeprefix(NOTES)).json() == note
    assert ask(database, "GET", "/CN-000001").json() == note
    whole = ask(database, "POST", json={"invoice": one, "reason": "duplicate"}).json()
    assert (whole["total_minor"], whole["invoice"]["state"]) == (15300, "paid")
    listed = ask(database, "GET", "?limit=1").json()
    assert ([each["number"] for each in listed["items"]], listed["next_after"]) == (["CN-000001"], "CN-000001")
    listed = ask(database, "GET", f"?after=CN-000001&invoice={one}&customer=UA").json()
    assert [each["number"] for each in listed["items"]] == ["CN-000002"]


def test_what_is_refused_says_what_is_allowed(database: sa.Engine) -> None:
    """Faults of the body, more than is left, another tenant's invoice or note, another scope; nothing is written."""
    issued(database, [(1000, VAT, Revenue.USAGE)])
    assert ask(database, "POST", json={"invoice": "INV-000001", "reason": "other", "net_minor": 10}).status_code == 201
    before = stored(database)
    fine: dict[str, Any] = {"invoice": "INV-000001", "reason": "other"}
    for change, status, said in (
        ({"reason": "x"}, 400, "'duplicate'"), ({"invoice": "INV-000002"}, 404, "INV-000002"), ({"x": 1}, 400, "x"),
        ({"net_minor": 0}, 400, "net_minor"), ({"net_minor": 1.5}, 400, "net_minor"), ({"net_minor": 991}, 422, "990"),
        ({"net_minor": 1, "gross_minor": 1}, 400, "one of lines"), ({"lines": []}, 400, "lines"),
        ({"lines": [{"position": 2}]}, 422, "allowed: 1 to 1"), ({"comment": "a\nb"}, 400, "printable"),
        ({"lines": [{"position": 1, "net_minor": -5}]}, 422, "what is left, 990"),
        ({"lines": [{"position": 1}, {"position": 1}]}, 400, "each position once"),
    ):  # fmt: skip
        answer = ask(database, "POST", json=fine | change)
        assert (answer.status_code, said in answer.json()["detail"]) == (status, True), answer.text
    assert ask(database, "POST", "?dry_run=x", json=fine).status_code == 400
    assert ask(database, "POST", who="query", json=fine).status_code == 403
    assert ask(database, "POST", who="other", json=fine).status_code == 404
    assert ask(database, "GET", "/CN-000001", "other").status_code == 404
    assert ask(database, "GET", who="other").json() == {"items": []}
    assert ask(database, "GET", "?limit=0").status_code == 400
    assert ask(database, "GET", "?tenant=acme").status_code == 400
    assert ask(database, "GET", "/CN-000001?format=docx").status_code == 400
    assert ask(database, "GET", "/CN-000001?format=html&locale=xx").status_code == 400
    assert stored(database) == before


SELLER = """
name: Tin Can Metering GmbH
country: DE
vat_id: DE123456789
"""


def test_a_note_comes_in_every_format_and_names_its_invoice(database: sa.Engine) -> None:
    """Text, JSON, HTML, PDF and UBL by HTTP; without the buyer's country an e-invoice is refused with the reason."""
    issued(database, [(10000, VAT, Revenue.USAGE), (-2000, VAT, Revenue.SLA)])
    with database.begin() as connection:
        apply_seller(connection, "acme", parse_seller(SELLER, "seller.yaml"), applied_at=NOW)
    body = {"invoice": "INV-000001", "reason": "billing_error", "comment": "Zählerfehler", "net_minor": 4000}
    assert ask(database, "POST", json=body).status_code == 201
    for form, kind, parts in (
        ("text", "text/plain; charset=utf-8", ["CREDIT NOTE CN-000001", "INV-000001", "50.00", "-10.00", "48.00", "Zählerfehler"]),
        ("html", "text/html; charset=utf-8", ["CN-000001", "INV-000001", "Zählerfehler"]),
    ):  # fmt: skip
        answer = ask(database, "GET", f"/CN-000001?format={form}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind)
        assert [part for part in parts if part not in answer.text] == []
    document = ask(database, "GET", "/CN-000001?format=json").json()
    assert (document["kind"], document["credits"]) == (
        "credit_note",
        [{"number": "INV-000001", "issued_on": "2026-02-03"}],
    )
    assert document["totals"]["gross"] == "48.00"
    assert ask(database, "GET", "/CN-000001?format=pdf&locale=de_DE").content.startswith(b"%PDF")
    refused = ask(database, "GET", "/CN-000001?format=ubl")
    assert (refused.status_code, "buyer has no country" in refused.json()["detail"]) == (422, True)


def test_the_commands_do_the_same(database: sa.Engine) -> None:
    """Amounts in units of the currency; a dry run leaves nothing; a failure says what is allowed."""
    issued(database, [(10000, VAT, Revenue.USAGE), (5000, None, Revenue.FEES)], tenant="default")
    app = System(database, *cast("Any", (None, None, None)))

    def run(operation: str, **parameters: Any) -> list[Any]:
        return list(outputs_of(app, operation, parameters))

    before = stored(database)
    asked = {"invoice": "INV-000001", "reason": "order_change", "lines": ["1=50.00", "2"]}
    table, text = run("create_credit_note", **asked, dry_run=True)
    assert isinstance(table, Table)
    assert table.rows == [["", "INV-000001", "UA", "order_change", "EUR", "100.00", "10.00", "110.00", "0.00"]]
    assert text == Text(text="invoice INV-000001 would be open; due: 60.00 EUR")
    assert stored(database) == before
    table, text = run("create_credit_note", **asked)
    assert table.rows[0][0] == "CN-000001"
    assert run("list_credit_notes", invoice="INV-000001")[0].rows == table.rows
    shown = run("show_credit_note", number="CN-000001")[0].text
    assert (
        orjson.loads(ask(database, "GET", "/CN-000001?format=json", "default").content)["totals"]["gross"] == "110.00"
    )
    assert "CREDIT NOTE CN-000001" in shown
    for wrong, said in (({"gross": "1.001"}, "2 decimals"), ({"lines": ["x"]}, "position"), ({"net": "60"}, "5000")):
        (failure,) = run("create_credit_note", invoice="INV-000001", reason="other", **wrong)
        assert isinstance(failure, Failure)
        assert said in failure.message
