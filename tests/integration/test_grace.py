"""The grace period of a month, over real stores: drafts follow usage until it is over, then the month is billed once."""

import json
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from meterline.billing import bill
from meterline.cli import cli
from meterline.operations import outputs_of
from meterline.output import Failure, Table, Text
from meterline.system import System
from tests.integration.test_levels import JANUARY, Use, arrive
from tests.integration.test_levels import app as opened  # noqa: F401  a fixture

STATES = "SELECT state, count(*) FROM invoices GROUP BY 1 ORDER BY 1"
CALLS = "SELECT sum(quantity) FROM invoice_lines WHERE charge = 'calls' AND customer = 'acme'"


@pytest.fixture
def then(opened: System) -> System:  # noqa: F811
    """The system as it was in January, when its prices were applied already."""
    with opened.database.begin() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.exec_driver_sql("UPDATE price_books SET applied_at = '2025-11-01'")
    return opened


def said(app: System, at: str, grace_hours: int | None = 72, how: str | None = None) -> str:
    """The last that a run of January says, at an instant."""
    instant = datetime.fromisoformat(at).replace(tzinfo=UTC)
    *_, last = bill(app, period="2026-01", how=how, grace_hours=grace_hours, now=lambda: instant)
    return last.text if isinstance(last, Text) else last.message if isinstance(last, Failure) else str(type(last))


def found(app: System, query: str) -> list[tuple[object, ...]]:
    with app.database.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def test_drafts_follow_usage_until_the_grace_is_over(then: System) -> None:
    """To the second; what came within it is on the month's own invoice, and what comes after it on the next one's."""
    arrive(then, JANUARY)
    assert said(then, "2026-01-31T23:59:59") == "2026-01 has not ended; it can be billed from 2026-02-01 00:00 on (UTC)"
    follow = "drafts of 2026-01: they follow new usage until 2026-02-04 00:00 (UTC), and are billed from then on, whenever this is repeated"
    assert said(then, "2026-02-01T00:00:00") == follow
    [(draft, drafts)] = found(then, STATES)
    before = found(then, CALLS)
    arrive(then, [Use("a", "2026-01-30T00:00:00Z", "7", meter="calls")])
    assert said(then, "2026-02-03T23:59:59") == follow
    assert (found(then, STATES), found(then, CALLS)) == ([(draft, drafts)], [(before[0][0] + 7,)])  # type: ignore[operator]
    assert said(then, "2026-02-04T00:00:00") == "2026-01 is billed; its grace ended at 2026-02-04 00:00 (UTC)"
    assert {state for state, _ in found(then, STATES)} <= {"open", "paid"}
    assert found(then, CALLS) == [(before[0][0] + 7,)]  # type: ignore[operator]
    arrive(then, [Use("a", "2026-01-30T00:00:00Z", "1", meter="calls")])
    [known, table] = bill(then, period="2026-01", grace_hours=72, now=lambda: datetime(2026, 2, 5, tzinfo=UTC))
    assert isinstance(known, Text)
    assert "was billed" in known.text
    assert isinstance(table, Table)
    assert found(then, CALLS) == [(before[0][0] + 7,)]  # type: ignore[operator]


def test_who_says_how_has_it_at_any_hour(then: System) -> None:
    """Drafts after the grace, and nothing but a look within it; final at once without a grace, or one of no hours."""
    arrive(then, JANUARY)
    assert said(then, "2026-02-01T00:00:00", how="preview") == str(Table)
    assert found(then, STATES) == []
    follow = "drafts of 2026-01: they follow new usage until it is billed, whenever this is repeated"
    assert said(then, "2026-02-09T00:00:00", how="draft") == follow
    assert [state for state, _ in found(then, STATES)] == ["draft"]
    [*_, line] = bill(
        then, period="2026-01", grace_hours=72, as_json=True, now=lambda: datetime(2026, 2, 1, tzinfo=UTC)
    )
    assert isinstance(line, Text)
    assert {json.loads(each)["state"] for each in line.text.splitlines()} == {"draft"}
    assert said(then, "2026-02-01T00:00:00", 0) == "2026-01 is billed; its grace ended at 2026-02-01 00:00 (UTC)"


@pytest.mark.parametrize("hours", [-1, 745])
def test_a_grace_that_is_none_is_refused(database: sa.Engine, hours: int) -> None:
    """Before anything is asked; nor may usage be billed while the month runs, and wait at once."""
    system = System(database, None, None, None)  # type: ignore[arg-type]
    [failure] = outputs_of(system, "bill", {"period": "2026-01", "grace_hours": hours})
    assert failure == Failure(message=f"grace of {hours} hours; allowed: 0 to 744")
    both = CliRunner().invoke(cli, ["bill", "--period", "2026-01", "--progressive", "--grace-hours", "1"])
    assert (both.exit_code, "not with --progressive" in both.output) == (2, True)
