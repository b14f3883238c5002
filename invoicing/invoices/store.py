"""Invoices in PostgreSQL: their drafts, numbers, lines and states.

A shell. Every function works in the transaction of the connection it is given, which must be READ COMMITTED; the
caller commits. The rules are the database's own and speak up at the caller's commit at the latest.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl
import sqlalchemy as sa

from invoicing.invoices.drafts import Drafts
from schemas.invoice import BOOKED, INVOICES, LINES, Columns, InvoiceKind, State
from stores.postgres import copy_in

_JSON = {"taxes", "tax_rule", "explanation"}  # read as text: parsed JSON would make floats of numbers
_BY_CUSTOMER = 'ORDER BY customer COLLATE "C", currency, id'
_CHANGED = {
    "number": "text", "state": "text", "payment_status": "text", "issued_at": "timestamptz", "due_on": "date",
    "settled_minor": "bigint",
}  # fmt: skip
_WANTED = {"id": "text", "version": "bigint", **_CHANGED}
_CHANGE = sa.text(f"""
    WITH wanted AS (
        SELECT * FROM unnest({", ".join(f"CAST(:{name} AS {kind}[])" for name, kind in _WANTED.items())})
            AS w ({", ".join(_WANTED)})),
    before AS (SELECT o.id, o.state FROM invoices o JOIN wanted w USING (id, version) FOR UPDATE OF o),
    changed AS (
        UPDATE invoices i SET {", ".join(f"{name} = w.{name}" for name in _CHANGED)}, version = i.version + 1
        FROM before b JOIN wanted w ON w.id = b.id WHERE i.id = b.id
        RETURNING i.tenant, i.id, i.version, b.state AS before, i.state)
    INSERT INTO invoice_changes SELECT tenant, id, version, before, state, :by, :reason, :at FROM changed
    RETURNING invoice_id""")  # noqa: S608  names of ours


class ChangedMeanwhileError(ValueError):
    """Somebody else changed the invoice first. Nothing was written."""


def booked(
    connection: sa.Connection,
    tenant: str,
    periods: Sequence[str],
    *,
    above: str | None = None,
    up_to: str | None = None,
    without: Sequence[str] = (),
) -> pl.DataFrame:
    """What was billed for usage of these periods, or written off of it (columns `schemas.invoice.BOOKED`).

    Of customers above a name and up to another, by their bytes; of all without bounds. Neither drafts nor what is void,
    nor what was billed again, nor what somebody wrote. `without` are invoices whose own period's lines do not count:
    they are about to be billed again.
    """
    query = """
        WITH counted AS (
            SELECT l.customer, l.usage_period, l.charge, i.currency, l.description, l.model, l.meter, l.tax_rule,
                l.revenue, l.service_start, l.service_end, l.quantity, l.amount, l.amount_minor
            FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
            WHERE l.tenant = :tenant AND l.usage_period = ANY (:periods) AND i.kind <> 'manual'
                AND i.state NOT IN ('draft', 'void') AND NOT EXISTS (
                    SELECT FROM invoice_rebills r WHERE r.invoice_id = i.id)
                AND NOT (l.usage_period = i.period AND i.id = ANY (:without))
            UNION ALL
            SELECT customer, usage_period, charge, currency, description, model, meter, tax_rule, revenue,
                service_start, service_end, quantity, amount, amount_minor
            FROM usage_write_offs WHERE tenant = :tenant AND usage_period = ANY (:periods))
        SELECT customer, usage_period, charge, currency, max(description), max(model), max(meter),
            max(CAST(tax_rule AS text)), max(revenue), max(service_start), max(service_end), sum(quantity), sum(amount),
            CAST(sum(amount_minor) AS bigint)
        FROM counted
        WHERE (CAST(:above AS text) IS NULL OR customer COLLATE "C" > :above)
            AND (CAST(:up_to AS text) IS NULL OR customer COLLATE "C" <= :up_to)
        GROUP BY 1, 2, 3, 4 ORDER BY customer COLLATE "C", usage_period, charge COLLATE "C", currency"""
    keys = {"tenant": tenant, "periods": list(periods), "above": above, "up_to": up_to, "without": list(without)}
    rows = connection.execute(sa.text(query), keys)
    return pl.DataFrame([tuple(row) for row in rows], schema=BOOKED, orient="row")


def take_numbers(connection: sa.Connection, tenant: str, series: str, count: int) -> int:
    """Take so many numbers of a series, and return the last one before them.

    Others who take some wait until this transaction ends; if it fails, the numbers are free again.
    """
    query = """INSERT INTO number_series AS s VALUES (:tenant, :series, :count)
               ON CONFLICT (tenant, series) DO UPDATE SET last = s.last + :count RETURNING last"""
    keys = {"tenant": tenant, "series": series, "count": count}
    return int(connection.execute(sa.text(query), keys).scalar_one()) - count


def write(connection: sa.Connection, invoices: pl.DataFrame, lines: pl.DataFrame) -> None:
    """Add invoices, drafts or issued (columns `schemas.invoice.INVOICES`), with their lines (columns `LINES`)."""
    copy_in(connection, "invoices", invoices.select(*INVOICES))
    copy_in(connection, "invoice_lines", lines.select(*LINES))


def remove_drafts(
    connection: sa.Connection, tenant: str, *, period: str, kind: InvoiceKind = InvoiceKind.PERIODIC
) -> dict[str, int]:
    """Take all drafts of a period and kind away, and return their versions by id: what takes their place goes on."""
    return _remove(connection, "tenant = :tenant AND period = :period AND kind = :kind AND state = 'draft'",
                   {"tenant": tenant, "period": period, "kind": kind.value})  # fmt: skip


def remove_draft(connection: sa.Connection, tenant: str, invoice_id: str) -> bool:
    """Take one draft away. False where there is none of this id."""
    return bool(_remove(connection, "tenant = :tenant AND id = :id AND state = 'draft'",
                        {"tenant": tenant, "id": invoice_id}))  # fmt: skip


def _remove(connection: sa.Connection, where: str, keys: dict[str, Any]) -> dict[str, int]:
    query = f"SELECT id, version FROM invoices WHERE {where} FOR UPDATE"  # noqa: S608  ours
    found = dict(tuple(row) for row in connection.execute(sa.text(query), keys))
    for table, name in (("invoice_lines", "invoice_id"), ("invoices", "id")):
        query = f"DELETE FROM {table} WHERE {name} = ANY (:ids)"  # noqa: S608  ours
        connection.execute(sa.text(query), {"ids": list(found)})
    return found


def drafts_of(connection: sa.Connection, tenant: str, ids: Sequence[str]) -> Drafts:
    """The drafts with these ids, in their order, with their lines; nobody else changes them until the commit."""
    if len(ids) > 1:  # in one order for all, so that two who finalise never wait for each other
        of_them = "tenant = :tenant AND id = ANY (:ids) AND state = 'draft'"
        lock = f"SELECT id FROM invoices WHERE {of_them} ORDER BY id FOR UPDATE"  # noqa: S608  ours
        connection.execute(sa.text(lock), {"tenant": tenant, "ids": list(ids)})
    where = "WHERE tenant = :tenant AND id = ANY (:ids) AND state = 'draft' ORDER BY array_position(:ids, id)"
    where += " FOR UPDATE" if len(ids) == 1 else ""
    invoices = _read(connection, "invoices", INVOICES, where, tenant=tenant, ids=list(ids))
    return Drafts(invoices, lines_of_all(connection, invoices["id"].to_list()))


def periodic_drafts(connection: sa.Connection, tenant: str, ids: Sequence[str]) -> bool:
    """Whether one of these ids is of a draft that a bill run made."""
    query = """SELECT EXISTS (SELECT FROM invoices WHERE tenant = :tenant AND id = ANY (:ids) AND state = 'draft'
               AND kind = 'periodic')"""
    return bool(connection.execute(sa.text(query), {"tenant": tenant, "ids": list(ids)}).scalar_one())


def change(connection: sa.Connection, invoices: pl.DataFrame, *, by: str, reason: str, at: datetime) -> None:
    """Write what goes on with invoices: their state, number, days and what was settled, as the next version of each.

    Each row has the version that it was read at. Raises ChangedMeanwhileError where it is no longer the stored one.
    """
    columns = {name: invoices[name].to_list() for name in ("id", "version", *_CHANGED)}
    written = connection.execute(_CHANGE, columns | {"by": by, "reason": reason, "at": at}).scalars()
    versions = dict(zip(columns["id"], columns["version"], strict=True))
    for key in sorted(set(versions) - set(written)):
        raise ChangedMeanwhileError(f"invoice {key} is no longer at version {versions[key]}; read it again")


def issued_before_their_run(connection: sa.Connection, tenant: str, period: str) -> pl.DataFrame:
    """Whose periodic invoice of a period was issued, also where it is void by now: columns customer, currency.

    A void one keeps its id, which a second one of the period would have too; a later run bills what it was for.
    """
    query = """SELECT DISTINCT customer, currency FROM invoices WHERE tenant = :tenant AND period = :period
               AND kind = 'periodic' AND state <> 'draft'"""
    rows = connection.execute(sa.text(query), {"tenant": tenant, "period": period})
    schema = {"customer": pl.String, "currency": pl.String}
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")


def progressive_so_far(connection: sa.Connection, tenant: str, period: str) -> pl.DataFrame:
    """How many progressive invoices of a period there are, void ones too: columns customer, currency, invoices."""
    query = """SELECT customer, currency, count(*) FROM invoices WHERE tenant = :tenant AND period = :period
               AND kind = 'progressive' GROUP BY 1, 2"""
    rows = connection.execute(sa.text(query), {"tenant": tenant, "period": period})
    schema = {"customer": pl.String, "currency": pl.String, "invoices": pl.Int64}
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")


def invoices_of(
    connection: sa.Connection,
    tenant: str,
    period: str | None = None,
    *,
    customer: str | None = None,
    state: State | None = None,
    after: str | None = None,
    limit: int | None = None,
) -> pl.DataFrame:
    """The invoices that all given conditions hold for, by customer, currency and id (columns INVOICES).

    `after` is the id of the last one of the page before.
    """
    place = 'customer COLLATE "C", currency, id'
    last = f"SELECT {place} FROM invoices WHERE tenant = :tenant AND id = :after"  # noqa: S608  names of ours
    conditions = {
        "period = :period": period, "customer = :customer": customer, "state = :state": state and state.value,
        f"({place}) > ({last})": after,
    }  # fmt: skip
    wanted = " AND ".join(["tenant = :tenant", *(sql for sql, value in conditions.items() if value is not None)])
    keys = {"period": period, "customer": customer, "state": state and state.value, "after": after}
    where = f"WHERE {wanted} {_BY_CUSTOMER} LIMIT :limit"
    return _read(connection, "invoices", INVOICES, where, tenant=tenant, limit=limit, **keys)


def invoice(connection: sa.Connection, tenant: str, id_or_number: str, *, lock: bool = False) -> pl.DataFrame:
    """The invoice with this id or number: a frame of one row. Raises LookupError when the tenant has none.

    With `lock`, nobody else changes it until this transaction ends.
    """
    where = "WHERE tenant = :tenant AND (id = :key OR (length(number) = length(:key) AND number = :key))"
    where += " FOR UPDATE" if lock else ""
    found = _read(connection, "invoices", INVOICES, where, tenant=tenant, key=id_or_number)
    if found.is_empty():
        raise LookupError(f"tenant {tenant} has no invoice {id_or_number}; give an id or a number such as INV-000001")
    return found


def lines_of(connection: sa.Connection, invoice_id: str) -> pl.DataFrame:
    """The lines of an invoice in order (columns `schemas.invoice.LINES`)."""
    return _read(connection, "invoice_lines", LINES, "WHERE invoice_id = :id ORDER BY position", id=invoice_id)


def lines_of_all(connection: sa.Connection, invoice_ids: Sequence[str]) -> pl.DataFrame:
    """The lines of invoices (columns `schemas.invoice.LINES`), in the order of the ids, each invoice's in theirs."""
    where = "WHERE invoice_id = ANY (:ids) ORDER BY array_position(:ids, invoice_id), position"
    return _read(connection, "invoice_lines", LINES, where, ids=list(invoice_ids))


def _read(connection: sa.Connection, table: str, schema: Columns, where: str, **keys: Any) -> pl.DataFrame:
    columns = ", ".join(f"CAST({name} AS text)" if name in _JSON else name for name in schema)
    rows = connection.execute(sa.text(f"SELECT {columns} FROM {table} {where}"), keys)  # noqa: S608  names of ours
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row")
