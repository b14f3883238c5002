"""Two tenants on one server, with the same subjects, sources and ids: neither sees a byte of the other's.

What is a tenant's own holds its mark, in every field that can hold one. Every route of the application is asked with
both keys; a route without a case here fails.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from meterline.access import OPEN, OPEN_ON_LOOPBACK, RULES, UNLISTED, path_of
from schemas.event import number_text
from tests.e2e.tenants import BATCH, Tenants, running_tenants
from tests.e2e.test_keys import GATEWAY, SERVER, is_problem

MARKS = {"default": "zq7mark", "acme": "yk9mark"}
VALUES = {"default": "717171.5", "acme": "939393.5"}
"""Of an event, so that a number is as unmistakable as a text."""
SHARED = 6
NOW = datetime.now(UTC).replace(microsecond=0)
RANGE = {"from": (NOW - timedelta(hours=2)).isoformat(), "to": (NOW + timedelta(hours=2)).isoformat()}
JSON = {"Content-Type": "application/json"}
LEDGER = "/api/v1/billing/ledger"
METER, EVENTS = "/api/v1/meters/{meter}", "/api/v1/events"
USAGE = "/api/v1/meters/bytes"
INVOICES = "/api/v1/billing/invoices"
WEBHOOKS, TOLD = "/api/v1/billing/webhooks", "/api/v1/billing/events"
CREDITS = "/api/v1/billing/credit_notes"
CUSTOMER = "/api/v1/billing/customers/{customer:path}"
CREDIT, WALLET = f"{CUSTOMER}/credit", f"{CUSTOMER}/wallet"
WALLETS, SETTLEMENTS = "/api/v1/billing/wallets", "/api/v1/billing/settlements"
MONEY = {"amount_minor": 1, "currency": "EUR", "paid_on": "2026-02-05"}
TOP_UP = {"amount_minor": 1, "currency": "EUR", "promotional": True}
TRIGGERS: dict[str, dict[str, Any]] = {
    "finalize": {}, "apply_credit": {}, "void": {"reason": "x"}, "uncollectible": {"reason": "x"},
    "payments": {"payment": "p", **MONEY},
    "payment_failures": {"payment": "p", "amount_minor": 1, "currency": "EUR", "failed_on": "2026-02-05"},
}  # fmt: skip
BOOK = """{book: b, version: 1, effective_at: 2026-01-01, currency: EUR,
           plans: [{id: p, charges: [{id: base, model: flat, amount: 10}]}]}"""
DELIVERY = f"{WEBHOOKS}/{{id}}/deliveries/{{event}}"


@dataclass(frozen=True)
class Case:
    """A request to a route: what is filled in, and whether the answer shows what the asking tenant has."""

    path: str
    request: dict[str, Any] = field(default_factory=dict)
    shows: bool = False


def asked(path: str = "", shows: bool = True, **parameters: Any) -> Case:
    return Case(path, {"params": {**RANGE, **parameters}}, shows)


def posted(path: str, body: Any, shows: bool = False) -> Case:
    return Case(path, {"json": body}, shows)


OTHERS_SUBJECTS = [f"{mark}-subject" for mark in MARKS.values()]
CASES: dict[str, list[Case]] = {
    "GET /healthz": [Case("/healthz")],
    "GET /metrics": [Case("/metrics")],
    "GET /api/swagger.json": [Case("/api/swagger.json")],
    "GET /api/v1/meters": [Case("/api/v1/meters")],
    f"GET {METER}": [Case(USAGE)],
    f"GET {METER}/query": [
        asked(f"{USAGE}/query"),
        asked(f"{USAGE}/query", groupBy=["subject", "region"], windowSize="MINUTE"),
        asked(f"{USAGE}/query", subject=["shared", *OTHERS_SUBJECTS], groupBy="region"),
        asked(f"{USAGE}/query", groupBy="region", **{"filterGroupBy[region]": [f"{m}-region" for m in MARKS.values()]}),
        asked(f"{USAGE}/query", groupBy="region", advancedMeterGroupByFilters='{"region":{"$like":"%"}}'),
        Case(f"{USAGE}/query", {"params": {"groupBy": ["subject", "region"]}}, shows=True),
        Case(f"{USAGE}/query", {"params": {"subject": "shared"}, "headers": {"Accept": "text/csv"}}, shows=True),
        asked(f"{USAGE}/query", groupBy=["customer_id", "subject"]),
        asked(f"{USAGE}/query", filterCustomerId="x", shows=False),
        asked("/api/v1/meters/calls/query", shows=False, groupBy="subject", asOf=0),
    ],
    f"POST {METER}/query": [
        posted(f"{USAGE}/query", {**RANGE, "groupBy": ["subject", "region"], "windowSize": "DAY"}, shows=True),
        posted(f"{USAGE}/query", {"subject": OTHERS_SUBJECTS, "tenant": "default"}, shows=True),
    ],
    f"GET {METER}/subjects": [Case(f"{USAGE}/subjects", shows=True), asked(f"{USAGE}/subjects")],
    f"GET {METER}/group-by/{{key}}/values": [Case(f"{USAGE}/group-by/region/values", shows=True)],
    f"GET {EVENTS}": [
        Case(EVENTS, shows=True),
        asked(EVENTS, subject="shared"),
        asked(EVENTS, id="mark-id"),
        asked(EVENTS, ingestedAtFrom=RANGE["from"], ingestedAtTo=RANGE["to"]),
        asked(EVENTS, shows=False, tenant="default", subject="nobody"),
    ],
    f"GET {EVENTS}/rejected": [
        Case(f"{EVENTS}/rejected", shows=True),
        asked(f"{EVENTS}/rejected", shows=False, tenant="default", reason="missing_field"),
        asked(f"{EVENTS}/rejected", shows=False, cursor=f"{1 << 50}.{'f' * 32}.0.9.0"),
        Case(f"{EVENTS}/rejected", {"params": {"ofNobody": True}}),
    ],
    "GET /api/v2/events": [
        Case("/api/v2/events", shows=True),
        Case("/api/v2/events", {"params": {"filter": '{"id":{"$or":[{"$like":"%"},{"$ne":"x"}]}}'}}, shows=True),
        asked("/api/v2/events", shows=False, cursor=f"{1 << 50}.{'f' * 32}.0.9.0", filter='{"subject":{"$in":[]}}'),
    ],
    f"POST {EVENTS}": [
        Case(EVENTS, {"json": [{"tenant": tenant, "id": "1"} for tenant in MARKS], "headers": BATCH}),
        Case(EVENTS, {"json": {"id": "1", "tenant": {"$eq": "default"}}}),
    ],
    "GET /api/v1/debug/metrics": [Case("/api/v1/debug/metrics", shows=True)],
    "GET /api/v1/usage/explain": [
        asked("/api/v1/usage/explain", meter="bytes"),
        asked("/api/v1/usage/explain", meter="bytes", subject="shared", limit=2),
        asked("/api/v1/usage/explain", meter="words", subject=OTHERS_SUBJECTS, asOf=99, lateSince=1),
        asked("/api/v1/usage/explain", shows=False, meter="bytes", cursor="1.0.0.0.0"),
    ],
    "GET /api/v1/keys": [Case("/api/v1/keys", shows=True)],
    "POST /api/v1/keys": [
        posted("/api/v1/keys", {"tenant": "somebody", "scopes": ["query"]}),
        posted("/api/v1/keys", {"scopes": ["nothing"]}),
    ],
    "DELETE /api/v1/keys/{id}": [Case(f"/api/v1/keys/{'0' * 16}")],
    f"GET {LEDGER}/entries": [
        Case(f"{LEDGER}/entries", shows=True),
        Case(f"{LEDGER}/entries", {"params": {"document": "shared", "account": 1100, "limit": 9}}, shows=True),
    ],
    f"POST {LEDGER}/entries": [
        posted(f"{LEDGER}/entries", {"documents": [{"template": "P09", "document": "shared", "tenant": "default"}]}),
        posted(f"{LEDGER}/entries", {"documents": [], "tenant": "default"}),
    ],
    f"GET {LEDGER}/entries/{{id}}": [Case(f"{LEDGER}/entries/{'0' * 32}")],
    f"GET {LEDGER}/balances": [
        Case(f"{LEDGER}/balances", {"params": {"by": "customer,dimension"}}, shows=True),
        Case(f"{LEDGER}/balances", {"params": {"tenant": "default"}}),
    ],
    f"POST {INVOICES}": [
        posted(
            INVOICES,
            {"reference": "shared", "customer": "x", "currency": "EUR", "period": "2026-03", "tenant": "default"},
        ),
    ],
    f"PUT {INVOICES}/{{id}}": [
        posted(f"{INVOICES}/{each}_INVOICE", {"reference": "shared"}) for each in ("OWN", "OTHERS")
    ],
    f"DELETE {INVOICES}/{{id}}": [Case(f"{INVOICES}/OTHERS_INVOICE")],
    f"GET {INVOICES}": [Case(INVOICES), Case(INVOICES, {"params": {"tenant": "default"}})],
    f"GET {INVOICES}/{{id}}": [Case(f"{INVOICES}/INV-000001")],
    **{
        f"POST {INVOICES}/{{id}}/{name}": [posted(f"{INVOICES}/INV-000001/{name}", body)]
        for name, body in TRIGGERS.items()
    },
    f"GET {INVOICES}/{{id}}/schedule": [Case(f"{INVOICES}/OTHERS_INVOICE/schedule")],
    f"GET {CREDIT}": [Case("/api/v1/billing/customers/shared/credit")],
    f"POST {CREDIT}/refunds": [posted("/api/v1/billing/customers/shared/credit/refunds", {"refund": "r", **MONEY})],
    f"GET {WALLETS}": [Case(WALLETS, shows=True), Case(WALLETS, {"params": {"customer": "shared"}})],
    f"GET {WALLET}": [Case("/api/v1/billing/customers/shared/wallet", shows=True)],
    f"POST {WALLET}/top_ups": [
        posted("/api/v1/billing/customers/shared/wallet/top_ups", {**TOP_UP, "reference": "third", "tenant": "acme"}),
        posted("/api/v1/billing/customers/shared/wallet/top_ups", {**TOP_UP, "reference": "third"}, shows=False),
    ],
    f"POST {SETTLEMENTS}": [posted(SETTLEMENTS, {"payout": "shared", "text": "a,b"})],
    f"GET {SETTLEMENTS}/flags": [Case(f"{SETTLEMENTS}/flags", shows=True)],
    f"POST {SETTLEMENTS}/flags/{{id}}/resolve": [posted(f"{SETTLEMENTS}/flags/OTHERS_FLAG/resolve", {"note": "taken"})],
    "POST /api/v1/meters": [posted("/api/v1/meters", {"slug": "bytes"})],
    "PUT /api/v1/meters/{slug}": [posted("/api/v1/meters/nothing", {"name": "x"})],
    "DELETE /api/v1/meters/{slug}": [Case("/api/v1/meters/nothing")],
    f"GET {WEBHOOKS}": [Case(WEBHOOKS, shows=True)],
    f"POST {WEBHOOKS}": [posted(WEBHOOKS, {"url": "https://example.com", "tenant": "default"})],
    f"GET {WEBHOOKS}/{{id}}": [Case(f"{WEBHOOKS}/OWN", shows=True), Case(f"{WEBHOOKS}/OTHERS")],
    f"PATCH {WEBHOOKS}/{{id}}": [posted(f"{WEBHOOKS}/OTHERS", {"description": "taken", "state": "disabled"})],
    f"DELETE {WEBHOOKS}/{{id}}": [Case(f"{WEBHOOKS}/OTHERS")],
    f"POST {WEBHOOKS}/{{id}}/secret": [posted(f"{WEBHOOKS}/OTHERS/secret", {})],
    f"POST {WEBHOOKS}/{{id}}/test": [Case(f"{WEBHOOKS}/OTHERS/test")],
    f"POST {WEBHOOKS}/{{id}}/redeliver": [posted(f"{WEBHOOKS}/OTHERS/redeliver", {"since": RANGE["from"]})],
    f"GET {WEBHOOKS}/{{id}}/deliveries": [Case(f"{WEBHOOKS}/{each}/deliveries") for each in ("OWN", "OTHERS")],
    f"GET {DELIVERY}": [Case(f"{WEBHOOKS}/OWN/deliveries/THEIRS"), Case(f"{WEBHOOKS}/OTHERS/deliveries/THEIRS")],
    f"POST {DELIVERY}/redeliver": [
        Case(f"{WEBHOOKS}/{each}/deliveries/THEIRS/redeliver") for each in ("OWN", "OTHERS")
    ],
    f"GET {TOLD}": [Case(TOLD), asked(TOLD, shows=False, tenant="default", after=0)],
    f"GET {TOLD}/{{id}}": [Case(f"{TOLD}/THEIRS")],
    f"GET {CREDITS}": [Case(CREDITS), Case(CREDITS, {"params": {"customer": "shared", "after": "CN-000000"}})],
    f"POST {CREDITS}": [
        posted(CREDITS, {"invoice": "INV-000001", "reason": "other"}),
        posted(CREDITS, {"tenant": "acme"}),
    ],
    f"GET {CREDITS}/{{id}}": [
        Case(f"{CREDITS}/CN-000001"),
        Case(f"{CREDITS}/{'0' * 32}", {"params": {"format": "text"}}),
    ],
    "POST /api/v1/operations/{name}": [
        posted("/api/v1/operations/show_usage", {"period": f"{NOW:%Y-%m}"}, shows=True),
        posted("/api/v1/operations/list_rejections", {"reason": None, "limit": 9, "as_json": True}),
        posted("/api/v1/operations/audit", {}),
    ],
}
OF_EVERYBODY = OPEN | OPEN_ON_LOOPBACK
OF_THE_OPERATOR = {"POST /api/v1/operations/{name}"}
"""For the tenant default alone, which runs the server and sees what is wrong with anybody's lines."""


def events_of(tenant: str) -> list[dict[str, Any]]:
    """Events whose identities and subjects both tenants have, and some that are the tenant's own in every field."""
    mark, value = MARKS[tenant], VALUES[tenant]
    head = {"specversion": "1.0", "source": "/shared", "type": "call", "subject": "shared", "time": NOW.isoformat()}
    data = {"bytes": value, "region": f"{mark}-region", "note": f"{mark}-note"}
    own = {"source": f"/{mark}-source", "subject": f"{mark}-subject", "note": f"{mark}-extension"}
    return [
        *({**head, "id": str(number), "data": data} for number in range(SHARED)),
        *({**head, **own, "id": f"{mark}-id-{number}", "data": data} for number in range(2)),
        {**head, "id": "unusable", "data": {"bytes": f"{mark}-text"}},
    ]


@dataclass(frozen=True)
class Webhook:
    """A tenant's endpoint, and an event that is on its way to it."""

    id: str
    event: str


def webhook_of(tenants: Tenants, tenant: str) -> Webhook:
    """A new one, which the tenant's mark is on; nobody listens where it leads to."""
    fields = {"url": f"http://127.0.0.1:9/{MARKS[tenant]}", "description": f"{MARKS[tenant]} webhook"}
    made = tenants.ask("POST", WEBHOOKS, tenant, json=fields, headers={"Idempotency-Key": "shared"})
    assert made.status_code == 201, made.text
    endpoint = made.json()["id"]
    event = tenants.ask("POST", f"{WEBHOOKS}/{endpoint}/test", tenant).json()["eventId"]
    assert tenants.ask("POST", f"{WEBHOOKS}/{endpoint}/deliveries/{event}/redeliver", tenant).status_code == 202
    return Webhook(endpoint, event)


@pytest.fixture(scope="module")
def webhooks(tenants: Tenants) -> dict[str, Webhook]:
    """A webhook of each tenant, made under the same idempotency key."""
    return {tenant: webhook_of(tenants, tenant) for tenant in MARKS}


@pytest.fixture(scope="module")
def invoices(tenants: Tenants) -> dict[str, str]:
    """The id of a draft of each tenant, whose reference both have."""
    made = {tenant: tenants.ask("POST", INVOICES, tenant, json=invoice_of(tenant)) for tenant in MARKS}
    assert {each.status_code for each in made.values()} == {201}
    return {tenant: each.json()["id"] for tenant, each in made.items()}


@pytest.fixture(scope="module")
def flags(tenants: Tenants) -> dict[str, str]:
    """The id of a settlement's flag of each tenant, and credits of customers, one of which both have."""
    for tenant, mark in MARKS.items():
        for customer in ("shared", f"{mark}-customer"):
            body = {**TOP_UP, "reference": f"{mark}-{customer}"}
            top_ups = f"/api/v1/billing/customers/{customer}/wallet/top_ups"
            assert tenants.ask("POST", top_ups, tenant, json=body).status_code == 201
        file = {"text": f"ref,sum,ccy,day\n{mark}-row,{VALUES[tenant]},EUR,2026-01-31\n", "payout": "shared"}
        mapping = "{reference: ref, gross: sum, currency: ccy, date: day}"
        matched = tenants.ask("POST", SETTLEMENTS, tenant, json={**file, "mapping": mapping})
        assert matched.status_code == 200, matched.text
    listed = {tenant: tenants.ask("GET", f"{SETTLEMENTS}/flags", tenant).json()["items"] for tenant in MARKS}
    return {tenant: next(row["id"] for row in rows if row["file_row"]) for tenant, rows in listed.items()}


def invoice_of(tenant: str) -> dict[str, Any]:
    """What somebody wrote, with the tenant's mark in each field that may hold one."""
    line = {"description": f"{MARKS[tenant]} line", "amount": VALUES[tenant]}
    head = {"reference": "shared", "customer": "shared", "name": f"{MARKS[tenant]} customer", "currency": "EUR"}
    return {**head, "period": "2026-03", "lines": [line]}


def of_webhooks(path: str, own: Webhook, others: Webhook) -> str:
    """A case's path, with the tenant's own webhook or the other's."""
    return path.replace("OWN", own.id).replace("OTHERS", others.id).replace("THEIRS", others.event)


def payment_of(tenant: str) -> dict[str, Any]:
    """A payment whose document both tenants have."""
    mark = MARKS[tenant]
    return {
        "template": "P09", "document": "shared", "customer": f"{mark}-customer", "currency": "EUR", "effective_at": f"{NOW:%Y-%m-%d}",
        "amounts": {"payment": {f"{mark}-payout": VALUES[tenant]}}, "description": f"{mark}-description",
    }  # fmt: skip


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    """A server with the usage of both tenants; that of the tenant default was sent twice."""
    environment = pytest.MonkeyPatch()
    environment.setenv("METERLINE_WEBHOOK_PRIVATE_TARGETS", "allow")
    with running_tenants(tmp_path_factory, "acme") as running:
        environment.undo()
        words = {"slug": "words", "eventType": "call", "aggregation": "UNIQUE_COUNT", "valueProperty": "$.note"}
        assert running.ask("POST", "/api/v1/meters", "default", json=words).status_code == 201
        for tenant in ("default", "acme", "default"):
            named = {"name": f"{MARKS[tenant]} key", "scopes": ["query"]}
            assert running.ask("POST", "/api/v1/keys", tenant, json=named).status_code == 201
            running.send(tenant, events_of(tenant))
            paid = running.ask("POST", f"{LEDGER}/entries", tenant, json={"documents": [payment_of(tenant)]})
            assert paid.status_code in {200, 201}, paid.text
        customer = f"customer: {MARKS['default']}-customer, name: x, subjects: [shared], plan: p, starts_on: 2026-01-01"
        running.operate("apply_contracts", text=f"contracts: [{{{customer}}}]", file="contracts.yaml")
        rejected = [{"tenant": tenant, "id": f"{mark}-rejected", "data": mark} for tenant, mark in MARKS.items()]
        file = running.server.directory.parent / "rejected.ndjson"
        file.write_text("\n".join(map(json.dumps, rejected)))
        running.server.run("import", str(file))  # as a direct producer would; it waits until all is stored
        yield running


def everything(answer: httpx.Response) -> str:
    """All that an answer says: its headers, its body, and what it redirects to."""
    return f"{answer.status_code} {answer.headers.multi_items()} {answer.text}"


def test_no_route_shows_a_tenant_anything_of_another(
    tenants: Tenants, webhooks: dict[str, Webhook], invoices: dict[str, str], flags: dict[str, str]
) -> None:
    """Texts and numbers: what is the other's is in no answer, while the tenant's own is in those that show usage."""
    assert {("GET", "/readyz"), ("HEAD", "/readyz")} == GATEWAY - SERVER, "a route of gateways alone is not tried here"
    assert {f"{method} {path}" for method, path in SERVER if method != "HEAD"} == CASES.keys()
    for method, path in sorted(SERVER):
        name = f"{'GET' if method == 'HEAD' else method} {path}"
        rule = RULES.get(f"{name.split(maxsplit=1)[0]} {path_of(Route(path, lambda _: None))}", UNLISTED)
        for case, tenant in itertools.product(CASES[name], MARKS):
            (other_tenant,) = MARKS.keys() - {tenant}
            path = case.path.replace("OWN_INVOICE", invoices[tenant]).replace("OTHERS_INVOICE", invoices[other_tenant])
            path = of_webhooks(
                path.replace("OTHERS_FLAG", flags[other_tenant]), webhooks[tenant], webhooks[other_tenant]
            )
            answer = tenants.ask(method, path, tenant, **case.request)
            assert answer.status_code < 500, answer.text
            assert "OTHERS" not in case.path or answer.status_code == 404, (name, case)
            if name not in OF_EVERYBODY and not rule.every_tenant and tenant != "default":
                assert answer.status_code == 403, (name, case)
                assert method == "HEAD" or is_problem(answer, 403)
                continue
            said = everything(answer)
            for other in MARKS.keys() - {tenant}:
                assert name in OF_THE_OPERATOR or MARKS[other] not in said, (name, case)
                assert name in OF_THE_OPERATOR or VALUES[other] not in said, (name, case)
            if case.shows and method != "HEAD":
                assert answer.status_code == 200, answer.text
                own = (MARKS[tenant], VALUES[tenant], whole(tenant), whole(tenant, SHARED))
                assert any(each in said for each in own), (name, case, said)


def whole(tenant: str, events: int = SHARED + 2) -> str:
    """The sum of so many events."""
    return number_text(events * Decimal(VALUES[tenant]))


def test_the_same_ids_are_two_tenants_events(tenants: Tenants) -> None:
    """One tenant's events are no copies of the other's, and only who sent twice has duplicates to be shown."""
    for tenant in MARKS:
        calls = tenants.ask("GET", "/api/v1/meters/calls/query", tenant, params=RANGE).json()["data"]
        assert [row["value"] for row in calls] == [SHARED + 3]
        explained = tenants.ask("GET", "/api/v1/usage/explain", tenant, params={**RANGE, "meter": "bytes"}).json()
        copies = [len(event["duplicates"]) for event in explained["events"]]
        assert copies == [1 if tenant == "default" else 0] * (SHARED + 3)
        assert explained["value"] == whole(tenant)


def test_a_place_in_another_tenants_events_shows_nothing_of_them(tenants: Tenants) -> None:
    """A cursor says where to go on, and not whose events to read; the ids of keys and entries name none of another."""
    explained = {**RANGE, "meter": "bytes", "limit": 1}
    cursor = tenants.ask("GET", "/api/v1/usage/explain", "default", params=explained).json()["nextCursor"]
    answer = tenants.ask("GET", "/api/v1/usage/explain", "acme", params={**explained, "cursor": cursor})
    assert answer.status_code == 200
    assert MARKS["default"] not in answer.text
    (entry,) = tenants.ask("GET", f"{LEDGER}/entries", "default").json()["entries"]
    assert tenants.ask("GET", f"{LEDGER}/entries/{entry['id']}", "default").json() == entry
    assert is_problem(tenants.ask("GET", f"{LEDGER}/entries/{entry['id']}", "acme"), 404)
    for key in tenants.ask("GET", "/api/v1/keys", "default").json():
        assert is_problem(tenants.ask("DELETE", f"/api/v1/keys/{key['id']}", "acme"), 404)


def test_nothing_is_written_for_another_tenant(tenants: Tenants) -> None:
    """An event that names another tenant refuses its request, however the name is hidden; nothing of it is stored."""
    before = tenants.ask("GET", "/api/v1/meters/calls/query", "default").json()["data"][0]["value"]
    event = b'{"specversion":"1.0","id":"forged","source":"/s","type":"call","subject":"s",%s}'
    for forged in (
        b'"tenant":"default"',
        b'"ten\\u0061nt":"default"',
        b'"tenant":"acme","tenant":"default","tenant":"default"',
        b'"tenant":null,"tenant":"default"',
        b'"tenant":"default\\u0000"',
        b'"tenant":["default"]',
    ):
        answer = tenants.ask("POST", EVENTS, "acme", content=event % forged, headers=JSON)
        assert answer.status_code == 204 or is_problem(answer, 400), forged
    headers = {"X-Tenant": "default", "Tenant": "default", "X-Meterline-Tenant": "default", **JSON}
    sent = tenants.ask("POST", f"{EVENTS}?tenant=default", "acme", content=event % b'"data":{}', headers=headers)
    assert sent.status_code == 204
    tenants.settle()
    after = tenants.ask("GET", "/api/v1/meters/calls/query", "default").json()["data"][0]["value"]
    assert after == before
    listed = tenants.ask("GET", EVENTS, "default", params={"id": "forged"}).json()
    assert listed == []


def test_a_webhook_is_seen_and_changed_by_its_tenant_alone(tenants: Tenants, webhooks: dict[str, Webhook]) -> None:
    """Whatever the other asks for by its id is not there; afterwards it is as it was, and so are its deliveries."""

    def known(tenant: str) -> tuple[dict[str, Any], list[str], list[str]]:
        shown = tenants.ask("GET", f"{WEBHOOKS}/{webhooks[tenant].id}", tenant).json()
        sent = tenants.ask("GET", f"{WEBHOOKS}/{webhooks[tenant].id}/deliveries", tenant).json()["items"]
        told = tenants.ask("GET", TOLD, tenant).json()["items"]
        lasting = {name: shown[name] for name in ("id", "url", "description", "types", "state", "version", "createdAt")}
        tests = [[each for each in listed if each["type"] == "webhook.test"] for listed in (sent, told)]
        return lasting, [each["eventId"] for each in tests[0]], [each["id"] for each in tests[1]]

    before = {tenant: known(tenant) for tenant in MARKS}
    for tenant, other in itertools.permutations(MARKS):
        own, others = webhooks[tenant], webhooks[other]
        assert before[tenant][1:] == ([own.event], [own.event])
        assert tenants.ask("GET", WEBHOOKS, tenant).json()["items"][0]["id"] == own.id
        assert tenants.ask("GET", f"{TOLD}/{own.event}", tenant).json()["tenant"] == tenant
        routes = [(name, case) for name, cases in CASES.items() if WEBHOOKS in name or TOLD in name for case in cases]
        for name, case in routes:
            if "OTHERS" in case.path or "THEIRS" in case.path:
                path = of_webhooks(case.path, own, others)
                answer = tenants.ask(name.split(maxsplit=1)[0], path, tenant, **case.request)
                assert is_problem(answer, 404), (name, case, answer.text)
    assert {tenant: known(tenant) for tenant in MARKS} == before


def test_an_invoice_is_changed_by_its_tenant_alone(tenants: Tenants, invoices: dict[str, str]) -> None:
    """One reference is two invoices of two tenants; what the other asks for by its id is not there."""
    assert len(set(invoices.values())) == 2
    for tenant, other in itertools.permutations(MARKS):
        path = f"{INVOICES}/{invoices[other]}"
        assert is_problem(tenants.ask("PUT", path, tenant, json=invoice_of(tenant)), 404)
        assert is_problem(tenants.ask("DELETE", path, tenant), 404)
    for tenant, mark in MARKS.items():
        same = tenants.ask("POST", INVOICES, tenant, json=invoice_of(tenant), headers={"If-Match": '"1"'})
        assert (same.status_code, same.json()["version"], same.json()["tenant"]) == (200, 1, tenant)
        assert mark in same.text


def test_an_invoice_is_seen_and_changed_by_its_tenant_alone(tenants: Tenants) -> None:
    """By its id and by its number, which another tenant's may have, too; afterwards it is as it was."""
    tenants.operate("apply_price_book", text=BOOK, file="book.yaml")
    tenants.operate("bill", period="2026-01")
    [own] = tenants.ask("GET", INVOICES, "default", params={"period": "2026-01"}).json()["items"]
    assert own["customer"] == f"{MARKS['default']}-customer"
    before = tenants.ask("GET", f"{INVOICES}/{own['id']}", "default").json()
    assert tenants.ask("GET", INVOICES, "acme", params={"customer": own["customer"]}).json() == {"items": []}
    for key in (own["id"], own["number"]):
        assert is_problem(tenants.ask("GET", f"{INVOICES}/{key}", "acme"), 404)
        for name, body in TRIGGERS.items():
            assert is_problem(tenants.ask("POST", f"{INVOICES}/{key}/{name}", "acme", json=body), 404)
    assert tenants.ask("GET", f"{INVOICES}/{own['id']}", "default").json() == before
