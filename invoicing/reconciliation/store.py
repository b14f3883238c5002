"""Settlements in PostgreSQL: a payout is matched, its result kept, and what matches is posted, all at once.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. One payout of a tenant is reconciled at a time.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing.bookings.documents import document_ids
from invoicing.bookings.store import OtherContentError, closed_through, copy_in, post, posted_ids, postings_on
from invoicing.reconciliation.matching import ENTRIES, MATCHES, Result, reconcile
from invoicing.reconciliation.postings import settlement_documents
from schemas.identity import digest
from schemas.invoice import Columns

CLEARING = 1010
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

    In this order: (1) wait for other reconciliations of the tenant; (2) read what the clearing account has that no
    other payout settled, up to the window behind the last row; (3) match; (4) note which entries are settled, which
    fails where another payout has one; (5) post what is not posted yet; (6) keep the result, if it is a new one.
    Raises OtherContentError when an entry was settled by another row before.
    """
    # 1: wait
    lock = "SELECT pg_advisory_xact_lock(hashtextextended('reconciliation ' || :tenant, 0))"
    connection.execute(sa.text(lock), {"tenant": tenant})
    # 2: read
    last = rows["occurred_on"].max()
    settled_on = last if isinstance(last, date) else at.date()
    entries = _open_entries(connection, tenant, payout, settled_on + timedelta(days=window_days))
    # 3: match
    result = reconcile(rows, entries, payout=payout, window_days=window_days)
    # 4: note
    _note_settled(connection, tenant, payout, result.matches)
    # 5: post
    closed = closed_through(connection, tenant)
    day = settled_on if closed is None else max(settled_on, closed + timedelta(days=1))
    documents = settlement_documents(result.matches, tenant=tenant, payout=payout, effective_at=day)
    posted = _post(connection, documents, at)
    # 6: keep
    _keep(connection, tenant, payout, result, file_digest=file_digest, settled_on=settled_on, at=at)
    return Reconciled(result, posted)


def flags(connection: sa.Connection, tenant: str, payout: str | None = None) -> pl.DataFrame:
    """What did not match in the newest result of each payout, or of one, and was not reviewed (columns FLAGS)."""
    query = f"""
        WITH newest AS (
            SELECT DISTINCT ON (payout) id, payout FROM settlements WHERE tenant = :tenant
            ORDER BY payout, ordinal DESC)
        SELECT n.payout, {", ".join(f"m.{name}" for name in MATCHES)}
        FROM newest n JOIN settlement_matches m ON m.settlement_id = n.id
        WHERE m.outcome <> 'matched' AND (CAST(:payout AS text) IS NULL OR n.payout = :payout)
            AND NOT EXISTS (SELECT FROM settlement_reviews r WHERE r.tenant = :tenant AND r.match_id = m.id)
        ORDER BY n.payout, m.outcome, m.id"""  # noqa: S608  names of ours
    return _read(connection, query, FLAGS, {"tenant": tenant, "payout": payout})


def resolve(connection: sa.Connection, tenant: str, match_id: str, *, who: str, note: str, at: datetime) -> None:
    """Note that somebody has looked at a flag, and what came of it. It stays resolved when the payout is matched again.

    Raises LookupError when there is no such flag.
    """
    if match_id not in flags(connection, tenant)["id"].to_list():
        raise LookupError(f"no open flag {match_id}; `meterline settlements flags` lists them")
    connection.execute(
        sa.text("INSERT INTO settlement_reviews VALUES (:id, :tenant, :who, :note, :at)"),
        {"id": match_id, "tenant": tenant, "who": who, "note": note, "at": at},
    )


def _open_entries(connection: sa.Connection, tenant: str, payout: str, through: date) -> pl.DataFrame:
    """What stands on the clearing account and no other payout settled (columns `matching.ENTRIES`).

    A top-up's document is its lot; the gateway knows the payment's reference.
    """
    known = postings_on(connection, tenant, CLEARING, through=through).filter(pl.col("template") != "P10")
    keys = {"tenant": tenant, "payout": payout}
    query = "SELECT entry_id FROM settled_entries WHERE tenant = :tenant AND payout <> :payout"
    settled = _read(connection, query, {"entry_id": pl.String}, keys)
    query = "SELECT id AS document_id, reference FROM wallet_lots WHERE tenant = :tenant"
    lots = _read(connection, query, {"document_id": pl.String, "reference": pl.String}, {"tenant": tenant})
    open_now = known.join(settled, on="entry_id", how="anti").join(lots, on="document_id", how="left")
    summed = open_now.group_by("entry_id").agg(
        pl.coalesce("reference", "document_id").first().alias("reference"),
        pl.col("customer", "currency", "effective_at").first(),
        pl.col("amount_minor").sum(),
    )
    return summed.filter(pl.col("amount_minor") != 0).select(*ENTRIES)


def _note_settled(connection: sa.Connection, tenant: str, payout: str, matches: pl.DataFrame) -> None:
    pairs = matches.filter((pl.col("outcome") == "matched") & pl.col("entry_id").is_not_null())
    query = "SELECT entry_id, file_row FROM settled_entries WHERE tenant = :tenant AND payout = :payout"
    keys = {"tenant": tenant, "payout": payout}
    before = _read(connection, query, {"entry_id": pl.String, "file_row": pl.String}, keys)
    both = pairs.join(before, on="entry_id", how="inner").filter(pl.col("file_row") != pl.col("file_row_right"))
    if both.height:
        raise OtherContentError(
            f"payment {both['reference'][0]} was settled by another row of payout {payout}; reverse its entry before"
        )
    fresh = pairs.join(before, on="entry_id", how="anti").select(
        "entry_id", pl.lit(tenant).alias("tenant"), pl.lit(payout).alias("payout"), "file_row"
    )
    copy_in(connection, "settled_entries", fresh)


def _post(connection: sa.Connection, made: tuple[pl.DataFrame, pl.DataFrame], at: datetime) -> int:
    """Post documents that are not posted yet. A repeated run may date them otherwise: a period was closed meanwhile."""
    documents, amounts = made
    ids = document_ids(documents)
    fresh = ~ids.is_in(list(posted_ids(connection, ids.to_list())))
    numbered = documents.with_row_index("document").filter(fresh).with_columns(pl.col("document").cast(pl.Int64))
    renumbered = numbered.select("document").with_columns(pl.int_range(pl.len(), dtype=pl.Int64).alias("number"))
    own = amounts.join(renumbered, on="document", how="inner", maintain_order="left")
    own = own.with_columns(pl.col("number").alias("document")).drop("number")
    return post(connection, numbered.drop("document"), own, booked_at=at)


def _keep(
    connection: sa.Connection, tenant: str, payout: str, result: Result, *, file_digest: str, settled_on: date,
    at: datetime,
) -> None:  # fmt: skip
    query = """SELECT count(*), (array_agg(output_digest ORDER BY ordinal DESC))[1] FROM settlements
               WHERE tenant = :tenant AND payout = :payout"""
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
    copy_in(connection, "settlement_matches", kept)


def _read(connection: sa.Connection, query: str, schema: Columns, keys: dict[str, Any]) -> pl.DataFrame:
    rows = connection.execute(sa.text(query), keys)
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
