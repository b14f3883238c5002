"""What can be asked of the ledger: balances, entries, posting, reversing, closing, and whether it is as posted."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
import polars as pl
import sqlalchemy as sa

from invoicing.ledger import store
from invoicing.ledger.documents import Document, frames_of, parse_documents
from invoicing.ledger.journal import Journal, entries_of, reversal
from invoicing.periods import store as periods
from meterline.closing import CLOSING_CHECKS
from meterline.output import Failure, Output, Progress, Table, Text
from meterline.system import System
from meterline.tables import balance_table, entry_table
from meterline.verification import verified
from schemas.money import MINOR_UNITS, major
from schemas.tenant import DEFAULT_TENANT
from stores.postgres import as_tenant, tenant_transaction

REOPEN_HOURS_MAX = 7 * 24


def trial_balance(
    app: System,
    *,
    as_of: str | None = None,
    booked_through: str | None = None,
    by: str | None = None,
    as_json: bool = False,
) -> Iterator[Output]:
    """The balance of every account, as of a day and as the books stood at an instant; debits and credits are equal."""
    columns = tuple(each.strip() for each in by.split(",")) if by else ()
    if set(columns) - {"customer", "dimension"}:
        raise ValueError(f"--by {by}; allowed: customer, dimension, or both with a comma between")
    with app.database.connect() as connection:
        found = store.balances(
            connection, DEFAULT_TENANT, by=columns,
            effective_through=day_of(as_of), booked_through=instant_of(booked_through),
        )  # fmt: skip
    yield Text(text=lines_of(balance_documents(found))) if as_json else balance_table(found, columns)


def list_entries(
    app: System,
    *,
    document: str | None = None,
    account: int | None = None,
    since: str | None = None,
    through: str | None = None,
    limit: int = 100,
    as_json: bool = False,
) -> Iterator[Output]:
    """Entries with their postings, in the order of the chain."""
    with app.database.connect() as connection:
        found = store.entries(
            connection, DEFAULT_TENANT, document=document, account=account, since=day_of(since),
            through=day_of(through), limit=limit,
        )  # fmt: skip
    yield Text(text=lines_of(entry_documents(*found))) if as_json else entry_table(*found)


def post_documents(app: System, *, text: str, file: str) -> Iterator[Output]:
    """Post the documents of a YAML or JSON text, all or none."""
    documents = parse_documents(text, file)
    journal, new = posted(app.database, DEFAULT_TENANT, documents, now=datetime.now(UTC))
    known = journal.entries.height - new
    yield Text(text=f"{new:,} entries posted" + (f"; {known:,} were posted before" if known else ""))


def reverse_entry(app: System, *, entry: str, effective_at: str | None, why: str) -> Iterator[Output]:
    """Post the mirror of an entry."""
    now = datetime.now(UTC)
    reversed_by = reverse(
        app.database, DEFAULT_TENANT, entry, effective_at=day_of(effective_at) or now.date(), why=why, now=now
    )
    yield Text(text=f"{entry}: reversed by {reversed_by}")


def close_books(app: System, *, through: str, anyway: bool, by: str | None = None) -> Iterator[Output]:
    """Go through the checklist, and close the books through a day when nothing is open, or anyway."""
    last = date.fromisoformat(through)
    open_points, rows = [], []
    for name, check in CLOSING_CHECKS:
        fault = check(app, DEFAULT_TENANT, last)
        rows.append((name, fault or "done"))
        open_points += [name] if fault else []
    yield Table(title=f"Closing the books of {DEFAULT_TENANT} through {last}", columns=("point", "state"), rows=rows)
    if open_points and not anyway:
        yield Failure(message=f"not closed: {'; '.join(open_points)}. Settle them, or close --anyway")
        return
    with app.database.begin() as connection:
        new = periods.close_period(connection, DEFAULT_TENANT, last, by=by)
    yield Text(text=f"the books are closed through {last}{'' if new else ', as they were before'}")


def reopen_books(app: System, *, through: str, by: str, why: str, hours: int = 24) -> Iterator[Output]:
    """Let entries into a closed period for some hours; who and why is kept for good."""
    if not by.strip() or not why.strip() or not 0 < hours <= REOPEN_HOURS_MAX:
        raise ValueError(f"allowed: somebody's name, a reason, and 1 to {REOPEN_HOURS_MAX} hours")
    now = datetime.now(UTC)
    until = now + timedelta(hours=hours)
    with app.database.begin() as connection:
        periods.reopen_period(
            connection, DEFAULT_TENANT, date.fromisoformat(through), by=by, why=why, opened_at=now, until=until
        )
    yield Text(text=f"the period closed through {through} takes entries until {until:%Y-%m-%d %H:%M} UTC; noted: {by}")


def verify_ledger(app: System) -> Iterator[Output]:
    """Compute everything that is posted again, of all tenants; names the first entry that differs."""
    rows = []
    for tenant, place, finding in verified(app.database):
        yield Progress(step=f"verify {tenant}", done=place.sequence, total=place.sequence)
        state = f"entry {finding.sequence} {finding.entry_id}: {finding.what}" if finding else "as posted"
        rows.append((tenant, f"{place.sequence:,}", state, place.hash))
    yield Table(title="Ledger", columns=("tenant", "entries", "state", "last hash"), rows=rows, numbers=("entries",))
    if wrong := [f"{tenant}: {state}" for tenant, _, state, _ in rows if state != "as posted"]:
        yield Failure(message="not what was posted: " + "; ".join(wrong))


def posted(database: sa.Engine, tenant: str, documents: list[Document], *, now: datetime) -> tuple[Journal, int]:
    """Post documents; returns their journal, and how many of its entries were new."""
    with database.begin() as connection:
        return posted_in(connection, tenant, documents, now=now)


def posted_in(
    connection: sa.Connection, tenant: str, documents: list[Document], *, now: datetime
) -> tuple[Journal, int]:
    """As `posted`, in the connection's transaction."""
    journal = entries_of(*frames_of(documents, tenant), booked_at=now)
    with as_tenant(connection, tenant):
        return journal, store.post(connection, journal.entries, journal.postings)


def reverse(database: sa.Engine, tenant: str, entry: str, *, effective_at: date, why: str, now: datetime) -> str:
    """Post the mirror of an entry; returns its id. Raises LookupError when the tenant has no such entry."""
    with tenant_transaction(database, tenant) as connection:
        entries, postings = store.entries(connection, tenant, entry_id=entry)
        if entries.is_empty():
            raise LookupError(f"no entry {entry}; meterline ledger entries shows the ids")
        journal = reversal(entries, postings, effective_at=effective_at, reason=why, booked_at=now)
        store.post(connection, journal.entries, journal.postings)
    return str(journal.entries["id"].item())


def entry_documents(entries: pl.DataFrame, postings: pl.DataFrame) -> list[dict[str, Any]]:
    """Entries as JSON has them, with their postings; amounts in units of their currency, as texts."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for line in postings.iter_rows(named=True):
        amount = str(major(line.pop("amount_minor"), MINOR_UNITS[line["currency"]]))
        lines.setdefault(line.pop("entry_id"), []).append({**line, "amount": amount})
    shown = entries.with_columns(
        pl.col("booked_at").dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"), pl.col("effective_at").cast(str)
    )
    return [{**entry, "postings": lines.get(entry["id"], [])} for entry in shown.iter_rows(named=True)]


def balance_documents(balances: pl.DataFrame) -> list[dict[str, Any]]:
    """Balances as JSON has them: a debit is above zero."""
    return [
        {**row, "balance": str(major(row["balance_minor"], MINOR_UNITS[row["currency"]]))}
        for row in balances.iter_rows(named=True)
    ]


def lines_of(documents: list[dict[str, Any]]) -> str:
    """JSON, one object a line."""
    return "\n".join(orjson.dumps(document).decode() for document in documents)


def day_of(text: str | None) -> date | None:
    """The day that a text names, or None. Raises ValueError."""
    return date.fromisoformat(text) if text else None


def instant_of(text: str | None) -> datetime | None:
    """The instant that a text names, in UTC where it has no offset, or None. Raises ValueError.

    >>> instant_of("2026-01-31T12:00:00+02:00")
    datetime.datetime(2026, 1, 31, 10, 0, tzinfo=datetime.timezone.utc)
    """
    if not text:
        return None
    given = datetime.fromisoformat(text)
    return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
