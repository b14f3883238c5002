"""The row policies for a tenant's own people at ClickHouse: they parse, and leave out no table.

The engine of the tests has no users; that a policy hides rows is ClickHouse's own promise.
"""

import re

import pytest
from clickhouse_connect.driver.exceptions import DatabaseError

from schemas.tables import TABLES, VIEWS
from stores.clickhouse import Client
from tests.servers.compose import ROOT, services

TEXT = (ROOT / "deploy" / "clickhouse-tenants.sql").read_text()
STATEMENTS = [part.strip() for part in re.sub(r"--.*", "", TEXT).split(";") if part.strip()]
POLICY = re.compile(
    r"CREATE ROW POLICY OR REPLACE (\S+) ON default\.(\w+) AS PERMISSIVE FOR SELECT USING (.*) TO (\S+)"
)
VIEW_NAMES = {view.name for view in VIEWS}
WITH_TENANT = {table.name for table in TABLES if any(column == "tenant" for column in table.columns)}


def test_every_statement_parses(clickhouse: Client) -> None:
    """ClickHouse's own parser takes each, and not one with a word misspelt."""
    kinds = []
    for statement in STATEMENTS:
        kinds.append(clickhouse.command(f"EXPLAIN AST {statement}").split()[0])
        with pytest.raises(DatabaseError, match=r"(?i)syntax"):
            clickhouse.command(f"EXPLAIN AST {statement.replace(' TO ', ' TOO ').replace('EXISTS', 'EXIST')}")
    assert len(kinds) == len(STATEMENTS) == 13 + len(VIEWS)


def test_every_table_with_tenants_has_a_policy_before_it_is_granted() -> None:
    """A tenant's role reads only its rows, of every table that it reads; and Meterline's own user reads all."""
    policies = [match.groups() for statement in STATEMENTS if (match := POLICY.fullmatch(statement))]
    assert {(table, using) for name, table, using, to in policies if name == to == "`tenant_acme`"} == {
        (table, "tenant = 'acme'") for table in WITH_TENANT
    }
    user = services()["clickhouse"]["environment"]["CLICKHOUSE_USER"]
    assert {(table, using) for _, table, using, to in policies if to == user} == {(table, "1") for table in WITH_TENANT}
    for table in WITH_TENANT:
        granted = STATEMENTS.index(f"GRANT SELECT ON default.{table} TO `tenant_acme`")
        assert all(granted > number for number, each in enumerate(STATEMENTS) if f"default.{table} AS" in each)
    granted = {statement for statement in STATEMENTS if statement.startswith("GRANT SELECT")}
    assert granted == {f"GRANT SELECT ON default.{name} TO `tenant_acme`" for name in WITH_TENANT | VIEW_NAMES}
