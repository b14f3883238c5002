"""Texts that mean something to some program on the way, in every field, parameter and path of a running server.

Whatever is sent, the answer is a success that gives the text back as it was, or a refusal that says why; another
tenant's rows, a line of the server's log or a header never come of it.
"""

import csv
import io
import itertools
import json
import operator
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.e2e.keyed import is_problem
from tests.e2e.tenants import BATCH, Tenants, running_tenants
from tests.e2e.test_hostile_requests import HOSTILE

TEXTS = [
    *HOSTILE, "{x:String}", "{tenant:String}", "%(tenant)s", "' UNION SELECT * FROM events --", "\\'", "\\N", "a%", "_", "100%_\\%", "\ud83d",
    "1e400", "NaN", "inf", "-0", "0x10", "1_000", "\u0663", "9" * 400, "\t", "\r", "\n", "\x7f", "\x1b]0;x\x07", "\ufeff", "\ufffe", "\U0010ffff",
    "e\u0301", "\u0130", "=1+1", "$", "$.", "$['region']", "$..region", "a.b", "a]b", "a[b", "a&b=c", "a;b#c?d", "+", "a/b", ".", "..", "[1,2]",
    '{"a":1}', "true", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-14:00", "1.0.0.0.0", "99999999999999999999.x.-1.-1.-1",
]  # fmt: skip
SHORT = [
    "'", "\\", "\x00", "%00", "a\r\nX-Forged: 1", "{x:String}", "$.a[?(@.b)]", "%", "\ud83d", "\U0001f4a9", "\u202e", "x" * 6000, "", " ", "-1", "NaN",
    "\u0663", "99999999999999999999", "1e3", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999-14:00", "2013-01-31T00:00:00+99:00", "localtime",
    "../../etc/passwd", "1.0.0.0.0", f"1.{'0' * 32}.99999.0.0", f"1.{'0' * 32}.0.-1.0", "[1]", '{"region":5}', "type",
]  # fmt: skip
"""For what is not any text, and is refused before it gets far."""
NUMBERS = [
    "1",
    "-0",
    "1e3",
    "0.000000001",
    "1e400",
    "NaN",
    "inf",
    "0x10",
    "1_000",
    "\u0663",
    "1,5",
    " 1",
    "+1",
    "9" * 16,
]
JSON = {"Content-Type": "application/json"}
QUERY = "/api/v1/meters/hostile/query"
WEBHOOKS = "/api/v1/billing/webhooks"
INVOICES = "/api/v1/billing/invoices"
LEDGER = "/api/v1/billing/ledger"
CREDITS = "/api/v1/billing/credit_notes"
CREDIT = "/api/v1/billing/customers/{}/credit"
WALLET = "/api/v1/billing/customers/{}/wallet"
SETTLEMENTS = "/api/v1/billing/settlements"
EXPLAIN = {"meter": "hostile", "from": "2013-01-01T00:00:00Z", "to": "2014-01-01T00:00:00Z"}
PARAMETERS: dict[str, tuple[tuple[str, ...], ...]] = {
    QUERY: (
        ("subject", "filterGroupBy[region]", "decimals", "filterGroupBy"), ("from",), ("to",), ("windowSize",), ("windowTimeZone",),
        ("groupBy",), ("clientId",), ("asOf",), ("advancedMeterGroupByFilters",), ("filterCustomerId",),
    ),
    "/api/v1/events": (("id", "subject", "customerId"), ("from",), ("to",), ("ingestedAtFrom",), ("ingestedAtTo",), ("limit",)),
    "/api/v1/events/rejected": (("cursor",), ("limit",), ("reason",), ("from",), ("to",), ("ofNobody",)),
    "/api/v2/events": (("cursor",), ("limit",), ("filter",), ("clientId",)),
    "/api/v1/usage/explain": (
        ("subject",), ("meter",), ("from",), ("to",), ("asOf",), ("lateSince",), ("limit",), ("cursor",),
    ),
    "/api/v1/billing/events": (("after",), ("limit",)),
    INVOICES: (("customer", "period", "after"), ("state",), ("limit",)),
    f"{INVOICES}/x": (("format",), ("locale",)),
    f"{LEDGER}/entries": (("document",), ("account",), ("from",), ("to",), ("after",), ("limit",)),
    CREDITS: (("customer",), ("invoice",), ("after",), ("limit",)),
    "/api/v1/billing/wallets": (("customer", "after"), ("limit",)),
    WALLET.format("x"): (("before",), ("limit",)),
    f"{SETTLEMENTS}/flags": (("payout",),),
    f"{LEDGER}/balances": (("as_of",), ("booked_through",), ("by",)),
    "/api/v1/meters/hostile/subjects": (("from",), ("to",)),
    "/api/v1/meters/hostile/group-by/region/values": (("from",), ("to",)),
}  # fmt: skip
"""What is asked for in one request: parameters that may be any text together, and each of the others by itself."""
PATHS = (
    ("GET", "/api/v1/meters/{}"), ("GET", "/api/v1/meters/{}/query"), ("GET", "/api/v1/meters/{}/subjects"), ("GET", "/{}"),
    ("GET", "/api/v1/meters/hostile/group-by/{}/values"), ("DELETE", "/api/v1/keys/{}"), ("PUT", "/api/v1/meters/{}"), ("DELETE", "/api/v1/meters/{}"),
    ("GET", f"{WEBHOOKS}/{{}}"), ("DELETE", f"{WEBHOOKS}/{{}}"), ("POST", f"{WEBHOOKS}/{{}}/test"), ("GET", f"{WEBHOOKS}/{{}}/deliveries"),
    ("GET", "/api/v1/billing/events/{}"), ("GET", "/api/v1/billing/ledger/entries/{}"),
    ("GET", f"{CREDITS}/{{}}"),
    ("GET", f"{INVOICES}/{{}}"), ("POST", f"{INVOICES}/{{}}/finalize"), ("GET", CREDIT),
    ("GET", WALLET), ("GET", f"{INVOICES}/{{}}/schedule"), ("POST", f"{SETTLEMENTS}/flags/{{}}/resolve"),
)  # fmt: skip
METER = {
    "slug": "hostile",
    "eventType": "hostile",
    "aggregation": "SUM",
    "valueProperty": "$.value",
    "groupBy": {"region": "$.region"},
}
OPERATORS = ("$eq", "$ne", "$like", "$nlike", "$ilike", "$nilike", "$gt", "$gte", "$lt", "$lte")
OTHERS = "others-mark"


def event(number: str, **fields: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0", "source": "/s", "type": "hostile", "subject": "s", "id": number, "time": "2013-01-31T10:00:00Z",
        "data": {"value": 1, "region": "eu"}, **fields,
    }  # fmt: skip


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    """A server with a meter, and with another tenant's usage of it."""
    with running_tenants(tmp_path_factory, "acme", "other") as running:
        assert running.ask("POST", "/api/v1/meters", "default", json=METER).status_code == 201
        running.send("other", [event(OTHERS, subject=OTHERS, data={"value": 5, "region": OTHERS})])
        running.settle()
        yield running


def refused(answer: httpx.Response) -> bool:
    """Whether an answer refuses, and says why; no answer fails, and none shows what the other tenant has."""
    assert answer.status_code < 500, answer.text
    assert OTHERS not in answer.text
    assert not any(re.search(r"[\r\n]", value) for pair in answer.headers.multi_items() for value in pair)
    assert not {"x", "x-forged", "set-cookie"} & answer.headers.keys()
    if answer.status_code < 300:
        return False
    assert answer.status_code == 307 or (is_problem(answer, answer.status_code) and answer.json()["detail"])
    return True


def sent(tenants: Tenants, *events: dict[str, Any], tenant: str = "acme") -> bool:
    """Whether events were taken."""
    answer = tenants.ask("POST", "/api/v1/events", tenant, content=json.dumps(events), headers=BATCH)
    return not refused(answer)


def query(tenants: Tenants, tenant: str = "acme", **asked: Any) -> list[dict[str, Any]]:
    answer = tenants.ask("POST", QUERY, tenant, content=json.dumps(asked))
    assert not refused(answer), answer.text
    rows: list[dict[str, Any]] = answer.json()["data"]
    return rows


def escaped(text: str) -> str:
    """A text in a URL; half of a surrogate pair as a client without scruples writes it."""
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def check_stored(tenants: Tenants, tenant: str, texts: list[str]) -> None:
    """Texts that a tenant sent as subject, id and dimension are found by themselves, and are given back as they were."""
    assert sorted(tenants.ask("GET", "/api/v1/meters/hostile/subjects", tenant).json()) == sorted(texts)
    values = "/api/v1/meters/hostile/group-by/region/values"
    asked = {"from": EXPLAIN["from"]}
    assert sorted(tenants.ask("GET", values, tenant, params=asked).json()) == sorted(texts)
    table = tenants.ask("GET", QUERY, tenant, params={"groupBy": ["subject", "region"]}, headers={"Accept": "text/csv"})
    rows = [*csv.DictReader(io.StringIO(table.content.decode(), newline=""))]
    for column in ("subject", "region"):
        shown = sorted(f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text for text in texts)
        assert sorted(row[column] for row in rows) == shown
    half, by_both = texts[::2], {"groupBy": ["subject", "region"]}
    likes = [{"$like": re.sub(r"([\\%_])", r"\\\1", text)} for text in half]
    for asked_for in (
        {"subject": half, "groupBy": ["region"]},
        {**by_both, "filterGroupBy": {"region": half}},
        {**by_both, "advancedMeterGroupByFilters": {"region": {"$or": [{"$eq": text} for text in half]}}},
        {**by_both, "advancedMeterGroupByFilters": {"region": {"$nin": texts[1::2]}}},
        {**by_both, "advancedMeterGroupByFilters": {"region": {"$or": likes}}},
    ):
        found = query(tenants, tenant, **asked_for)
        assert [row["value"] for row in found] == [1] * len(half)
        for shown in ([row["subject"] for row in found], [row["groupBy"]["region"] for row in found]):
            assert sorted(shown) == sorted(half)
    explained = tenants.ask("GET", "/api/v1/usage/explain", tenant, params=EXPLAIN).json()
    assert sorted((row["subject"], row["id"], row["source"]) for row in explained["events"]) == [
        (text, text, text) for text in sorted(texts)
    ]


def test_what_is_sent_is_given_back_letter_by_letter(tenants: Tenants) -> None:
    """Subjects, ids, sources and dimensions: listed, grouped by, filtered by, explained, and as CSV."""
    kept = [
        text for text in TEXTS
        if sent(tenants, event(text, source=text, subject=text, data={"value": 1, "region": text, text: text}, note=text))
    ]  # fmt: skip
    assert {repr(text[:9]) for text in TEXTS if text not in kept} == {
        repr(each)
        for each in ("\x00", "a\x00b", "", "\ud83d", "x" * 9)  # NUL, nothing, half a pair, and 6000 bytes
    }
    tenants.settle()
    check_stored(tenants, "acme", kept)


@settings(max_examples=3)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=60),
        min_size=20,
        max_size=60,
        unique=True,
    )
)
def test_any_text_is_given_back_letter_by_letter(tenants: Tenants, texts: list[str]) -> None:
    """As above, with texts that nobody thought of; each example is a tenant of its own."""
    tenant = f"drawn-{len(tenants.keys)}"
    tenants.add(tenant)
    assert sent(
        tenants,
        *(event(text, source=text, subject=text, data={"value": 1, "region": text}) for text in texts),
        tenant=tenant,
    )
    tenants.settle()
    check_stored(tenants, tenant, texts)


def test_listed_events_are_as_they_were_sent(tenants: Tenants) -> None:
    """Every attribute and property, also of a type that no meter wants, and values that are no numbers."""
    tenants.add("lister")
    numbered = [*enumerate(TEXTS)]
    events = [
        event(f"{field}-{n}", **{"time": None, field: text})
        for n, text in numbered
        for field in ("type", "source", "note")
    ]
    values = [
        event(f"data-{n}", time=None, data={"value": text, text: [text]}) for n, text in enumerate(TEXTS + NUMBERS)
    ]
    kept = [each for each in (*events, *values) if sent(tenants, each, tenant="lister")]
    assert len(kept) > 0.9 * len(events + values)
    tenants.settle()
    listed = []
    for part in ("type-", "source-", "note-", "data-"):
        listed += tenants.ask("GET", "/api/v1/events", "lister", params={"id": part}).json()
    key = operator.itemgetter("id")
    assert sorted(({**row["event"], "time": None} for row in listed), key=key) == sorted(kept, key=key)
    number = re.compile(r"-?\d{1,15}(\.\d{1,9})?", re.ASCII)
    used = [str(each["data"]["value"]) for each in kept if each["type"] == "hostile"]
    expected = sum(Decimal(value) for value in used if number.fullmatch(value))
    asked = {"decimals": "string"}
    assert tenants.ask("GET", QUERY, "lister", params=asked).json()["data"][0]["value"] == str(expected)


def test_no_parameter_and_no_path_fails(tenants: Tenants) -> None:
    """Each parameter of each route, each part of a path, and each operator of a filter."""
    for (path, requests), text in itertools.product(PARAMETERS.items(), TEXTS + SHORT):
        for names in requests if text in SHORT else [each for each in requests if len(each) > 1]:
            others = {key: value for key, value in EXPLAIN.items() if key not in names and "events" not in path}
            asked = [*others.items(), *((name, escaped(text)) for name in names)]
            refused(tenants.ask("GET", f"{path}?{'&'.join(map('='.join, asked))}", "acme"))
    for (method, path), text in itertools.product(PATHS, SHORT):
        if text:  # those are other paths
            body = {"content": b"{}", "headers": JSON} if method == "PUT" else {}
            refused(tenants.ask(method, path.format(escaped(text)), "default" if body else "acme", **body))
    for text in TEXTS:
        refused(tenants.ask("GET", f"{QUERY}?{escaped(text)}={escaped(text)}&filterGroupBy[{escaped(text)}]=x", "acme"))
        compared = [{name: text} for name in OPERATORS]
        attributes = {
            name: {"$or": [{key: value[:99]} for each in compared for key, value in each.items()]}
            for name in ("id", "source", "subject", "type")
        }
        refused(tenants.ask("GET", "/api/v2/events", "acme", params={"filter": json.dumps(attributes)}))
        for filters in ({"$or": compared}, {"$and": compared}, {text: text}):
            asked_for = {**EXPLAIN, "advancedMeterGroupByFilters": {"region": filters}}
            refused(tenants.ask("POST", QUERY, "acme", content=json.dumps(asked_for)))


def test_documents_are_refused_or_kept_as_they_are(tenants: Tenants) -> None:
    """Every field of a document; what may be any text comes back as it was."""
    url, kept = f"{LEDGER}/entries", []
    head = {
        "template": "P09",
        "document": "one",
        "currency": "EUR",
        "effective_at": "2026-01-31",
        "amounts": {"payment": "1"},
    }
    for number, text in enumerate(dict.fromkeys(TEXTS + SHORT)):
        free = {
            "document": f"{number}{text}",
            "customer": text,
            "dimension": text,
            "description": f"{text}.",
            "kind": f"{text}.",
        }
        answer = tenants.ask("POST", url, "acme", content=json.dumps({"documents": [{**head, **free}]}), headers=JSON)
        if not refused(answer):
            kept.append(text)
            shown = tenants.ask("GET", f"{url}/{answer.json()['entries'][0]}", "acme").json()
            assert [shown[key] for key in ("document_id", "description", "document_kind")] == [
                free[key] for key in ("document", "description", "kind")
            ]
            assert [(each["customer"], each["dimension"]) for each in shown["postings"]] == [(text, text), (text, "")]
    assert len(kept) > 0.7 * len(TEXTS)
    for text in SHORT:
        for field in (
            {"template": text}, {"currency": text}, {"effective_at": text}, {"amounts": text}, {"amounts": {text: "1"}}, {text: text},
            {"amounts": {"payment": text}}, {"amounts": {"payment": f"1 {text}"}}, {"relates_to": text}, {"relates_to_period": text},
            {"version": text},
        ):  # fmt: skip
            refused(
                tenants.ask("POST", url, "acme", content=json.dumps({"documents": [{**head, **field}]}), headers=JSON)
            )
        refused(tenants.ask("POST", url, "acme", content=json.dumps({text: text}), headers=JSON))
        refused(tenants.ask("POST", url, "acme", content=json.dumps(text), headers=JSON))
    refused(tenants.ask("POST", url, "acme", content=b"[" * 100_000, headers=JSON))


def test_invoices_are_refused_or_kept_as_they_are(tenants: Tenants) -> None:
    """Every field of an invoice that somebody wrote; what may be any text comes back as it was, in its own draft."""
    kept = []
    line = {"description": "x", "amount": "1"}
    head = {"reference": "one", "customer": "c", "currency": "EUR", "period": "2026-03", "lines": [line]}
    for number, text in enumerate(dict.fromkeys(TEXTS + SHORT)):
        free = {"reference": f"{number}{text}", "customer": f"{text}.", "name": f"{text}."}
        written = {**head, **free, "lines": [{**line, "description": f"{text}."}]}
        answer = tenants.ask("POST", INVOICES, "acme", content=json.dumps(written), headers=JSON)
        if not refused(answer):
            kept.append(text)
            shown = answer.json()
            assert answer.status_code == 201
            assert (shown["customer"], shown["customer_name"]) == (free["customer"], free["name"])
            assert shown["lines"][0]["description"] == f"{text}."
            assert shown["lines"][0]["explanation"]["reference"] == free["reference"]
    assert len(kept) > 0.7 * len(TEXTS)
    for text in SHORT:
        for field in (
            {"currency": text},
            {"period": text},
            {"lines": text},
            {"lines": [text]},
            {text: text},
            {"lines": []},
        ):
            refused(tenants.ask("POST", INVOICES, "acme", content=json.dumps({**head, **field}), headers=JSON))
        for field in ({"quantity": text}, {"amount": text}, {"id": text}, {"tax_code": text}, {"tax": text}, {"revenue": text},
                      {"service_start": text}, {"taxed": text}, {"tax": {"mode": text, "name": text, "rate_percent": text}}):  # fmt: skip
            lines = [{**line, **field}]
            refused(tenants.ask("POST", INVOICES, "acme", content=json.dumps({**head, "lines": lines}), headers=JSON))
        for method in ("PUT", "DELETE"):
            refused(tenants.ask(method, f"{INVOICES}/{escaped(text)}", "acme", content=json.dumps(head), headers=JSON))
    for bad in (b"{", b"[]", b'{"lines": 1e999}', b'{"reference": NaN}', b"\xff", b"[" * 100_000, b""):
        refused(tenants.ask("POST", INVOICES, "acme", content=bad, headers=JSON))
    for amount in ("1e999", "1e30", "-0", "0.0000000000001", "NaN"):
        content = json.dumps(head).replace('"1"', amount)
        refused(tenants.ask("POST", INVOICES, "acme", content=content, headers=JSON))


def test_what_is_told_of_money_is_refused(tenants: Tenants) -> None:
    """Every field of payments, failed payments, refunds and reasons."""
    money = {"amount_minor": 1, "currency": "EUR"}
    told = {
        f"{INVOICES}/x/payments": {"payment": "p", **money, "paid_on": "2026-01-31", "payout": ""},
        f"{INVOICES}/x/payment_failures": {"payment": "p", **money, "failed_on": "2026-01-31", "decline_code": ""},
        f"{INVOICES}/x/void": {"reason": "x"},
        f"{INVOICES}/x/uncollectible": {"reason": "x", "tax_relief": False},
        f"{INVOICES}/x/apply_credit": {"amount_minor": 1},
        f"{CREDIT.format('x')}/refunds": {"refund": "r", **money, "paid_on": "2026-01-31", "payout": ""},
        f"{SETTLEMENTS}/flags/x/resolve": {"note": "x"},
    }
    for (path, body), text in itertools.product(told.items(), SHORT):
        for changed in (*({name: text} for name in body), {text: text}):
            content = json.dumps({**body, **changed})
            assert refused(tenants.ask("POST", path, "acme", content=content, headers=JSON)), (path, changed)


def test_credits_and_settlements_are_refused_or_kept_as_they_are(tenants: Tenants) -> None:
    """Every field of a top-up and of a settlement file, and a customer's name in the path; what is kept comes back."""
    for number, text in enumerate(dict.fromkeys(TEXTS + SHORT)):
        head = {"amount_minor": 1, "currency": "EUR", "promotional": True}
        body = json.dumps({**head, "reference": f"{number}{text}"})
        path = WALLET.format(escaped(text))
        if not refused(tenants.ask("POST", f"{path}/top_ups", "acme", content=body, headers=JSON)):
            shown = tenants.ask("GET", path, "acme").json()
            assert (shown["customer"], shown["moves"][0]["document_id"]) == (text, f"{number}{text}")
        if text not in SHORT:
            continue
        for field in ("amount_minor", "currency", "promotional", "priority", "expires_at", "invoiced", text):
            body = json.dumps({**head, "reference": "x", field: text})
            assert refused(tenants.ask("POST", f"{WALLET.format('x')}/top_ups", "acme", content=body, headers=JSON))
        mapping = "{reference: a, gross: b, currency: c, date: d}"
        for file in (
            {"payout": text}, {"text": text}, {"mapping": text}, {text: text},
            {"text": f"a,b,c,d\n{text},{text},{text},{text}\n"}, {"mapping": f"{{reference: a, gross: b, currency: c, date: {text}}}"},
        ):  # fmt: skip
            body = json.dumps({"payout": "p", "text": "a,b,c,d\n1,2,3,4\n", "mapping": mapping, **file})
            refused(tenants.ask("POST", SETTLEMENTS, "acme", content=body, headers=JSON))


def test_meters_are_refused_or_kept_as_they_are(tenants: Tenants) -> None:
    """Every field of a definition; what may be any text comes back as it was."""
    head = {"slug": "one", "eventType": "one", "aggregation": "COUNT"}
    url = "/api/v1/meters"
    for text in SHORT:
        for definition in (
            {"slug": text}, {"groupBy": {text: "$.a"}}, {"groupBy": {"a": text}}, {"filters": {text: ["a"]}}, {"eventFrom": text},
            {"aggregation": "SUM", "valueProperty": text}, {"eventAgeMax": text}, {"eventAheadMax": text}, {"aggregation": text}, {text: text},
            {"groupBy": text}, {"filters": text}, {"metadata": text},
        ):  # fmt: skip
            answer = tenants.ask("POST", url, "default", content=json.dumps({**head, **definition}), headers=JSON)
            if not refused(answer):
                slug = answer.json()["slug"]
                shown = tenants.ask("GET", f"{url}/{slug}", "default").json()
                assert {key: shown[key] for key in definition} == definition
                assert tenants.ask("DELETE", f"{url}/{slug}", "default").status_code == 204
    for number, text in enumerate(TEXTS):
        free = {
            "name": text,
            "description": text,
            "metadata": {text: text},
            "eventType": text,
            "filters": {"$.q": {"in": [text]}},
        }
        answer = tenants.ask(
            "POST", url, "default", content=json.dumps({**head, **free, "slug": f"m{number}"}), headers=JSON
        )
        if not refused(answer):
            shown = tenants.ask("GET", f"{url}/m{number}", "default").json()
            assert {key: value for key, value in free.items() if value} == {
                key: shown.get(key) for key in free if free[key]
            }
            assert tenants.ask("DELETE", f"{url}/m{number}", "default").status_code == 204


def test_webhooks_are_refused_or_kept_as_they_are(tenants: Tenants) -> None:
    """Every field of an endpoint, every parameter and path about one; a description comes back as it was."""
    others = tenants.ask("POST", WEBHOOKS, "other", json={"url": "https://example.com", "description": OTHERS})
    assert others.status_code == 201
    made = tenants.ask("POST", WEBHOOKS, "acme", json={"url": "https://example.com"}).json()
    hook = f"{WEBHOOKS}/{made['id']}"
    for text in TEXTS:
        answer = tenants.ask("PATCH", hook, "acme", content=json.dumps({"description": text}), headers=JSON)
        assert refused(answer) != text.isprintable() or len(text) > 500, text
        if answer.is_success:
            assert answer.json()["description"] == tenants.ask("GET", hook, "acme").json()["description"] == text
    for text in SHORT:
        for changes in ({"url": text}, {"types": [text]}, {"types": text}, {"state": text}, {text: text}):
            assert refused(tenants.ask("PATCH", hook, "acme", content=json.dumps(changes), headers=JSON)), changes
        for path, body in (
            ("secret", {"oldValidSeconds": text}),
            ("redeliver", {"since": text, "alsoDelivered": text}),
        ):
            assert refused(tenants.ask("POST", f"{hook}/{path}", "acme", content=json.dumps(body), headers=JSON)), body
        for name in ("state", "before", "limit"):
            refused(tenants.ask("GET", f"{hook}/deliveries?{name}={escaped(text)}", "acme"))
        if text:  # those are other paths
            refused(tenants.ask("GET", f"{hook}/deliveries/{escaped(text)}", "acme"))
            refused(tenants.ask("POST", f"{hook}/deliveries/{escaped(text)}/redeliver", "acme"))
        for header in ("Idempotency-Key", "If-Match"):
            if text.isprintable() and text.isascii() and text.strip() == text:  # no client sends others
                refused(tenants.ask("POST", f"{hook}/redeliver", "acme", json={"since": "x"}, headers={header: text}))
    assert tenants.ask("GET", hook, "acme").json()["url"] == made["url"]


def test_credit_notes_are_refused_whatever_they_ask_for(tenants: Tenants) -> None:
    """Every field of a credit note and every header; there is no invoice that it could be about."""
    whole = {"invoice": "INV-000001", "reason": "other"}
    for text in TEXTS:
        for body in (whole | {"invoice": text}, whole | {"comment": text}, whole | {"reason": text}, {text: text}):
            assert refused(tenants.ask("POST", CREDITS, "acme", content=json.dumps(body), headers=JSON)), body
    for text in SHORT:
        for body in (whole | {"lines": text}, whole | {"lines": [{"position": text}]}, whole | {"net_minor": text}):
            assert refused(tenants.ask("POST", CREDITS, "acme", content=json.dumps(body), headers=JSON)), body
        assert refused(tenants.ask("POST", f"{CREDITS}?dry_run={escaped(text)}", "acme", json=whole))
    for number in NUMBERS:
        if number != "1":
            body_text = f'{{"invoice":"INV-000001","reason":"other","gross_minor":{number}}}'
            assert refused(tenants.ask("POST", CREDITS, "acme", content=body_text.encode(), headers=JSON)), number


def test_no_line_of_the_log_is_forged(tenants: Tenants) -> None:
    """After all of that, every line of the server's log is one that it wrote, and no error is among them."""
    lines = tenants.server.log.read_bytes().split(b"\n")
    serving = next(number for number, line in enumerate(lines) if b" meterline.server serving " in line)
    written = re.compile(rb"\d{4}-\d\d-\d\d [0-9:,]{12} (INFO|WARNING) [a-z_.]+ [\x20-\x7e]*")
    assert [line for line in lines[serving:-1] if not written.fullmatch(line)] == []
