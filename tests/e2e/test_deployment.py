"""The commands of docker-compose.yml as processes, over a real broker, the ClickHouse engine behind HTTP and PostgreSQL."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
import sqlalchemy as sa

from examples.flights import demo
from examples.flights.events import flights
from meterline.system import configure_meters, connected
from stores.servers import servers_of
from tests.e2e.test_flights import price, totals
from tests.e2e.test_flights import rows as flight_rows
from tests.servers import plain_http
from tests.servers.clickhouse import ClickHouse
from tests.servers.compose import ROOT, command, services
from tests.servers.kafka import QUICK_START, Broker, free_port

rows = flight_rows
METERS = ROOT / "examples" / "flights" / "meters.yaml"
PROCESSES = ("gateway", "worker-1", "worker-2")
CARRIERS = ("HA", "VX", "US")
WAIT_S = 60.0


@dataclass
class Composed:
    """The services of docker-compose.yml, started as they are there, but for servers and ports."""

    directory: Path
    servers: dict[str, str]
    ports: dict[str, int] = field(default_factory=lambda: {name: free_port() for name in PROCESSES})
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def environment(self, name: str) -> dict[str, str]:
        """What the service's variables are, with our servers for its own."""
        assert set(self.servers) < set(services()[name]["environment"])
        return {**os.environ, **services()[name]["environment"], **self.servers, "PYTHONPATH": str(ROOT)}

    def name_servers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let this process's environment be that of the demo."""
        for name in services()["demo"]["environment"]:
            monkeypatch.setenv(name, self.environment("demo")[name])

    def start(self, name: str) -> None:
        """Start a service that goes on running."""
        options = {"--port": str(self.ports[name])} | ({"--host": "127.0.0.1"} if name == "gateway" else {})
        python, *arguments = command(name, options)
        assert python == "python"
        with (self.directory / f"{name}.log").open("ab") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, *arguments],
                env=self.environment(name),
                cwd=self.directory,
                stdout=output,
                stderr=output,
            )

    def run(self, name: str, *arguments: str, executed: list[str] | None = None) -> str:
        """Run a service that ends, with arguments behind its own; what it prints."""
        done = subprocess.run(
            [sys.executable, *(executed or command(name))[1:], *arguments], env=self.environment(name), cwd=self.directory,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()
        return done.stdout

    def get(self, name: str, page: str) -> httpx.Response:
        """A page of a service."""
        return plain_http.get(f"http://127.0.0.1:{self.ports[name]}{page}", timeout=10)

    def wait_until_ready(self, name: str) -> None:
        """Wait until a service says that it is ready."""

        def is_ready() -> bool:
            assert self.running[name].poll() is None, self.logs()
            try:
                return self.get(name, "/readyz").status_code == 200
            except httpx.TransportError:
                return False

        self.wait(is_ready)

    def wait(self, reached: Callable[[], bool]) -> None:
        """Ask again and again: other processes get there, and there is no event to wait for."""
        deadline_s = time.monotonic() + WAIT_S
        while not reached():
            assert time.monotonic() < deadline_s, self.logs()
            time.sleep(0.1)

    def end(self) -> None:
        """Leave nothing running."""
        for process in self.running.values():
            process.kill()
            process.wait()

    def logs(self) -> str:
        """What the processes say."""
        return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in self.directory.glob("*.log"))


@pytest.fixture(scope="module")
def database_url(postgres_url: str) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"composed_{os.urandom(4).hex()}"
    admin = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield sa.make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory, database_url: str) -> Iterator[Composed]:
    """Everything up, in the order of the file: the servers, the topic, and then the gateway and the workers."""
    with ThreadPoolExecutor() as beside, ExitStack() as ended:
        broker = Broker(tmp_path_factory.mktemp("kafka"), options=QUICK_START)
        ended.callback(broker.kill)
        starting = beside.submit(broker.start)
        clickhouse = ended.enter_context(ClickHouse(tmp_path_factory.mktemp("clickhouse-server")))
        starting.result()
        composed = Composed(tmp_path_factory.mktemp("composed"), {
            "METERLINE_KAFKA": broker.bootstrap_servers, "METERLINE_CLICKHOUSE": clickhouse.url,
            "METERLINE_POSTGRES": database_url,
        })  # fmt: skip
        ended.callback(composed.end)
        assert "in 8 partitions" in composed.run("topics")
        for name in PROCESSES:
            composed.start(name)
        for name in PROCESSES:
            composed.wait_until_ready(name)
        yield composed


def event(number: int) -> dict[str, Any]:
    return {
        "specversion": "1.0", "id": str(number), "source": "/test", "type": "flight.departed", "subject": f"S{number % 3}",
        "time": "2012-12-24T10:00:00Z", "data": {"origin": "JFK", "destination": "BOS", "distance": 187, "seats": 150},
    }  # fmt: skip


def departures(printed: str) -> dict[str, Decimal]:
    """The departures by subject in what `meterline usage` prints."""
    found = re.findall(r"│ departures +│ (\w+) +│ +([\d,]+) │", printed)
    return {subject: Decimal(quantity.replace(",", "")) for subject, quantity in found}


def test_events_over_http_become_usage(composed: Composed) -> None:
    """What the gateway acknowledged is counted by the workers, once, and the command line shows it."""
    composed.run("cli", "meters", "apply", str(METERS))
    url = f"http://127.0.0.1:{composed.ports['gateway']}/api/v1/events"
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    for first in (0, 20):  # ten events of the second request are copies
        assert (
            plain_http.post(url, json=[event(n) for n in range(first, first + 30)], headers=headers).status_code == 204
        )
    expected = {"S0": Decimal(17), "S1": Decimal(17), "S2": Decimal(16)}
    composed.wait(lambda: departures(composed.run("cli", "usage", "--period", "2012-12")) == expected)
    december = "from=2012-12-01T00:00:00Z&to=2013-01-01T00:00:00Z"
    answered = composed.get("gateway", f"/api/v1/meters/departures/query?{december}&groupBy=subject").json()
    assert {row["subject"]: Decimal(row["value"]) for row in answered["data"]} == expected


@pytest.mark.parametrize("name", PROCESSES)
def test_the_health_checks_hold(composed: Composed, name: str) -> None:
    """Each as it stands in the file, but for the port."""
    test = services()[name]["healthcheck"]["test"]
    code = re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{composed.ports[name]}", test[-1])
    composed.run(name, executed=[*test[1:-1], code])
    assert composed.get(name, "/healthz").status_code == 200
    with pytest.raises(AssertionError, match="404"):
        composed.run(name, executed=[*test[1:-1], code.replace("readyz", "nothing")])


def test_every_metric_of_the_dashboard_is_told(composed: Composed, tmp_path: Path) -> None:
    """By the gateway, a worker, or the file of the audit, whose folder is another one here."""
    file = tmp_path / "audit.prom"
    composed.run("audit", executed=command("audit", {"--metrics-file": str(file)}))
    pages = [composed.get(name, "/metrics").text for name in PROCESSES]
    told = set(re.findall(r"^# TYPE (\w+) ", "\n".join([*pages, file.read_text()]), re.MULTILINE))
    dashboard = (ROOT / "deploy" / "grafana" / "dashboards" / "meterline.json").read_text()
    asked = set(re.findall(r"\b(?:meterline|process)_\w+", dashboard))
    assert len(asked) > 10
    assert {name for name in asked if name not in told and re.sub(r"_(bucket|count)$", "", name) not in told} == set()
    assert not re.search(r"^meterline_audit_faults.* [1-9]", file.read_text(), re.MULTILINE)


def test_the_demo_runs_on_it(
    composed: Composed, rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same demo, with three carriers' flights of two months: January is billed to the cent as the CSV says."""
    composed.name_servers(monkeypatch)
    few = flights().filter(
        pl.col("time_hour").str.slice(0, 7).is_in(["2013-01", "2013-02"]), pl.col("carrier").is_in(CARRIERS)
    )
    monkeypatch.setattr(demo, "flights", lambda: few)
    demo.story(tmp_path)
    engine = sa.create_engine(composed.servers["METERLINE_POSTGRES"])
    with engine.connect() as connection:
        billed = pl.read_database(
            "SELECT customer, sum(amount_minor)::bigint AS amount FROM invoice_lines WHERE usage_period = '2013-01'"
            " GROUP BY customer", connection,
        )  # fmt: skip
    engine.dispose()
    amounts = {customer: Decimal(amount).scaleb(-2) for customer, amount in billed.iter_rows()}
    used = totals(rows, "2013-01")
    assert {carrier: amounts[carrier] for carrier in CARRIERS} == {
        carrier: price(used[carrier]) for carrier in CARRIERS
    }


def test_the_demo_refuses_a_deployment_that_meters_something_else(
    composed: Composed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its meters and contracts would take the place of those in force."""
    composed.name_servers(monkeypatch)
    servers = servers_of(os.environ)
    assert servers
    with connected(servers) as system:
        configure_meters(system.log, "meters: [{slug: calls, eventType: call, aggregation: COUNT}]", "meters.yaml")
    with pytest.raises(SystemExit, match="calls"), demo.open_stores(tmp_path):
        pass


def test_what_is_told_to_stop_stops_in_the_time_that_it_has(composed: Composed) -> None:
    """As `docker compose down` does; what is killed all the same loses nothing, which other tests hold."""
    for name in PROCESSES:
        composed.running[name].terminate()
    grace_s = int(services()["worker-1"]["stop_grace_period"].rstrip("s"))
    assert [composed.running[name].wait(grace_s) for name in ("worker-1", "worker-2")] == [0, 0]
    assert composed.running["gateway"].wait(10) in {0, -signal.SIGTERM}  # uvicorn passes the signal on at its end
