"""Schedules in PostgreSQL, and the run that recognises what is due.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. Whoever writes a tenant's schedules or recognises holds its ledger from the first look on. Below that
stand the rules of the database, for whoever writes.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing.ledger.journal import entries_of
from invoicing.ledger.store import OtherContentError, hold, post
from invoicing.periods.store import closed_through
from invoicing.recognition.changes import CREDITS, Credited, credited, rescheduled
from invoicing.recognition.rows import DUE, EVER, SCHEDULES, packed, recognitions, services, unpacked
from invoicing.recognition.schedules import SERVICE, Method, schedule
from schemas.invoice import Columns
from stores.columns import read_frame
from stores.postgres import as_tenant, insert, stage

PARTS: Columns = {"line_id": pl.String, "deferred_minor": pl.Int64, "recognised_minor": pl.Int64}
"""Columns of what a credit takes of lines: of unearned revenue, and of revenue. They add up to the credit."""

_AT_ONCE = 200_000  # months recognised by one posting: memory
_STANDING: Columns = {
    **SCHEDULES, "last_recognised": pl.Date,
    "credited_minor": pl.Int64,  # of what is past
}  # fmt: skip
_DUE = {
    name: (name, "text" if kind == pl.String else "date" if kind == pl.Date else "bigint") for name, kind in DUE.items()
}


@dataclass(frozen=True)
class Recognised:
    """How many months of lines were recognised now, and what is still unearned, by currency."""

    rows: int
    unearned_minor: dict[str, int]


def schedule_lines(
    connection: sa.Connection, lines: pl.DataFrame, method: str, *, scheduled_at: datetime, time_zone: str = "UTC"
) -> int:
    """Schedule lines that are billed in advance (columns `rows.LINES`) by a method, once; how many are new.

    Belongs into the transaction that posts their invoices. A line of zero has no schedule. Raises OtherContentError
    when a line was scheduled with other content, ValueError for an unknown method.
    """
    new = 0
    dated = services(lines.filter(pl.col("net_minor") != 0), Method(method), time_zone)
    for (tenant,), own in dated.group_by("tenant", maintain_order=True):
        first = own.with_columns(version=pl.lit(1), time_zone=pl.lit(time_zone), reason=pl.lit("billed"),
                                 rewrites_from=pl.lit(EVER))  # fmt: skip
        months = schedule(own, time_zone)
        new += _write_first(connection, str(tenant), packed(first, months), scheduled_at)
    return new


def reverse_deferred(
    connection: sa.Connection, tenant: str, notes: pl.DataFrame, *, document_id: str, as_of: date, at: datetime
) -> pl.DataFrame:
    """Take a credit note off scheduled lines (`line_id`, `credit_minor`: net, of the line's sign): deferred first.

    Returns columns PARTS: what its entry (P12, P13, P30) debits 2200 and 4000 of each line. The months from `as_of`'s
    on that are neither recognised nor closed shrink in proportion. A credit note that was taken off before changes
    nothing, and gives the same answer. Raises LookupError for a line without a schedule, ValueError for more than is
    left of a line, OtherContentError when the document took other amounts before.
    """
    hold(connection, tenant)
    notes = notes.group_by("line_id", maintain_order=True).agg(pl.col("credit_minor").sum())
    notes = notes.filter(pl.col("credit_minor") != 0)
    query = """SELECT line_id, deferred_minor, recognised_minor FROM recognition_credits
               WHERE tenant = :tenant AND document_id = :document_id ORDER BY line_id"""
    done = _read(connection, tenant, query, PARTS, document_id=document_id)
    if done.height:
        _refuse_other_credit(done, notes, document_id)
        return done
    standing = _standing(connection, tenant, notes["line_id"].to_list(), as_of)
    answer = _credited(standing, notes)
    smaller = standing.join(answer.parts.filter(pl.col("deferred_minor") != 0), on="line_id", maintain_order="left")
    smaller = smaller.with_columns(pl.col("amount_minor") - pl.col("deferred_minor"))
    _next_versions(connection, tenant, smaller, answer.future, reason=f"credit note {document_id}", at=at)
    parts = answer.parts.select(*PARTS).sort("line_id")
    noted = parts.with_columns(tenant=pl.lit(tenant), document_id=pl.lit(document_id), credited_on=pl.lit(as_of))
    with as_tenant(connection, tenant):
        insert(connection, "recognition_credits", noted)
    return parts


def left_of(connection: sa.Connection, tenant: str, line_ids: list[str]) -> pl.DataFrame:
    """What a credit note may take of these lines at most: `line_id`, `credit_minor`. A void takes all of it.

    Raises LookupError for a line without a schedule.
    """
    left = (pl.col("amount_minor") - pl.col("credited_minor")).alias("credit_minor")
    return _standing(connection, tenant, line_ids, EVER).select("line_id", left).filter(pl.col("credit_minor") != 0)


def change_lines(
    connection: sa.Connection, tenant: str, lines: pl.DataFrame, *, reason: str, as_of: date, at: datetime
) -> None:
    """Give scheduled lines a new amount, service period or method (columns `schedules.SERVICE`).

    Only months from `as_of`'s on that are neither recognised nor closed are written anew; a line that has all this
    already is left as it is. Raises LookupError for a line without a schedule.
    """
    hold(connection, tenant)
    standing = _standing(connection, tenant, lines["line_id"].to_list(), as_of)
    wanted = lines.join(standing.select(*SERVICE), on=list(SERVICE), how="anti", maintain_order="left").select(*SERVICE)
    known = wanted.join(standing.drop(*[name for name in SERVICE if name != "line_id"]), on="line_id",
                        maintain_order="left")  # fmt: skip
    past, _ = _past_and_future(standing)
    for (opens, zone), part in known.group_by("rewrites_from", "time_zone", maintain_order=True):
        assert isinstance(opens, date)
        own = past.join(part, on="line_id", how="semi")
        months = rescheduled(part.select(*SERVICE), own, opens=opens, time_zone=str(zone))
        _next_versions(connection, tenant, part, months, reason=reason, at=at)


def recognise(connection: sa.Connection, tenant: str, through: date, *, booked_at: datetime) -> Recognised:
    """Recognise every month that ended by a day and was not yet, by P16, one entry a month of a line.

    What was recognised before is left alone, so a run may be repeated. A month that is closed already is recognised on
    the first open day, and its entry names the month.
    """
    hold(connection, tenant)
    closed = closed_through(connection, tenant)
    due = due_through(connection, tenant, through)
    for part in due.iter_slices(_AT_ONCE):
        documents, amounts = recognitions(part, tenant=tenant, closed_through=closed)
        journal = entries_of(documents, amounts, booked_at=booked_at)
        post(connection, journal.entries, journal.postings)
        rows = part.select(
            pl.lit(tenant).alias("tenant"), "line_id", "month", "version", "amount_minor",
            journal.entries["id"].alias("entry_id"),
        )  # fmt: skip
        with as_tenant(connection, tenant):
            insert(connection, "recognitions", rows)
    return Recognised(due.height, unearned(connection, tenant))


def due_through(connection: sa.Connection, tenant: str, through: date) -> pl.DataFrame:
    """The months of lines (columns `rows.DUE`) that ended by a day and are not recognised, by month and line."""
    rows = """(SELECT * FROM months_in_force f WHERE tenant = %(tenant)s
        AND month + interval '1 month' <= CAST(%(through)s AS date) + interval '1 day'
        AND NOT EXISTS (SELECT FROM recognitions r
            WHERE r.tenant = f.tenant AND r.line_id = f.line_id AND r.month = f.month)
        ORDER BY month, line_id) AS due"""
    with as_tenant(connection, tenant):
        found = read_frame(connection, _DUE, rows, {"tenant": tenant, "through": through})
    return found.select(pl.col(name).cast(kind) for name, kind in DUE.items())


def unearned(connection: sa.Connection, tenant: str) -> dict[str, int]:
    """What is scheduled and not recognised, by currency: the balance that account 2200 must have, as a credit."""
    query = """
        SELECT currency, CAST(sum(amount_minor - coalesce(done, 0)) AS bigint) AS minor
        FROM schedules_in_force LEFT JOIN (
            SELECT line_id, sum(amount_minor) AS done FROM recognitions WHERE tenant = :tenant GROUP BY 1) AS recognised
        USING (line_id)
        WHERE tenant = :tenant GROUP BY 1 HAVING sum(amount_minor - coalesce(done, 0)) <> 0 ORDER BY 1"""
    found = _read(connection, tenant, query, {"currency": pl.String, "minor": pl.Int64})
    return dict(found.iter_rows())


def schedule_of(
    connection: sa.Connection, tenant: str, *, line_id: str | None = None, invoice_id: str | None = None
) -> pl.DataFrame:
    """The months in force of a line, or of an invoice's lines: line_id, month, currency, amount_minor, recognised."""
    query = """
        SELECT line_id, month, currency, amount_minor, EXISTS (SELECT FROM recognitions r
            WHERE r.tenant = f.tenant AND r.line_id = f.line_id AND r.month = f.month)
        FROM months_in_force f WHERE tenant = :tenant AND line_id IN (
            SELECT line_id FROM recognition_schedules
            WHERE tenant = :tenant AND (line_id = :line_id OR invoice_id = :invoice_id))
        ORDER BY line_id, month"""
    schema: Columns = {"line_id": pl.String, "month": pl.Date, "currency": pl.String, "amount_minor": pl.Int64,
                       "recognised": pl.Boolean}  # fmt: skip
    return _read(connection, tenant, query, schema, line_id=line_id, invoice_id=invoice_id)


def _standing(connection: sa.Connection, tenant: str, line_ids: list[str], as_of: date) -> pl.DataFrame:
    """The schedules in force of these lines (columns _STANDING), with the month from which on each may be rewritten.

    Raises LookupError for a line without a schedule.
    """
    names = ", ".join(f"s.{name}" for name in SCHEDULES)
    query = f"""
        SELECT {names}, (SELECT max(month) FROM recognitions r WHERE r.tenant = :tenant AND r.line_id = s.line_id),
            (SELECT CAST(coalesce(sum(c.recognised_minor), 0) AS bigint) FROM recognition_credits c
             WHERE c.tenant = :tenant AND c.line_id = s.line_id)
        FROM schedules_in_force s WHERE tenant = :tenant AND line_id = ANY (:line_ids) ORDER BY line_id"""  # noqa: S608
    found = _read(connection, tenant, query, _STANDING, line_ids=line_ids)
    if missing := sorted(set(line_ids) - set(found["line_id"])):
        raise LookupError(f"line {missing[0]} has no schedule; it was not billed in advance")
    closed = closed_through(connection, tenant)
    opens = [pl.lit(as_of), pl.col("last_recognised").dt.offset_by("1mo")]
    if closed is not None:
        opens.append(pl.lit(closed).dt.offset_by("1d"))
    return found.with_columns(pl.max_horizontal(opens).dt.month_start().alias("rewrites_from"))


def _past_and_future(standing: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The months (line_id, month, amount_minor) that stay, and those that may be rewritten."""
    months = unpacked(standing).join(standing.select("line_id", "rewrites_from"), on="line_id", maintain_order="left")
    stays = pl.col("month") < pl.col("rewrites_from")
    return months.filter(stays).drop("rewrites_from"), months.filter(~stays).drop("rewrites_from")


def _credited(standing: pl.DataFrame, notes: pl.DataFrame) -> Credited:
    past, future = _past_and_future(standing)
    kept = standing.select("line_id", "credited_minor").join(
        past.group_by("line_id").agg(pl.col("amount_minor").sum()), on="line_id", how="left"
    )
    left = kept.select(
        "line_id", (pl.col("amount_minor").fill_null(0) - pl.col("credited_minor")).alias("recognised_minor")
    )
    return credited(future, notes.join(left, on="line_id", maintain_order="left").select(*CREDITS))


def _next_versions(
    connection: sa.Connection, tenant: str, lines: pl.DataFrame, future: pl.DataFrame, *, reason: str, at: datetime
) -> None:
    """Write the next version of schedules: the past of the ones before, and this future."""
    if lines.is_empty():
        return
    past, _ = _past_and_future(lines)
    months = pl.concat([past, future.join(lines, on="line_id", how="semi").select(past.columns)])
    newer = lines.drop("months", "amounts_minor").with_columns(pl.col("version") + 1, pl.lit(reason).alias("reason"))
    with as_tenant(connection, tenant):
        insert(connection, "recognition_schedules", _rows(packed(newer, months), at))


def _refuse_other_credit(done: pl.DataFrame, notes: pl.DataFrame, document_id: str) -> None:
    before = {line: deferred + recognised for line, deferred, recognised in done.rows()}
    if before != dict(notes.select("line_id", "credit_minor").rows()):
        raise OtherContentError(f"credit note {document_id} was taken off with other amounts, {before}")


def _write_first(connection: sa.Connection, tenant: str, schedules: pl.DataFrame, at: datetime) -> int:
    """Write first versions; what is there with the same content is left as it is."""
    hold(connection, tenant)
    columns = ", ".join([*SCHEDULES, "scheduled_at"])
    written = """INSERT INTO recognition_schedules ({0}) SELECT {0} FROM {1} ORDER BY line_id
                 ON CONFLICT (tenant, line_id, version) DO NOTHING"""
    with as_tenant(connection, tenant):
        staged = stage(connection, "recognition_schedules", _rows(schedules, at))
        new = connection.exec_driver_sql(written.format(columns, staged)).rowcount
        if new < schedules.height:
            said = [", ".join(f"{table}.{name}" for name in SCHEDULES) for table in ("s", "k")]
            query = f"""SELECT min(s.line_id) FROM {staged} s
                        JOIN recognition_schedules k USING (tenant, line_id, version)
                        WHERE ({said[0]}) IS DISTINCT FROM ({said[1]})"""  # noqa: S608  names of ours
            if other := connection.exec_driver_sql(query).scalar_one():
                raise OtherContentError(
                    f"line {other} is scheduled otherwise; a schedule never changes, change the line"
                )
    return new


def _rows(schedules: pl.DataFrame, at: datetime) -> pl.DataFrame:
    """Schedules as COPY takes them: lists are arrays of PostgreSQL."""
    lists = [
        pl.concat_str(pl.lit("{"), pl.col(name).cast(pl.List(pl.String)).list.join(","), pl.lit("}")).alias(name)
        for name in ("months", "amounts_minor")
    ]
    return schedules.with_columns(*lists, scheduled_at=pl.lit(at))


def _read(connection: sa.Connection, tenant: str, query: str, schema: Columns, **keys: Any) -> pl.DataFrame:
    with as_tenant(connection, tenant):
        rows = connection.execute(sa.text(query), {"tenant": tenant, **keys})
        return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
