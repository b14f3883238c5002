"""The usage query API of a live `meterline serve`, from outside."""

import csv
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Server, server_in
from tests.servers import plain_http

BATCH = {"Content-Type": "application/cloudevents-batch+json"}
RANGE = {"from": "2013-01-31T00:00:00Z", "to": "2013-02-02T00:00:00Z"}


def event(number: int, **fields: Any) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": str(number), "source": "/test", "type": "call", "subject": f"s{number % 2}",
        "time": f"2013-01-31T{number % 24:02d}:20:00Z",
        "data": {"bytes": f"{number}.000000001", "region": ("eu", "us")[number % 2]}, **fields,
    }  # fmt: skip


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A server with 48 events, two of them sent again, one unusable, one of another type, and one after a cut.

    Tests only read from it.
    """
    with server_in(tmp_path_factory.mktemp("queried")) as server:
        server.start()
        events = [event(number) for number in range(48)] + [event(0), event(1)]
        events += [event(100, data={"bytes": "many"}), event(101, type="other")]
        with httpx.Client(base_url=server.url, timeout=30, verify=False) as client:
            assert client.post("/api/v1/events", json=events, headers=BATCH).status_code == 204
            server.run("audit")  # a barrier
            assert client.post("/api/v1/events", json=[event(200)], headers=BATCH).status_code == 204
            server.run("audit")
            yield client


def test_queries_as_json_and_as_csv(api: httpx.Client) -> None:
    """Every digit of a value is there, as a number or as a string; rows have their windows, subjects and dimensions."""
    get = api.get("/api/v1/meters/bytes/query", params={**RANGE, "subject": "s1", "groupBy": "region"})
    total = f"{sum(range(1, 48, 2))}.000000024"
    assert get.text == (
        '{"from":"2013-01-31T00:00:00Z","to":"2013-02-02T00:00:00Z","data":[{"value":' + total + ","
        '"windowStart":"2013-01-31T00:00:00Z","windowEnd":"2013-02-02T00:00:00Z","subject":"s1","groupBy":{"region":"us"}}]}'
    )
    for request in (
        {"params": {**RANGE, "decimals": "string"}},
        {"params": RANGE, "headers": {"Accept": "application/json; decimals=string"}},
    ):
        assert isinstance(api.get("/api/v1/meters/bytes/query", **request).json()["data"][0]["value"], str)
    asked = {**RANGE, "windowSize": "DAY", "windowTimeZone": "Asia/Kathmandu", "groupBy": ["subject", "region"]}
    post = api.post("/api/v1/meters/calls/query", json={**asked, "groupBy": ["subject"]}).json()
    assert [(row["value"], row["windowStart"], row["subject"]) for row in post["data"]] == [
        (20, "2013-01-31T00:00:00+05:45", "s0"), (18, "2013-01-31T00:00:00+05:45", "s1"),
        (6, "2013-02-01T00:00:00+05:45", "s0"), (6, "2013-02-01T00:00:00+05:45", "s1"),
    ]  # fmt: skip
    text = api.post("/api/v1/meters/bytes/query", json=asked, headers={"Accept": "text/csv"})
    assert text.headers["content-disposition"] == "attachment; filename=bytes.csv"
    rows = [*csv.DictReader(io.StringIO(text.text))]
    assert [*rows[0]] == ["window_start", "window_end", "subject", "region", "value"]
    assert rows[0]["value"].endswith(".000000019")
    assert api.get("/api/v1/meters/calls/query").json()["data"][0]["windowStart"] == "2013-01-31T00:20:00Z"
    nothing = {"from": "2014-01-01T00:00:00Z", "to": "2014-01-02T00:00:00Z"}
    assert api.get("/api/v1/meters/calls/query", params=nothing).json()["data"][0]["value"] == 0
    assert api.get("/api/v1/meters/bytes/query", params=nothing).json()["data"] == []
    counts = [api.get("/api/v1/meters/calls/query", params={"asOf": cut}).text.count('"value":50') for cut in (1, 2)]
    assert counts == [0, 1]


def test_what_cannot_be_answered_is_a_problem_document(api: httpx.Client) -> None:
    """With OpenMeter's words, where it has some."""
    meter = "/api/v1/meters/bytes/query"
    cases: list[tuple[str, dict[str, Any], int, str]] = [
        ("/api/v1/meters/nothing/query", {}, 404, "meter not found: nothing"),
        (meter, {"groupBy": "colour"}, 400, "invalid group by: colour"),
        (meter, {"filterGroupBy[colour]": "red"}, 400, "invalid group by filter: colour"),
        (meter, {"windowTimeZone": "Mars"}, 400, "invalid time zone: unknown time zone Mars"),
        (meter, {"from": RANGE["to"], "to": RANGE["from"]}, 400, "from must be before to"),
        (meter, {"from": RANGE["to"], "to": RANGE["to"]}, 400, "from and to cannot be equal"),
        (meter, {"from": "yesterday"}, 400, "from: 'yesterday'"),
        (meter, {"windowSize": "WEEK"}, 400, "windowSize"),
        (meter, {"filterCustomerId": "c"}, 404, "customer with id c not found"),
        (meter, {"advancedMeterGroupByFilters": "{"}, 400, "not JSON"),
        (meter, {"advancedMeterGroupByFilters": '{"region":{"$eq":"a","$ne":"b"}}'}, 400, "multiple operators are set"),
        ("/api/v1/events", {"limit": 1000}, 400, "limit"),
        ("/api/v1/events", {"from": "2013-01-01T00:00:00Z"}, 400, "32 days"),
        ("/api/v1/usage/explain", {"meter": "bytes"}, 400, "needs meter, from and to"),
        ("/api/v1/usage/explain", {"meter": "bytes", **RANGE, "cursor": "1.2"}, 400, "cursor"),
        ("/api/v1/nothing", {}, 404, "Not Found"),
    ]
    for path, parameters, status, detail in cases:
        response = api.get(path, params=parameters)
        assert (response.status_code, response.headers["content-type"]) == (status, "application/problem+json"), path
        assert detail in response.json()["detail"], (response.json(), detail)
    assert api.put("/api/v1/meters").status_code == 405
    assert api.post(meter, content=b"[]").status_code == 400


def test_a_number_is_explained_by_its_events(api: httpx.Client) -> None:
    """Page by page: all events of the subject with their places, refused copies, what is not counted, what was late."""
    asked = {"meter": "bytes", "subject": "s0", **RANGE, "limit": 10, "lateSince": 1}
    found, cursor = [], ""
    while True:
        page = api.get("/api/v1/usage/explain", params={**asked, "cursor": cursor}).json()
        found += page["events"]
        cursor = page.get("nextCursor", "")
        if not cursor:
            break
    assert len({(row["partition"], row["offset"], row["line"]) for row in found}) == len(found) == 26
    assert page["value"] == f"{sum(range(0, 48, 2)) + 200}.000000025"
    by_id = {row["id"]: row for row in found}
    assert [len(by_id[number]["duplicates"]) for number in ("0", "2")] == [1, 0]
    assert (by_id["100"]["counts"], "decimal number" in by_id["100"]["reason"]) == (False, True)
    assert [row["id"] for row in found if row["late"]] == ["200"]
    assert by_id["2"]["value"] == "2.000000001"


def test_meters_subjects_values_and_queries_at_the_same_time(api: httpx.Client) -> None:
    """Lists are complete and sorted, and many queries at once are all answered right."""
    meter = api.get("/api/v1/meters/bytes").json()
    assert meter == api.get(f"/api/v1/meters/{meter['id']}").json()
    assert meter["groupBy"] == {"region": "$.region"}
    assert api.get("/api/v1/meters/calls/subjects").json() == ["s0", "s1"]
    assert api.get("/api/v1/meters/bytes/group-by/region/values", params=RANGE).json() == ["eu", "us"]
    assert api.get("/api/v1/meters/bytes/group-by/region/values").json() == []  # nothing within the last day

    def ask(number: int) -> int:
        return api.get("/api/v1/meters/calls/query", params={"subject": f"s{number % 2}"}).json()["data"][0]["value"]

    with ThreadPoolExecutor(16) as threads:
        assert [*threads.map(ask, range(64))] == [26, 24] * 32


def test_listed_events_say_what_is_wrong_with_them(server: Server) -> None:
    """Newest first, as they were sent, with the reason why a meter cannot use one."""
    server.start()
    body = b"[%s]" % b",".join(
        b'{"specversion":"1.0","id":"e%d","source":"/s","type":"call","subject":"x","data":{"bytes":%s}}' % pair
        for pair in ((1, b"1.10"), (2, b'"many"'))
    )  # fmt: skip
    assert plain_http.post(f"{server.url}/api/v1/events", content=body, headers=BATCH).status_code == 204
    server.run("audit")
    listed = plain_http.get(f"{server.url}/api/v1/events", params={"subject": "x", "id": "e"})
    by_id = {row["event"]["id"]: row for row in listed.json()}
    assert '"bytes":1.1' in listed.text
    assert "allowed is a decimal number" in by_id["e2"]["validationError"]
    assert "validationError" not in by_id["e1"]
    assert {"ingestedAt", "storedAt"} <= by_id["e1"].keys()
    assert by_id["e1"]["event"]["time"].endswith("Z")
    metrics = plain_http.get(f"{server.url}/api/v1/debug/metrics").text
    assert 'openmeter_events_total{subject="x"} 2.0' in metrics
    assert json.loads(plain_http.get(f"{server.url}/api/v1/events", params={"subject": "nobody"}).text) == []
