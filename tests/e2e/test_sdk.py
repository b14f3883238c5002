"""OpenMeter's own clients, unmodified, against a live `meterline serve`."""

import json
import subprocess
from typing import Any

from tests.e2e.conftest import Server
from tests.sdk import environment


def run(*arguments: str, cwd: Any = None) -> str:
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, timeout=120, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_client_sends_events_and_reads_usage(server: Server) -> None:
    """Single events, batches, meters, queries as JSON and as CSV, lists, metrics, and errors that it can raise."""
    python, program = environment.python(), environment.FOLDER / "client.py"
    server.start()
    run(python, program, "send", server.url)
    server.run("audit")  # waits until all of it is stored
    found = json.loads(run(python, program, "ask", server.url))
    assert found["meters"] == [["bytes", "SUM"], ["calls", "COUNT"]]
    assert (found["meter"], found["total"]) == ("$.bytes", 91)
    start = found["start"]
    assert [row[:2] for row in found["hourly"]] == [
        [37.5, {"region": "eu"}], [37.5, {"region": "us"}], [20.0, {"region": "eu"}], [18.75, {"region": "us"}],
    ]  # fmt: skip
    assert found["hourly"][0][2] == start
    assert found["filtered"] == [57.5]
    assert found["posted"] == [[45, "customer-1"]]
    header, row = found["csv"].strip().split("\n")
    assert header == "window_start,window_end,subject,value"
    assert row.endswith(",customer-0,57.500000")
    assert found["events"] == [["sdk-89", "customer-1"], ["sdk-87", "customer-1"], ["sdk-85", "customer-1"]]
    assert found["pages"] == [[f"sdk-{number}", True] for number in range(89, 0, -2)]
    assert found["since"] == 91
    assert found["subjects"] == ["customer-0", "customer-1"]
    assert found["values"] == ["eu", "us"]
    assert "# TYPE openmeter_events counter" in found["metrics"]
    assert {name: status for name, (status, _) in found["failures"].items()} == {
        "unknown": 404,
        "zone": 400,
        "event": 400,
    }
    assert found["failures"]["zone"][1] == "invalid time zone: unknown time zone Mars"


def test_the_javascript_client_sends_events_and_reads_usage(server: Server) -> None:
    """It fills in what an event lacks, always sends lists, and reads numbers, meters, events and errors."""
    folder, program = environment.node(), environment.FOLDER / "client.mjs"
    server.start()
    run("node", program, "send", server.url, cwd=folder)
    server.run("audit")
    found = json.loads(run("node", program, "ask", server.url, cwd=folder))
    assert found["meters"] == ["bytes", "calls"]
    assert found["total"] == [4]
    assert found["hourly"] == [[1, "eu"], [2.000000001, "us"], [0.5, "eu"]]
    assert found["events"] == 4
    assert found["failure"][1] == 404
