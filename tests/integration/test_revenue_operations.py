"""What the commands of revenue, wallets and settlements ask for, and what a caller is told."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from click.testing import CliRunner

from invoicing.recognition.rows import LINES
from invoicing.recognition.store import schedule_lines
from meterline.cli import cli
from meterline.operations import checked_parameters, outputs_of
from meterline.output import Failure, Table, Text
from meterline.system import System
from tests.integration.test_recognition import START, lines
from tests.integration.test_reconciliation import ROWS, report

FILE = {"text": report(ROWS), "file": "report.csv", "payout": "po_1"}


def asked(database: sa.Engine, operation: str, **parameters: Any) -> list[Any]:
    """What an operation yields, over a system of which these operations use the database alone."""
    app = System(database, None, None, None)  # type: ignore[arg-type]
    return list(outputs_of(app, operation, checked_parameters(operation, parameters)))


def told(database: sa.Engine, operation: str, **parameters: Any) -> str:
    [output] = asked(database, operation, **parameters)
    assert isinstance(output, Text | Failure)
    return output.text if isinstance(output, Text) else output.message


def test_a_person_can_run_the_books_of_revenue(database: sa.Engine) -> None:
    """Recognise, top up, look, reconcile, resolve: each command's answer, and what is wrong with bad ones."""
    with database.begin() as connection:
        some = lines(("a", 12_000, "UA", "day"))
        assert some.columns == list(LINES)
        schedule_lines(connection, "default", some, time_zone="UTC", scheduled_at=START)
    answer = told(database, "recognise_revenue", through="2026-08-31")
    assert answer == "3 months of lines are recognised now; still unearned: 42.00 USD"
    assert "allowed: a day such as 2026-08-31" in told(database, "recognise_revenue", through="August")
    terms = {"customer": "UA", "currency": "USD", "amount": "500.00", "reference": "pay-17"}
    for _ in range(2):
        assert "500.00 USD" in told(database, "top_up_wallet", **terms)
    assert "at most 2 decimals" in told(database, "top_up_wallet", **{**terms, "amount": "0.001"})
    assert "allowed: above zero" in told(database, "top_up_wallet", **{**terms, "amount": "0"})
    assert "was made with another content" in told(database, "top_up_wallet", **{**terms, "amount": "1"})
    [wallets] = asked(database, "list_wallets")
    assert isinstance(wallets, Table)
    assert list(wallets.rows) == [("UA", "USD", "500.00", "0.00")]
    [wallet] = asked(database, "show_wallet", customer="UA", at=datetime(2020, 1, 1, tzinfo=UTC).isoformat())
    assert wallet.rows == []
    assert told(database, "expire_credits") == "0 lots have expired"
    assert "columns that are not known" in told(database, "reconcile_file", **{**FILE, "text": "a,b\n1,2\n"})
    for posted in (1, 0):  # the fee alone has no need of an entry
        table, text = asked(database, "reconcile_file", **FILE)
        assert [row[:3] for row in table.rows][:2] == [("matched", "USD", "1"), ("unmatched_in_file", "USD", "6")]
        assert text.text.startswith(f"{posted} entries posted; digest ")
    [flags] = asked(database, "list_flags", payout="po_1")
    match_id = next(row[0] for row in flags.rows if row[2] == "unmatched_in_file")
    assert "is resolved: seen" in told(database, "resolve_flag", match_id=match_id, who="ann", note="seen")
    assert "no open flag" in told(database, "resolve_flag", match_id=match_id, who="ann", note="seen")


def test_the_commands_are_there() -> None:
    """Each has its help, where a person looks for it."""
    for command in ("ledger recognise", "reconcile", "wallets top-up", "wallets expire", "settlements resolve"):
        shown = CliRunner().invoke(cli, [*command.split(), "--help"])
        assert shown.exit_code == 0, command
        assert "Safe to repeat" in shown.output or "note" in shown.output
