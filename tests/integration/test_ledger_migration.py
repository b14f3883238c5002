"""The migration of the ledger: what was posted before it, and owners of all kinds."""

from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

import stores.postgres
from invoicing.invoices import store as kept
from invoicing.invoices.entries import journal as entries_of_invoices
from invoicing.ledger import store
from invoicing.periods import store as periods
from meterline.verification import verified
from stores.postgres import engine_for, migrate
from tests.documents.drafts import issued
from tests.integration.test_ledger import document, post
from tests.integration.test_ledger_rules import NOW, billed, with_a_run

BEFORE = "0005"
OLD_ENTRY = """INSERT INTO journal_entries (id, tenant, template, document_id, effective_at, booked_at, description,
               content_digest) VALUES (:id, 'default', 'P02', :document_id, :effective_at, :booked_at, :description, 'x')"""
OLD_POSTING = "INSERT INTO postings VALUES (:entry_id, :position, :account, :customer, :currency, :amount_minor)"

OLD_INVOICE = ("id", "tenant", "customer", "customer_name", "period", "number", "currency", "minor_units",
               "subtotal_minor", "tax_minor", "total_minor", "tax", "cut", "book", "book_version", "book_digest",
               "contracts_digest", "issued_at", "content_digest")  # fmt: skip
OLD_LINE = """INSERT INTO invoice_lines SELECT 'line ' || count(*), :invoice, count(*) + 1, 'usage', 'AA', '2013-02',
              'turns ' || count(*), 'Turns', 'standard', NULL, 1, 1, :minor, '{}' FROM invoice_lines"""


def admin(postgres_url: str, *statements: str) -> None:
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))
    engine.dispose()


def url_of(postgres_url: str, database: str, user: str | None = None) -> str:
    url = sa.make_url(postgres_url).set(database=database)
    return (url.set(username=user) if user else url).render_as_string(hide_password=False)


def upgrade(engine: sa.Engine, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(stores.postgres.__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


def test_what_was_posted_before_is_chained(postgres_url: str) -> None:
    """Old entries get the ids and digests that their documents have now: posting them again changes nothing."""
    admin(postgres_url, "CREATE DATABASE old_ledger")
    engine = engine_for(url_of(postgres_url, "old_ledger"))
    upgrade(engine, BEFORE)
    done = issued(billed({"AA": 100, "UA": -1000, "ZZ": 7}), at=NOW)
    journal = entries_of_invoices(done.invoices, done.lines, booked_at=NOW)
    with engine.begin() as connection:
        for entry in journal.entries.iter_rows(named=True):
            connection.execute(sa.text(OLD_ENTRY), entry)
        for line in journal.postings.iter_rows(named=True):
            connection.execute(sa.text(OLD_POSTING), line)
        connection.exec_driver_sql("INSERT INTO closed_periods VALUES ('default', '2013-02-28')")
    with engine.begin() as connection:  # the tax of an invoice tells the dimension of its posting
        connection.exec_driver_sql("ALTER TABLE invoices DROP CONSTRAINT invoices_tenant_period_fkey")
        connection.exec_driver_sql("ALTER TABLE invoices DISABLE TRIGGER invoices_added")
        taxes = pl.lit('{"name": "VAT", "rate_percent": "20"}').alias("tax")
        stores.postgres.copy_in(connection, "invoices", done.invoices.with_columns(taxes).select(*OLD_INVOICE))
        connection.exec_driver_sql("ALTER TABLE invoice_lines DISABLE TRIGGER lines_added")
        for minor in (33, 33, 34):
            connection.execute(sa.text(OLD_LINE), {"invoice": done.invoices["id"][0], "minor": minor})
        connection.exec_driver_sql("""ALTER TABLE invoices ADD CONSTRAINT invoices_tenant_period_fkey
                                      FOREIGN KEY (tenant, period) REFERENCES bill_runs NOT VALID""")
    migrate(engine)
    with engine.begin() as connection:
        assert store.post(connection, journal.entries, journal.postings) == 0
        assert store.head(connection, "default").sequence == 3
        assert [closing.after_sequence for closing in periods.closings(connection, "default")] == [3]
        invoices = kept.invoices_of(connection, "default", "2013-02")
        assert invoices.select("state", "taxes", "version").rows()[:2] == [
            (
                "open",
                '[{"name" : "VAT", "rate_percent" : "20", "mode" : "exclusive", "base_minor" : 100, "tax_minor" : 20}]',
                1,
            ),
            (
                "paid",
                '[{"name" : "VAT", "rate_percent" : "20", "mode" : "exclusive", "base_minor" : -1000, "tax_minor" : -200}]',
                1,
            ),
        ]
        assert kept.take_numbers(connection, "default", "INV", 1) == 3
        assert kept.lines_of(connection, invoices["id"][0])["tax_minor"].to_list() == [7, 6, 7]
    assert [finding for *_, finding in verified(engine)] == [None]
    engine.dispose()
    admin(postgres_url, "DROP DATABASE old_ledger WITH (FORCE)")


def test_an_owner_who_is_no_superuser_keeps_the_books(postgres_url: str) -> None:
    """It may make the role, or is given it; without either the migration says what a DBA must grant."""
    admin(postgres_url, "CREATE ROLE small_owner LOGIN CREATEROLE", "CREATE ROLE no_owner LOGIN",
          "CREATE DATABASE small OWNER small_owner", "CREATE DATABASE refused OWNER no_owner")  # fmt: skip
    try:
        refused = engine_for(url_of(postgres_url, "refused", "no_owner"))
        with pytest.raises(sa.exc.ProgrammingError, match="GRANT meterline_app TO no_owner"):
            migrate(refused)
        admin(postgres_url, "GRANT meterline_app TO no_owner, small_owner")
        migrate(refused)
        engine = engine_for(url_of(postgres_url, "small", "small_owner"))
        migrate(engine)
        with_a_run(engine)
        assert post(engine, document("P09"), now=NOW) == 1
        assert [finding for *_, finding in verified(engine)] == [None]
        with engine.begin() as connection, pytest.raises(sa.exc.DBAPIError, match="posted rows never change"):
            connection.exec_driver_sql("DELETE FROM postings")
        engine.dispose()
        refused.dispose()
    finally:
        admin(postgres_url, "DROP DATABASE small WITH (FORCE)", "DROP DATABASE refused WITH (FORCE)",
              "DROP ROLE small_owner", "DROP ROLE no_owner")  # fmt: skip
