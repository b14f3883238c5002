"""What is billed from, in PostgreSQL: applied price books and contracts, and bill runs.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. What two processes could do at once for one tenant waits for a lock that ends with the transaction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from invoicing.ledger.store import OtherContentError
from schemas.invoice import Basis, Run


@dataclass(frozen=True)
class Contracts:
    """Applied contracts: their digest and canonical JSON text."""

    digest: str
    body: str


def apply_price_book(
    connection: sa.Connection, tenant: str, *, book: str, version: int, digest: str, body: str, applied_at: datetime
) -> bool:
    """Store a price book version for good; `body` is its canonical JSON text. False when it was there already.

    Raises OtherContentError when the version is there with another digest, or the content under another version.
    """
    lock(connection, tenant)
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
    lock(connection, tenant)
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


def contracts_at(connection: sa.Connection, tenant: str, instant: datetime) -> Contracts | None:
    """The contracts that were in force at an instant: of those applied by then the last, else the first ones."""
    query = """
        SELECT digest, CAST(body AS text) FROM contracts WHERE tenant = :tenant
        ORDER BY applied_at <= :instant DESC, CASE WHEN applied_at <= :instant THEN -ordinal ELSE ordinal END LIMIT 1"""
    row = connection.execute(sa.text(query), {"tenant": tenant, "instant": instant}).one_or_none()
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
    """Mark the run as posted, with every period that it rated. Belongs into the transaction that posts, as its first.

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
    connection.execute(
        sa.text("DELETE FROM periods_to_rate WHERE tenant = :tenant AND period = ANY (:periods)"),
        {"tenant": run.tenant, "periods": [period for period in rated if period != run.period]},
    )


def rate_again(connection: sa.Connection, tenant: str, period: str, *, reason: str, at: datetime) -> None:
    """Let the next run look at a billed period again, also where no usage came: an invoice of it changed."""
    query = """INSERT INTO periods_to_rate VALUES (:tenant, :period, :reason, :at) ON CONFLICT DO NOTHING"""
    connection.execute(sa.text(query), {"tenant": tenant, "period": period, "reason": reason, "at": at})


def periods_to_rate(connection: sa.Connection, tenant: str) -> set[str]:
    """The periods that the next run looks at again."""
    query = "SELECT period FROM periods_to_rate WHERE tenant = :tenant"
    return set(connection.execute(sa.text(query), {"tenant": tenant}).scalars())


def run_of(connection: sa.Connection, tenant: str, period: str) -> Run | None:
    """The run of a period, or None when there was none yet."""
    return next(iter(_runs(connection, "period = :period", tenant=tenant, period=period)), None)


def posted_runs(connection: sa.Connection, tenant: str) -> list[Run]:
    """The posted runs by period."""
    return _runs(connection, "state = 'posted'", tenant=tenant)


def lock(connection: sa.Connection, tenant: str) -> None:
    """Wait for whoever applies terms or posts a run for the tenant; they wait until this transaction ends."""
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
