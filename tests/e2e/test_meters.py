"""Meters from outside: made over HTTP on a running server, listed, and one filled later by a process that is killed."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Server
from tests.servers import plain_http

FIRST = "meters: [{slug: calls, eventType: call, aggregation: COUNT}]"
LATER = """
meters:
  - {slug: calls, eventType: call, aggregation: COUNT}
  - {slug: mean, name: Mean size, eventType: call, aggregation: AVG, valueProperty: $.bytes, filters: {$.region: [eu]}}
  - {slug: last, eventType: call, aggregation: LATEST, valueProperty: $.bytes, groupBy: {region: $.region}}
"""


def event(number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": str(number), "source": "/test", "type": "call", "subject": "s",
        "time": f"2013-01-31T{number % 24:02d}:00:00Z", "data": {"bytes": number, "region": ("eu", "us")[number % 2]},
    }  # fmt: skip


def import_events(server: Server, folder: Path, numbers: range) -> None:
    file = folder / "usage.ndjson"
    file.write_text("\n".join(json.dumps(event(number)) for number in numbers))
    server.run("import", str(file))


def apply(server: Server, folder: Path, text: str) -> None:
    file = folder / "meters.yaml"
    file.write_text(text)
    server.run("meters", "apply", str(file))


def usage(server: Server) -> dict[str, Decimal]:
    """The month's usage by meter, of the one subject."""
    lines = server.run("usage", "--period", "2013-01").replace("│", "").splitlines()
    rows = [line.split() for line in lines if " s " in line]
    return {meter: Decimal(quantity.replace(",", "")) for meter, _, quantity in rows}


@pytest.mark.parametrize("step", ["backfill_noted", "rollups_deleted", "rollups_copied"])
def test_a_backfill_killed_in_the_middle(
    server: Server, tmp_path: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended as by a power cut at each step: nothing is read for money until it was finished, and then all is right."""
    server.start(
        meters=""
    )  # it answers in a tenth of the time that a command takes to open the stores; the backfill opens them
    apply(server, tmp_path, FIRST)
    import_events(server, tmp_path, range(100))
    apply(server, tmp_path, LATER)
    import_events(server, tmp_path, range(90, 111))
    assert server.stop() == 0
    monkeypatch.setenv("METERLINE_KILL_AT", step)
    server.run("meters", "backfill", "last", status=-9)
    monkeypatch.delenv("METERLINE_KILL_AT")
    server.start(meters="")
    refused = server.run("usage", "--period", "2013-01", status=1)
    assert "a backfill of last did not finish; finish it with `meterline meters backfill last`" in refused
    if step != "rollups_copied":
        assert "broken: rollups are the sum of their events" in server.run("audit", status=1)
    server.run("meters", "backfill", "last")
    server.run("meters", "backfill", "mean")
    mean = (sum(range(0, 111, 2)) / Decimal(56)).normalize()
    assert usage(server) == {"calls": 111, "last": 95, "mean": mean}  # 95 is the last of those at 23:00
    assert "faults" not in server.run("audit")


def test_meters_over_http_and_in_a_list(server: Server, tmp_path: Path) -> None:
    """A meter that a client made counts from then on, is listed, and keeps its usage when it is withdrawn."""
    server.start()
    url = f"{server.url}/api/v1/meters"
    definition = {"slug": "last", "eventType": "call", "aggregation": "LATEST", "valueProperty": "$['bytes']"}
    assert plain_http.post(url, json=definition).status_code == 201
    assert plain_http.post(url, json=definition).status_code == 409
    assert plain_http.put(f"{url}/last", json={"name": "Last size"}).json()["name"] == "Last size"
    import_events(server, tmp_path, range(50))
    assert plain_http.delete(f"{url}/last").status_code == 204
    import_events(server, tmp_path, range(50, 100))
    assert usage(server)["last"] == 47
    listed = server.run("meters", "list")
    assert "withdrawn" in next(line for line in listed.splitlines() if " last " in line)
    described = [json.loads(line) for line in server.run("meters", "list", "--json").splitlines()]
    assert [meter["slug"] for meter in described] == ["bytes", "calls"]
    assert "allowed: bytes, calls" in server.run("meters", "backfill", "last", status=1)
    assert "a whole hour" in server.run("meters", "backfill", "calls", "--from", "2013-01-31T10:30:00Z", status=1)
    assert "faults" not in server.run("audit")
