"""Archiving: the chain and the invoices, from PostgreSQL into Parquet.

A shell. Owns that an archive is the beginning of each tenant's chain, without a gap: a run adds the entries from where
the last one ended through the last one dated in the period. So what lies between is there too, under its own month, and
the chain can be computed again with nothing but the files. What was dated in an archived month later (by an override)
comes with the next run, in a file of its own.
"""

from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path

import polars as pl
import sqlalchemy as sa

from invoicing.archive import store as archive
from invoicing.archive.manifest import (
    RETENTION_YEARS,
    Counted,
    Manifest,
    Month,
    Run,
    Stretch,
    by_month,
    last_day,
)
from invoicing.ledger import store as ledger
from invoicing.ledger.verify import Place, end_of, first_finding
from invoicing.periods import store as periods
from schemas.invoice import INVOICES, LINES
from schemas.journal import GENESIS
from stores.postgres import copy_out

STRETCH_ENTRIES = 50_000
INVOICES_A_FILE = 10_000  # an invoice may have many lines, each with its explanation
_KEPT = "state <> 'draft'" if "state" in INVOICES else "true"
"""A draft may still be replaced: it is no invoice yet."""


def create(
    connection: sa.Connection, folder: Path, tenant: str, *, through: date, now: datetime, open_months: bool = False
) -> Iterator[tuple[int, int] | Manifest]:
    """Archive a tenant's books through the last day of a month; yields how far it is, and the manifest at the end.

    In this order: (1) refuse a month that is not closed; (2) hold the archive against itself and against this ledger;
    (3) write the entries that are new, each verified before; (4) write the invoices that are new; (5) bring them to
    their places, and the manifest. The connection's transaction is the owner's, and REPEATABLE READ. Raises ValueError.
    """
    # 1: refuse
    if (through + timedelta(days=1)).day != 1:
        raise ValueError(f"{through}; allowed: the last day of a month")
    closed_through = _closed_through(connection, tenant, now)
    if not open_months and closed_through < through:
        raise ValueError(
            f"the books of {tenant} are not closed through {through}, or open again; close them, or allow open months"
        )
    with archive.writing(folder) as writing:
        # 2: hold against
        before = _sound(folder)
        place = _continued(connection, before, tenant)
        months = _counted(before, tenant)
        # 3: entries
        last = max(ledger.dated(connection, tenant, since=None, through=through)[1], place.sequence)
        stretches: list[Stretch] = []
        for stretch, end in _entries(connection, writing, tenant, place, last, months):
            stretches.append(stretch)
            yield end - place.sequence, last - place.sequence
        # 4: invoices
        number = before.number + 1 if before else 1
        _invoices(connection, writing, before, tenant, f"{through:%Y-%m}", number, months)
        # 5: places
        own = _months(tenant, months, closed_through)
        if before and not writing.files and own == [each for each in before.months if each.tenant == tenant]:
            yield before
            return
        if unknown := set(archive.strays(folder, before)) - {each.path for each in writing.files}:
            raise ValueError(f"{folder / min(unknown)} is in no manifest; it is not the archive's, move it away")
        made_at = f"{now:%Y-%m-%dT%H:%M:%SZ}"
        run = Run(tenant=tenant, through=str(through), made_at=made_at, open_months_allowed=open_months)
        others = [each for each in before.months if each.tenant != tenant] if before else []
        manifest = Manifest(
            number=number,
            previous_sha256=before.sha256 if before else GENESIS,
            runs=[*(before.runs if before else []), run],
            stretches=[*(before.stretches if before else []), *stretches],
            months=[*others, *own],
            files=[*(before.files if before else []), *writing.files],
        ).signed()
        writing.finish(manifest, before)
        yield manifest


def _closed_through(connection: sa.Connection, tenant: str, now: datetime) -> date:
    """Through which day the books are closed. A period that is open again opens all days before its end with it."""
    if any(each.until > now for each in periods.overrides(connection, tenant)):
        return date.min
    return max((each.through for each in periods.closings(connection, tenant)), default=date.min)


def _sound(folder: Path) -> Manifest | None:
    """The newest manifest, of an archive whose files are all there. Raises ValueError."""
    before = archive.newest(folder)
    missing = [each.path for each in before.files if not (folder / each.path).is_file()] if before else []
    if missing:
        raise ValueError(f"{folder}: {missing[0]} is missing; meterline archive verify tells what else")
    return before


def _continued(connection: sa.Connection, before: Manifest | None, tenant: str) -> Place:
    """Where the archived chain ends. Raises ValueError where this ledger has another entry there."""
    last = before.last_stretch(tenant) if before else None
    if last is None:
        return Place()
    [(entries, _)] = ledger.stretches(connection, tenant, first=last.last_sequence, last=last.last_sequence)
    if entries["hash"].to_list() == [last.hash]:
        return end_of(entries)
    raise ValueError(
        f"entry {last.last_sequence} of {tenant} is archived with the hash {last.hash}, and this ledger has another "
        "one there; it is the archive of another ledger, or the ledger was changed"
    )


def _counted(before: Manifest | None, tenant: str) -> dict[str, Counted]:
    archived = [each for each in before.months if each.tenant == tenant] if before else []
    return {
        each.month: Counted(each.entries, each.postings, each.invoices, each.invoice_lines, each.debit_minor)
        for each in archived
    }


def _entries(
    connection: sa.Connection, writing: archive.Writing, tenant: str, place: Place, last: int,
    months: dict[str, Counted],
) -> Iterator[tuple[Stretch, int]]:  # fmt: skip
    closed, opened = periods.closings(connection, tenant), periods.overrides(connection, tenant)
    reading = ledger.stretches(
        connection, tenant, first=place.sequence + 1, last=last, entries_max=STRETCH_ENTRIES
    )  # fmt: skip
    for entries, postings in reading:
        if finding := first_finding(entries, postings, place, closed=closed, opened=opened):
            raise ValueError(f"entry {finding.sequence} {finding.entry_id}: {finding.what}; nothing was archived")
        end = end_of(entries)
        part = f"{place.sequence + 1:012d}-{end.sequence:012d}"
        for month, (own, lines) in by_month(entries, postings).items():
            writing.add(own, tenant, month, "journal_entries", part)
            writing.add(lines, tenant, month, "postings", part)
            months.setdefault(month, Counted()).count(own, lines)
        yield Stretch(
            tenant=tenant, first_sequence=place.sequence + 1, last_sequence=end.sequence, previous_hash=place.hash,
            hash=end.hash,
        ), end.sequence  # fmt: skip
        place = end


def _invoices(
    connection: sa.Connection, writing: archive.Writing, before: Manifest | None, tenant: str, through: str,
    number: int, months: dict[str, Counted],
) -> None:  # fmt: skip
    query = f"""SELECT DISTINCT period FROM invoices WHERE tenant = :tenant AND period <= :through AND {_KEPT}
                ORDER BY period"""  # noqa: S608  names of ours
    for period in connection.execute(sa.text(query), {"tenant": tenant, "through": through}).scalars().all():
        files = before.of(tenant, "invoices", period) if before else []
        known = archive.read(writing.folder, files, ["id"])["id"] if files else pl.Series("id", [], pl.String)
        for place, (invoices, lines) in enumerate(_stored_invoices(connection, tenant, period), start=1):
            fresh = invoices.filter(~pl.col("id").is_in(known.implode()))
            if fresh.is_empty():
                continue
            own = lines.join(fresh, left_on="invoice_id", right_on="id", how="semi", maintain_order="left")
            part = f"{number:04d}-{place:04d}"
            writing.add(fresh, tenant, period, "invoices", part)
            writing.add(own, tenant, period, "invoice_lines", part)
            counted = months.setdefault(period, Counted())
            counted.invoices += fresh.height
            counted.invoice_lines += own.height


def _stored_invoices(
    connection: sa.Connection, tenant: str, period: str
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The invoices of a period, and their lines, some at a time by id."""
    of_period = f"i.tenant = %(tenant)s AND i.period = %(period)s AND {_KEPT} AND i.id > %(after)s"
    keys: dict[str, str | int] = {"tenant": tenant, "period": period, "after": "", "most": INVOICES_A_FILE}
    while True:
        named = ", ".join(f"i.{name}" for name in INVOICES)
        query = f"SELECT {named} FROM invoices i WHERE {of_period} ORDER BY i.id LIMIT %(most)s"  # noqa: S608  ours
        invoices = copy_out(connection, query, keys, INVOICES)
        if invoices.is_empty():
            return
        named = ", ".join(f"l.{name}" for name in LINES)
        query = f"""SELECT {named} FROM invoice_lines l JOIN invoices i ON i.id = l.invoice_id
                    WHERE {of_period} AND i.id <= %(last)s ORDER BY l.invoice_id, l.position"""  # noqa: S608
        last = invoices["id"].item(-1)
        yield invoices, copy_out(connection, query, {**keys, "last": last}, LINES)
        keys["after"] = last


def _months(tenant: str, months: dict[str, Counted], closed_through: date) -> list[Month]:
    return [
        Month(
            tenant=tenant, month=month, closed=last_day(month) <= closed_through,
            retain_until=str(last_day(month, years_later=RETENTION_YEARS)), **vars(each),
        )
        for month, each in sorted(months.items())
    ]  # fmt: skip
