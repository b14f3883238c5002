"""Invoicing's tables in PostgreSQL: applied price books and contracts, bill runs, invoices, the journal.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. The rules of the books are the database's own and speak up at the caller's commit at the latest. What
two processes could do at once for one tenant waits for a lock that ends with the transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing.ledger.store import OtherContentError
from invoicing.ledger.store import post as post_entries
from schemas.invoice import BOOKED, INVOICE_NUMBER, INVOICES, LINES, Basis, Columns, Run
from stores.postgres import copy_in

_JSON = {"tax", "explanation", "body"}  # read as text: parsed JSON would make floats of numbers


@dataclass(frozen=True)
class Contracts:
    """Applied contracts: their digest and canonical JSON text."""

    digest: str
    body: str


@dataclass(frozen=True)
class Posted:
    """How many invoices and journal entries were new."""

    invoices: int
    entries: int


def apply_price_book(
    connection: sa.Connection, tenant: str, *, book: str, version: int, digest: str, body: str, applied_at: datetime
) -> bool:
    """Store a price book version for good; `body` is its canonical JSON text. False when it was there already.

    Raises OtherContentError when the version is there with another digest, or the content under another version.
    """
    _lock(connection, tenant)
    same = "SELECT book, version, digest FROM price_books WHERE tenant = :tenant AND "
    key = {"tenant": tenant, "book": book, "version": version, "digest": digest}
    for known_book, known_version, known_digest in connection.execute(
        sa.text(same + "(digest = :digest OR (book = :book AND version = :version)) ORDER BY book, version"), key
    ):
        if (known_book, known_version, known_digest) == (book, version, digest):
            return False
        raise OtherContentError(
            f"price book {book} version {version} has the digest {digest}; {known_book} version {known_version} was "
            f"applied with the digest {known_digest} and never changes; give a new content a new version"
        )
    connection.execute(
        sa.text("INSERT INTO price_books VALUES (:tenant, :book, :version, :digest, CAST(:body AS json), :applied_at)"),
        {**key, "body": body, "applied_at": applied_at},
    )
    return True


def price_books(connection: sa.Connection, tenant: str) -> list[dict[str, Any]]:
    """All applied versions by book and version: book, version, digest, body (JSON text), applied_at."""
    rows = connection.execute(
        sa.text("""SELECT book, version, digest, CAST(body AS text) AS body, applied_at FROM price_books
                   WHERE tenant = :tenant ORDER BY book, version"""),
        {"tenant": tenant},
    )
    return [dict(row) for row in rows.mappings()]


def apply_contracts(connection: sa.Connection, tenant: str, *, digest: str, body: str, applied_at: datetime) -> bool:
    """Put these contracts in force; `body` is their canonical JSON text. False when they are in force already.

    Raises OtherContentError when the digest was applied with another body.
    """
    _lock(connection, tenant)
    known = contracts_of(connection, tenant, digest)
    if known is not None and known.body != body:
        raise OtherContentError(f"contracts with the digest {digest} were applied with another content")
    if latest_contracts(connection, tenant) == Contracts(digest, body):
        return False
    connection.execute(
        sa.text("""INSERT INTO contracts (tenant, digest, body, applied_at)
                   VALUES (:tenant, :digest, CAST(:body AS json), :applied_at)"""),
        {"tenant": tenant, "digest": digest, "body": body, "applied_at": applied_at},
    )
    return True


def latest_contracts(connection: sa.Connection, tenant: str) -> Contracts | None:
    """The contracts in force, or None when a tenant has none."""
    query = "SELECT digest, CAST(body AS text) FROM contracts WHERE tenant = :tenant ORDER BY ordinal DESC LIMIT 1"
    row = connection.execute(sa.text(query), {"tenant": tenant}).one_or_none()
    return None if row is None else Contracts(*row)


def contracts_of(connection: sa.Connection, tenant: str, digest: str) -> Contracts | None:
    """The contracts with this digest, or None: what an earlier run rated from."""
    query = "SELECT digest, CAST(body AS text) FROM contracts WHERE tenant = :tenant AND digest = :digest LIMIT 1"
    row = connection.execute(sa.text(query), {"tenant": tenant, "digest": digest}).one_or_none()
    return None if row is None else Contracts(*row)


def start_run(connection: sa.Connection, tenant: str, period: str, basis: Basis, *, started_at: datetime) -> Run:
    """Note what the period is going to be rated from, and return the run.

    A run that was started and not posted is started anew. One that is posted is returned as it is: look at its state.
    Raises ValueError when the price book or the contracts were not applied.
    """
    books = {(known["book"], known["version"], known["digest"]) for known in price_books(connection, tenant)}
    if (basis.book, basis.book_version, basis.book_digest) not in books:
        raise ValueError(f"price book {basis.book} version {basis.book_version} is not applied; apply it first")
    if contracts_of(connection, tenant, basis.contracts_digest) is None:
        raise ValueError(f"contracts {basis.contracts_digest} are not applied; apply them first")
    connection.execute(
        sa.text("""
            INSERT INTO bill_runs
                (tenant, period, cut, book, book_version, book_digest, contracts_digest, state, started_at)
            VALUES (:tenant, :period, :cut, :book, :book_version, :book_digest, :contracts_digest, 'started',
                :started_at)
            ON CONFLICT (tenant, period) DO UPDATE SET cut = excluded.cut, book = excluded.book,
                book_version = excluded.book_version, book_digest = excluded.book_digest,
                contracts_digest = excluded.contracts_digest, started_at = excluded.started_at
            WHERE bill_runs.state = 'started'"""),
        {"tenant": tenant, "period": period, "started_at": started_at, **vars(basis)},
    )
    run = run_of(connection, tenant, period)
    assert run is not None
    return run


def finish_run(connection: sa.Connection, run: Run, rated: Mapping[str, Basis], *, posted_at: datetime) -> None:
    """Mark the run as posted, with every period that it rated. Belongs into the transaction that posts.

    Raises ValueError when the run was started anew or posted by somebody else meanwhile.
    """
    done = connection.execute(
        sa.text("""UPDATE bill_runs SET state = 'posted', posted_at = :posted_at
                   WHERE tenant = :tenant AND period = :period AND state = 'started' AND started_at = :started_at
                   AND cut = :cut AND book_digest = :book_digest AND contracts_digest = :contracts_digest"""),
        {"tenant": run.tenant, "period": run.period, "started_at": run.started_at, "posted_at": posted_at,
         **vars(run.basis)},
    )  # fmt: skip
    if done.rowcount != 1:
        raise ValueError(f"the run of {run.period} was started anew or posted by another process; nothing was posted")
    connection.execute(
        sa.text("""INSERT INTO period_ratings
                   VALUES (:tenant, :period, :run_period, :cut, :book_digest, :contracts_digest)"""),
        [{"tenant": run.tenant, "period": period, "run_period": run.period, **vars(basis)}
         for period, basis in rated.items()],
    )  # fmt: skip


def run_of(connection: sa.Connection, tenant: str, period: str) -> Run | None:
    """The run of a period, or None when there was none yet."""
    return next(iter(_runs(connection, "period = :period", tenant=tenant, period=period)), None)


def posted_runs(connection: sa.Connection, tenant: str) -> list[Run]:
    """The posted runs by period."""
    return _runs(connection, "state = 'posted'", tenant=tenant)


def latest_ratings(connection: sa.Connection, tenant: str) -> dict[str, tuple[int, str]]:
    """For each billed period, the cut and the digest of the contracts that it was last rated at."""
    query = """SELECT DISTINCT ON (period) period, cut, contracts_digest FROM period_ratings
               WHERE tenant = :tenant ORDER BY period, cut DESC"""
    rows = connection.execute(sa.text(query), {"tenant": tenant})
    return {period: (cut, contracts_digest) for period, cut, contracts_digest in rows}


def booked(connection: sa.Connection, tenant: str, periods: Sequence[str]) -> pl.DataFrame:
    """What the posted lines for usage of these periods add up to (columns `schemas.invoice.BOOKED`)."""
    query = """
        SELECT l.customer, l.usage_period, l.charge, i.currency, max(l.description), max(l.model), max(l.meter),
            sum(l.quantity), sum(l.amount), CAST(sum(l.amount_minor) AS bigint)
        FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
        WHERE i.tenant = :tenant AND l.usage_period = ANY (:periods)
        GROUP BY 1, 2, 3, 4 ORDER BY l.customer COLLATE "C", l.usage_period, l.charge COLLATE "C", i.currency"""
    rows = connection.execute(sa.text(query), {"tenant": tenant, "periods": list(periods)})
    return pl.DataFrame([tuple(row) for row in rows], schema=BOOKED, orient="row")


def next_number(connection: sa.Connection, tenant: str) -> int:
    """The number that the tenant's next invoice gets. Others who ask wait until this transaction ends."""
    _lock(connection, tenant)
    query = "SELECT number FROM invoices WHERE tenant = :tenant ORDER BY length(number) DESC, number DESC LIMIT 1"
    highest = connection.execute(sa.text(query), {"tenant": tenant}).scalar_one_or_none()
    return 1 if highest is None else int(highest.partition("-")[2]) + 1


def post(
    connection: sa.Connection,
    invoices: pl.DataFrame,
    lines: pl.DataFrame,
    entries: pl.DataFrame,
    postings: pl.DataFrame,
) -> Posted:
    """Write invoices and journal for good. What is there already with the same content is left as it is.

    Raises OtherContentError when an id is there with other content, ValueError when the numbers of the new invoices
    do not go on where the tenant's last one ended.
    """
    for tenant in sorted(set(invoices["tenant"])):
        _lock(connection, tenant)
    fresh = _fresh(connection, invoices)
    for (tenant,), numbered in fresh.group_by("tenant"):
        first = next_number(connection, str(tenant))
        expected = [INVOICE_NUMBER.format(first + row) for row in range(numbered.height)]
        if sorted(numbered["number"], key=lambda number: (len(number), number)) != expected:
            raise ValueError(f"new invoices of tenant {tenant} must be numbered from {expected[0]} to {expected[-1]}")
    copy_in(connection, "invoices", fresh.select(*INVOICES))
    of_fresh = lines.join(fresh, left_on="invoice_id", right_on="id", how="semi", maintain_order="left")
    copy_in(connection, "invoice_lines", of_fresh.select(*LINES))
    return Posted(fresh.height, post_entries(connection, entries, postings))


def invoices_of(connection: sa.Connection, tenant: str, period: str) -> pl.DataFrame:
    """The posted invoices of a period by customer and currency (columns `schemas.invoice.INVOICES`)."""
    where = 'WHERE tenant = :tenant AND period = :period ORDER BY customer COLLATE "C", currency'
    return _read(connection, "invoices", INVOICES, where, tenant=tenant, period=period)


def invoice(connection: sa.Connection, tenant: str, id_or_number: str) -> pl.DataFrame:
    """The invoice with this id or number: a frame of one row. Raises LookupError when the tenant has none."""
    where = "WHERE tenant = :tenant AND (id = :key OR (length(number) = length(:key) AND number = :key))"
    found = _read(connection, "invoices", INVOICES, where, tenant=tenant, key=id_or_number)
    if found.is_empty():
        raise LookupError(f"tenant {tenant} has no invoice {id_or_number}; give an id or a number such as INV-000001")
    return found


def lines_of(connection: sa.Connection, invoice_id: str) -> pl.DataFrame:
    """The lines of an invoice in order (columns `schemas.invoice.LINES`)."""
    return _read(connection, "invoice_lines", LINES, "WHERE invoice_id = :id ORDER BY position", id=invoice_id)


def _lock(connection: sa.Connection, tenant: str) -> None:
    connection.execute(
        sa.text("SELECT pg_advisory_xact_lock(hashtextextended('invoicing ' || :tenant, 0))"), {"tenant": tenant}
    )


def _runs(connection: sa.Connection, where: str, **keys: str) -> list[Run]:
    query = f"SELECT * FROM bill_runs WHERE tenant = :tenant AND {where} ORDER BY period"  # noqa: S608  ours
    basis = ("cut", "book", "book_version", "book_digest", "contracts_digest")
    return [
        Run(row["tenant"], row["period"], Basis(**{name: row[name] for name in basis}), row["state"],
            row["started_at"], row["posted_at"])
        for row in connection.execute(sa.text(query), keys).mappings()
    ]  # fmt: skip


def _read(connection: sa.Connection, table: str, schema: Columns, where: str, **keys: str) -> pl.DataFrame:
    columns = ", ".join(f"CAST({name} AS text)" if name in _JSON else name for name in schema)
    rows = connection.execute(sa.text(f"SELECT {columns} FROM {table} {where}"), keys)  # noqa: S608  names of ours
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")


def _fresh(connection: sa.Connection, rows: pl.DataFrame) -> pl.DataFrame:
    """The invoices whose id is not stored. Raises OtherContentError when one is stored with another content digest."""
    query = sa.text("SELECT id, content_digest FROM invoices WHERE id = ANY (:ids)")
    stored = {row.id: row.content_digest for row in connection.execute(query, {"ids": rows["id"].to_list()})}
    for row_id, content in rows.select("id", "content_digest").iter_rows():
        if stored.get(row_id, content) != content:
            raise OtherContentError(
                f"invoices: {row_id} is posted with the content {stored[row_id]}, now it is {content}; posted "
                "rows never change, post a correcting entry"
            )
    return rows.filter(~pl.col("id").is_in(list(stored)))
