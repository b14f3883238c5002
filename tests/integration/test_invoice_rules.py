"""The rules of invoices, attacked with plain SQL in a real PostgreSQL: what adds up, what changes, and how states follow."""

from decimal import Decimal

import pytest
import sqlalchemy as sa

from invoicing.invoices import store
from invoicing.invoices.app import issue
from schemas.invoice import EDGES, State
from tests.documents.drafts import issued
from tests.integration.test_ledger_rules import NOW, Books, billed, with_a_run

INVOICE = """INSERT INTO invoices (id, tenant, kind, customer, customer_name, period, series, number, state,
             payment_status, currency, minor_units, subtotal_minor, tax_minor, total_minor, settled_minor, taxes, cut,
             book, book_version, book_digest, contracts_digest, issued_at, version, content_digest) VALUES ('{id}',
             'default', 'periodic', 'ZZ', 'Z', '2013-02', 'INV', 'INV-9', 'open', 'pending', 'USD', 2, 100, 20, {total},
             0, '[]', 3, 'airports', 1, 'book', 'contracts', now(), 1, 'x')"""
LINE = """INSERT INTO invoice_lines (id, tenant, invoice_id, position, kind, customer, usage_period, charge, description,
          model, quantity, amount, amount_minor, revenue, service_start, service_end, explanation, net_minor, tax_minor)
          VALUES ('{id}', 'default', '{invoice}', {position}, 'usage', 'ZZ', '2013-02', 'turns', 'Turns', 'standard', 1, 1,
          {minor}, 'subtotal', '2013-02-01', '2013-03-01', '{{}}', {minor}, {tax})"""


DRAFT = INVOICE.replace("'INV-9', 'open'", "NULL, 'draft'").replace("now()", "NULL")
LAW = "posted rows never change; post a correcting entry"


@pytest.fixture
def books(database: sa.Engine) -> Books:
    """The run of 2013-02, posted: AA owes 1.20, UA owes 12.00, VAT of 20 % included."""
    return with_a_run(database)


@pytest.fixture(scope="module")
def posted_books(shared_database: sa.Engine) -> Books:
    """The same, for attempts that are refused and leave it as it is."""
    return with_a_run(shared_database)


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ([INVOICE.format(id="i", total=121)], "total_is_subtotal_and_tax"),
        ([INVOICE.format(id="i", total=120)], "invoice i has no lines"),
        ([LINE.format(id="l", invoice="i", position=1, minor=0, tax=0)], "lines of the invoice i, which is not there"),
        ([INVOICE.format(id="i", total=120), LINE.format(id="l", invoice="i", position=1, minor=99, tax=20)],
         "lines of invoice i sum to 99 and 20 tax, it says 100 and 20"),
        ([INVOICE.format(id="i", total=120), LINE.format(id="l", invoice="i", position=1, minor=100, tax=19)],
         "lines of invoice i sum to 100 and 19 tax, it says 100 and 20"),
        ([DRAFT.replace("NULL, 'draft'", "'INV-9', 'draft'").format(id="i", total=120)], "draft_has_no_number"),
        ([INVOICE.replace("'open', 'pending'", "'paid', 'succeeded'").format(id="i", total=120)], "open_is_due"),
        ([INVOICE.replace("'open', 'pending'", "'open', 'succeeded'").format(id="i", total=120)], "paid_is_succeeded"),
        ([INVOICE.replace("'ZZ', 'Z'", "'UA', 'United'").format(id="i", total=120)], "invoices_periodic"),
        ([INVOICE.replace("'INV-9'", "'INV-000001'").format(id="i", total=120)], "invoices_by_number"),
    ],
)  # fmt: skip
def test_an_invoice_that_does_not_add_up_is_refused(posted_books: Books, statements: list[str], message: str) -> None:
    """Subtotal and tax make the total, and the lines make both; a number, a state and a period are its own."""
    with pytest.raises(sa.exc.DBAPIError, match=message):
        posted_books.attempt(*statements)


def test_an_invoice_that_adds_up_is_accepted(books: Books) -> None:
    """And then its lines are there for good, and no line joins them."""
    books.attempt(INVOICE.format(id="i", total=120), LINE.format(id="l", invoice="i", position=1, minor=100, tax=20))
    with pytest.raises(sa.exc.DBAPIError, match=LAW):
        books.attempt("DELETE FROM invoice_lines WHERE id = 'l'")
    with pytest.raises(sa.exc.DBAPIError, match="takes no more lines"):
        books.attempt(
            LINE.format(id="m", invoice="i", position=8, minor=5, tax=0),
            LINE.format(id="n", invoice="i", position=9, minor=-5, tax=0),
        )


def test_states_follow_each_other_along_the_edges(books: Books) -> None:
    """The database has the edges of the code, and refuses every other way that an invoice could go."""
    with books.engine.connect() as connection:
        edges = connection.exec_driver_sql("SELECT from_state, to_state FROM invoice_edges").fetchall()
    assert {(State(one), State(other)) for one, other in edges} == {
        (one, other) for one in EDGES for other in EDGES[one]
    }
    with pytest.raises(sa.exc.DBAPIError, match="does not go from open to draft"):
        books.attempt("UPDATE invoices SET state = 'draft', number = NULL, issued_at = NULL, version = version + 1")
    with pytest.raises(sa.exc.DBAPIError, match="goes from version 1 to 2, not 1"):
        books.attempt("UPDATE invoices SET payment_status = 'failed'")
    books.attempt("UPDATE invoices SET state = 'void', version = version + 1 WHERE customer = 'AA'")
    with pytest.raises(sa.exc.DBAPIError, match="does not go from void to open"):
        books.attempt("UPDATE invoices SET state = 'open', version = version + 1 WHERE customer = 'AA'")


@pytest.mark.parametrize(
    "change", ["total_minor = 1, subtotal_minor = -19", "number = 'INV-7'", "taxes = '[1]'", "due_on = '2099-01-01'"]
)
def test_what_an_issued_invoice_says_never_changes(posted_books: Books, change: str) -> None:
    """Amounts, numbers, taxes and days stay, also where the state goes on."""
    with pytest.raises(sa.exc.DBAPIError, match=LAW):
        posted_books.attempt(f"UPDATE invoices SET {change}, version = version + 1")


def test_what_is_settled_is_what_was_applied(books: Books) -> None:
    """An invoice is settled by rows that say by what; neither goes without the other."""
    paid = "UPDATE invoices SET settled_minor = 120, state = 'paid', payment_status = 'succeeded', version = version + 1 WHERE customer = 'AA'"
    applied = """INSERT INTO applications SELECT 'a', 'default', id, 'payment', 120, 'pay_1', gen_random_uuid(), now()
                 FROM invoices WHERE customer = 'AA'"""
    for statement in (paid, applied):
        with pytest.raises(sa.exc.DBAPIError, match=r"what was applied to invoice .* sums to"):
            books.attempt(statement)
    books.attempt(applied, paid)
    with pytest.raises(sa.exc.DBAPIError, match="taken back, never changed"):
        books.attempt("DELETE FROM applications")


def test_drafts_are_replaced_and_issued(books: Books) -> None:
    """A draft has no number; the one in its place is its next version; issuing it is another one."""
    drafts = billed({"AA": 7, "UA": 8}, period="2013-03")
    with books.engine.begin() as connection:
        store.write(connection, drafts.invoices, drafts.lines)
    with books.engine.begin() as connection:
        before = store.remove_drafts(connection, "default", period="2013-03")
        assert before == dict.fromkeys(drafts.invoices["id"], 1)
        store.write(connection, drafts.invoices, drafts.lines)
    [first, second] = drafts.invoices["id"]
    with books.engine.begin() as connection:
        read = store.drafts_of(connection, "default", [second])
        assert read.invoices.equals(drafts.invoices[1])
        assert read.lines.equals(drafts.lines[1])
        [number] = issue(connection, read, at=NOW, stored_by="Ada")["number"]
        assert number == "INV-000003"
    with books.engine.begin() as connection:
        done = store.invoice(connection, "default", second).row(0, named=True)
        assert (done["state"], done["version"]) == ("open", 2)
        told = connection.exec_driver_sql("SELECT from_state, to_state, changed_by FROM invoice_changes").fetchall()
        assert [tuple(row) for row in told] == [("draft", "open", "Ada")]
        with pytest.raises(store.ChangedMeanwhileError, match="no longer at version 1"):
            store.change(connection, read.invoices, by="Bob", reason="late", at=NOW)
    with books.engine.begin() as connection:
        assert store.remove_draft(connection, "default", first)
        assert not store.remove_draft(connection, "default", second)


def test_numbers_have_no_gaps(books: Books) -> None:
    """Numbers that a failed transaction took are free again; each series has its own."""
    with books.engine.connect() as connection:
        assert store.take_numbers(connection, "default", "INV", 5) == 2
        connection.rollback()
        assert store.take_numbers(connection, "default", "INV", 1) == 2
        assert store.take_numbers(connection, "default", "CN", 1) == 0
        assert store.take_numbers(connection, "other", "INV", 1) == 0


def test_what_was_posted_reads_back_as_it_was(books: Books) -> None:
    """Frames come back from the database value for value, explanations byte for byte."""
    invoices, lines = books.issued.invoices, books.issued.lines
    with books.engine.begin() as connection:
        assert store.invoices_of(connection, "default", "2013-02").equals(invoices)
        assert store.invoices_of(connection, "default", customer="UA", state=State.OPEN).equals(invoices[1])
        assert store.invoices_of(connection, "default", after=invoices["id"][0], limit=1).equals(invoices[1])
        assert store.invoice(connection, "default", "INV-000002").equals(invoices[1])
        assert store.invoice(connection, "default", invoices["id"][0]).equals(invoices[0])
        assert store.lines_of(connection, invoices["id"][1]).equals(lines[1])
        with pytest.raises(LookupError, match="tenant other has no invoice INV-000002"):
            store.invoice(connection, "other", "INV-000002")
        booked = store.booked(connection, "default", ["2013-02"])
    assert booked.select("customer", "quantity", "amount", "amount_minor").rows() == [
        ("AA", Decimal("1.5"), 1, 100),
        ("UA", Decimal("1.5"), 10, 1000),
    ]


def test_what_is_void_or_drafted_is_not_booked(books: Books) -> None:
    """Only what is owed counts as billed."""
    drafts = issued(billed({"UA": 8}, period="2013-03"))
    with books.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE invoices SET state = 'void', version = version + 1 WHERE customer = 'AA'")
        store.write(connection, billed({"UA": 8}, period="2013-03").invoices, drafts.lines)
        found = store.booked(connection, "default", ["2013-02", "2013-03"])
    assert found.select("customer", "usage_period").rows() == [("UA", "2013-02")]
