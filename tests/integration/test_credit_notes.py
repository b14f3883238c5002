"""Credit notes in a real PostgreSQL: what they post, settle and tell, side by side, and what the database refuses."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from invoicing.credit_notes import store
from invoicing.credit_notes.amounts import NotCreditableError
from invoicing.credit_notes.app import credit
from invoicing.invoices.drafts import Drafts
from invoicing.invoices.store import invoice as invoice_of
from invoicing.late_usage.app import Late, settle, tell
from invoicing.late_usage.policies import LATE, TAKEN_BACK
from invoicing.ledger.store import entries
from invoicing.periods.store import close_period
from invoicing.recognition.store import unearned
from meterline.verification import verified
from schemas.credit_note import CreditedLine, Reason, Wanted
from schemas.invoice import INVOICES, LINES, TAXED, Basis, Revenue, Run
from stores.postgres import tenant_transaction
from tests.integration.invoice_stage import INCLUSIVE, TWO, VAT, issued

AT = datetime(2026, 2, 10, 9, tzinfo=UTC)
WHOLE = Wanted(reason=Reason.BILLING_ERROR)


def credited(database: sa.Engine, invoice_id: str, wanted: Wanted = WHOLE) -> dict[str, Any]:
    """Credit an invoice; the note."""
    with database.begin() as connection:
        return credit(connection, "acme", {invoice_id: wanted}, at=AT, by="a test").row(0, named=True)


def posted(database: sa.Engine, entry_id: str) -> dict[tuple[int, str], int]:
    """The postings of an entry, by account and dimension."""
    with database.connect() as connection:
        _, lines = entries(connection, "acme", entry_id=entry_id)
    return {(row["account"], row["dimension"]): row["amount_minor"] for row in lines.iter_rows(named=True)}


def invoice(database: sa.Engine, invoice_id: str) -> dict[str, Any]:
    with database.connect() as connection:
        return invoice_of(connection, "acme", invoice_id).row(0, named=True)


def pay(database: sa.Engine, invoice_id: str, minor: int, state: str) -> None:
    """Settle so much of a new invoice, as a payment would."""
    status = "succeeded" if state == "paid" else "partial"
    said = {"id": invoice_id, "minor": minor, "state": state, "status": status}
    with database.begin() as connection:
        connection.execute(
            sa.text("""INSERT INTO applications
                       VALUES ('p' || :id, 'acme', :id, 'payment', :minor, 'p', gen_random_uuid(), now())"""), said,
        )  # fmt: skip
        connection.execute(
            sa.text("""UPDATE invoices SET state = :state, payment_status = :status, settled_minor = :minor, version = 2
                       WHERE id = :id"""), said,
        )  # fmt: skip


def told(database: sa.Engine) -> list[str]:
    with database.connect() as connection:
        return list(connection.execute(sa.text("SELECT type FROM outbox ORDER BY sequence")).scalars())


def test_a_note_takes_off_what_is_due_and_the_rest_is_the_customers_credit(database: sa.Engine) -> None:
    """Half of an open invoice, then all of it: P12, and it is paid; what was paid before becomes credit, by P13."""
    lines = [(10000, VAT, Revenue.USAGE), (5000, None, Revenue.FEES), (-1000, VAT, Revenue.SLA)]
    one = issued(database, lines)
    half = credited(database, one, Wanted(reason=Reason.GOODWILL, gross_minor=7900, comment="sorry"))
    assert (half["number"], half["total_minor"], half["applied_minor"], half["excess_minor"]) == (
        "CN-000001",
        7900,
        7900,
        0,
    )
    assert posted(database, half["entry_id"]) == {
        (4010, ""): 5000, (4000, ""): 2500, (4095, ""): -500, (2000, "VAT 20%"): 900, (1100, ""): -7900,
    }  # fmt: skip
    after = invoice(database, one)
    assert (after["state"], after["payment_status"], after["settled_minor"], after["version"]) == (
        "open",
        "partial",
        7900,
        2,
    )
    rest = credited(database, one)
    assert (rest["number"], rest["total_minor"], rest["applied_minor"]) == ("CN-000002", 7900, 7900)
    after = invoice(database, one)
    assert (after["state"], after["payment_status"], after["settled_minor"], after["version"]) == (
        "paid",
        "succeeded",
        15800,
        3,
    )
    assert told(database) == ["invoice.finalized", "credit_note.created", "credit_note.created", "invoice.paid"]
    with pytest.raises(NotCreditableError, match="takes nothing"):
        credited(database, one)
    assert [finding for _, _, finding in verified(database) if finding] == []


def test_a_note_on_a_paid_invoice_is_credit(database: sa.Engine) -> None:
    """P13 on an invoice that nothing is due of; the entry names the invoice's, and the closed period that it is for."""
    one = issued(database, [(119, INCLUSIVE, Revenue.USAGE), (1000, TWO, Revenue.COMMITMENT)])
    partly = issued(database, [(10, None, Revenue.USAGE)], name="other")
    pay(database, one, 1239, "paid")
    with database.begin() as connection:
        close_period(connection, "acme", date(2026, 2, 28))
    note = credited(
        database,
        one,
        Wanted(reason=Reason.DUPLICATE, lines=(CreditedLine(position=2, net_minor=333), CreditedLine(position=1))),
    )
    assert (note["applied_minor"], note["excess_minor"], note["subtotal_minor"]) == (0, 492, 433)
    assert posted(database, note["entry_id"]) == {
        (4010, ""): 100, (4020, ""): 333, (2000, "VAT 19%"): 19, (2000, "GST 5%"): 17, (2000, "PST 7%"): 23, (2100, ""): -492,
    }  # fmt: skip
    with database.connect() as connection:
        found, _ = entries(connection, "acme", entry_id=note["entry_id"])
        related, _ = entries(connection, "acme", document=one)
    entry = found.row(0, named=True)
    assert (entry["template"], entry["effective_at"], entry["relates_to_period"]) == (
        "P13",
        date(2026, 3, 1),
        "2026-01",
    )
    assert entry["relates_to"] == related["id"].item()
    assert invoice(database, one)["version"] == 3
    pay(database, partly, 7, "open")
    note = credited(database, partly)
    assert (note["number"], note["applied_minor"], note["excess_minor"]) == ("CN-000002", 3, 7)
    assert posted(database, note["entry_id"]) == {(4010, ""): 10, (1100, ""): -3, (2100, ""): -7}
    assert invoice(database, partly)["state"] == "paid"


def test_deferred_is_given_back_first(database: sa.Engine) -> None:
    """Of a line for January and February, in February: what is still unearned, and beyond that what was earned."""
    #   January 31 of 59 days: 5.25 is earned      February: 4.75 is not
    two_months = {"service_end": date(2026, 3, 1)}
    one = issued(database, [(1000, VAT, Revenue.ADVANCE)], **two_months)
    note = credited(database, one, Wanted(reason=Reason.ORDER_CHANGE, net_minor=400))
    assert posted(database, note["entry_id"]) == {(2200, ""): 400, (2000, "VAT 20%"): 80, (1100, ""): -480}
    other = issued(database, [(1000, VAT, Revenue.ADVANCE)], name="other", **two_months)
    note = credited(database, other)
    assert posted(database, note["entry_id"]) == {
        (2200, ""): 475,
        (4000, ""): 525,
        (2000, "VAT 20%"): 200,
        (1100, ""): -1200,
    }
    with database.connect() as connection:
        assert unearned(connection, "acme") == {"EUR": 600 + 525}


def test_an_invoice_of_nothing_is_credited_without_an_entry(database: sa.Engine) -> None:
    """Its lines cancel: the note has none to post, and takes both lines back."""
    one = issued(database, [(500, None, Revenue.USAGE), (-500, None, Revenue.USAGE)])
    note = credited(database, one)
    assert (note["total_minor"], note["entry_id"]) == (0, None)
    below = issued(database, [(-500, None, Revenue.USAGE)], name="below")
    with pytest.raises(NotCreditableError, match="allowed: 0 to what is left"):
        credited(database, below)


def test_notes_side_by_side_never_take_more_than_the_invoice(database: sa.Engine) -> None:
    """Twelve at once, each a tenth: ten come through, numbered without a gap, and two are refused."""
    one = issued(database, [(1000, VAT, Revenue.USAGE)])

    def attempt(_: int) -> str:
        try:
            return str(credited(database, one, Wanted(reason=Reason.OTHER, net_minor=100))["number"])
        except NotCreditableError:
            return "refused"

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(attempt, range(12)))
    assert answers == [*(f"CN-{number:06d}" for number in range(1, 11)), "refused", "refused"]
    with database.connect() as connection:
        notes = store.notes_of(connection, "acme", invoice_id=one)
    assert notes["total_minor"].to_list() == [120] * 10
    after = invoice(database, one)
    assert (after["state"], after["settled_minor"]) == ("paid", 1200)
    assert [finding for _, _, finding in verified(database) if finding] == []


NOTE = """INSERT INTO credit_notes (id, tenant, invoice_id, customer, series, number, reason, comment, currency,
    minor_units, subtotal_minor, tax_minor, total_minor, applied_minor, excess_minor, taxes, entry_id, issued_at)
    VALUES ('forged', '{tenant}', '{invoice}', 'UA', 'CN', 'CN-9', 'other', '', 'EUR', 2, {net}, {tax}, {total}, {applied},
    {excess}, '[]', gen_random_uuid(), now())"""
LINE = """INSERT INTO credit_note_lines SELECT '{tenant}', 'forged', 1, id, {net}, {tax}, NULL, 0 FROM invoice_lines
    WHERE invoice_id = '{of}' AND position = 1"""


FORGED: list[tuple[dict[str, Any], str]] = [
    ({"net": 1001, "total": 1201, "excess": 1201}, "take 1001 and 200 tax of line 1"),
    ({"tax": 201, "total": 1201, "excess": 1201}, "take 1000 and 201 tax of line 1"),
    ({"line_net": 999}, "lines of credit note forged sum to 999 and 200 tax"),
    ({"applied": 5, "excess": 1195}, "takes 5 off what is due, 0 is applied"),
    ({"excess": 1100}, "the_total_is_applied_or_credited"),
    ({"tenant": "other"}, "is not of the tenant"),
    ({"of": "other"}, "has a line of another invoice"),
]


def test_the_database_refuses_a_forged_note(database: sa.Engine) -> None:
    """Of another tenant or invoice; more than a line, or another sum than its lines. As it should be, it stays so."""
    one = issued(database, [(1000, VAT, Revenue.USAGE), (5, None, Revenue.FEES)])
    other = issued(database, [(9999, VAT, Revenue.USAGE)], name="other")

    def forge(differs: dict[str, Any]) -> None:
        said = {"tenant": "acme", "net": 1000, "tax": 200, "total": 1200, "applied": 0, "excess": 1200, "invoice": one}
        said |= differs
        line = said | {"net": said.get("line_net", said["net"]), "of": other if "of" in differs else one}
        with database.begin() as connection:
            connection.exec_driver_sql(NOTE.format(**said))
            connection.exec_driver_sql(LINE.format(**line))

    for differs, message in FORGED:
        with pytest.raises(sa.exc.DBAPIError, match=message):
            forge(differs)
    forge({})
    later = LINE.format(tenant="acme", net=0, tax=0, of=one).replace("'forged', 1", "'forged', 2")
    later = later.replace("position = 1", "position = 2")
    for change in (
        "UPDATE credit_notes SET comment = 'x'", "DELETE FROM credit_note_lines", "TRUNCATE credit_notes CASCADE",
        later,
    ):  # fmt: skip
        with pytest.raises(sa.exc.DBAPIError, match="posted rows never change"), database.begin() as connection:
            connection.exec_driver_sql(change)


TABLES = ("credit_notes", "credit_note_lines")


def test_a_tenant_sees_its_own_notes(database: sa.Engine) -> None:
    """Row-level security: the application's role sees and writes the tenant's rows alone."""
    one = issued(database, [(1000, VAT, Revenue.USAGE)])
    credited(database, one)
    for tenant, count in (("acme", 1), ("other", 0)):
        with tenant_transaction(database, tenant) as connection:
            found = [connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one() for table in TABLES]
            assert found == [count, count]


def test_a_draft_or_void_invoice_is_not_credited(database: sa.Engine) -> None:
    """Void: nothing is owed. Written off: it was never paid, so a note would make credit of a debt."""
    one = issued(database, [(1000, VAT, Revenue.USAGE)])
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE invoices SET state = 'void', version = 2 WHERE id = :id"), {"id": one})
    with pytest.raises(NotCreditableError, match="is void"):
        credited(database, one)


def test_billing_again_and_notes_side_by_side_do_not_wait_in_a_circle(database: sa.Engine) -> None:
    """Invoices that are billed again in one transaction, while others are credited: each comes through, or is refused."""
    many = [issued(database, [(1000, VAT, Revenue.USAGE)], customer=f"c{number}", name="n") for number in range(8)]
    run = Run("acme", "2026-02", Basis(3, "b", 1, "d", "c"), "started", AT, None)

    def again(invoice_ids: list[str]) -> None:
        with database.begin() as connection:
            rows = [(each, f"c{many.index(each)}", "EUR", "2026-01", "x", "INV") for each in invoice_ids]
            old = pl.DataFrame(rows, schema=TAKEN_BACK, orient="row")
            nothing = Drafts(pl.DataFrame(schema=INVOICES), pl.DataFrame(schema=LINES))
            late = Late(pl.DataFrame(schema=LATE), pl.DataFrame(schema=TAXED), old, {}, nothing)
            settle(connection, run, late, at=AT)
            tell(connection, run, late, at=AT)

    def attempt(number: int) -> str:
        try:
            if number % 3 == 0:
                again(many[number // 3 :: 2])
            else:
                credited(database, many[number % 8], Wanted(reason=Reason.OTHER, net_minor=100))
        except (NotCreditableError, sa.exc.IntegrityError) as error:
            return type(error).__name__
        return "done"

    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(attempt, range(24)))
    assert "done" in answers <= {"done", "NotCreditableError", "IntegrityError"}
    with database.connect() as connection:
        notes = store.notes_of(connection, "acme")
    assert notes["number"].to_list() == [f"CN-{number:06d}" for number in range(1, notes.height + 1)]
    assert notes.group_by("invoice_id").agg(pl.sum("total_minor"))["total_minor"].max() <= 1200
    assert [finding for _, _, finding in verified(database) if finding] == []
