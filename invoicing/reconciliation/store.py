"""Settlements in PostgreSQL: a payout is matched, its result kept, and what matches is posted, all at once.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. Whoever reconciles holds the tenant's ledger from the first look on.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing.ledger import store as ledger
from invoicing.ledger.journal import entries_of
from invoicing.periods import store as periods
from invoicing.reconciliation.matching import ENTRIES, MATCHES, Result, reconcile
from invoicing.reconciliation.postings import settlement_documents
from schemas.identity import digest
from schemas.invoice import Columns
from schemas.journal import REVERSAL, Account
from schemas.templates import PENDING
from stores.columns import read_frame
from stores.postgres import as_tenant, insert

FLAGS: Columns = {"payout": pl.String, **MATCHES}
"""Columns of outcomes that somebody has to look at."""


@dataclass(frozen=True)
class Reconciled:
    """The result of a payout, and how many entries were posted for it now."""

    result: Result
    posted: int


def reconcile_payout(
    connection: sa.Connection,
    tenant: str,
    payout: str,
    rows: pl.DataFrame,
    *,
    file_digest: str,
    at: datetime,
    window_days: int = 3,
) -> Reconciled:
    """Match the rows of a payout (columns `matching.ROWS`), keep the result, and post what matches (P10).

    In this order: (1) wait for whoever posts for the tenant; (2) read what the clearing account has that no
    other payout settled, up to the window behind the last row; (3) match; (4) note which entries are settled, which
    fails where another payout has one; (5) post what is not posted yet; (6) keep the result, if it is a new one.
    Raises OtherContentError when an entry was settled by another row before.
    """
    # 1: wait
    ledger.hold(connection, tenant)
    # 2: read
    last = rows["occurred_on"].max()
    settled_on = last if isinstance(last, date) else at.date()
    entries = _open_entries(connection, tenant, payout, settled_on + timedelta(days=window_days))
    # 3: match
    result = reconcile(rows, entries, payout=payout, window_days=window_days)
    # 4: note
    _note_settled(connection, tenant, payout, result.matches)
    # 5: post
    closed = periods.closed_through(connection, tenant)
    documents = settlement_documents(
        result.matches, tenant=tenant, payout=payout, settled_on=settled_on, closed_through=closed
    )
    posted = _post(connection, tenant, documents, at)
    # 6: keep
    _keep(connection, tenant, payout, result, file_digest=file_digest, settled_on=settled_on, at=at)
    return Reconciled(result, posted)


def flags(connection: sa.Connection, tenant: str, payout: str | None = None) -> pl.DataFrame:
    """What did not match in the newest result of each payout, or of one, and was not reviewed (columns FLAGS).

    Not what another payout has settled since.
    """
    query = f"""
        WITH newest AS (
            SELECT DISTINCT ON (payout) id, payout FROM settlements WHERE tenant = :tenant
            ORDER BY payout, ordinal DESC)
        SELECT n.payout, {", ".join(_shown(name) for name in MATCHES)}
        FROM newest n JOIN settlement_matches m ON m.settlement_id = n.id
        WHERE m.outcome <> 'matched' AND (CAST(:payout AS text) IS NULL OR n.payout = :payout)
            AND NOT EXISTS (SELECT FROM settlement_reviews r WHERE r.tenant = :tenant AND r.match_id = m.id)
            AND NOT (m.outcome = 'unmatched_in_ledger' AND EXISTS (SELECT FROM settled_entries s
                WHERE s.tenant = :tenant AND (s.entry_id, s.currency, s.dimension)
                    = (m.entry_id, m.currency, m.dimension)))
        ORDER BY n.payout, m.outcome, m.id"""  # noqa: S608  names of ours
    return _read(connection, tenant, query, FLAGS, payout=payout)


def resolve(connection: sa.Connection, tenant: str, match_id: str, *, who: str, note: str, at: datetime) -> None:
    """Note that somebody has looked at a flag, and what came of it. It stays resolved when the payout is matched again.

    Raises LookupError when there is no such flag.
    """
    if match_id not in flags(connection, tenant)["id"].to_list():
        raise LookupError(f"no open flag {match_id}; `meterline settlements flags` lists them")
    with as_tenant(connection, tenant):
        connection.execute(
            sa.text("INSERT INTO settlement_reviews VALUES (:tenant, :id, :who, :note, :at)"),
            {"id": match_id, "tenant": tenant, "who": who, "note": note, "at": at},
        )


def _open_entries(connection: sa.Connection, tenant: str, payout: str, through: date) -> pl.DataFrame:
    """What stands on the clearing account and no other payout settled (columns `matching.ENTRIES`).

    Not what is pending, nor what was reversed, nor settlements themselves.
    """
    rows = """(
        SELECT e.id, e.document_id, e.effective_at, p.customer, p.currency, p.dimension, sum(p.amount_minor) AS minor
        FROM postings p JOIN journal_entries e ON e.tenant = p.tenant AND e.sequence = p.sequence
        WHERE p.tenant = %(tenant)s AND p.account = %(account)s AND p.dimension <> %(pending)s
            AND e.template <> 'P10' AND e.document_kind <> %(reversal)s AND e.effective_at <= %(through)s
            AND NOT EXISTS (SELECT FROM journal_entries r
                WHERE r.relates_to = e.id AND r.document_kind = %(reversal)s AND r.tenant = e.tenant)
            AND NOT EXISTS (SELECT FROM settled_entries s WHERE s.tenant = e.tenant AND s.entry_id = e.id
                AND s.currency = p.currency AND s.dimension = p.dimension AND s.payout <> %(payout)s)
        GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(p.amount_minor) <> 0 ORDER BY 1, 5, 6) AS entries"""
    columns = {
        "entry_id": ("encode(uuid_send(id), 'hex')", "text"), "reference": ("document_id", "text"),
        "customer": ("customer", "text"), "currency": ("currency", "text"), "dimension": ("dimension", "text"),
        "amount_minor": ("CAST(minor AS bigint)", "bigint"), "effective_at": ("effective_at", "date"),
    }  # fmt: skip
    keys = {"tenant": tenant, "payout": payout, "through": through, "account": Account.GATEWAY_CLEARING.value,
            "pending": PENDING, "reversal": REVERSAL}  # fmt: skip
    with as_tenant(connection, tenant):
        found = read_frame(connection, columns, rows, keys)
    return found.select(pl.col(name).cast(kind) for name, kind in ENTRIES.items())


def _note_settled(connection: sa.Connection, tenant: str, payout: str, matches: pl.DataFrame) -> None:
    pairs = matches.filter((pl.col("outcome") == "matched") & pl.col("entry_id").is_not_null())
    query = f"""SELECT {_shown("entry_id", "s")}, currency, dimension, file_row FROM settled_entries s
                WHERE tenant = :tenant AND payout = :payout"""  # noqa: S608  names of ours
    unit = ["entry_id", "currency", "dimension"]
    schema: Columns = {**dict.fromkeys(unit, pl.String), "file_row": pl.String}
    before = _read(connection, tenant, query, schema, payout=payout)
    both = pairs.join(before, on=unit, how="inner").filter(pl.col("file_row") != pl.col("file_row_right"))
    if both.height:
        raise ledger.OtherContentError(
            f"payment {both['reference'][0]} was settled by another row of payout {payout}; reverse its entry before"
        )
    fresh = pairs.join(before, on=unit, how="anti").select(*unit, "file_row")
    with as_tenant(connection, tenant):
        insert(connection, "settled_entries", fresh.with_columns(tenant=pl.lit(tenant), payout=pl.lit(payout)))


def _post(connection: sa.Connection, tenant: str, made: tuple[pl.DataFrame, pl.DataFrame], at: datetime) -> int:
    """Post documents that are not posted yet. A repeated run may date them otherwise: a period was closed meanwhile."""
    journal = entries_of(*made, booked_at=at)
    query = "SELECT replace(CAST(id AS text), '-', '') FROM journal_entries WHERE id = ANY (CAST(:ids AS uuid[]))"
    known = _read(connection, tenant, query, {"id": pl.String}, ids=journal.entries["id"].to_list())
    fresh = journal.entries.join(known, on="id", how="anti", maintain_order="left")
    own = journal.postings.join(fresh, left_on="entry_id", right_on="id", how="semi", maintain_order="left")
    return ledger.post(connection, fresh, own)


def _keep(
    connection: sa.Connection, tenant: str, payout: str, result: Result, *, file_digest: str, settled_on: date,
    at: datetime,
) -> None:  # fmt: skip
    query = """SELECT count(*), (array_agg(output_digest ORDER BY ordinal DESC))[1] FROM settlements
               WHERE tenant = :tenant AND payout = :payout"""
    with as_tenant(connection, tenant):
        count, newest = connection.execute(sa.text(query), {"tenant": tenant, "payout": payout}).one()
        if newest == result.digest:
            return
        settlement_id = digest("settlement", tenant, payout, result.digest, count)
        connection.execute(
            sa.text("""
                INSERT INTO settlements (id, tenant, payout, file_digest, output_digest, settled_on, reconciled_at)
                VALUES (:id, :tenant, :payout, :file, :output, :day, :at)"""),
            {"id": settlement_id, "tenant": tenant, "payout": payout, "file": file_digest, "output": result.digest,
             "day": settled_on, "at": at},
        )  # fmt: skip
        kept = result.matches.with_columns(settlement_id=pl.lit(settlement_id), tenant=pl.lit(tenant))
        insert(connection, "settlement_matches", kept)


def _shown(name: str, table: str = "m") -> str:
    return f"replace(CAST({table}.entry_id AS text), '-', '')" if name == "entry_id" else f"{table}.{name}"


def _read(connection: sa.Connection, tenant: str, query: str, schema: Columns, **keys: Any) -> pl.DataFrame:
    with as_tenant(connection, tenant):
        rows = connection.execute(sa.text(query), {"tenant": tenant, **keys})
        return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
