"""The ledger in a real PostgreSQL: templates, tenants, chains, closings, and what a forger leaves behind."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
import sqlalchemy as sa

from invoicing.ledger import store
from invoicing.ledger.documents import Document, frames_of
from invoicing.ledger.journal import entries_of
from invoicing.ledger.verify import allowed_sides
from invoicing.periods import store as periods
from meterline.ledger import posted, reverse
from meterline.verification import findings, verified
from schemas.journal import GENESIS, Account
from schemas.templates import TEMPLATES
from stores.postgres import copying_for, tenant_transaction
from tests.conftest import fresh_database
from tests.simulation.documents import EXAMPLES, document

NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)
DAY = date(2026, 1, 31)


def post(database: sa.Engine, *given: dict[str, Any], tenant: str = "default", now: datetime = NOW) -> int:
    return posted(database, tenant, [Document.model_validate(each) for each in given], now=now)[1]


def rows(database: sa.Engine, sql: str, tenant: str = "default") -> list[Any]:
    with tenant_transaction(database, tenant) as connection:
        return [tuple(row) for row in connection.exec_driver_sql(sql)]


def wrong(database: sa.Engine) -> list[str]:
    return [f"{tenant} {each.sequence}: {each.what}" for tenant, _, each in verified(database) if each]


@pytest.fixture(scope="module")
def examples(postgres_url: str) -> Iterator[sa.Engine]:
    """A database with an entry of every template, and the reversal of each."""
    with fresh_database(postgres_url) as engine:
        assert post(engine, *[document(template) for template in EXAMPLES]) == len(EXAMPLES)
        for (entry,) in rows(engine, "SELECT id FROM journal_entries ORDER BY sequence"):
            reverse(engine, "default", entry.hex, effective_at=date(2026, 2, 1), why="a test", now=NOW)
        yield engine


def test_the_database_has_the_templates_of_the_code(shared_database: sa.Engine) -> None:
    """Templates, legs, and the sides that follow from them, row by row."""
    legs = [
        (code, place, leg.account, leg.account_if_negative, leg.amount, leg.side, leg.signed, leg.dimension)
        for code, template in TEMPLATES.items()
        for place, leg in enumerate(template.legs, start=1)
    ]
    heads = [(each.code, each.name, each.kind, each.takes_negative) for each in TEMPLATES.values()]
    assert rows(shared_database, "SELECT * FROM templates ORDER BY code") == sorted(heads)
    assert rows(shared_database, "SELECT * FROM template_legs ORDER BY template, position") == sorted(legs)
    assert {
        tuple(row[:3]): tuple(row[3:]) for row in rows(shared_database, "SELECT * FROM template_sides")
    } == allowed_sides()


def test_every_template_posts_its_example_and_takes_it_back(examples: sa.Engine) -> None:
    """All templates but the lock's have one; with the reversals every account is back at zero, and all is as posted."""
    assert set(EXAMPLES) == set(TEMPLATES) - {"P31"}
    with examples.connect() as connection:
        assert store.balances(connection, "default", by=("customer", "dimension")).is_empty()
        before = store.balances(connection, "default", effective_through=DAY)
    assert set(before.group_by("currency").agg(pl.col("balance_minor").sum())["balance_minor"]) == {0}
    assert set(rows(examples, "SELECT DISTINCT account FROM postings")) == {(account.value,) for account in Account}
    assert wrong(examples) == []


def test_an_entry_is_reversed_once_and_by_its_mirror(examples: sa.Engine) -> None:
    """A second reversal is the first one; a reversal of something else, or one that is no mirror, is refused."""
    [(entry, reversal)] = rows(
        examples,
        "SELECT relates_to, id FROM journal_entries WHERE document_kind = 'reversal' ORDER BY sequence LIMIT 1",
    )
    again = reverse(examples, "default", entry.hex, effective_at=date(2026, 2, 1), why="a test", now=NOW)
    assert again == reversal.hex
    with pytest.raises(sa.exc.IntegrityError, match="by another template"):
        reverse(examples, "default", reversal.hex, effective_at=DAY, why="a test", now=NOW)
    with pytest.raises(LookupError, match="no entry 0000"):
        reverse(examples, "default", "0" * 32, effective_at=DAY, why="a test", now=NOW)


def test_a_tenant_sees_and_writes_its_own_books_alone(database: sa.Engine) -> None:
    """Another tenant's transaction reads none of its rows, and can neither post nor close in its name."""
    post(database, document("P09"), tenant="acme")
    post(database, document("P29"), tenant="rival")
    with tenant_transaction(database, "acme") as connection:
        periods.close_period(connection, "acme", date(2025, 12, 31))
    for table in ("journal_entries", "postings", "closed_periods", "period_overrides"):
        assert rows(database, f"SELECT * FROM {table} WHERE tenant = 'acme'", "rival") == []
    assert len(rows(database, "SELECT * FROM journal_entries", "rival")) == 1
    assert rows(database, "SELECT * FROM journal_entries", "") == []
    for statement in (
        "INSERT INTO closed_periods (tenant, through) VALUES ('acme', '2030-01-01')",
        "INSERT INTO postings VALUES ('acme', 1, 9, 1100, '', 'EUR', '', 1)",
    ):
        with pytest.raises(sa.exc.ProgrammingError, match="row-level security"):
            rows(database, statement, "rival")
    for statement in ("UPDATE postings SET amount_minor = 1", "DELETE FROM journal_entries", "DROP TABLE postings",
                      "ALTER TABLE postings DISABLE TRIGGER ALL", "SELECT * FROM api_keys"):  # fmt: skip
        with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"):
            rows(database, statement, "rival")


def test_a_session_that_changes_its_tenant_hides_nothing_from_the_checks(database: sa.Engine) -> None:
    """The checks at commit see all rows, whatever tenant the session names by then."""
    journal = entries_of(*frames_of([Document.model_validate(document("P09"))], "acme"), booked_at=NOW)

    def half_posted() -> None:
        with tenant_transaction(database, "acme") as connection:
            store.post(connection, journal.entries, journal.postings.head(1))
            connection.exec_driver_sql("SELECT set_config('meterline.tenant', 'rival', true)")

    with pytest.raises(sa.exc.IntegrityError, match="to zero"):
        half_posted()


def test_the_same_document_posts_once_and_another_content_is_an_error(database: sa.Engine) -> None:
    """By the document's id; a new version of it is a document of its own."""
    assert post(database, document("P09"), document("P29")) == 2
    assert post(database, document("P29"), document("P09"), document("P15")) == 1
    with pytest.raises(store.OtherContentError, match="is posted with the content"):
        post(database, document("P09", amounts={"payment": "121"}))
    assert post(database, document("P09", amounts={"payment": "121"}, version=2)) == 1
    assert rows(database, "SELECT sequence FROM journal_entries ORDER BY sequence") == [(1,), (2,), (3,), (4,)]


def test_large_posts_are_compared_with_what_is_there_too(database: sa.Engine) -> None:
    """A batch that is taken for new and is not, is found by its index, and posted without what is there."""

    def batch(first: int) -> list[dict[str, Any]]:
        return [document("P29", f"fee {number}") for number in range(first, first + 1100)]

    assert post(database, *batch(0)) == 1100
    assert post(database, *batch(100)) == 100
    assert wrong(database) == []


def test_many_writers_make_one_chain(database: sa.Engine) -> None:
    """Sequences have no gap and no fork when many post at once, and some of them fail."""

    def fail(given: dict[str, Any]) -> None:
        journal = entries_of(*frames_of([Document.model_validate(given)], "default"), booked_at=NOW)
        with tenant_transaction(database, "default") as connection:
            store.post(connection, journal.entries, journal.postings.head(1))

    def write(number: int) -> None:
        for each in range(4):
            given = document("P09", f"payment {number} {each}")
            if each == 2:
                with pytest.raises(sa.exc.IntegrityError, match="to zero"):
                    fail(given)
            else:
                post(database, given)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert rows(database, "SELECT count(*), max(sequence) FROM journal_entries") == [(24, 24)]
    assert wrong(database) == []


def test_balances_are_of_two_clocks(database: sa.Engine) -> None:
    """What the books said of a day, and what they said by an instant, are two questions."""
    #  booked        Feb 1        Feb 3
    #  dated Jan 31  payment 120  late fee 12
    post(database, document("P09"))
    post(database, document("P29"), now=NOW + timedelta(days=2))

    def receivable(**clocks: Any) -> int:
        with database.connect() as connection:
            found = store.balances(connection, "default", by=("customer",), **clocks)
        return int(found.filter(pl.col("account") == 1100, pl.col("customer") == "UA")["balance_minor"].sum())

    assert receivable() == -10800
    assert receivable(effective_through=DAY, booked_through=NOW) == -12000
    assert receivable(effective_through=DAY, booked_through=NOW + timedelta(days=2)) == -10800
    assert receivable(effective_through=DAY - timedelta(days=1)) == 0


def test_a_closed_period_opens_by_an_override_alone_and_for_a_time(database: sa.Engine) -> None:
    """Who and why is kept; what came in while it was open is as it should be; an adjusting entry names the period."""
    post(database, document("P09"))
    with tenant_transaction(database, "default") as connection:
        assert periods.close_period(connection, "default", DAY)
        assert not periods.close_period(connection, "default", DAY)
        periods.close_period(connection, "default", date(2026, 2, 28))
    with pytest.raises(
        sa.exc.IntegrityError, match="dated 2026-01-31; the books of default are closed through 2026-02-28"
    ):
        post(database, document("P29"))
    adjusting = {"effective_at": "2026-03-01", "relates_to_period": "2026-01"}
    assert post(database, document("P29", "adjusting", **adjusting)) == 1
    with pytest.raises(sa.exc.IntegrityError, match="relates_to_period"):
        post(database, document("P29", "own period", effective_at="2026-03-01", relates_to_period="2026-03"))
    now = datetime.now(UTC)
    with tenant_transaction(database, "default") as connection:
        with pytest.raises(LookupError, match="no period of default was closed through 2026-01-30; closed: 2026-01-31"):
            periods.reopen_period(connection, "default", date(2026, 1, 30), by="A", why="B", opened_at=now, until=now)
        until = now + timedelta(hours=1)
        periods.reopen_period(connection, "default", DAY, by="Ada", why="a lost fee", opened_at=now, until=until)
    assert post(database, document("P29"), now=now) == 1
    with pytest.raises(sa.exc.IntegrityError, match="closed through 2026-02-28"):
        post(database, document("P29", "February", effective_at="2026-02-01"))
    assert rows(database, "SELECT opened_by, reason FROM period_overrides") == [("Ada", "a lost fee")]
    assert wrong(database) == []
    for values in ("'2026-01-31', now(), now() + interval '8 days', 'A', 'B'", "'2026-01-31', now(), now(), 'A', 'B'",
                   "'2026-01-31', now(), now() + interval '1 day', '', 'B'"):  # fmt: skip
        with pytest.raises(sa.exc.IntegrityError, match=r"week_at_most|opened_by"):
            rows(
                database,
                f"""INSERT INTO period_overrides (tenant, through, opened_at, until, opened_by, reason)
                               VALUES ('default', {values})""",
            )


@pytest.mark.parametrize(
    ("forgery", "what"),
    [
        ("UPDATE postings SET amount_minor = amount_minor * 2 WHERE sequence = 3", "3: its content is not what"),
        ("UPDATE postings SET customer = 'AA' WHERE sequence = 3", "3: its content is not what"),
        ("UPDATE journal_entries SET description = 'x' WHERE sequence = 2", "2: its content is not what"),
        ("UPDATE journal_entries SET effective_at = '2026-01-30' WHERE sequence = 2", "2: its content is not what"),
        ("UPDATE journal_entries SET id = 'ffffffffffffffffffffffffffffffff' WHERE sequence = 2", "2: its id is not that"),
        ("UPDATE journal_entries SET booked_at = booked_at + interval '1 us' WHERE sequence = 4", "4: its hash is not"),
        ("DELETE FROM postings WHERE sequence = 2", "2: its content is not what"),
        ("DELETE FROM journal_entries WHERE sequence = 2", "3: its sequence is 3; the next one is 2"),
        ("INSERT INTO postings VALUES ('default', 99, 1, 1100, '', 'EUR', '', 1)", "99: postings without an entry"),
        ("""UPDATE journal_entries SET content_digest = sha256('x'), hash = entry_hash(previous_hash, sha256('x'), sequence,
            booked_at) WHERE sequence = 2""", "2: its content is not what"),
        ("""UPDATE journal_entries SET hash = sha256('x') WHERE sequence = 2;
            UPDATE journal_entries SET previous_hash = sha256('x') WHERE sequence = 3""", "2: its hash is not its own"),
        ("UPDATE journal_entries SET previous_hash = sha256('x') WHERE sequence = 3", "3: it does not name the hash"),
        ("INSERT INTO postings VALUES ('default', -1, 1, 1100, '', 'EUR', '', 1)", "-1: postings without an entry"),
        ("""INSERT INTO postings VALUES ('default', 987654321, 1, 1100, '', 'EUR', '', 1)""",
         "987654321: postings without an entry"),
        ("UPDATE postings SET currency = 'AAA', dimension = 'x' WHERE sequence = 4", "4: its content is not what"),
        ("""UPDATE journal_entries SET hash = substr(hash, 1, 31) WHERE sequence = 2; UPDATE journal_entries e
            SET hash = substr(o.hash, 32) || e.hash FROM journal_entries o WHERE e.sequence = 3 AND o.sequence = 2""",
         "2: its hash is not its own"),
        ("UPDATE journal_entries SET previous_hash = previous_hash || 'x' WHERE sequence = 1", "1: it does not name the hash"),
        ("UPDATE closed_periods SET after_sequence = 3", "4: it is dated 2026-01-31, in a period that was closed"),
    ],
)  # fmt: skip
def test_a_forger_with_all_rights_is_found(forged: sa.Engine, forgery: str, what: str) -> None:
    """With every trigger off a superuser can change anything; the first entry that differs is named."""
    with forged.connect() as connection:
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica; " + forgery)
        found = [f"{each.sequence}: {each.what}" for _, _, each in findings(connection) if each]
        assert [said.startswith(what) for said in found] == [True], found
        connection.rollback()
    assert wrong(forged) == []


def test_many_readers_find_what_one_finds(forged: sa.Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """In stretches of one entry, by several connections, the chain ends at the same place; a gap is told in order."""
    monkeypatch.setattr(store, "STRETCH_ENTRIES_MAX", 1)
    assert wrong(forged) == []
    [(_, place, _)] = verified(forged)
    assert (place.sequence, place.hash) == rows(
        forged, "SELECT sequence, encode(hash, 'hex') FROM journal_entries ORDER BY sequence DESC LIMIT 1"
    )[0]
    with forged.connect() as connection:
        connection.exec_driver_sql(
            "SET LOCAL session_replication_role = replica; DELETE FROM journal_entries WHERE sequence = 2"
        )
        assert [each.what for *_, each in findings(connection) if each] == ["postings without an entry"]
        connection.exec_driver_sql("DELETE FROM postings WHERE sequence = 2")
        assert [each.what for *_, each in findings(connection) if each] == ["its sequence is 3; the next one is 2"]
        connection.rollback()


def test_what_is_copied_is_of_the_tenant_that_the_transaction_names(database: sa.Engine) -> None:
    """The login passes by row-level security; the tables refuse entries and postings of another tenant all the same."""
    journal = entries_of(*frames_of([Document.model_validate(document("P09"))], "acme"), booked_at=NOW)

    def copied(table: str, **other: str) -> None:
        with tenant_transaction(database, "acme") as connection:
            store.post(connection, journal.entries, journal.postings)
            with copying_for(connection, "rival"):
                connection.exec_driver_sql("SELECT set_config('meterline.tenant', 'rival', true)")
                names = connection.exec_driver_sql(f"SELECT * FROM {table}").mappings().first() or {}
                values = ", ".join(other.get(name, name) for name in names)
                connection.exec_driver_sql(f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table}")

    refused = "a row of the tenant acme, in a transaction of the tenant rival"
    with pytest.raises(sa.exc.ProgrammingError, match=refused):
        copied("journal_entries", sequence="sequence + 1", id="gen_random_uuid()")
    with pytest.raises(sa.exc.ProgrammingError, match=refused):
        copied("postings", position="position + 2")
    post(database, document("P09"), tenant="acme")
    assert rows(database, "SELECT count(*) FROM postings", "acme") == [(2,)]


@pytest.fixture(scope="module")
def forged(postgres_url: str) -> Iterator[sa.Engine]:
    """Books of four entries, closed behind them."""
    with fresh_database(postgres_url) as engine:
        post(engine, *[document(template) for template in ("P02", "P09", "P27", "P29")])
        with tenant_transaction(engine, "default") as connection:
            periods.close_period(connection, "default", date(2026, 2, 28))
        yield engine


def test_an_empty_chain_is_as_posted(database: sa.Engine) -> None:
    """Without entries there is nothing to verify, and the chain starts from the genesis hash."""
    assert list(verified(database)) == []
    post(database, document("P09"))
    assert rows(database, "SELECT encode(previous_hash, 'hex') FROM journal_entries") == [(GENESIS,)]
