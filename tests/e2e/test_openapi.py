"""Every example of the HTTP API's description, sent to a live server: it answers as the description says."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from meterline.openapi import operations_of
from tests.e2e.conftest import Server, server_in

CUSTOMERS = ["acme-corp", *(f"customer-{number}" for number in range(9))]
CONTRACTS = "contracts:\n" + "\n".join(
    f"- {{customer: {each}, name: Acme, subjects: [{each.removesuffix('-corp')}], plan: any, starts_on: 2026-01-01}}"
    for each in CUSTOMERS
)
BOOK = """
book: example
version: 1
effective_at: 2026-01-01
currency: EUR
tax: {mode: exclusive, name: VAT, rate_percent: 20}
plans:
  - id: any
    charges: [{id: a, model: flat, amount: 50}, {id: b, model: flat, amount: 30}, {id: c, model: flat, amount: 20}]
"""
WEBHOOKS = "/api/v1/billing/webhooks"
INVOICES = "/api/v1/billing/invoices"
INVOICE = {
    "reference": "refused", "customer": "acme-corp", "currency": "EUR", "period": "2026-03",
    "lines": [{"description": "x", "amount": "1.50"}],
}  # fmt: skip
WRITTEN = "e01cb30b04620d7a5b3c21bda63ad4b0"
"""The draft of the example with the reference onboarding-7."""
NOBODYS = "http://127.0.0.1:9/"
"""Where nobody listens."""
REJECTED = '{"specversion": "1.0", "id": "1"}\nno event at all\n'


class Described:
    """A server with keys that runs, and its description, as it serves it."""

    def __init__(self, server: Server) -> None:
        key = server.run("keys", "create", "--scope", "ingest,query,admin").strip()
        server.start("--keys")
        rejected = server.directory.parent / "rejected.ndjson"
        rejected.write_text(REJECTED)
        server.run("import", str(rejected))  # over HTTP they would be refused
        self.client = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)
        self.bare = httpx.Client(base_url=server.url, headers={"X-Forwarded-For": "10.0.0.1"}, timeout=60)
        self.document = self.bare.get("/api/swagger.json").json()
        self.registry = Registry().with_resource("urn:api", Resource(contents=self.document, specification=DRAFT202012))
        self.operations = operations_of(self.document)
        self.operate("apply_price_book", text=BOOK, file="book.yaml")
        self.operate("apply_contracts", text=CONTRACTS, file="contracts.yaml")
        self.operate("bill", period="2026-01")  # INV-000001 and on, for the examples
        self.operate("bill", period="2026-02", how="draft")
        listed = {state: self.invoices(state) for state in ("open", "draft")}
        self.drafts, self.open = listed["draft"], listed["open"]
        paid = {"payment": "p", "amount_minor": 20_000, "currency": "EUR", "paid_on": "2026-02-01"}
        assert self.client.post(f"{INVOICES}/{self.open.pop(0)}/payments", json=paid).status_code == 201

    def operate(self, name: str, **parameters: Any) -> None:
        """Do what the command line would."""
        answer = self.client.post(f"/api/v1/operations/{name}", json=parameters)
        assert answer.is_success and '"failure"' not in answer.text, answer.text  # noqa: PT018

    def invoices(self, state: str) -> list[str]:
        """The ids of the invoices in a state, by customer."""
        return [each["id"] for each in self.client.get(INVOICES, params={"state": state}).json()["items"]]

    def filled(self, path: str, method: str = "") -> str:
        """A path whose invoice is a draft or open, as it needs; or whose webhook has an event on its way to it.

        A draft that somebody wrote is the one of the examples; a credit note, and a flag, the first one.
        """
        if "/credit_notes/{id}" in path or path.endswith("/schedule"):
            return path.replace("{id}", "CN-000001" if "/credit_notes/" in path else "INV-000001")
        if "/flags/{id}" in path:
            return path.replace("{id}", self.client.get(path.partition("/{id}")[0]).json()["items"][0]["id"])
        if "/invoices/{id}" in path:
            if method in {"put", "delete"}:
                return path.replace("{id}", WRITTEN)
            return path.replace("{id}", (self.drafts if path.endswith("/finalize") else self.open).pop())
        if "{event}" not in path and "/webhooks/{id}" not in path:
            return path
        webhook = self.client.post(WEBHOOKS, json={"url": NOBODYS}).json()["id"]
        event = self.client.post(f"{WEBHOOKS}/{webhook}/test").json()["eventId"]
        assert self.client.post(f"{WEBHOOKS}/{webhook}/deliveries/{event}/redeliver").status_code == 202
        return path.replace("{id}", webhook).replace("{event}", event)

    def resolved(self, part: dict[str, Any]) -> dict[str, Any]:
        """A part of the description, or, if it is only a reference, what it refers to."""
        return self.registry.resolver("urn:api").lookup(part["$ref"]).contents if "$ref" in part else part

    def check(self, name: str, answer: httpx.Response, *, good: bool) -> None:
        """The answer's status, content type and body are among those that the description has of the operation."""
        said = f"{answer.request.method} {answer.request.url} {answer.request.content[:200]!r}: {answer.status_code} {answer.text[:500]}"
        method, path, operation = self.operations[name]
        assert str(answer.status_code) in operation["responses"], said
        assert answer.is_success == good, said
        pointer = f"/paths/{path.replace('/', '~1')}/{method}/responses/{answer.status_code}"
        response = operation["responses"][str(answer.status_code)]
        if "$ref" in response:
            pointer, response = response["$ref"].removeprefix("#"), self.resolved(response)
        if "content" not in response:
            assert not answer.content, said
            return
        media_type = answer.headers["content-type"].partition(";")[0]
        assert media_type in response["content"], said
        body = answer.json() if media_type in {"application/json", "application/problem+json"} else answer.text
        schema = quote(f"{pointer}/content/{media_type.replace('/', '~1')}/schema", safe="/~")
        OAS31Validator({"$ref": f"urn:api#{schema}"}, registry=self.registry).validate(body)
        if media_type == "application/x-ndjson":
            assert [json.loads(line)["kind"] for line in body.splitlines()], said


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Described]:
    """A server whose description this is about."""
    with server_in(tmp_path_factory.mktemp("described")) as server:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("METERLINE_WEBHOOK_PRIVATE_TARGETS", "allow")
            live = Described(server)
        yield live
        live.client.close()
        live.bare.close()


def query_of(parameter: dict[str, Any], example: Any) -> list[tuple[str, str]]:
    """A parameter as it stands in a URL's query."""
    name = parameter["name"]
    if "content" in parameter:
        return [(name, json.dumps(example))]
    if parameter.get("style") == "deepObject":
        return [(f"{name}[{key}]", value) for key, values in example.items() for value in values]
    values = example if isinstance(example, list) else [example]
    return [(name, json.dumps(value) if isinstance(value, bool) else str(value)) for value in values]


def example_of(parameter: dict[str, Any]) -> Any:
    """A parameter's example; None where it has none."""
    return parameter.get("example", parameter.get("content", {}).get("application/json", {}).get("example"))


@pytest.fixture(scope="module")
def sent(described: Described) -> int:
    """How many examples were sent to the live server, each checked against its description."""
    client, sent = described.client, 0
    made = client.post("/api/v1/keys", json={"scopes": ["query"]}).json()["id"]
    names = list(described.operations)
    names.remove("POST /api/v1/meters")
    for name in ["POST /api/v1/events", "POST /api/v1/meters", *names]:
        method, path, operation = described.operations[name]
        parameters = [described.resolved(each) for each in operation.get("parameters", [])]
        for each in parameters:
            if each["in"] == "path" and each["name"] not in {"id", "name", "event"}:
                path = path.replace(f"{{{each['name']}}}", each["example"])
        path = described.filled(path, method).replace("{id}", made)
        queried = [each for each in parameters if each["in"] == "query"]
        needed = [pair for each in queried if each.get("required") for pair in query_of(each, example_of(each))]
        bodies = [
            (key, media_type, example["value"])
            for media_type, content in operation.get("requestBody", {}).get("content", {}).items()
            for key, example in content["examples"].items()
        ]
        for key, media_type, body in bodies or [("", "", None)]:
            headers = {"Content-Type": media_type} if media_type else {}
            content = json.dumps(body).encode() if media_type else None
            where = path.replace("{name}", key)
            described.check(
                name, client.request(method, where, params=needed, headers=headers, content=content), good=True
            )
            sent += 1
        for each in queried:
            if not each.get("required") and (example := example_of(each)) is not None:
                pairs = [*needed, *query_of(each, example)]
                content = json.dumps(bodies[0][2]).encode() if bodies else None
                headers = {"Content-Type": "application/json"} if bodies else {}
                described.check(
                    name, client.request(method, path, params=pairs, headers=headers, content=content), good=True
                )
                sent += 1
    return sent


def test_every_example_is_answered_as_it_is_said(described: Described, sent: int) -> None:
    """With each body, and each parameter of a query alone; all of it succeeds, in an order in which it can."""
    client = described.client
    assert sent > 55
    csv = client.get("/api/v1/meters/calls/query", headers={"Accept": "text/csv"})
    described.check("GET /api/v1/meters/{}/query", csv, good=True)


def test_what_was_sent_shows_in_bodies_that_are_not_empty(described: Described, sent: int) -> None:
    """Queries, lists and explanations of the examples' events are of the shapes that are described, row by row."""
    assert sent
    described.operate("replay_rejections", reason="missing_field", repaired=None)
    asked = "from=2026-01-01T00:00:00Z&to=2099-01-01T00:00:00Z"
    hook = described.filled("v1/billing/webhooks/{id}/deliveries")
    for name, path, holds in [
        ("GET /api/v1/meters/{}/query", f"v1/meters/bytes/query?groupBy=region&windowSize=DAY&{asked}", lambda body: body["data"]),
        ("GET /api/v1/meters/{}/query", "v1/meters/bytes/query?filterCustomerId=acme-corp", lambda body: body["data"][0]["customerId"]),
        ("GET /api/v1/usage/explain", f"v1/usage/explain?meter=bytes&lateSince=0&limit=1&{asked}", lambda body: body["nextCursor"]),
        ("GET /api/v1/meters/{}/subjects", "v1/meters/bytes/subjects", lambda body: body == ["acme"]),
        ("GET /api/v1/meters/{}/group-by/{}/values", f"v1/meters/bytes/group-by/region/values?{asked}", lambda body: "eu" in body),
        ("GET /api/v1/billing/credit_notes", "v1/billing/credit_notes", lambda body: len(body["items"]) == 3),
        ("GET /api/v1/events", "v1/events", lambda body: any("validationError" in each for each in body)),
        ("GET /api/v1/events", "v1/events?customerId=acme-corp", lambda body: {each["customerId"] for each in body} == {"acme-corp"}),
        ("GET /api/v2/events", "v2/events?limit=1", lambda body: body["items"] and body["nextCursor"]),
        ("GET /api/v1/events/rejected", "v1/events/rejected", lambda body: "replayedAt" in body["items"][1]),
        ("GET /api/v1/events/rejected", "v1/events/rejected?ofNobody=true", lambda body: body["items"][0]["raw"] == "no event at all"),
        ("GET /api/v1/meters/{}", "v1/meters/orders", lambda body: body["deletedAt"]),
        ("GET /api/v1/billing/webhooks", "v1/billing/webhooks", lambda body: any(each["url"] == NOBODYS for each in body["items"])),
        ("GET /api/v1/billing/webhooks/{}/deliveries", f"{hook}?limit=1", lambda body: body["nextBefore"] and body["items"]),
        ("GET /api/v1/billing/events", "v1/billing/events?limit=1", lambda body: body["items"][0]["sequence"] == 1),
        ("GET /api/v1/billing/invoices", "v1/billing/invoices?limit=1", lambda body: body["items"] and body["next_after"]),
        ("GET /api/v1/billing/invoices/{}", "v1/billing/invoices/INV-000001", lambda body: body["applications"] and body["changes"]),
        ("GET /api/v1/billing/wallets", "v1/billing/wallets?limit=1", lambda body: body["items"] and body["next_after"]),
        ("GET /api/v1/billing/customers/{}/wallet", "v1/billing/customers/acme-corp/wallet?limit=1", lambda body: body["lots"] and body["next_before"]),
        ("GET /api/v1/billing/settlements/flags", "v1/billing/settlements/flags?payout=po_9", lambda body: body["items"]),
        ("GET /api/v1/billing/customers/{}/credit", "v1/billing/customers/acme-corp/credit", lambda body: body["credit"]),
    ]:  # fmt: skip
        answer = described.client.get(f"/api/{path}")
        described.check(name, answer, good=True)
        assert holds(answer.json()), name


def test_refusals_are_described(described: Described) -> None:
    """Without a key every operation that asks for one says so; and what is wrong is told in the one shape there is."""
    for name, (method, path, operation) in described.operations.items():
        where = path.replace("{id}", "0" * 16).replace("{name}", "audit").replace("{", "").replace("}", "")
        if operation["security"]:
            described.check(name, described.bare.request(method, where), good=False)
    ask = described.client.request
    bad = [{"specversion": "1.0", "id": "x"}]
    hook, once = described.filled(f"{WEBHOOKS}/{{id}}"), {"Idempotency-Key": "used"}
    assert ask("POST", f"{hook}/test", headers=once).status_code == 202
    draft = ask("POST", INVOICES, json=INVOICE).headers["location"]
    for name, answer in [
        ("POST /api/v1/events", ask("POST", "/api/v1/events", json=bad)),
        ("POST /api/v1/events", ask("POST", "/api/v1/events", json=[])),
        ("POST /api/v1/events", ask("POST", "/api/v1/events", content=b"x", headers={"Content-Type": "text/plain"})),
        ("POST /api/v1/events", ask("POST", "/api/v1/events", content=b"x", headers={"Content-Encoding": "br"})),
        ("POST /api/v1/events", ask("POST", "/api/v1/events", content=b" " * (17 << 20), headers={"Content-Type": "application/json"})),
        ("GET /api/v1/events", ask("GET", "/api/v1/events?limit=0")),
        ("GET /api/v2/events", ask("GET", "/api/v2/events?filter=x")),
        ("GET /api/v1/events/rejected", ask("GET", "/api/v1/events/rejected?cursor=x")),
        ("GET /api/v1/meters/{}", ask("GET", "/api/v1/meters/none")),
        ("GET /api/v1/meters/{}/query", ask("GET", "/api/v1/meters/calls/query?windowSize=YEAR")),
        ("GET /api/v1/meters/{}/query", ask("GET", "/api/v1/meters/calls/query?filterCustomerId=x")),
        ("POST /api/v1/meters/{}/query", ask("POST", "/api/v1/meters/none/query", json={})),
        ("GET /api/v1/usage/explain", ask("GET", "/api/v1/usage/explain")),
        ("POST /api/v1/meters", ask("POST", "/api/v1/meters", json={"slug": "A"})),
        ("POST /api/v1/meters", ask("POST", "/api/v1/meters", json={"slug": "calls", "eventType": "x", "aggregation": "COUNT"})),
        ("PUT /api/v1/meters/{}", ask("PUT", "/api/v1/meters/none", json={})),
        ("DELETE /api/v1/meters/{}", ask("DELETE", "/api/v1/meters/none")),
        (f"POST {INVOICES}", ask("POST", INVOICES, json={"reference": "r"})),
        (f"POST {INVOICES}", ask("POST", INVOICES, json=INVOICE, headers={"If-Match": '"99"'})),
        (f"POST {INVOICES}", ask("POST", INVOICES, json=INVOICE, headers=once)),
        (f"PUT {INVOICES}/{{}}", ask("PUT", f"{INVOICES}/none", json=INVOICE)),
        (f"PUT {INVOICES}/{{}}", ask("PUT", draft, json={**INVOICE, "reference": "other"})),
        (f"DELETE {INVOICES}/{{}}", ask("DELETE", draft, headers={"If-Match": '"99"'})),
        ("POST /api/v1/billing/ledger/entries", ask("POST", "/api/v1/billing/ledger/entries", json={"documents": []})),
        ("GET /api/v1/billing/ledger/entries", ask("GET", "/api/v1/billing/ledger/entries?limit=-1")),
        ("GET /api/v1/billing/ledger/entries/{}", ask("GET", "/api/v1/billing/ledger/entries/none")),
        ("GET /api/v1/billing/ledger/balances", ask("GET", "/api/v1/billing/ledger/balances?by=moon")),
        ("GET /api/v1/billing/invoices", ask("GET", f"{INVOICES}?state=lost")),
        ("GET /api/v1/billing/invoices/{}", ask("GET", f"{INVOICES}/none")),
        ("GET /api/v1/billing/invoices/{}", ask("GET", f"{INVOICES}/INV-000001?format=ubl")),
        ("POST /api/v1/billing/invoices/{}/finalize", ask("POST", f"{INVOICES}/INV-000001/finalize")),
        ("POST /api/v1/billing/invoices/{}/void", ask("POST", f"{INVOICES}/INV-000001/void", json={"reason": "x"})),
        ("POST /api/v1/billing/invoices/{}/void", ask("POST", f"{INVOICES}/INV-000002/void", json={})),
        ("POST /api/v1/billing/invoices/{}/apply_credit", ask("POST", f"{INVOICES}/INV-000002/apply_credit", json={}, headers={"If-Match": '"99"'})),
        ("POST /api/v1/billing/customers/{}/credit/refunds", ask("POST", "/api/v1/billing/customers/none/credit/refunds",
            json={"refund": "r", "amount_minor": 1, "currency": "EUR", "paid_on": "2026-02-01"})),
        ("GET /api/v1/billing/invoices/{}/schedule", ask("GET", f"{INVOICES}/none/schedule")),
        ("GET /api/v1/billing/wallets", ask("GET", "/api/v1/billing/wallets?limit=-1")),
        ("GET /api/v1/billing/customers/{}/wallet", ask("GET", "/api/v1/billing/customers/x/wallet?before=x")),
        ("POST /api/v1/billing/customers/{}/wallet/top_ups", ask("POST", "/api/v1/billing/customers/x/wallet/top_ups", json={})),
        ("POST /api/v1/billing/customers/{}/wallet/top_ups", ask("POST", "/api/v1/billing/customers/x/wallet/top_ups",
            json={"reference": "pay_17", "amount_minor": 1, "currency": "EUR"})),
        ("POST /api/v1/billing/settlements", ask("POST", "/api/v1/billing/settlements", json={"payout": "p", "text": "a"})),
        ("GET /api/v1/billing/settlements/flags", ask("GET", "/api/v1/billing/settlements/flags?moon=1")),
        ("POST /api/v1/billing/settlements/flags/{}/resolve", ask("POST", "/api/v1/billing/settlements/flags/x/resolve", json={"note": "x"})),
        ("POST /api/v1/keys", ask("POST", "/api/v1/keys", json={"tenant": "other", "scopes": ["query"]})),
        ("POST /api/v1/keys", ask("POST", "/api/v1/keys", json={"scopes": ["everything"]})),
        ("DELETE /api/v1/keys/{}", ask("DELETE", f"/api/v1/keys/{'0' * 16}")),
        (f"POST {WEBHOOKS}", ask("POST", WEBHOOKS, json={"url": "ftp://example.com"})),
        (f"POST {WEBHOOKS}", ask("POST", WEBHOOKS, json={"url": NOBODYS, "types": ["nothing.happened"]})),
        (f"POST {WEBHOOKS}", ask("POST", WEBHOOKS, json={"url": NOBODYS}, headers=once)),
        (f"GET {WEBHOOKS}/{{}}", ask("GET", f"{WEBHOOKS}/none")),
        (f"PATCH {WEBHOOKS}/{{}}", ask("PATCH", hook, json={"state": "enabled"}, headers={"If-Match": '"99"'})),
        (f"DELETE {WEBHOOKS}/{{}}", ask("DELETE", hook, headers={"If-Match": '"99"'})),
        (f"POST {WEBHOOKS}/{{}}/secret", ask("POST", f"{hook}/secret", json={"oldValidSeconds": -1})),
        (f"POST {WEBHOOKS}/{{}}/redeliver", ask("POST", f"{hook}/redeliver", json={"since": "today"})),
        (f"GET {WEBHOOKS}/{{}}/deliveries", ask("GET", f"{hook}/deliveries?state=lost")),
        (f"GET {WEBHOOKS}/{{}}/deliveries/{{}}", ask("GET", f"{hook}/deliveries/none")),
        ("GET /api/v1/billing/events", ask("GET", "/api/v1/billing/events?after=-1")),
        ("GET /api/v1/billing/events/{}", ask("GET", "/api/v1/billing/events/none")),
        ("POST /api/v1/operations/{}", ask("POST", "/api/v1/operations/none", json={})),
        ("POST /api/v1/operations/{}", ask("POST", "/api/v1/operations/audit", json={"x": 1})),
    ]:  # fmt: skip
        described.check(name, answer, good=False)
