"""What Grafana's user of ClickHouse may do: deploy/clickhouse-users.xml, enforced by the real engine.

Who asks the embedded engine is always its user `default`, but which rights, limits and policies that one has is read from a
file of users. So here it has those of Grafana's user.
"""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from schemas.tables import ROLLUPS, TABLES, VIEWS
from tests.servers.compose import ROOT

FILL = """
import sys
from pathlib import Path
from stores.clickhouse import open_embedded
client = open_embedded(Path(sys.argv[1]))
client.command("INSERT INTO rollups (tenant, meter, subject, window_start, uniques, count) VALUES"
               " ('acme', 'm', 's', now(), ['a', 'b'], 2), ('globex', 'm', 's', now(), ['c'], 3)")
client.close()
"""
ASK = """
import json, sys
import chdb
connection = chdb.connect(sys.argv[1])
answers = []
for statement in json.load(sys.stdin):
    try:
        answers.append(connection.query(statement, "TSV").bytes().decode())
    except RuntimeError as error:
        answers.append("refused: " + str(error))
connection.close()
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine's directory with our tables, the views, and usage of two tenants."""
    made = tmp_path_factory.mktemp("users") / "clickhouse"
    subprocess.run([sys.executable, "-c", FILL, made], cwd=ROOT, check=True)
    return made


def answers(directory: Path, statements: list[str], policy: str = "") -> list[str]:
    """What Grafana's user gets for statements; `policy` is a condition on rows of rollups that it has beside its rights."""
    users = ET.parse(ROOT / "deploy" / "clickhouse-users.xml").getroot()
    user = users.find("users/grafana")
    user.tag = "default"
    user.find("password").attrib.clear()
    ET.SubElement(users.find("profiles"), "default")  # the engine's own; a server's other files have it, and the quota
    ET.SubElement(ET.SubElement(users, "quotas"), "default")
    if policy:
        table = ET.SubElement(ET.SubElement(ET.SubElement(user, "databases"), "default"), ROLLUPS.name)
        ET.SubElement(table, "filter").text = policy
    file = directory.with_name("users.xml")
    ET.ElementTree(users).write(file)
    command = [sys.executable, "-c", ASK, f"{directory}?config-file={file}&users_config={file}"]
    done = subprocess.run(command, input=json.dumps(statements), check=True, capture_output=True, text=True)
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_dashboards_user_reads_the_views_and_can_do_nothing_else(directory: Path) -> None:
    """It reads the three views. It reads no other table, nothing outside, writes nothing, and keeps to its limits."""
    assert answers(directory, ["SHOW GRANTS"])[0].count("GRANT") == len(VIEWS) + 1
    counts = [f"SELECT count() FROM {view.name}" for view in VIEWS]
    others = [table.name for table in TABLES if table is not ROLLUPS]
    denied = [
        *(f"SELECT count() FROM {name}" for name in others),
        *(f"INSERT INTO {table.name} SELECT * FROM {table.name}" for table in TABLES),
        "DROP TABLE rollups", "DROP VIEW usage_hourly", "CREATE TABLE t (a Int8) ENGINE = Memory",
        "SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'a Int8')", "SELECT * FROM file('/etc/hostname', 'LineAsString')",
    ]  # fmt: skip
    changed = [
        "SET readonly = 0", "SET max_memory_usage = 0", "SET max_threads = 8",
        "SET max_execution_time = 0", "SET max_execution_time = 121",
    ]  # fmt: skip
    allowed = ["SELECT 1 SETTINGS max_execution_time = 35"]  # the plugin's driver sets it with every query
    found = answers(directory, [*counts, *allowed, *denied, *changed])
    assert found[:4] == ["2\n", "2\n", "3\n", "1\n"]
    refused = dict(zip([*denied, *changed], found[4:], strict=True))
    assert {asked for asked in denied if "ACCESS_DENIED" not in refused[asked]} == set()
    codes = ("READONLY", "SETTING_CONSTRAINT_VIOLATION")
    assert {asked for asked in changed if not any(code in refused[asked] for code in codes)} == set()


def test_a_policy_on_rollups_holds_for_the_views(directory: Path) -> None:
    """They read their table as whoever asks: who sees one tenant's rollups sees that tenant's usage in all three."""
    asked = [f"SELECT DISTINCT tenant FROM {view.name} ORDER BY tenant" for view in VIEWS]
    assert answers(directory, asked) == ["acme\nglobex\n"] * len(VIEWS)
    assert answers(directory, asked, "tenant = 'globex'") == ["globex\n"] * len(VIEWS)
