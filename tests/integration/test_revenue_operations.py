"""What the commands of revenue, wallets and settlements ask for, and what a caller is told."""

from datetime import UTC, date, datetime
from typing import Any

import sqlalchemy as sa
from click.testing import CliRunner

from meterline.audit import _BOOK_CHECKS
from meterline.cli import cli
from meterline.closing import CLOSING_CHECKS
from meterline.operations import checked_parameters, outputs_of
from meterline.output import Failure, Table, Text
from meterline.system import System
from tests.integration.test_price_simulation import app as priced  # noqa: F401  a fixture
from tests.integration.test_recognition import billed, lines
from tests.integration.test_reconciliation import ROWS, report
from tests.simulation.books import balances, post

FILE = {"text": report(ROWS), "file": "report.csv", "payout": "po_1"}


def asked(database: sa.Engine, operation: str, **parameters: Any) -> list[Any]:
    """What an operation yields, over a system of which these operations use the database alone."""
    app = System(database, None, None, None)  # type: ignore[arg-type]
    return list(outputs_of(app, operation, checked_parameters(operation, parameters)))


def told(database: sa.Engine, operation: str, **parameters: Any) -> str:
    [output] = asked(database, operation, **parameters)
    assert isinstance(output, Text | Failure)
    return output.text if isinstance(output, Text) else output.message


def open_points(database: sa.Engine) -> dict[str, str]:
    """What is open of these parts before the books of August are closed."""
    app = System(database, None, None, None)  # type: ignore[arg-type]
    found = {name: check(app, "default", date(2026, 8, 31)) for name, check in CLOSING_CHECKS}
    return {name: found[name] for name in ("revenue is recognised", "settlements are looked at") if found[name]}


def broken(database: sa.Engine) -> list[str]:
    """The promises about accounts of these parts that do not hold."""
    with database.connect() as connection:
        return sorted(
            name
            for name, query in _BOOK_CHECKS.items()
            if name.startswith(("unearned", "prepaid", "unbilled"))
            if connection.exec_driver_sql(query).scalar_one()
        )


def test_a_person_can_run_the_books_of_revenue(database: sa.Engine) -> None:
    """Recognise, top up, look, reconcile, resolve: each command's answer, and what is wrong with bad ones."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000)))
    assert open_points(database) == {
        "revenue is recognised": "not recognised: 3 months of lines; `meterline ledger recognise` does it"
    }
    answer = told(database, "recognise_revenue", through="2026-08-31")
    assert answer == "3 months of lines are recognised now; still unearned: 42.00 USD"
    assert told(database, "list_schedules") == "unearned: 42.00 USD"
    [months] = asked(database, "list_schedules", invoice="invoice of a")
    assert months.rows[2:4] == [("a", "2026-08", "USD", "31.00", "recognised"), ("a", "2026-09", "USD", "30.00", "")]
    assert "allowed: a day such as 2026-08-31" in told(database, "recognise_revenue", through="August")
    terms = {"customer": "UA", "currency": "USD", "amount": "500.00", "reference": "pay-17"}
    for _ in range(2):
        assert "500.00 USD" in told(database, "top_up_wallet", **terms)
    assert "at most 2 decimals" in told(database, "top_up_wallet", **{**terms, "amount": "0.001"})
    assert "allowed: above zero" in told(database, "top_up_wallet", **{**terms, "amount": "0"})
    assert "allowed: a currency such as" in told(database, "top_up_wallet", **{**terms, "currency": "XXX"})
    assert "promotional credits have no price" in told(
        database, "top_up_wallet", **terms, promotional=True, invoiced=True
    )
    assert "an instant to come" in told(database, "top_up_wallet", **terms, expires_at="2020-01-01")
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
    assert open_points(database)["settlements are looked at"].startswith("flagged: ")
    assert "is resolved: seen" in told(database, "resolve_flag", match_id=match_id, who="ann", note="seen")
    assert "no open flag" in told(database, "resolve_flag", match_id=match_id, who="ann", note="seen")


def test_what_is_not_billed_is_accrued(priced: System) -> None:  # noqa: F811
    """Rated from what has arrived, by kind of revenue; again, nothing; what was billed meanwhile is taken back."""

    def accrue(through: str = "2026-03-31") -> str:
        [output] = outputs_of(priced, "accrue_revenue", {"through": through})
        return output.text if isinstance(output, Text) else output.message  # type: ignore[union-attr]

    #  acme 49 + 11; kept 49; mid 49 + 8; berlin 49 + 3; free 30 calls at 0.10
    assert accrue() == "5 entries posted; accrued for 2026-03: 221.00 USD"
    assert accrue() == "0 entries posted; accrued for 2026-03: 221.00 USD"
    with priced.database.connect() as connection:
        assert balances(connection, 1150) == {"acme": 6_000, "kept": 4_900, "mid": 5_700, "berlin": 5_200, "free": 300}
        assert sum(balances(connection, 4000).values()) == -4 * 4_900
    with priced.database.begin() as connection:
        connection.exec_driver_sql("""
            INSERT INTO bill_runs (tenant, period, cut, book, book_version, book_digest, contracts_digest, state,
                started_at, posted_at)
            SELECT 'default', '2026-03', 1, b.book, b.version, b.digest, c.digest, 'posted', now(), now()
            FROM price_books b, contracts c""")
    assert accrue() == "5 entries posted; accrued for 2026-03: nothing"
    assert "the last day of a month, such as 2026-03-31" in accrue("2026-03-30")
    assert "has not ended" in accrue("2999-12-31")


def test_the_audit_finds_books_that_differ_from_what_is_scheduled(database: sa.Engine) -> None:
    """A posting to unearned revenue without a schedule, or of credits without a lot, breaks a promise."""
    with database.begin() as connection:
        billed(connection, lines(("a", 12_000)))
    assert broken(database) == []
    with database.begin() as connection:
        post(connection, "P03", "x", date(2026, 1, 1), total=1, advance=1)
        post(connection, "P22", "y", date(2026, 1, 1), payment=1, credits=1)
        post(connection, "P01", "z", date(2026, 1, 1), subtotal=1)
    assert broken(database) == [
        "prepaid credits are what is left of paid lots", "unbilled receivables are what is accrued",
        "unearned revenue is what is scheduled and not recognised",
    ]  # fmt: skip


def test_the_commands_are_there() -> None:
    """Each has its help, where a person looks for it."""
    for command in (
        "ledger recognise",
        "ledger accrue",
        "ledger schedules",
        "reconcile",
        "wallets top-up",
        "wallets expire",
        "settlements resolve",
    ):
        shown = CliRunner().invoke(cli, [*command.split(), "--help"])
        assert shown.exit_code == 0, command
        assert any(words in " ".join(shown.output.split()) for words in ("Safe to repeat", "note", "in advance"))
