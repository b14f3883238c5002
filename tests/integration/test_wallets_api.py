"""Wallets, schedules and settlements over HTTP, over a real PostgreSQL: answers, refusals, and whose they are."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.routing import Route

from meterline.access import RULES, Keys, guarded, path_of
from meterline.invoices_api import invoice_routes
from meterline.keys import make_key
from meterline.known_keys import KnownKeys
from meterline.ledger_api import ledger_routes
from meterline.settlements_api import settlement_routes
from meterline.wallets_api import wallet_routes
from schemas.api_key import ApiKey, NewKey
from schemas.invoice import Revenue
from stores.postgres import engine_for
from tests.integration.invoice_stage import issued
from tests.integration.test_invoices_api import faults
from tests.integration.test_reconciliation import ROWS, report
from tests.simulation.documents import document

NOW = datetime(2026, 2, 10, 9, tzinfo=UTC)
BILLING = "/api/v1/billing"
KEYS = {
    name: make_key(NewKey(tenant=tenant, scopes=scopes), NOW)
    for name, tenant, scopes in (
        ("default", "default", ("admin", "query")), ("other", "other", ("admin", "query")),
        ("reader", "default", ("query",)),
    )
}  # fmt: skip
PAID = {"reference": "pay-17", "amount_minor": 50_000, "currency": "USD"}
GIFT = {"reference": "gift-3", "amount_minor": 500, "currency": "USD", "promotional": True, "priority": 10}
SLASHED = "acme/eu west"
WALLET = f"{BILLING}/customers/acme%2Feu%20west/wallet"


def routes(database: sa.Engine) -> list[Route]:
    return [
        *wallet_routes(database, now=lambda: NOW), *settlement_routes(database, now=lambda: NOW),
        *invoice_routes(database, now=lambda: NOW), *ledger_routes(database, now=lambda: NOW),
    ]  # fmt: skip


def ask(database: sa.Engine, method: str, path: str, who: str = "default", **options: Any) -> httpx.Response:
    """The answer to a request with somebody's key."""

    def look_up(ids: Sequence[str]) -> dict[str, ApiKey]:
        return {key.id: key for _, key in KEYS.values() if key.id in ids}

    async def answered() -> httpx.Response:
        application = guarded(routes(database), Keys(KnownKeys(look_up)), lifespan=lambda _: nullcontext())  # type: ignore[arg-type]
        headers = {"Authorization": f"Bearer {KEYS[who][0]}", **options.pop("headers", {})}
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, headers=headers, **options)

    return asyncio.run(answered())


def test_credits_are_put_in_once_and_shown(database: sa.Engine) -> None:
    """Of a customer with a slash in its name: 201, the same answer under a key, 200 for the same reference, 409 else."""
    once = {"Idempotency-Key": "k"}
    made = ask(database, "POST", f"{WALLET}/top_ups", json=PAID, headers=once)
    assert made.status_code == 201, made.text
    again = ask(database, "POST", f"{WALLET}/top_ups", json=PAID, headers=once)
    assert (again.content, again.headers["idempotent-replayed"]) == (made.content, "true")
    assert ask(database, "POST", f"{WALLET}/top_ups", json=PAID).status_code == 200
    assert ask(database, "POST", f"{WALLET}/top_ups", json={**PAID, "amount_minor": 1}).status_code == 409
    gift = ask(database, "POST", f"{WALLET}/top_ups", json={**GIFT, "expires_at": "2027-01-01T00:00:00+01:00"}).json()
    shown = ask(database, "GET", WALLET, "reader").json()
    assert shown == {name: value for name, value in gift.items() if name != "lot"}
    [wallet] = shown["wallets"]
    sums = ("balance_minor", "burnable_minor", "paid_minor", "promotional_minor", "minor_units", "version")
    assert [wallet[name] for name in sums] == [50_500, 50_500, 50_000, 500, 2, 2]
    assert [(each["id"], each["kind"], each["expires_at"]) for each in shown["lots"]] == [
        (gift["lot"], "promotional", "2026-12-31T23:00:00Z"), (made.json()["lot"], "paid", None),
    ]  # fmt: skip
    page = ask(database, "GET", WALLET, params={"limit": 1}).json()
    rest = ask(database, "GET", WALLET, params={"limit": 1, "before": page["next_before"]}).json()
    assert [*page["moves"], *rest["moves"]] == shown["moves"]
    assert {each["document_id"] for each in shown["moves"]} == {"pay-17", "gift-3"}
    assert (
        ask(database, "POST", f"{BILLING}/customers/b/wallet/top_ups", json={**PAID, "reference": "p"}).status_code
        == 201
    )
    listed = ask(database, "GET", f"{BILLING}/wallets", params={"limit": 1}).json()
    assert listed == {"items": [wallet], "next_after": wallet["id"]}
    after = ask(database, "GET", f"{BILLING}/wallets", params={"after": wallet["id"]}).json()
    assert [(each["customer"], each["paid_minor"]) for each in after["items"]] == [("b", 50_000)]
    assert ask(database, "GET", f"{BILLING}/wallets", params={"customer": "b"}).json() == after
    assert ask(database, "GET", f"{BILLING}/wallets", "other").json() == {"items": []}
    assert ask(database, "GET", f"{BILLING}/wallets", "other", params={"after": wallet["id"]}).json() == {"items": []}
    assert ask(database, "GET", WALLET, "other").json()["lots"] == []
    assert ask(database, "GET", f"{BILLING}/customers/acme%2Feu%20west/credit").json()["customer"] == SLASHED
    assert faults(database) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount_minor": 0}, "amount_minor"), ({"amount_minor": 1.5}, "amount_minor"), ({"currency": "XXX"}, "currency"),
        ({"priority": 101}, "priority"), ({"expires_at": "2020-01-01"}, "an instant to come"), ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": "0001-01-01T00:00:00+23:59"}, "out of range"),
        ({"promotional": True, "invoiced": True}, "one of promotional and invoiced"), ({"reference": ""}, "reference"),
        ({"reference": "4111 1111 1111 1111"}, "card"), ({"surprise": 1}, "surprise"),
    ],
)  # fmt: skip
def test_credits_that_cannot_be_are_refused(shared_database: sa.Engine, change: dict[str, Any], message: str) -> None:
    """400 that says what is allowed."""
    answer = ask(shared_database, "POST", f"{BILLING}/customers/x/wallet/top_ups", json={**PAID, **change})
    assert (answer.status_code, message in answer.text) == (400, True), answer.text


def test_only_what_is_there_is_found(shared_database: sa.Engine) -> None:
    """Parameters, customers and flags that are none; a key that only reads puts nothing in."""
    for path in (
        f"{WALLET}?before=x",
        f"{WALLET}?moon=1",
        f"{BILLING}/wallets?limit=-1",
        f"{BILLING}/settlements/flags?x=1",
    ):
        assert ask(shared_database, "GET", path).status_code == 400
    assert ask(shared_database, "POST", f"{BILLING}/customers/%00/wallet/top_ups", json=PAID).status_code == 400
    assert ask(shared_database, "POST", f"{BILLING}/customers//wallet/top_ups", json=PAID).status_code == 400
    assert ask(shared_database, "POST", f"{WALLET}/top_ups", "reader", json=PAID).status_code == 403
    assert ask(shared_database, "GET", f"{BILLING}/invoices/none/schedule").status_code == 404
    flag = f"{BILLING}/settlements/flags/none/resolve"
    assert ask(shared_database, "POST", flag, json={"note": "seen"}).status_code == 404
    assert ask(shared_database, "POST", flag, json={"note": ""}).status_code == 400
    for body in ({"payout": "p", "text": "a,b\n1,2\n"}, {"payout": "p", "text": "a", "mapping": "{"}, {"payout": "p"}):
        assert ask(shared_database, "POST", f"{BILLING}/settlements", json=body).status_code == 400, body
    for route in routes(shared_database):
        for method in (route.methods or set()) - {"HEAD"}:
            assert RULES[f"{method} {path_of(route)}"].every_tenant


def test_the_schedule_of_an_invoice_is_shown(database: sa.Engine) -> None:
    """By month and line, with what is not earned yet; an invoice without one has none."""
    key = issued(database, [(12_000, None, Revenue.ADVANCE)], tenant="default", service_end=date(2026, 3, 1))
    shown = ask(database, "GET", f"{BILLING}/invoices/{key}/schedule", "reader").json()
    assert sum(each["amount_minor"] for each in shown["items"]) == shown["unearned_minor"] == 12_000
    assert [each["month"] for each in shown["items"]] == ["2026-01", "2026-02"]
    assert shown["items"][0].keys() == {"line_id", "month", "amount_minor", "recognised"}
    assert ask(database, "GET", f"{BILLING}/invoices/{key}/schedule", "other").status_code == 404


def test_a_settlement_file_is_matched_and_flags_are_resolved(database: sa.Engine) -> None:
    """The same file again posts nothing more; a flag that is resolved is not listed any more, and names who did it."""
    for posted in (1, 0):
        body = {"payout": "po_1", "text": report(ROWS)}
        answer = ask(database, "POST", f"{BILLING}/settlements", json=body)
        assert (answer.status_code, answer.json()["posted"]) == (200, posted), answer.text
    outcomes = {(each["outcome"], each["currency"], each["count"]) for each in answer.json()["outcomes"]}
    assert ("unmatched_in_file", "USD", 6) in outcomes
    flags = ask(database, "GET", f"{BILLING}/settlements/flags", params={"payout": "po_1"}).json()["items"]
    resolve = f"{BILLING}/settlements/flags/{flags[0]['id']}/resolve"
    assert ask(database, "GET", f"{BILLING}/settlements/flags", "other").json() == {"items": []}
    assert ask(database, "POST", resolve, "other", json={"note": "seen"}).status_code == 404
    once = {"Idempotency-Key": "seen"}
    done = ask(database, "POST", resolve, json={"note": "seen"}, headers=once)
    assert (done.status_code, done.json()["resolved_by"]) == (200, f"key {KEYS['default'][1].id}")
    assert ask(database, "POST", resolve, json={"note": "seen"}, headers=once).content == done.content
    assert ask(database, "POST", resolve, json={"note": "seen"}).status_code == 404
    left = ask(database, "GET", f"{BILLING}/settlements/flags").json()["items"]
    assert [each["id"] for each in left] == [each["id"] for each in flags[1:]]


def test_documents_are_posted_once_under_a_key(database: sa.Engine) -> None:
    """The same answer again, marked; another request under the key is refused, and what the commit refuses leaves none."""
    url, once = f"{BILLING}/ledger/entries", {"Idempotency-Key": "k"}
    bad = {"documents": [document("P09", "bad", relates_to="0" * 32)]}
    assert ask(database, "POST", url, json=bad, headers=once).status_code == 422
    first = ask(database, "POST", url, json={"documents": [document("P09")]}, headers=once)
    again = ask(database, "POST", url, json={"documents": [document("P09")]}, headers=once)
    assert (first.status_code, again.status_code, again.headers["idempotent-replayed"]) == (201, 201, "true")
    assert again.content == first.content
    assert ask(database, "POST", url, json={"documents": [document("P29")]}, headers=once).status_code == 422
    assert len(ask(database, "GET", url).json()["entries"]) == 1
    with database.connect() as connection:
        kept = connection.exec_driver_sql("SELECT moves_money FROM idempotency_keys").scalars().all()
    assert kept == [True]


def test_without_postgresql_all_of_it_is_away() -> None:
    """503 of every route of billing here, those of the ledger too."""
    nowhere = engine_for("postgresql://x@127.0.0.1:9/x")
    for route in routes(nowhere):
        path = route.path.replace("{customer:path}", "x").replace("{id}", "0" * 32)
        for method in (route.methods or set()) - {"HEAD"}:
            answer = ask(
                nowhere, method, path, json={"documents": [document("P09")], **PAID} if method == "POST" else None
            )
            assert answer.status_code == 503 or (method == "POST" and answer.status_code == 400), (method, path)
    body = {"documents": [document("P09")]}
    for headers in ({}, {"Idempotency-Key": "k"}):
        assert ask(nowhere, "POST", f"{BILLING}/ledger/entries", json=body, headers=headers).status_code == 503
        assert ask(nowhere, "POST", f"{WALLET}/top_ups", json=PAID, headers=headers).status_code == 503
    nowhere.dispose()
