"""The rules of the books, attacked with plain SQL in a real PostgreSQL, and what posting twice does."""

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from invoicing import store
from invoicing.invoices.app import issue
from invoicing.invoices.drafts import Drafts
from invoicing.ledger import store as ledger
from invoicing.periods import store as periods
from schemas.invoice import Basis
from tests.documents.drafts import charged, drafts_of, issued, tax_rule

NOW = datetime(2013, 3, 1, tzinfo=UTC)
BASIS = Basis(cut=3, book="airports", book_version=1, book_digest="book", contracts_digest="contracts")
E, F = "e" * 32, "f" * 32
ENTRY = """
INSERT INTO journal_entries (tenant, sequence, id, template, document_kind, document_id, document_version, part, relates_to,
    effective_at, booked_at, description, content_digest, previous_hash, hash)
SELECT 'default', sequence + 1, '{id}', '{template}', '{kind}', 'x', 1, 1, {relates_to}, '{day}', now(), 'x',
    sha256('x'), hash, entry_hash(hash, sha256('x'), sequence + 1, now())
FROM (SELECT sequence, hash FROM journal_entries WHERE tenant = 'default' ORDER BY sequence DESC LIMIT 1) AS head"""
POSTING = """INSERT INTO postings SELECT tenant, sequence, {position}, {account}, 'UA', '{currency}', '', {minor}
             FROM journal_entries WHERE id = '{id}'"""


@dataclass(frozen=True)
class Books:
    """A database with one posted run, and the documents that were posted."""

    engine: sa.Engine
    issued: Drafts

    def attempt(self, *statements: str) -> None:
        """Run the statements in one transaction and commit."""
        with self.engine.begin() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement)


def billed(charges: dict[str, int], *, period: str = "2013-02") -> Drafts:
    rows = [
        charged(BASIS, customer=customer, period=period, charge="turns", description='Turns, "all"', meter="turns",
                quantity=Decimal("1.5"), amount_minor=minor, tax_rule=tax_rule())
        for customer, minor in charges.items()
    ]  # fmt: skip
    return drafts_of(rows, bases={period: BASIS}, run_period=period, customer_names={"UA": ""})


@pytest.fixture
def books(database: sa.Engine) -> Books:
    """The run of 2013-02, posted: AA owes 1.20, UA owes 12.00, VAT of 20 % included."""
    return with_a_run(database)


@pytest.fixture(scope="module")
def posted_books(shared_database: sa.Engine) -> Books:
    """The same, for attempts that are refused and leave it as it is."""
    return with_a_run(shared_database)


def with_a_run(database: sa.Engine) -> Books:
    drafts = billed({"AA": 100, "UA": 1000})
    with database.begin() as connection:
        store.apply_price_book(
            connection, "default", book="airports", version=1, digest="book", body='{"a": 0.10}', applied_at=NOW
        )
        store.apply_contracts(connection, "default", digest="contracts", body="[]", applied_at=NOW)
        run = store.start_run(connection, "default", "2013-02", BASIS, started_at=NOW)
        store.finish_run(connection, run, {"2013-02": BASIS}, posted_at=NOW)
        assert issue(connection, drafts, at=NOW).equals(issued(drafts, at=NOW).invoices)
    return Books(database, issued(drafts, at=NOW))


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
    "table",
    [
        "price_books", "contracts", "period_ratings", "level_ratings", "levels", "bill_runs", "closed_periods",
        "period_overrides",
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["UPDATE {} SET tenant = 'other'", "DELETE FROM {}", "TRUNCATE {} CASCADE"])
def test_what_was_rated_from_never_changes(posted_books: Books, table: str, verb: str) -> None:
    """Applied documents, posted runs and closed periods are there for good."""
    with pytest.raises(sa.exc.DBAPIError, match="refused: "):
        posted_books.attempt(verb.format(table))


def test_rows_are_never_added_to_what_was_posted(books: Books) -> None:
    """Two postings that cancel balance, and still would change a posted document."""
    with books.engine.connect() as connection:
        old_entry = ledger.entries(connection, "default", limit=1)[0]["id"].item()
    with pytest.raises(sa.exc.DBAPIError, match="takes no more postings"):
        books.attempt(posting(8, 5, entry_id=old_entry), posting(9, -5, entry_id=old_entry))


def test_a_closed_period_takes_no_more_entries(books: Books) -> None:
    """The last closed day is closed; the day after it is open."""
    #   ... 2013-02-27   2013-02-28 | 2013-03-01
    #            closed through ^   | open
    with books.engine.begin() as connection:
        periods.close_period(connection, "default", date(2013, 2, 28))
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
            periods.close_period(closer, "default", date(2013, 2, 28))
        poster.exec_driver_sql(posting(1, 5))
        poster.exec_driver_sql(posting(2, -5))


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
