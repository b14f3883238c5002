"""Events, rejections and customers of a running server: whole pages, stable while more arrives, and a tenant's own."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.tenants import Tenants, running_tenants

NOW = datetime.now(UTC).replace(microsecond=0)


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": f"e{number:03d}", "source": "/s", "type": "call", "subject": f"s{number % 3}",
        "time": (NOW - timedelta(minutes=number // 2)).isoformat(), "data": {"bytes": 1, "region": "eu"}, **fields,
    }  # fmt: skip


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenants]:
    """A server with sixty events of one tenant, two of them at each minute, and others of another tenant."""
    with running_tenants(tmp_path_factory, "acme", "other") as running:
        running.send("acme", [event(number) for number in range(60)])
        running.send("other", [event(number) for number in range(30)])
        running.settle()
        yield running


def pages(tenants: Tenants, path: str, meanwhile: Any = lambda _: None, **asked: Any) -> list[dict[str, Any]]:
    """All pages of a list, in their order; something may happen after each."""
    found, cursor = [], ""
    while True:
        page = tenants.ask("GET", path, "acme", params={**asked, "cursor": cursor}).json()
        assert page.keys() == {"items", "nextCursor"}, page
        found += page["items"]
        cursor = page["nextCursor"]
        if not cursor:
            return found
        meanwhile(len(found))


def test_pages_are_whole_while_more_arrives(tenants: Tenants) -> None:
    """Newest first; what arrives meanwhile moves nothing and doubles nothing, be it newer or older than a page's end."""

    def arrive(shown: int) -> None:
        tenants.send("acme", [event(1000 + shown, time=(NOW + timedelta(hours=1)).isoformat())])
        tenants.send("acme", [event(2000 + shown, time=(NOW - timedelta(hours=5)).isoformat())])
        tenants.settle()

    found = [row["event"]["id"] for row in pages(tenants, "/api/v2/events", arrive, limit=7)]
    assert len(found) == len(set(found))
    assert [each for each in found if len(each) == 4] == sorted(
        found[:60], key=lambda each: (int(each[1:]) // 2, found.index(each))
    )
    assert {each for each in found if len(each) == 4} == {f"e{number:03d}" for number in range(60)}
    assert [each for each in found if each.startswith("e1")] == []  # newer than the first page
    assert [each for each in found if each.startswith("e2")]  # older than all, so they come at the end


def test_a_filter_says_which_events_are_listed(tenants: Tenants) -> None:
    """Each attribute, each operator, and both ways to combine them, against what the events say."""
    half = NOW - timedelta(minutes=10)
    cases: list[tuple[dict[str, Any], Any]] = [
        ({"subject": {"$eq": "s1"}}, lambda n: n % 3 == 1),
        ({"subject": {"$ne": "s1"}}, lambda n: n % 3 != 1),
        ({"subject": {"$in": ["s1", "s2"]}, "source": {"$eq": "/s"}}, lambda n: n % 3),
        ({"subject": {"$nin": ["s1", "s2"]}, "type": {"$like": "c_ll"}}, lambda n: n % 3 == 0),
        ({"id": {"$like": "e_1%"}}, lambda n: n // 10 == 1),
        ({"id": {"$nlike": "e_1%"}}, lambda n: n // 10 != 1),
        ({"id": {"$ilike": "E_1%"}, "type": {"$nilike": "X%"}}, lambda n: n // 10 == 1),
        ({"id": {"$like": r"e\_1%"}}, lambda _: False),
        ({"id": {"$gte": "e050"}}, lambda n: n >= 50),
        ({"id": {"$and": [{"$gt": "e009"}, {"$lt": "e012"}]}}, lambda n: n in {10, 11}),
        ({"id": {"$or": [{"$lte": "e001"}, {"$eq": "e059"}]}}, lambda n: n in {0, 1, 59}),
        ({"id": {"$or": []}}, lambda _: False),
        ({"time": {"$gt": half.isoformat()}}, lambda n: n // 2 < 10),
        ({"time": {"$and": [{"$gte": half.isoformat()}, {"$lte": half.isoformat()}]}}, lambda n: n // 2 == 10),
        ({"time": {"$or": [{"$lt": "2013-01-01T00:00:00Z"}]}}, lambda _: False),
        ({"ingestedAt": {"$gte": (NOW - timedelta(days=1)).isoformat()}, "id": {"$in": ["e003"]}}, lambda n: n == 3),
        ({"type": {"$eq": "'; DROP TABLE events; --"}}, lambda _: False),
    ]
    for wanted, passes in cases:
        rows = pages(
            tenants, "/api/v2/events", filter=json.dumps({"time": {"$lte": NOW.isoformat()}, **wanted}), clientId="x"
        )
        found = {row["event"]["id"] for row in rows if len(row["event"]["id"]) == 4}
        assert found == {f"e{number:03d}" for number in range(60) if passes(number)}, wanted
    for refused in (
        '{"colour":{"$eq":"x"}}',
        '{"id":{"$eq":"a","$ne":"b"}}',
        '{"time":{"$gt":"x"}}',
        "{",
        "5",
        '{"id":"x"}',
        '{"id":{"$in":"x"}}',
    ):
        answer = tenants.ask("GET", "/api/v2/events", "acme", params={"filter": refused})
        assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json"), refused
    for asked in ({"limit": 0}, {"limit": 101}, {"cursor": "x"}, {"cursor": f"1.{'0' * 32}.0.-1.0"}):
        assert tenants.ask("GET", "/api/v2/events", "acme", params=asked).status_code == 400


def test_rejections_are_shown_to_whom_they_belong(tenants: Tenants, tmp_path: Path) -> None:
    """By the tenant that a line names; a line that is no JSON is nobody's, for who runs the system."""
    lines = [
        *(json.dumps(event(number, tenant="acme", subject=None, note="acme-mark")) for number in range(5)),
        json.dumps(event(9, tenant="other", time="1970-01-01T00:00:00Z", note="other-mark")), json.dumps(event(9, source=5)),
        '{"tenant":"acme","tenant":"other"}', '{"ten\\u0061nt":"acme","x":1}', '{"tenant":5}', "nobody's line", "[1]", '{"tenant":"acme"',
        json.dumps(event(10, tenant="acme", source=5, note="\u00e4" * 40_000)),
    ]  # fmt: skip
    file = tmp_path / "rejected.ndjson"
    file.write_bytes("\n".join(lines).encode() + b"\n\xff\xfe")
    tenants.server.run("import", str(file))
    found = pages(tenants, "/api/v1/events/rejected", limit=3)
    assert {row["raw"] for row in found if row["bytes"] < 10_000} == {*lines[:5], lines[7], lines[8]}
    assert [row["detail"][:8] for row in found if "acme-mark" in row["raw"]] == ["subject;"] * 5
    assert found[0].keys() == {
        "reason", "detail", "partition", "offset", "line", "position", "ingestedAt", "rejectedAt", "raw", "bytes",
    }  # fmt: skip
    (long,) = [row for row in found if row["bytes"] > 10_000]
    assert long["bytes"] == len(lines[-1])
    assert lines[-1].startswith(long["raw"])
    assert len(long["raw"]) == 16 << 10
    late = {"reason": "time_out_of_range"}
    assert tenants.ask("GET", "/api/v1/events/rejected", "acme", params=late).json()["items"] == []
    (other,) = tenants.ask("GET", "/api/v1/events/rejected", "other", params=late).json()["items"]
    assert "other-mark" in other["raw"]
    tenants.operate("replay_rejections", reason="time_out_of_range", repaired=None)
    again, before = tenants.ask("GET", "/api/v1/events/rejected", "other", params=late).json()["items"]
    assert before == {**other, "replayedAt": before["replayedAt"]}
    assert before["replayedAt"] > before["rejectedAt"]
    assert (again["raw"], "replayedAt" in again) == (other["raw"], False)  # it was rejected once more, at a new place
    own = tenants.ask("GET", "/api/v1/events/rejected", "default").json()["items"]
    assert [row["raw"] for row in own] == [lines[6]]
    nobodys = tenants.ask("GET", "/api/v1/events/rejected", "default", params={"ofNobody": True}).json()["items"]
    assert sorted(row.get("raw", row.get("rawBase64")) for row in nobodys) == sorted([*lines[9:13], "//4="])
    assert tenants.ask("GET", "/api/v1/events/rejected", "acme", params={"ofNobody": True}).status_code == 403
    for asked in ({"reason": "none"}, {"from": "x"}, {"ofNobody": "x"}):
        assert tenants.ask("GET", "/api/v1/events/rejected", "acme", params=asked).status_code == 400


CONTRACTS = """
contracts:
  - {customer: globex, name: Globex, subjects: [s0, s1], plan: any, starts_on: 2026-01-01}
  - {customer: "=initech", name: Initech, subjects: [nobody], plan: any, starts_on: 2026-01-01}
"""


def test_usage_is_put_together_by_customer(tenants: Tenants) -> None:
    """Of the contracts that were applied last; who has none is nobody's, and other tenants have no customers."""
    query = "/api/v1/meters/bytes/query"

    def ask(tenant: str = "default", **asked: Any) -> Any:
        answer = tenants.ask("GET", query, tenant, params=asked)
        return [(row["value"], row["customerId"], row["subject"]) for row in answer.json()["data"]]

    assert tenants.ask("GET", query, "default", params={"filterCustomerId": "globex"}).status_code == 404
    tenants.send("default", [event(number) for number in range(30)])
    tenants.settle()
    assert ask(groupBy="customer_id") == [(30, None, None)]
    tenants.operate("apply_contracts", text=CONTRACTS, file="contracts.yaml")
    assert ask(groupBy="customer_id") == [(10, None, None), (20, "globex", None)]
    assert ask(filterCustomerId=["globex", "=initech"]) == [(20, "globex", None)]
    assert ask(filterCustomerId="globex", subject=["s1", "s2"]) == [(10, "globex", "s1")]
    assert ask(filterCustomerId="=initech") == ask(filterCustomerId="=initech", windowSize="DAY") == []
    unknown = tenants.ask("GET", query, "default", params={"filterCustomerId": ["globex", "umbrella"]})
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "customer with id umbrella not found")
    assert tenants.ask("GET", query, "acme", params={"filterCustomerId": "globex"}).status_code == 404
    assert {customer for _, customer, _ in ask("acme", groupBy="customer_id")} == {None}
    table = tenants.ask("GET", query, "default", params={"groupBy": "customer_id"}, headers={"Accept": "text/csv"}).text
    assert [line.split(",")[2] for line in table.splitlines()] == ["customer_id", "", "globex"]
    plain = tenants.ask("GET", query, "default").json()["data"]
    assert [(row["value"], "customerId" in row) for row in plain] == [(30, False)]
    for path, asked, of in (
        ("/api/v1/events", {"customerId": "globex"}, lambda body: body),
        ("/api/v2/events", {"filter": '{"customerId":{"$in":["globex"]}}'}, lambda body: body["items"]),
    ):
        rows = of(tenants.ask("GET", path, "default", params=asked).json())
        assert [row["customerId"] for row in rows] == ["globex"] * 20
        rows = of(tenants.ask("GET", path, "default").json())
        assert {row["event"]["subject"]: row.get("customerId") for row in rows} == {
            "s0": "globex",
            "s1": "globex",
            "s2": None,
        }
        assert not any("customerId" in row for row in of(tenants.ask("GET", path, "acme").json()))
