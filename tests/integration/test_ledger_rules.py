"""The rules of the books, attacked with plain SQL in a real PostgreSQL, and what posting twice does."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from invoicing import store
from invoicing.assemble import Assembled, assemble
from invoicing.ledger import store as ledger
from invoicing.ledger.journal import Journal, journal
from schemas.invoice import BOOKED, CHARGED, Basis, Tax

NOW = datetime(2013, 3, 1, tzinfo=UTC)
BASIS = Basis(cut=3, book="airports", book_version=1, book_digest="book", contracts_digest="contracts")
NOTHING = pl.DataFrame(schema=BOOKED)
E, F = "e" * 32, "f" * 32
ENTRY = """
INSERT INTO journal_entries (tenant, sequence, id, template, document_kind, document_id, document_version, part, relates_to,
    effective_at, booked_at, description, content_digest, previous_hash, hash)
SELECT 'default', sequence + 1, '{id}', '{template}', '{kind}', 'x', 1, 1, {relates_to}, '{day}', now(), 'x',
    sha256('x'), hash, entry_hash(hash, sha256('x'), sequence + 1, now())
FROM (SELECT sequence, hash FROM journal_entries WHERE tenant = 'default' ORDER BY sequence DESC LIMIT 1) AS head"""
POSTING = """INSERT INTO postings SELECT tenant, sequence, {position}, {account}, 'UA', '{currency}', '', {minor}
             FROM journal_entries WHERE id = '{id}'"""
INVOICE = """INSERT INTO invoices (id, tenant, customer, customer_name, period, number, currency, minor_units,
             subtotal_minor, tax_minor, total_minor, tax, cut, book, book_version, book_digest, contracts_digest,
             issued_at, content_digest) VALUES ('{id}', 'default', 'ZZ', 'Z', '2013-02', 'INV-9', 'USD', 2, 100, 20,
             {total}, '{{}}', 3, 'airports', 1, 'book', 'contracts', now(), 'x')"""
LINE = """INSERT INTO invoice_lines VALUES ('{id}', '{invoice}', {position}, 'usage', 'ZZ', '2013-02', 'turns', 'Turns',
          'standard', NULL, 1, 1, {minor}, '{{}}')"""


@dataclass(frozen=True)
class Books:
    """A database with one posted run, and the documents that were posted."""

    engine: sa.Engine
    assembled: Assembled
    journal: Journal

    def attempt(self, *statements: str) -> None:
        """Run the statements in one transaction and commit."""
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)

    @property
    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        """The four frames that `post` takes."""
        return self.assembled.invoices, self.assembled.lines, self.journal.entries, self.journal.postings


def billed(charges: dict[str, int], *, first_number: int = 1, period: str = "2013-02") -> tuple[Assembled, Journal]:
    rows: list[dict[str, Any]] = [
        {
            "customer": customer, "period": period, "charge": "turns", "description": 'Turns, "all"',
            "model": "standard", "meter": "turns", "quantity": Decimal("1.5"), "slices": [],
            "amount": Decimal(minor) / 100, "amount_minor": minor, "currency": "USD", **vars(BASIS),
        }
        for customer, minor in charges.items()
    ]  # fmt: skip
    assembled = assemble(
        pl.DataFrame(rows, schema=CHARGED), NOTHING, tenant="default", run_period=period, bases={period: BASIS},
        customer_names={"UA": ""}, tax=Tax("VAT", Decimal(20)), next_number=first_number, issued_at=NOW,
    )  # fmt: skip
    return assembled, journal(assembled.invoices, booked_at=NOW)


@pytest.fixture
def books(database: sa.Engine) -> Books:
    """The run of 2013-02, posted: AA owes 1.20, UA owes 12.00, VAT of 20 % included."""
    return with_a_run(database)


@pytest.fixture(scope="module")
def posted_books(shared_database: sa.Engine) -> Books:
    """The same, for attempts that are refused and leave it as it is."""
    return with_a_run(shared_database)


def with_a_run(database: sa.Engine) -> Books:
    assembled, posted = billed({"AA": 100, "UA": 1000})
    ledger = Books(database, assembled, posted)
    with database.begin() as connection:
        store.apply_price_book(
            connection, "default", book="airports", version=1, digest="book", body='{"a": 0.10}', applied_at=NOW
        )
        store.apply_contracts(connection, "default", digest="contracts", body="[]", applied_at=NOW)
        run = store.start_run(connection, "default", "2013-02", BASIS, started_at=NOW)
        assert store.next_number(connection, "default") == 1
        assert store.post(connection, *ledger.frames) == store.Posted(invoices=2, entries=2)
        store.finish_run(connection, run, {"2013-02": BASIS}, posted_at=NOW)
    return ledger


def entry(
    entry_id: str = E, day: str = "2013-02-28", *, template: str = "P02", kind: str = "invoice", relates_to: str = ""
) -> str:
    related = f"'{relates_to}'" if relates_to else "NULL"
    return ENTRY.format(id=entry_id, day=day, template=template, kind=kind, relates_to=related)


def posting(position: int, minor: int, *, entry_id: str = E, currency: str = "USD", account: int = 0) -> str:
    account = account or (1100 if minor > 0 else 4010)
    return POSTING.format(id=entry_id, position=position, account=account, minor=minor, currency=currency)


def test_a_balanced_entry_is_accepted_in_any_order_of_its_postings(books: Books) -> None:
    """Balance is judged at commit: statement by statement an entry may be out of balance."""
    books.attempt(entry(), posting(1, 5), posting(2, -3), entry(F), posting(3, -2), posting(1, 1, entry_id=F),
                  posting(2, -1, entry_id=F))  # fmt: skip


WRONG_HASH = ENTRY.replace("entry_hash(hash, sha256('x'), sequence + 1, now())", "sha256('y')")
GAP = ENTRY.replace("sequence + 1", "sequence + 2")
OTHER_CHAIN = ENTRY.replace("sha256('x'), hash, entry_hash(hash,", "sha256('x'), sha256('z'), entry_hash(sha256('z'),")
EARLY = ENTRY.replace("now()", "'2000-01-01'::timestamptz")
PLAIN = {"id": E, "day": "2013-02-28", "template": "P02", "kind": "invoice", "relates_to": "NULL"}
BALANCED = [posting(1, 5), posting(2, -5)]


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ([entry(), posting(1, 5), posting(2, -4)], "postings of journal entry e.* sum to 1 USD, not to zero"),
        ([entry(), posting(1, 5), posting(2, -5, currency="EUR")], "sum to -?5 (EUR|USD), not to zero"),
        ([entry()], "journal entry e.* has no postings"),
        ([entry(), posting(1, 5)], "sum to 5 USD"),
        ([entry(), posting(1, 0), posting(2, 0)], "amount_minor"),
        (["INSERT INTO postings VALUES ('default', 99, 1, 1100, '', 'USD', '', 5)"], "entry 99 of default, which is not there"),
        ([entry(), posting(1, 1), posting(2, -1), "SET CONSTRAINTS ALL IMMEDIATE", posting(3, 1)], "not to zero"),
        ([entry(), posting(1, 5), posting(2, -4), "DELETE FROM ledger_checks"], "not to zero"),
        ([entry(), posting(1, 5), posting(2, -4), "UPDATE ledger_checks SET first = 99, last = 99"], "not to zero"),
        (["CREATE TEMP TABLE postings (LIKE public.postings) ON COMMIT DROP", entry()], "has no postings"),
        ([entry().replace("hash)\n", "hash, transaction_id)\n", 1).replace("now())\nFROM", "now()), '999999'\nFROM")],
         "names another transaction than its own"),
        ([entry(), posting(1, 1, account=4711), posting(2, -1)], "sides that P02 does not allow: 4711 debit, 4010 credit"),
        ([entry(), posting(1, 5, account=1000), posting(2, -5)], "P02 does not allow: 1000 debit"),
        ([entry(), posting(1, 5, account=2000), posting(2, -5, account=1100)], "P02 does not allow"),
        ([entry(template="P15"), posting(1, 5, account=1010), posting(2, -5, account=2100)], "P15 does not allow"),
        ([entry(template="P99"), *BALANCED], "P99 does not allow"),
        ([entry(template="P31"), *BALANCED], "P31 does not allow"),
        ([GAP.format(**PLAIN), *BALANCED], "has the sequence 4; the next one of default is 3"),
        ([WRONG_HASH.format(**PLAIN), *BALANCED], "the hash of journal entry e.* is not that of what it says"),
        ([OTHER_CHAIN.format(**PLAIN), *BALANCED], "does not name the hash of the entry before it"),
        ([EARLY.format(**PLAIN), *BALANCED], "before the entry before it"),
        ([entry(relates_to="a" * 32), *BALANCED], "relates to a.*, which is no earlier entry"),
        ([entry(kind="reversal"), *BALANCED], "reversal_names_its_entry"),
    ],
)  # fmt: skip
def test_an_entry_that_breaks_a_rule_is_refused(posted_books: Books, statements: list[str], message: str) -> None:
    """No order, currency, missing leg, account, place in the chain, early or erased check or shadow brings it in."""
    with pytest.raises(sa.exc.DBAPIError, match=message):
        posted_books.attempt(*statements)


@pytest.mark.parametrize("table", ["invoices", "invoice_lines", "journal_entries", "postings"])
@pytest.mark.parametrize("verb", ["UPDATE {} SET customer = 'ZZ'", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_posted_rows_never_change(posted_books: Books, table: str, verb: str) -> None:
    """UPDATE, DELETE and TRUNCATE of the books are refused with what to do instead."""
    statement = verb.format(table).replace("journal_entries SET customer", "journal_entries SET tenant")
    with pytest.raises(sa.exc.DBAPIError, match="posted rows never change; post a correcting entry"):
        posted_books.attempt(statement)


@pytest.mark.parametrize(
    "table", ["price_books", "contracts", "period_ratings", "bill_runs", "closed_periods", "period_overrides"]
)
@pytest.mark.parametrize("verb", ["UPDATE {} SET tenant = 'other'", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_what_was_rated_from_never_changes(posted_books: Books, table: str, verb: str) -> None:
    """Applied documents, posted runs and closed periods are there for good."""
    with pytest.raises(sa.exc.DBAPIError, match="refused: "):
        posted_books.attempt(verb.format(table))


def test_rows_are_never_added_to_what_was_posted(books: Books) -> None:
    """Two postings or lines that cancel balance, and still would change a posted document."""
    old_entry, old_invoice = books.journal.entries["id"][0], books.assembled.invoices["id"][0]
    with pytest.raises(sa.exc.DBAPIError, match="takes no more postings"):
        books.attempt(posting(8, 5, entry_id=old_entry), posting(9, -5, entry_id=old_entry))
    with pytest.raises(sa.exc.DBAPIError, match="takes no more lines"):
        books.attempt(
            LINE.format(id="l", invoice=old_invoice, position=8, minor=5),
            LINE.format(id="m", invoice=old_invoice, position=9, minor=-5),
        )


def test_a_closed_period_takes_no_more_entries(books: Books) -> None:
    """The last closed day is closed; the day after it is open."""
    #   ... 2013-02-27   2013-02-28 | 2013-03-01
    #            closed through ^   | open
    with books.engine.begin() as connection:
        ledger.close_period(connection, "default", date(2013, 2, 28))
    balanced = [posting(1, 5), posting(2, -5)]
    with pytest.raises(sa.exc.DBAPIError, match="the books of default are closed through 2013-02-28"):
        books.attempt(entry(day="2013-02-28"), *balanced)
    books.attempt(entry(day="2013-03-01"), *balanced)


def test_closing_waits_for_those_who_are_posting(books: Books) -> None:
    """A period can't be closed under an entry that is on its way into it."""
    with books.engine.begin() as poster, books.engine.connect() as closer:
        poster.exec_driver_sql(entry())
        closer.exec_driver_sql("SET lock_timeout = '100ms'")
        with pytest.raises(sa.exc.OperationalError, match="lock timeout"):
            ledger.close_period(closer, "default", date(2013, 2, 28))
        poster.exec_driver_sql(posting(1, 5))
        poster.exec_driver_sql(posting(2, -5))


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ([INVOICE.format(id="i", total=121)], "total_is_subtotal_and_tax"),
        ([INVOICE.format(id="i", total=120)], "invoice i has no lines"),
        ([INVOICE.format(id="i", total=120), LINE.format(id="l", invoice="i", position=1, minor=99)],
         "lines of invoice i sum to 99, its subtotal is 100"),
    ],
)  # fmt: skip
def test_an_invoice_that_does_not_add_up_is_refused(books: Books, statements: list[str], message: str) -> None:
    """Subtotal and tax make the total, and the lines make the subtotal."""
    with pytest.raises(sa.exc.DBAPIError, match=message):
        books.attempt(*statements)
    books.attempt(INVOICE.format(id="i", total=120), LINE.format(id="l", invoice="i", position=1, minor=100))


def test_posting_twice_posts_nothing_twice(books: Books) -> None:
    """The same ids with the same content are left as they are, whatever number the second attempt had in mind."""
    again, entries = billed({"AA": 100, "UA": 1000}, first_number=3)
    with books.engine.begin() as connection:
        posted = store.post(connection, again.invoices, again.lines, entries.entries, entries.postings)
        assert posted == store.Posted(invoices=0, entries=0)
        assert connection.exec_driver_sql("SELECT count(*) FROM postings").scalar_one() == 6
        assert (
            connection.exec_driver_sql(
                "SELECT (SELECT count(*) FROM commit_checks) + (SELECT count(*) FROM ledger_checks)"
            ).scalar_one()
            == 0
        )


def test_the_same_id_with_other_content_is_an_error(books: Books) -> None:
    """An invoice or an entry that was posted differently is refused by name."""
    other, entries = billed({"AA": 101})
    with books.engine.begin() as connection:
        with pytest.raises(store.OtherContentError, match=r"invoices: .* is posted with the content"):
            store.post(connection, other.invoices, other.lines, entries.entries, entries.postings)
        with pytest.raises(store.OtherContentError, match="journal_entries: "):
            store.post(connection, books.frames[0], books.frames[1], entries.entries, entries.postings)


def test_invoice_numbers_have_no_gaps(books: Books) -> None:
    """New invoices go on where the tenant's last number ended."""
    extra, entries = billed({"ZZ": 5}, first_number=4)
    with books.engine.begin() as connection:
        assert store.next_number(connection, "default") == 3
        with pytest.raises(ValueError, match="must be numbered from INV-000003 to INV-000003"):
            store.post(connection, extra.invoices, extra.lines, entries.entries, entries.postings)


def test_what_was_posted_reads_back_as_it_was(books: Books) -> None:
    """Frames come back from the database value for value, explanations byte for byte."""
    invoices, lines, *_ = books.frames
    with books.engine.begin() as connection:
        assert store.invoices_of(connection, "default", "2013-02").equals(invoices)
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


def test_the_trial_balance_sums_to_zero(books: Books) -> None:
    """Debits of all accounts are the credits of all accounts; tax is told by name and rate."""
    with books.engine.begin() as connection:
        found = ledger.balances(connection, "default", by=("dimension",))
    assert found.rows() == [
        (1100, "receivable", "", "USD", 1320),
        (2000, "tax payable", "VAT 20%", "USD", -220),
        (4010, "usage revenue", "", "USD", -1100),
    ]


def test_documents_are_applied_once(books: Books) -> None:
    """A version is applied once, another content under it is refused by both digests, old contracts may come again."""
    book: dict[str, Any] = {"book": "airports", "version": 1, "body": '{"a": 0.10}', "applied_at": NOW}
    contracts: dict[str, Any] = {"applied_at": NOW, "body": "[]"}
    with books.engine.begin() as connection:
        assert not store.apply_price_book(connection, "default", digest="book", **book)
        assert [known["body"] for known in store.price_books(connection, "default")] == ['{"a": 0.10}']
        with pytest.raises(store.OtherContentError, match=r"has the digest other; .* with the digest book"):
            store.apply_price_book(connection, "default", digest="other", **book)
        with pytest.raises(store.OtherContentError, match="airports version 1 was applied"):
            store.apply_price_book(connection, "default", digest="book", **{**book, "version": 2})
        assert not store.apply_contracts(connection, "default", digest="contracts", **contracts)
        assert store.apply_contracts(connection, "default", digest="newer", **{**contracts, "body": "[1]"})
        assert store.apply_contracts(connection, "default", digest="contracts", **contracts)
        assert store.latest_contracts(connection, "default") == store.Contracts("contracts", "[]")
        with pytest.raises(store.OtherContentError, match="contracts with the digest newer"):
            store.apply_contracts(connection, "default", digest="newer", **contracts)


def test_a_run_is_started_anew_until_it_is_posted(books: Books) -> None:
    """A started run takes a new cut; who started before can no longer finish; a posted run stays as it is."""
    later = Basis(**{**vars(BASIS), "cut": 9})
    with books.engine.begin() as connection:
        first = store.start_run(connection, "default", "2013-03", BASIS, started_at=NOW)
        second = store.start_run(connection, "default", "2013-03", later, started_at=NOW)
        assert (second.basis.cut, second.state) == (9, "started")
        with pytest.raises(ValueError, match="the run of 2013-03 was started anew"):
            store.finish_run(connection, first, {}, posted_at=NOW)
        store.finish_run(connection, second, {"2013-03": later, "2013-02": later}, posted_at=NOW)
        assert store.start_run(connection, "default", "2013-03", BASIS, started_at=NOW).basis == later
        assert [run.period for run in store.posted_runs(connection, "default")] == ["2013-02", "2013-03"]
        assert store.run_of(connection, "default", "2013-04") is None
        unknown = Basis(**{**vars(BASIS), "contracts_digest": "unknown"})
        with pytest.raises(ValueError, match="contracts unknown are not applied; apply them first"):
            store.start_run(connection, "default", "2013-04", unknown, started_at=NOW)
