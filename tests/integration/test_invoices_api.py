"""Invoices over HTTP and on the command line, over a real PostgreSQL: answers, refusals, tenants, and the audit's sums."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from invoicing.periods import store as periods
from meterline.access import RULES, Keys, guarded, path_of
from meterline.audit import _BOOK_CHECKS
from meterline.invoice_commands import STATES
from meterline.invoices_api import PATH, TYPES, invoice_routes
from meterline.keys import make_key
from meterline.known_keys import KnownKeys
from meterline.operations import outputs_of
from meterline.output import Failure, Table, Text
from schemas.api_key import ApiKey, NewKey
from schemas.invoice import State
from stores.postgres import engine_for
from tests.simulation.issued import LATER, issued, stored

KEYS = {
    name: make_key(NewKey(tenant=tenant, scopes=scopes), LATER)
    for name, tenant, scopes in (
        ("acme", "acme", ("admin", "query")), ("other", "other", ("admin", "query")), ("reader", "acme", ("query",)),
    )
}  # fmt: skip
CREDIT = "/api/v1/billing/customers/c0/credit"
PAID = {"payment": "pay_1", "amount_minor": 12_000, "currency": "EUR", "paid_on": "2026-02-05", "payout": "po_1"}
FAILED = {"payment": "pay_0", "amount_minor": 9, "currency": "EUR", "failed_on": "2026-02-05", "decline_code": "x"}
REFUND = {"refund": "re_1", "amount_minor": 1_000, "currency": "EUR", "paid_on": "2026-02-05"}
BODIES: dict[str, dict[str, Any]] = {
    "finalize": {}, "payments": PAID, "payment_failures": FAILED, "apply_credit": {}, "void": {"reason": "wrong"},
    "uncollectible": {"reason": "insolvent"},
}  # fmt: skip


def look_up(ids: Sequence[str]) -> dict[str, ApiKey]:
    return {key.id: key for _, key in KEYS.values() if key.id in ids}


@dataclass
class Client:
    """Speaks with the application."""

    database: sa.Engine

    def ask(self, method: str, path: str, who: str = "acme", **options: Any) -> httpx.Response:
        """The answer to a request with somebody's key."""

        async def answered() -> httpx.Response:
            routes = invoice_routes(self.database, now=lambda: LATER)
            application = guarded(routes, Keys(KnownKeys(look_up)), lifespan=lambda _: nullcontext())  # type: ignore[arg-type]
            headers = {"Authorization": f"Bearer {KEYS[who][0]}", **options.pop("headers", {})}
            transport = httpx.ASGITransport(application)
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(answered())

    def act(self, key: str, name: str, who: str = "acme", headers: dict[str, str] | None = None) -> httpx.Response:
        """The answer to a trigger."""
        body = BODIES[name]
        return self.ask("POST", f"{PATH}/{key}/{name}", who, json=body, headers=headers or {})


@pytest.fixture
def client(database: sa.Engine) -> Client:
    """A client of the routes."""
    return Client(database)


@pytest.fixture
def _sums(database: sa.Engine) -> Iterator[None]:
    yield
    assert faults(database) == {}


def faults(database: sa.Engine) -> dict[str, int]:
    """What the audit finds in the books."""
    with database.connect() as connection:
        found = {name: connection.execute(sa.text(sql)).scalar_one() for name, sql in _BOOK_CHECKS.items()}
    return {name: count for name, count in found.items() if count}


@pytest.mark.usefixtures("_sums")
def test_an_invoice_is_finalised_paid_and_read(client: Client) -> None:
    """Its version is its ETag; the answer has what settled it and who changed it."""
    [key] = stored(client.database, [10_000], tenant="acme")
    draft = client.ask("GET", f"{PATH}/{key}")
    assert (draft.headers["etag"], draft.json()["state"], draft.json()["number"]) == ('"1"', "draft", None)
    final = client.act(key, "finalize", headers={"If-Match": '"1"'})
    assert (final.status_code, final.headers["etag"], final.json()["due_minor"]) == (200, '"2"', 12_000)
    stale = client.act(key, "payments", headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.headers["etag"]) == (412, '"2"')
    paid = client.act("INV-000001", "payments", headers={"If-Match": '"2"'})
    assert paid.status_code == 201, paid.text
    shown = client.ask("GET", f"{PATH}/INV-000001").json()
    assert shown == paid.json()
    assert [(each["kind"], each["amount_minor"], each["reference"]) for each in shown["applications"]] == [
        ("payment", 12_000, "pay_1")
    ]
    by = f"key {KEYS['acme'][1].id}"
    assert [(each["from_state"], each["to_state"], each["changed_by"]) for each in shown["changes"]] == [
        ("draft", "open", by), ("open", "paid", by),
    ]  # fmt: skip
    assert [line["net_minor"] for line in shown["lines"]] == [10_000]
    again = client.act(key, "payments")
    assert (again.status_code, again.json()["version"]) == (200, 3)
    refused = client.act(key, "void")
    assert (refused.status_code, refused.json()["extensions"]["allowed"]) == (409, ["pay"])


@pytest.mark.usefixtures("_sums")
def test_a_call_that_is_made_again_moves_money_once(client: Client) -> None:
    """The same answer under the same key, which is kept for ever; with another body it is refused."""
    [key] = issued(client.database, [10_000], tenant="acme")
    once = {"Idempotency-Key": "k"}
    first = client.act(key, "payments", headers={**once, "If-Match": '"1"'})
    second = client.act(key, "payments", headers={**once, "If-Match": '"1"'})
    assert (first.status_code, second.status_code, second.json()) == (201, 201, first.json())
    assert second.headers["idempotent-replayed"] == "true"
    other = client.ask("POST", f"{PATH}/{key}/payments", json={**PAID, "amount_minor": 1}, headers=once)
    assert other.status_code == 422
    with client.database.connect() as connection:
        assert connection.exec_driver_sql("SELECT moves_money FROM idempotency_keys").scalars().all() == [True]
    refused = client.ask("POST", f"{PATH}/{key}/payments", json={**PAID, "amount_minor": 1})
    assert (refused.status_code, "told before with another amount_minor" in refused.json()["detail"]) == (409, True)


@pytest.mark.usefixtures("_sums")
def test_credit_is_shown_applied_and_refunded(client: Client) -> None:
    """What was paid too much; a refund of more than there is is refused."""
    first, second = issued(client.database, [5_000], [2_500], tenant="acme", customer="c0", kind="manual")
    assert client.act(first, "payments").json()["state"] == "paid"  # 60.00 too much
    assert client.ask("GET", CREDIT).json() == {
        "customer": "c0", "credit": [{"currency": "EUR", "minor_units": 2, "credit_minor": 6_000}],
    }  # fmt: skip
    applied = client.ask("POST", f"{PATH}/{second}/apply_credit", json={"amount_minor": 500})
    assert (applied.json()["due_minor"], applied.json()["state"]) == (2_500, "open")
    assert client.act(second, "apply_credit").json()["state"] == "paid"
    done = client.ask("POST", f"{CREDIT}/refunds", json=REFUND)
    assert (done.status_code, done.json()["credit"][0]["credit_minor"]) == (201, 2_000)
    assert client.ask("POST", f"{CREDIT}/refunds", json=REFUND).status_code == 200
    more = client.ask("POST", f"{CREDIT}/refunds", json={**REFUND, "refund": "re_2", "amount_minor": 2_001})
    assert (more.status_code, "c0 has 2000 minor units of EUR" in more.json()["detail"]) == (409, True)
    assert client.ask("GET", CREDIT, "other").json() == {"customer": "c0", "credit": []}


@pytest.mark.usefixtures("_sums")
def test_an_invoice_is_given_up_recovered_and_another_voided(client: Client) -> None:
    """Each trigger over HTTP; failed payments are told once."""
    first, second = issued(client.database, [10_000], [10_000], tenant="acme")
    assert [client.act(first, "payment_failures").status_code for _ in range(2)] == [201, 200]
    assert client.act(first, "uncollectible").json()["state"] == "uncollectible"
    assert client.act(first, "payments").json()["state"] == "paid"
    void = client.act(second, "void").json()
    assert (void["state"], void["due_minor"], void["changes"][-1]["reason"]) == ("void", 0, "void: wrong")
    with client.database.connect() as connection:
        query = "SELECT type, data ->> 'reason' FROM outbox WHERE tenant = 'acme' ORDER BY sequence"
        told = [tuple(row) for row in connection.exec_driver_sql(query)]
    assert told[2:] == [
        ("invoice.payment_failed", None), ("invoice.uncollectible", None), ("invoice.paid", None),
        ("invoice.voided", "wrong"),
    ]  # fmt: skip


def test_no_tenant_reaches_an_invoice_of_another(client: Client) -> None:
    """Whatever is asked of it is 404, and leaves it as it was; keys that only read change nothing."""
    [mine] = issued(client.database, [10_000], tenant="acme")
    [draft] = stored(client.database, [10_000], tenant="acme", first=5)
    [theirs] = issued(client.database, [10_000], tenant="other")
    before = [client.ask("GET", f"{PATH}/{key}").json() for key in (mine, draft)]
    for key in (mine, draft):
        assert client.ask("GET", f"{PATH}/{key}", "other").status_code == 404
        for name in BODIES:
            assert client.act(key, name, "other").status_code == 404
            assert client.act(key, name, "reader").status_code == 403
    assert [client.ask("GET", f"{PATH}/{key}").json() for key in (mine, draft)] == before
    assert client.ask("GET", f"{PATH}/INV-000001", "other").json()["id"] == theirs
    assert [each["id"] for each in client.ask("GET", PATH, "other").json()["items"]] == [theirs]
    assert client.ask("GET", PATH, "other", params={"after": mine}).json() == {"items": []}
    assert client.ask("POST", f"{CREDIT}/refunds", "reader", json=REFUND).status_code == 403
    for route in invoice_routes(client.database):
        for method in (route.methods or set()) - {"HEAD"}:
            rule = RULES[f"{method} {path_of(route)}"]
            assert (rule.scope, rule.every_tenant) == ("query" if method == "GET" else "admin", True)


def test_invoices_are_listed_by_page(client: Client) -> None:
    """Of a customer, a period or a state; each page begins behind the last of the one before."""
    keys = issued(client.database, *[[100]] * 5, tenant="acme")
    client.act(keys[2], "void")
    listed, after = [], None
    while True:
        page = client.ask("GET", PATH, params={"limit": 2, **({"after": after} if after else {})}).json()
        listed += [each["id"] for each in page["items"]]
        if (after := page.get("next_after")) is None:
            break
    assert listed == keys
    for asked, expected in (
        ({"state": "void"}, [keys[2]]), ({"customer": "c1"}, [keys[1]]), ({"period": "2026-02"}, []),
        ({"period": "2026-01", "customer": "c0", "state": "open"}, [keys[0]]),
    ):  # fmt: skip
        assert [each["id"] for each in client.ask("GET", PATH, params=asked).json()["items"]] == expected
    assert "lines" not in client.ask("GET", PATH).json()["items"][0]
    for asked, allowed in (
        ({"state": "lost"}, "allowed: draft, open"),
        ({"x": "1"}, "allowed: customer, period"),
        ({"limit": "-1"}, "0 to 1000"),
    ):
        refused = client.ask("GET", PATH, params=asked)
        assert (refused.status_code, allowed in refused.json()["detail"]) == (400, True)


def test_an_invoice_is_rendered_as_it_is_asked_for(client: Client) -> None:
    """By format or by Accept; each with its type and ETag, and without a script's leave."""
    [key] = issued(client.database, [10_000], tenant="acme")
    begins = {"text": b"Invoice", "json": b"{", "html": b"<!doctype html", "pdf": b"%PDF"}
    for form, start in begins.items():
        answer = client.ask("GET", f"{PATH}/{key}", params={"format": form})
        assert answer.status_code == 200, answer.text
        assert answer.content.lower().startswith(start.lower()), answer.content[:60]
        assert (answer.headers["content-type"], answer.headers["etag"]) == (TYPES[form], '"1"')
        assert "default-src 'none'" in answer.headers["content-security-policy"]
    for form in ("ubl", "facturx"):  # which need a seller
        answer = client.ask("GET", f"{PATH}/{key}", params={"format": form})
        assert (answer.status_code, "seller" in answer.json()["detail"]) == (422, True)
    for accept, expected in (("text/html,*/*;q=0.8", "text/html"), ("application/pdf", "application/pdf"),
                             ("*/*", "application/json"), ("image/png", "application/json")):  # fmt: skip
        answer = client.ask("GET", f"{PATH}/{key}", headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(expected)
    assert client.ask("GET", f"{PATH}/{key}", params={"format": "doc"}).status_code == 400
    assert client.ask("GET", f"{PATH}/{key}", params={"format": "pdf", "locale": "x"}).status_code == 422


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("payments", {**PAID, "payment": "4242 4242 4242 4242"}, "looks like a card number"),
        ("payments", {**PAID, "payout": "5555-5555-5555-4444"}, "looks like a card number"),
        ("void", {"reason": "card 378282246310005 was stolen"}, "looks like a card number"),
        ("payments", {**PAID, "amount_minor": 0}, "greater than 0"),
        ("payments", {**PAID, "amount_minor": 1.5}, "valid integer"),
        ("payments", {**PAID, "amount_minor": 2**60}, "less than or equal"),
        ("payments", {**PAID, "currency": "USD"}, "allowed: that of invoice INV-000001, EUR"),
        ("payments", {**PAID, "paid_on": "2026-02-30"}, "day is out of range"),
        ("payments", {**PAID, "paid_on": "2026-12-31"}, "in the future"),
        ("payments", {**PAID, "payment": "a\x00b"}, "match pattern"),
        ("payments", {**PAID, "card": "x"}, "not permitted"),
        ("void", {"reason": ""}, "at least 1 character"),
        ("uncollectible", {"reason": "x", "tax_relief": "yes"}, "valid boolean"),
        ("apply_credit", {"amount_minor": -1}, "greater than 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told(client: Client, name: str, body: dict[str, Any], message: str) -> None:
    """400, and nothing is changed."""
    [key] = issued(client.database, [10_000], tenant="acme")
    answer = client.ask("POST", f"{PATH}/{key}/{name}", json=body)
    assert (answer.status_code, message in answer.json()["detail"]) == (400, True), answer.text
    assert client.ask("GET", f"{PATH}/{key}").json()["version"] == 1


def test_a_closed_period_says_to_make_a_credit_note(client: Client) -> None:
    """409, with the way out."""
    [key] = issued(client.database, [10_000], tenant="acme")
    with client.database.begin() as connection:
        periods.close_period(connection, "acme", date(2026, 1, 31))
    answer = client.act(key, "void")
    assert (answer.status_code, "make a credit note" in answer.json()["detail"]) == (409, True)


def test_without_postgresql_it_is_away(database: sa.Engine) -> None:
    """503 of every route, as elsewhere."""
    nowhere = Client(engine_for("postgresql://x@127.0.0.1:9/x"))
    for method, path in (("GET", PATH), ("GET", f"{PATH}/x"), ("GET", CREDIT)):
        assert nowhere.ask(method, path).status_code == 503
    for name in BODIES:
        assert nowhere.act("x", name).status_code == 503
    nowhere.database.dispose()
    del database


def said(database: sa.Engine, operation: str, **parameters: Any) -> list[str]:
    system: Any = SimpleNamespace(database=database)
    found = []
    for output in outputs_of(system, operation, parameters):
        if isinstance(output, Failure):
            found.append(f"failed: {output.message}")
        elif isinstance(output, Text):
            found.append(output.text)
        elif isinstance(output, Table):
            found += [" ".join(row) for row in output.rows]
    return found


@pytest.mark.usefixtures("_sums")
def test_the_commands_take_an_invoice_along(database: sa.Engine) -> None:
    """Each says the invoice's state and what is due; amounts are in units of its currency."""
    [key] = stored(database, [10_000])
    given_up, void = issued(database, [10_000], [10_000], first=5, at=datetime(2026, 2, 1, tzinfo=UTC))
    assert tuple(State) == STATES
    assert said(database, "finalize_invoice", invoice=key) == ["INV-000003: open, payment pending, 120.00 EUR due"]
    pay = {"invoice": "INV-000003", "payment": "p", "amount": "20", "on": "2026-02-05"}
    assert said(database, "fail_invoice_payment", **pay) == ["INV-000003: open, payment failed, 120.00 EUR due"]
    assert said(database, "pay_invoice", **pay) == ["INV-000003: open, payment partial, 100.00 EUR due"]
    assert said(database, "pay_invoice", **pay) == [
        "INV-000003: open, payment partial, 100.00 EUR due; it was told before"
    ]
    more = {**pay, "payment": "q", "amount": "130.50"}
    assert said(database, "pay_invoice", **more) == ["INV-000003: paid, payment succeeded, 0.00 EUR due"]
    assert said(database, "show_credit") == ["c0 EUR 30.50"]
    refund = {"customer": "c0", "refund": "r", "amount": "0.50", "currency": "EUR"}
    assert said(database, "refund_credit", **refund) == ["refund r: posted"]
    assert said(database, "refund_credit", **refund, payout="other")[0].startswith("failed: refund r was told before")
    assert said(database, "apply_credit", invoice=given_up) == ["INV-000001: open, payment pending, 120.00 EUR due"]
    assert said(database, "write_off_invoice", invoice=given_up, why="x") == [
        "INV-000001: uncollectible, payment pending, 0.00 EUR due"
    ]
    assert said(database, "void_invoice", invoice=void, why="4242424242424242")[0].count("looks like a card number")
    assert said(database, "void_invoice", invoice=void, why="x")[0].startswith("INV-000002: void")
    assert said(database, "void_invoice", invoice=void, why="x")[0].endswith("allowed: nothing")
    assert said(database, "list_invoices", state="void") == [
        "INV-000002 2026-01 c6 Somebody void pending  EUR 120.00 0.00"
    ]
    assert len(said(database, "list_invoices", period="2026-01")) == 4
    assert said(database, "list_invoices", customer="c0")[0].startswith("INV-000003 2026-01 c0 Somebody paid")
    assert said(database, "list_invoices") == ["failed: allowed: at least one of period, customer and state"]


def test_the_audit_finds_what_was_tampered_with(database: sa.Engine) -> None:
    """An application without its posting, a state without its entry, and credit that was spent twice."""
    first, _ = issued(database, [10_000], [10_000])
    with database.begin() as connection:
        connection.exec_driver_sql("SET session_replication_role = replica")
        connection.exec_driver_sql(
            "INSERT INTO applications VALUES ('a', 'default', %s, 'customer_credit', 500, 'c0', gen_random_uuid(), now())",
            (first,),
        )
        connection.exec_driver_sql("UPDATE invoices SET settled_minor = 500 WHERE id = %s", (first,))
        connection.exec_driver_sql(
            "INSERT INTO postings VALUES ('default', 1, 9, 2100, 'c9', 'EUR', '', 7), ('default', 1, 8, 4010, 'c9', 'EUR', '', -7)"
        )
        connection.exec_driver_sql(
            """INSERT INTO postings VALUES ('default', 1, 7, 2000, '', 'EUR', 'VAT 3%%', 1),
               ('default', 1, 6, 4010, '', 'EUR', '', -1)"""
        )
    assert faults(database) == {
        "what settles an invoice is posted to its customer's receivable": 1,
        "a customer's receivable is what is due of its invoices": 1,
        "what is applied of customers' credit is what is posted of it, and none has less than nothing": 2,
        "tax payable is the tax of invoices less that of credit notes, by tax and rate": 1,
        "what invoices post to a customer's receivable and credit are their totals": 1,
    }
