"""The ledger over HTTP and on the command line, each over a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from starlette.applications import Starlette

from meterline.access import guarded
from meterline.closing import CLOSING_CHECKS
from meterline.ledger_api import ledger_routes
from meterline.operations import outputs_of
from meterline.output import Failure, Table, Text
from tests.simulation.documents import document

ENTRIES, BALANCES = "/api/v1/billing/ledger/entries", "/api/v1/billing/ledger/balances"


@asynccontextmanager
async def nothing(_: Starlette) -> AsyncIterator[None]:
    yield


def ask(database: sa.Engine, method: str, path: str, **request: Any) -> tuple[int, Any]:
    async def answer() -> httpx.Response:
        app = guarded(ledger_routes(database), None, lifespan=nothing)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.request(method, path, **request)

    answered = asyncio.run(answer())
    return answered.status_code, answered.json()


def said(database: sa.Engine, operation: str, **parameters: Any) -> Iterator[str]:
    system: Any = SimpleNamespace(database=database)
    for output in outputs_of(system, operation, parameters):
        if isinstance(output, Failure):
            yield f"failed: {output.message}"
        elif isinstance(output, Text):
            yield output.text
        elif isinstance(output, Table):
            yield from (" ".join(row) for row in output.rows)


def test_documents_are_posted_and_read_over_http(database: sa.Engine) -> None:
    """201 for what is new and 200 when all was there; entries by page, document and id; balances by customer."""
    both = {"documents": [document("P09"), document("P29")]}
    status, answer = ask(database, "POST", ENTRIES, json=both)
    assert (status, answer["posted"]) == (201, 2)
    assert ask(database, "POST", ENTRIES, json=both) == (200, {**answer, "posted": 0})
    status, listed = ask(database, "GET", ENTRIES, params={"after": 1, "limit": 5, "account": 4910})
    assert [entry["id"] for entry in listed["entries"]] == answer["entries"][1:]
    assert [line["amount"] for line in listed["entries"][0]["postings"]] == ["12.00", "-10.00", "-2.00"]
    status, one = ask(database, "GET", f"{ENTRIES}/{answer['entries'][0]}")
    assert (one["document_kind"], one["sequence"], one["effective_at"]) == ("payment", 1, "2026-01-31")
    status, found = ask(database, "GET", BALANCES, params={"as_of": "2026-01-31", "by": "customer,dimension"})
    assert [(each["account"], each["dimension"], each["balance"]) for each in found["balances"]] == [
        (1010, "po_1", "120.00"), (1100, "", "-108.00"), (2000, "", "-2.00"), (4910, "", "-10.00"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("documents", "status", "message"),
    [
        ([document("P22")], 400, "allowed: P05, P08"),
        ([document("P99")], 400, "allowed: P05"),
        ([document("P09", amounts={"payment": "1.001"})], 400, "at most 2 decimals of EUR"),
        ([document("P09", amounts={"payment": 1.5})], 201, ""),
        ([document("P09", amounts={"payment": "12,50"})], 400, "an amount of EUR such as 12.50"),
        ([document("P09", amounts={"payment": "1e99"})], 400, "at most"),
        ([document("P09", amounts={"payment": "0"})], 400, "not all of them zero"),
        ([document("P09", amounts={"paid": "1"})], 400, "allowed for P09: payment"),
        ([document("P09", amounts={"payment": "-1"})], 400, "payment is -100 minor units; allowed for P09: zero or more"),
        ([document("P09", currency="XXX")], 400, "a currency such as"),
        ([document("P09", effective_at="yesterday")], 400, "effective_at"),
        ([document("P09", customer="a\x00b")], 400, "customer"),
        ([document("P09", kind="reversal")], 400, "meterline ledger reverse"),
        ([document("P09", surprise=1)], 400, "surprise"),
        ([document("P10", amounts={"net": "1", "fee": "1", "gross": "3"})], 400, "P10 needs net + fee = gross"),
        ([document("P09", "another", relates_to="0" * 32)], 422, "which is no earlier entry"),
        ([document("P09"), document("P09", amounts={"payment": "1"})], 400, "each document once"),
        ([], 400, "1 to 10000 documents"),
    ],
)  # fmt: skip
def test_faulty_documents_are_refused_with_what_is_allowed(
    shared_database: sa.Engine, documents: list[Any], status: int, message: str
) -> None:
    """One fault keeps all documents of a request out, and the answer says what to write instead."""
    answered, body = ask(shared_database, "POST", ENTRIES, json={"documents": documents})
    assert (answered, message in str(body)) == (status, True), body


def test_requests_that_are_none_are_refused(shared_database: sa.Engine) -> None:
    """Unknown parameters, bodies and ids are told, never guessed at."""
    assert ask(shared_database, "GET", ENTRIES, params={"acount": 1})[0] == 400
    assert ask(shared_database, "GET", ENTRIES, params={"from": "soon"})[0] == 400
    assert ask(shared_database, "GET", BALANCES, params={"by": "moon"})[0] == 400
    assert ask(shared_database, "GET", f"{ENTRIES}/{'0' * 32}")[0] == 404
    assert ask(shared_database, "GET", f"{ENTRIES}/x")[0] == 404
    json_type = {"content-type": "application/json"}
    for body in (b"[]", b"{", b'{"documents": 1}', b'{"documents": [1]}'):
        assert ask(shared_database, "POST", ENTRIES, content=body, headers=json_type)[0] == 400


def test_the_books_are_kept_by_commands(database: sa.Engine) -> None:
    """Post, list, reverse, verify, close with a checklist, reopen, export: each says what it did."""
    text = "documents: [{template: P09, document: pay_1, customer: UA, currency: EUR, effective_at: 2026-01-31, amounts: {payment: 12.50}}]"
    assert [*said(database, "post_documents", text=text, file="x.yaml")] == ["1 entries posted"]
    assert [*said(database, "post_documents", text=text, file="x.yaml")] == ["0 entries posted; 1 were posted before"]
    assert [*said(database, "trial_balance")][:2] == ["1010 gateway clearing EUR 12.50 ", "1100 receivable EUR  12.50"]
    assert "by day" in next(said(database, "trial_balance", by="by day"))
    [line] = said(database, "list_entries", document="pay_1", as_json=True)
    entry = line.partition('"id":"')[2][:32]
    assert [*said(database, "close_books", through="2026-01-31", anyway=False)] == [
        "bill runs are posted done", "months are billed done", "no drafts are left done",
        "usage is stored up to every cut done", "accruals of billed months are taken back done",
        "revenue is recognised done", "payouts are settled in minor units, (no payout) 1250 EUR", "settlements are looked at done",
        "nothing is pending done", "the audit of the books is clean done", "the books are as posted done",
        "failed: not closed: payouts are settled. Settle them, or close --anyway",
    ]  # fmt: skip
    assert next(said(database, "reverse_entry", entry=entry, effective_at="2026-01-31", why="twice")).startswith(entry)
    CLOSING_CHECKS.append(("nothing else", lambda _app, tenant, through: f"{tenant} {through}" * (through.day == 30)))
    try:
        assert "nothing else default 2026-01-30" in [*said(database, "close_books", through="2026-01-30", anyway=False)]
        assert [*said(database, "close_books", through="2026-01-31", anyway=False)][
            -1
        ] == "the books are closed through 2026-01-31"
    finally:
        CLOSING_CHECKS.pop()
    late = text.replace("pay_1", "pay_2")
    assert "the books of default are closed through 2026-01-31" in next(
        said(database, "post_documents", text=late, file="x")
    )
    assert "failed: allowed: somebody's name" in next(
        said(database, "reopen_books", through="2026-01-31", by=" ", why="x")
    )
    assert "noted: Ada" in next(said(database, "reopen_books", through="2026-01-31", by="Ada", why="a late payment"))
    assert [*said(database, "post_documents", text=late, file="x.yaml")] == ["1 entries posted"]
    assert next(said(database, "verify_ledger")).startswith("default 3 as posted ")
    assert "pay_2" in next(said(database, "export_ledger", form="hledger"))
    with database.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica; UPDATE postings SET customer = 'AA'")
    assert [*said(database, "verify_ledger")][-1].startswith("failed: not what was posted: default: entry 1 ")
    assert date(2026, 1, 31).isoformat() in next(said(database, "export_ledger", form="beancount"))
