"""The files of a deployment, held to the code: its commands, its variables, its ports, its metrics."""

import json
import re
import tomllib
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import click
import pytest
import sqlalchemy as sa
import yaml
from prometheus_client import REGISTRY

import aggregation.metrics
import ingest.api
import meterline.audit
import stores.servers
from meterline.cli import cli
from schemas.tables import ROLLUPS, VIEWS
from stores.servers import servers_of
from tests.servers.compose import DOCKERFILE, ROOT, command, entrypoint, option, ours, services, stage_of

DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboards" / "meterline.json").read_text())
ALERTS = [rule for group in yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
PANELS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
PORT = {"gateway": "8888", "worker-1": "6066", "worker-2": "6066"}


def parsed(arguments: list[str]) -> tuple[str, dict[str, Any]]:
    """The command that arguments name, and its parameters. Raises what click says where there is none such."""
    node: click.Command = cli
    context: click.Context | None = None
    names: list[str] = []
    while True:
        context = node.make_context(node.name, list(arguments), parent=context)
        if not isinstance(node, click.Group):
            return " ".join(names), context.params
        name, found, arguments = node.resolve_command(context, [*context._protected_args, *context.args])
        assert name
        assert found
        names.append(name)
        node = found


@pytest.mark.parametrize(
    ("name", "runs", "parameters"),
    [
        ("topics", "topics create", {"partitions": 8, "replication": 1, "replace_lost_log": False}),
        ("gateway", "gateway", {"host": "0.0.0.0", "port": 8888}),
        ("worker-1", "worker", {"port": 6066}),
        ("worker-2", "worker", {"port": 6066}),
        ("publisher", "outbox publish", {"once": False, "partitions": 8, "replication": 1}),
        ("audit", "audit", {"month": None}),
    ],
)
def test_a_service_runs_a_command_of_the_command_line(name: str, runs: str, parameters: dict[str, Any]) -> None:
    """Click takes its arguments, and they mean what the service is there for."""
    assert entrypoint() == ["python", "-m", "meterline"]
    found, given = parsed(command(name)[3:])
    assert found == runs
    assert {key: given[key] for key in parameters} == parameters


def test_every_service_of_ours_is_looked_at_here() -> None:
    """One that is added has a command to be held to."""
    assert set(ours()) == {"topics", "gateway", "publisher", "worker-1", "worker-2", "audit", "cli", "demo"}
    assert entrypoint("demo") == ["python", "-m", "examples.flights.demo"]


@pytest.mark.parametrize("name", ours())
def test_the_environment_names_the_servers_as_they_are(name: str) -> None:
    """Every variable that the code reads, with the hosts, ports, users and passwords of the servers' own services."""
    environment = ours()[name]["environment"]
    assert set(re.findall(r"METERLINE_[A-Z]+", stores.servers.__doc__ or "")) <= set(environment)
    servers = servers_of(environment)
    assert servers
    kafka, clickhouse, postgres = (services()[each]["environment"] for each in ("kafka", "clickhouse", "postgres"))
    assert f"PLAINTEXT://{servers.kafka}" in kafka["KAFKA_ADVERTISED_LISTENERS"].split(",")
    url = urlsplit(servers.clickhouse)
    assert (url.hostname, url.port) == ("clickhouse", 8123)
    assert (url.username, url.password) == (clickhouse["CLICKHOUSE_USER"], clickhouse["CLICKHOUSE_PASSWORD"])
    database = sa.make_url(servers.postgres)
    assert (database.host, database.port, database.database) == ("postgres", 5432, postgres["POSTGRES_DB"])
    assert (database.username, database.password) == (postgres["POSTGRES_USER"], postgres["POSTGRES_PASSWORD"])


def test_each_worker_has_a_name_of_its_own_and_is_started_again() -> None:
    """Two of one name would throw each other out of the group; one that is not started again counts nothing."""
    workers = {name: service for name, service in services().items() if name.startswith("worker-")}
    assert [service["environment"]["METERLINE_WORKER"] for service in workers.values()] == list(workers)
    assert cli.get_command(click.Context(cli), "worker").params[0].envvar == "METERLINE_WORKER"  # type: ignore[union-attr]
    assert {service["restart"] for service in workers.values()} == {"always"}


def test_what_runs_on_is_started_again_and_what_ends_is_not() -> None:
    """After a crash, and after the machine was off."""
    policies = {name: service.get("restart") for name, service in services().items() if "profiles" not in service}
    assert policies.pop("topics") == "no"
    assert set(policies.values()) == {"always"}


@pytest.mark.parametrize("name", PORT)
def test_health_is_asked_for_where_it_is_told(name: str) -> None:
    """At the port of the command, and a page that there is."""
    test = services()[name]["healthcheck"]["test"]
    assert test[:3] == ["CMD", "python", "-c"]
    assert re.findall(r"http://\S+?(?=')", test[3]) == [f"http://127.0.0.1:{option(name, '--port')}/readyz"]
    assert option(name, "--port") == PORT[name]


def test_nothing_starts_before_what_it_needs() -> None:
    """The topic is made when the servers are healthy, and everything of ours waits for the topic."""
    assert services()["topics"]["depends_on"] == {
        each: {"condition": "service_healthy"} for each in ("kafka", "clickhouse", "postgres")
    }
    for name, service in services().items():
        for needed, how in service.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or "healthcheck" in services()[needed], (name, needed)
    for name in set(ours()) - {"topics"}:
        needs = services()[name]["depends_on"]
        assert "topics" in needs or {"worker-1", "worker-2"} == set(needs), name


def test_all_ports_are_this_machines_alone() -> None:
    """There are no keys yet."""
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert published
    assert [port for port in published if not port.startswith("127.0.0.1:")] == []


def test_images_are_pinned_to_what_the_tests_run_with() -> None:
    """A number in every tag; the broker's and the engine's are those of the tests."""
    images = {name: service["image"] for name, service in services().items()}
    assert [image for image in images.values() if not re.search(r":v?\d+(\.\d+)+$", image)] == []
    pom = (ROOT / "tests" / "servers" / "kafka.pom.xml").read_text()
    assert f"<version>{images['kafka'].split(':')[1]}</version>" in pom
    assert version("chdb-core").startswith(images["clickhouse"].split(":")[1] + ".")


def test_every_mounted_file_exists() -> None:
    """And the paths that files name among each other are where they are mounted."""
    mounts = {}
    for service in services().values():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            if source.startswith("."):
                assert (ROOT / source).exists(), volume
                mounts[target] = source
    prometheus = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert [mounts[path] for path in prometheus["rule_files"]] == ["./deploy/alerts.yml"]
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/meterline.yml").read_text())["providers"]
    assert mounts[provider["options"]["path"]] == "./deploy/grafana/dashboards"
    home = services()["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == provider["options"]["path"] + "/meterline.json"


def test_the_image_holds_every_package_and_nothing_for_development() -> None:
    """Copied and let into the build by name, so that one that is added is not forgotten."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    copied = set(re.findall(r"^COPY (\S+) \1$", stage_of("build"), re.MULTILINE))
    assert copied == packages
    let_in = set(re.findall(r"^!(\S+)$", DOCKERFILE.with_name("Dockerfile.dockerignore").read_text(), re.MULTILINE))
    assert let_in == packages | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "examples"}
    assert "dev" not in re.findall(r"\[(\w+)\]'", DOCKERFILE.read_text())
    assert "USER 10001" in stage_of("runtime")


def test_prometheus_reads_every_process_at_its_port() -> None:
    """The gateway, all workers, and the file of the audit."""
    jobs = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    targets: dict[str, list[str]] = {
        job["job_name"]: [each for entry in job["static_configs"] for each in entry["targets"]] for job in jobs
    }
    assert targets["gateway"] == [f"gateway:{option('gateway', '--port')}"]
    workers = [name for name in services() if name.startswith("worker-")]
    assert targets["workers"] == [f"{name}:{option(name, '--port')}" for name in workers]
    (reader,) = targets["audit"]
    name, port = reader.split(":")
    assert f"--web.listen-address=:{port}" in services()[name]["command"]
    (folder,) = [flag.split("=")[1] for flag in services()[name]["command"] if "textfile.directory" in flag]
    assert option("audit", "--metrics-file").startswith(folder + "/")
    assert option("audit", "--metrics-file").endswith(".prom")


@pytest.mark.parametrize("expression", [*PANELS, *(rule["expr"] for rule in ALERTS)])
def test_a_query_names_metrics_and_labels_that_exist(expression: str) -> None:
    """In the registry of our own processes, with the labels that they have there or that Prometheus adds."""
    assert {aggregation.metrics, ingest.api, meterline.audit}  # imported: they register what they tell
    known = REGISTRY._names_to_collectors
    bare = re.sub(r'"[^"]*"', '""', expression)
    named = set(re.findall(r"\b(?:meterline|process)_\w+", bare))
    assert named <= set(known)
    assert named or "up{" in bare
    labels = {"job", "instance", "le"}.union(*(getattr(known[name], "_labelnames", ()) for name in named))
    used = set(re.findall(r'(\w+)\s*(?:=~|!=|=)\s*"', bare))
    used |= {label.strip() for group in re.findall(r"by \(([^)]*)\)", bare) for label in group.split(",")}
    assert used <= labels


def test_what_the_audit_found_is_asked_of_the_audit() -> None:
    """Every process of ours tells of an audit, those that made none of one at the instant zero."""
    asked = re.findall(r"meterline_audit_\w+(.{0,12})", "\n".join([*PANELS, *(rule["expr"] for rule in ALERTS)]))
    assert set(asked) == {'{job="audit"'}


def test_grafana_asks_the_prometheus_that_is_provisioned() -> None:
    """By the name that all panels use, at the port where it listens, and every panel has a query."""
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert all(panel["targets"] for panel in panels)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_grafana_asks_the_clickhouse_that_runs_as_a_user_that_only_reads_views() -> None:
    """The data source, the user and the password are those of ClickHouse's own files; the user has no other rights."""
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/clickhouse.yml").read_text())["datasources"]
    options, (password,) = source["jsonData"], source["secureJsonData"].values()
    assert (options["host"], options["port"], options["protocol"]) == ("clickhouse", 9000, "native")
    assert [name for name in services() if name == options["host"]]
    assert source["secureJsonData"].keys() == {"password"}
    users = ET.parse(DEPLOY / "clickhouse-users.xml").getroot()
    (user,) = users.findall("users/*")
    assert user.tag == options["username"] != services()["clickhouse"]["environment"]["CLICKHOUSE_USER"]
    variable = user.find("password").get("from_env")
    assert password == f"${{{variable}}}"
    assert len({services()[name]["environment"][variable] for name in ("clickhouse", "grafana")}) == 1
    granted = {query.text for query in user.findall("grants/query")}
    read = {*(view.name for view in VIEWS), ROLLUPS.name}
    assert granted == {f"GRANT SELECT ON {options['defaultDatabase']}.{name}" for name in read}
    (profile,) = users.findall("profiles/*")
    assert user.findtext("profile") == profile.tag
    assert profile.findtext("readonly") == "2"
    limits = {child.tag for child in profile} - {"constraints", "max_execution_time"}
    assert {name for name in limits if profile.find(f"constraints/{name}/readonly") is None} == set()
    asked_s = int(options["queryTimeout"]) + 5  # what the plugin's driver asks of the server
    time = profile.find("constraints/max_execution_time")
    assert 1 == int(time.findtext("min")) <= asked_s <= int(time.findtext("max"))


def test_the_usage_dashboard_asks_the_data_sources_that_are_provisioned() -> None:
    """Its panels and its variables, with a plugin of a fixed version that Grafana is told to install."""
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "usage.json").read_text())
    files = sorted((DEPLOY / "grafana/provisioning/datasources").glob("*.yml"))
    sources = {each["uid"]: each["type"] for file in files for each in yaml.safe_load(file.read_text())["datasources"]}
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    queries = [each for each in dashboard["templating"]["list"] if each["type"] == "query"]
    targets = [target for panel in panels for target in panel["targets"]]
    for each in [*panels, *queries, *targets]:
        assert sources[each["datasource"]["uid"]] == each["datasource"]["type"] == "grafana-clickhouse-datasource"
    assert all(panel["targets"] for panel in panels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert dashboard["uid"] != DASHBOARD["uid"]
    plugin, _, number = services()["grafana"]["environment"]["GF_PLUGINS_PREINSTALL"].partition("@")
    assert plugin in sources.values()
    assert {target["pluginVersion"] for target in targets} == {number}
    sql = "\n".join([*(target["rawSql"] for target in targets), *(each["query"] for each in queries)])
    assert set(re.findall(r"FROM (\w+)", sql)) == {view.name for view in VIEWS}  # and no table behind them


def test_every_alert_has_a_severity_a_summary_and_an_example() -> None:
    """An alert that has never been seen to fire may not."""
    examples = yaml.safe_load((DEPLOY / "alerts.test.yml").read_text())["tests"]
    fires = {check["alertname"] for test in examples for check in test["alert_rule_test"] if check["exp_alerts"]}
    assert {rule["alert"] for rule in ALERTS} == fires
    assert {rule["labels"]["severity"] for rule in ALERTS} == {"page", "ticket"}
    assert all(rule["annotations"]["summary"] for rule in ALERTS)
