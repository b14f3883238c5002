"""Schedules in PostgreSQL, and the run that recognises what is due.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. Whoever writes a tenant's schedules waits for the others until their transaction ends.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing import store as books
from invoicing.bookings.store import closed_through, copy_in, post, postings_on
from invoicing.recognition.accruals import UNBILLED, accruals, accrued
from invoicing.recognition.changes import CREDITS, FUTURE, credited, rescheduled
from invoicing.recognition.rows import SCHEDULES, Schedules, recognitions, schedules
from invoicing.recognition.schedules import MONTHS, SERVICE
from invoicing.recognition.schedules import schedule as months_of

UNBILLED_RECEIVABLE = 1150
_EVER = date(1, 1, 1)  # before all months
_STANDING: dict[str, Any] = {
    "line_id": pl.String, "version": pl.Int64, "customer": pl.String, "currency": pl.String, "method": pl.String,
    "starts_at": pl.Datetime("us", "UTC"), "ends_at": pl.Datetime("us", "UTC"), "time_zone": pl.String,
    "amount_minor": pl.Int64, "rewrites_from": pl.Date, "kept_minor": pl.Int64, "credited_minor": pl.Int64,
}  # fmt: skip


@dataclass(frozen=True)
class Recognised:
    """How many months of lines were recognised now, and what is still unearned, by currency."""

    rows: int
    unearned_minor: dict[str, int]


def schedule_lines(
    connection: sa.Connection, tenant: str, lines: pl.DataFrame, *, time_zone: str, scheduled_at: datetime
) -> int:
    """Schedule lines that are billed in advance (columns `rows.LINES`), once; how many are new.

    Belongs into the transaction that posts their invoices (P03). Raises OtherContentError when a line was scheduled
    with other content.
    """
    _lock(connection, tenant)
    first = lines.with_columns(
        pl.lit(1, pl.Int64).alias("version"), pl.lit(_EVER).alias("rewrites_from"), pl.lit("billed").alias("reason")
    )
    made = schedules(first, months_of(lines.select(*SERVICE), time_zone), tenant=tenant, time_zone=time_zone,
                     scheduled_at=scheduled_at)  # fmt: skip
    return _write(connection, made)


def change_lines(
    connection: sa.Connection, tenant: str, lines: pl.DataFrame, *, reason: str, changed_at: datetime
) -> None:
    """Give scheduled lines a new amount, service period or method (columns `schedules.SERVICE`).

    Only months that are open and not recognised are written anew; a line that has all this already is left as it is.
    Raises LookupError for a line without a schedule.
    """
    _lock(connection, tenant)
    standing = _standing(connection, tenant, lines["line_id"].to_list())
    lines = lines.join(standing.select(*SERVICE), on=list(SERVICE), how="anti", maintain_order="left")
    known = lines.select(*SERVICE).join(
        standing.drop("amount_minor", "method", "starts_at", "ends_at"), on="line_id", maintain_order="left"
    )
    for (opens, time_zone), part in known.group_by("rewrites_from", "time_zone", maintain_order=True):
        assert isinstance(opens, date)
        months = rescheduled(
            part.select(*SERVICE),
            part.select("line_id", pl.col("kept_minor").alias("amount_minor")),
            opens=None if opens == _EVER else opens,
            time_zone=str(time_zone),
        )
        _write(connection, _next_version(part, months, tenant, str(time_zone), reason, changed_at))


def credit_lines(
    connection: sa.Connection, tenant: str, notes: pl.DataFrame, *, document_id: str, credited_at: datetime
) -> pl.DataFrame:
    """Take a credit note off scheduled lines (`line_id`, `credit_minor`, net of tax): deferred first, then recognised.

    Returns line_id, deferred_minor and recognised_minor, which is what its entry (P12, P13) debits 2200 and revenue.
    A credit note that was taken off before changes nothing, and gives the same answer.
    """
    _lock(connection, tenant)
    query = """SELECT line_id, deferred_minor, recognised_minor FROM recognition_credits
               WHERE tenant = :tenant AND document_id = :document_id ORDER BY line_id"""
    parts_schema = {"line_id": pl.String, "deferred_minor": pl.Int64, "recognised_minor": pl.Int64}
    done = _read(connection, query, parts_schema, tenant=tenant, document_id=document_id)
    if done.height:
        _refuse_other_credit(done, notes, document_id)
        return done
    standing = _standing(connection, tenant, notes["line_id"].to_list())
    future = _future(connection, tenant, standing)
    left = standing.select("line_id", (pl.col("kept_minor") - pl.col("credited_minor")).alias("recognised_minor"))
    answer = credited(future, notes.join(left, on="line_id", maintain_order="left").select(*CREDITS))
    changed = standing.join(answer.parts.filter(pl.col("deferred_minor") > 0), on="line_id", maintain_order="left")
    changed = changed.with_columns(pl.col("amount_minor") - pl.col("deferred_minor"))
    months = answer.future.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("line_id").alias("position"))
    for (time_zone,), part in changed.group_by("time_zone", maintain_order=True):
        own = months.join(part, on="line_id", how="semi", maintain_order="left").select(*MONTHS)
        _write(connection, _next_version(part, own, tenant, str(time_zone), f"credit note {document_id}", credited_at))
    _note_credits(connection, tenant, answer.parts, document_id, credited_at)
    return answer.parts.sort("line_id")


def recognise(connection: sa.Connection, tenant: str, through: date, *, booked_at: datetime) -> Recognised:
    """Recognise every month that ended by a day and was not yet, by P16, one entry a month of a line.

    What was recognised before is left alone, so a run may be repeated. A month that is closed already is recognised on
    the first open day, and its entry names the month.
    """
    _lock(connection, tenant)
    query = """
        SELECT id, line_id, customer, currency, month, amount_minor FROM recognition_in_force f
        WHERE tenant = :tenant AND month + interval '1 month' <= CAST(:through AS date) + interval '1 day'
            AND NOT EXISTS (SELECT FROM journal_entries e WHERE e.document_id = f.id AND e.template = 'P16')
        ORDER BY month, line_id"""
    schema = {"id": pl.String, "line_id": pl.String, "customer": pl.String, "currency": pl.String, "month": pl.Date,
              "amount_minor": pl.Int64}  # fmt: skip
    due = _read(connection, query, schema, tenant=tenant, through=through)
    if due.height:
        documents, amounts = recognitions(due, tenant=tenant, closed_through=closed_through(connection, tenant))
        post(connection, documents, amounts, booked_at=booked_at)
    return Recognised(due.height, unearned(connection, tenant))


def unearned(connection: sa.Connection, tenant: str) -> dict[str, int]:
    """What is scheduled and not recognised, by currency: the balance that account 2200 must have, as a credit."""
    query = """
        SELECT currency, CAST(sum(amount_minor) AS bigint) AS minor FROM recognition_in_force f
        WHERE tenant = :tenant
            AND NOT EXISTS (SELECT FROM journal_entries e WHERE e.document_id = f.id AND e.template = 'P16')
        GROUP BY currency ORDER BY currency"""
    return {row.currency: row.minor for row in connection.execute(sa.text(query), {"tenant": tenant})}


def schedule_of(connection: sa.Connection, tenant: str, line_id: str) -> pl.DataFrame:
    """The months of a line as they are in force: month, amount_minor, recognised."""
    query = """
        SELECT month, amount_minor, EXISTS (
            SELECT FROM journal_entries e WHERE e.document_id = f.id AND e.template = 'P16') AS recognised
        FROM recognition_in_force f WHERE tenant = :tenant AND line_id = :line_id ORDER BY month"""
    schema = {"month": pl.Date, "amount_minor": pl.Int64, "recognised": pl.Boolean}
    return _read(connection, query, schema, tenant=tenant, line_id=line_id)


def _standing(connection: sa.Connection, tenant: str, line_ids: list[str]) -> pl.DataFrame:
    """The newest version of each line, from when on it may be rewritten, and what of it is kept and credited.

    Raises LookupError for a line without a schedule.
    """
    query = """
        WITH newest AS (
            SELECT DISTINCT ON (line_id) * FROM recognition_schedules
            WHERE tenant = :tenant AND line_id = ANY (:line_ids) ORDER BY line_id, version DESC),
        opens AS (
            SELECT n.line_id, greatest(
                (SELECT max(f.month) + interval '1 month' FROM recognition_in_force f
                 JOIN journal_entries e ON e.document_id = f.id AND e.template = 'P16'
                 WHERE f.tenant = :tenant AND f.line_id = n.line_id),
                date_trunc('month', CAST(:closed AS date) + interval '1 day'),
                n.rewrites_from)::date AS month
            FROM newest n)
        SELECT n.line_id, n.version, n.customer, n.currency, n.method, n.starts_at, n.ends_at, n.time_zone,
            n.amount_minor, o.month,
            (SELECT CAST(coalesce(sum(f.amount_minor), 0) AS bigint) FROM recognition_in_force f
             WHERE f.tenant = :tenant AND f.line_id = n.line_id AND f.month < o.month),
            (SELECT CAST(coalesce(sum(c.recognised_minor), 0) AS bigint) FROM recognition_credits c
             WHERE c.tenant = :tenant AND c.line_id = n.line_id)
        FROM newest n JOIN opens o ON o.line_id = n.line_id ORDER BY n.line_id"""
    closed = closed_through(connection, tenant)
    found = _read(connection, query, _STANDING, tenant=tenant, line_ids=line_ids, closed=closed)
    missing = sorted(set(line_ids) - set(found["line_id"]))
    if missing:
        raise LookupError(f"line {missing[0]} has no schedule; it was not billed in advance")
    return found


def _future(connection: sa.Connection, tenant: str, standing: pl.DataFrame) -> pl.DataFrame:
    query = """SELECT line_id, month, amount_minor FROM recognition_in_force
               WHERE tenant = :tenant AND line_id = ANY (:line_ids)"""
    months = _read(connection, query, FUTURE, tenant=tenant, line_ids=standing["line_id"].to_list())
    opens = standing.select("line_id", "rewrites_from")
    return months.join(opens, on="line_id").filter(pl.col("month") >= pl.col("rewrites_from")).select(*FUTURE)


def _next_version(
    lines: pl.DataFrame, months: pl.DataFrame, tenant: str, time_zone: str, reason: str, at: datetime
) -> Schedules:
    newer = lines.with_columns(pl.col("version") + 1, pl.lit(reason).alias("reason"))
    return schedules(newer, months, tenant=tenant, time_zone=time_zone, scheduled_at=at)


def _refuse_other_credit(done: pl.DataFrame, notes: pl.DataFrame, document_id: str) -> None:
    before = {line: deferred + recognised for line, deferred, recognised in done.rows()}
    if before != dict(notes.select("line_id", "credit_minor").rows()):
        raise books.OtherContentError(f"credit note {document_id} was taken off with other amounts, {before}")


def _note_credits(
    connection: sa.Connection, tenant: str, parts: pl.DataFrame, document_id: str, credited_at: datetime
) -> None:
    connection.execute(
        sa.text("""INSERT INTO recognition_credits
                   VALUES (md5(:tenant || ' ' || :line_id || ' ' || :document_id), :tenant, :line_id, :document_id,
                       :deferred_minor, :recognised_minor, :at)"""),
        [{**row, "tenant": tenant, "document_id": document_id, "at": credited_at} for row in parts.to_dicts()],
    )


def _write(connection: sa.Connection, made: Schedules) -> int:
    query = sa.text("SELECT id, content_digest FROM recognition_schedules WHERE id = ANY (:ids)")
    stored = {row.id: row.content_digest for row in connection.execute(query, {"ids": made.heads["id"].to_list()})}
    for row_id, line_id, content in made.heads.select("id", "line_id", "content_digest").iter_rows():
        if stored.get(row_id, content) != content:
            raise books.OtherContentError(f"line {line_id} is scheduled otherwise; a schedule never changes, change it")
    heads = made.heads.filter(~pl.col("id").is_in(list(stored)))
    rows = made.rows.join(heads, left_on="schedule_id", right_on="id", how="semi", maintain_order="left")
    copy_in(connection, "recognition_schedules", heads.select(*SCHEDULES))
    copy_in(connection, "recognition_rows", rows)
    return heads.height


def _read(connection: sa.Connection, query: str, schema: dict[str, Any], **keys: Any) -> pl.DataFrame:
    rows = connection.execute(sa.text(query), keys)
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")


def _lock(connection: sa.Connection, tenant: str) -> None:
    connection.execute(
        sa.text("SELECT pg_advisory_xact_lock(hashtextextended('recognition ' || :tenant, 0))"), {"tenant": tenant}
    )


def accrue(
    connection: sa.Connection, tenant: str, period: str, unbilled: pl.DataFrame, *, through: date, booked_at: datetime
) -> int:
    """Accrue what customers have used of a period and are not billed for (columns `accruals.UNBILLED`), by P01.

    Dated `through`, the period's last day. A run again posts what differs. Returns how many entries were new.
    """
    _lock(connection, tenant)
    known = accrued(
        postings_on(connection, tenant, UNBILLED_RECEIVABLE, through=date.max), tenant=tenant, period=period
    )
    gone = known.join(unbilled, on=["customer", "currency"], how="anti").with_columns(
        pl.lit(0, pl.Int64).alias("amount_minor")
    )
    wanted = pl.concat([unbilled.select(*UNBILLED), gone.select(*UNBILLED)])
    documents, amounts = accruals(wanted, known, tenant=tenant, period=period, effective_at=through)
    return post(connection, documents, amounts, booked_at=booked_at)


def release_accruals(
    connection: sa.Connection,
    tenant: str,
    period: str,
    billed: pl.DataFrame,
    *,
    effective_at: date,
    booked_at: datetime,
) -> int:
    """Take back what is accrued of a period for customers who are billed for it now (`customer`, `currency`).

    Belongs into the transaction that posts their invoices, dated as these are. Returns how many entries were new.
    """
    _lock(connection, tenant)
    known = accrued(
        postings_on(connection, tenant, UNBILLED_RECEIVABLE, through=date.max), tenant=tenant, period=period
    )
    nothing = billed.select("customer", "currency", pl.lit(0, pl.Int64).alias("amount_minor"))
    documents, amounts = accruals(nothing, known, tenant=tenant, period=period, effective_at=effective_at)
    return post(connection, documents, amounts, booked_at=booked_at)
