"""`meterline meters backfill`: a meter that was added later also counts the events that were stored before it.

Owns that each event counts once for the meter, whoever was killed when: the rollups of the meter's range are made anew
from the stored events, by the recount, and put in the place of those that are there. So no token has to be remembered,
and what the worker counts itself, at or behind the offset from which the meter is in force, comes out as it was.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import orjson
import sqlalchemy as sa

from invoicing import store as books
from meterline.output import Output, Text
from meterline.period import Period
from meterline.rollups import (
    EVER,
    Cut,
    cut_here,
    differences,
    missing_events,
    recounted,
    replace_rollups,
    rollups_locked,
)
from meterline.system import System
from schemas.meter import Meter
from schemas.price_book import PriceBook
from schemas.tenant import DEFAULT_TENANT
from stores.clickhouse import query
from stores.faults import reached

HOUR = timedelta(hours=1)


def backfill_meter(app: System, *, slug: str, start: str | None = None, end: str | None = None) -> Iterator[Output]:
    """Let a meter count the stored events of a range, [start, end) of event time, in this order.

    1. Cut: behind it the meter is in force, and counts by itself. What comes later is not touched.
    2. Note the backfill, with the offsets of the cut: from here on every recount counts the meter in its range, so a
       backfill that is not whole is found by the audit, and nothing is billed until it was asked for again.
    3. Recount the meter beside its rollups. Where anything differs, put the recounted ones in their place.
    4. Compare again, and only then call it, and any that died before it, finished.
    """
    meter = next((each for each in app.log.newest_config().meters if each.slug == slug), None)
    unfinished = _unfinished(app, slug)
    if meter is None and unfinished:  # it was withdrawn meanwhile; what was begun is ended all the same
        meter = next(each for each in app.log.meters() if each.slug == slug)
    if meter is None:
        known = ", ".join(each.slug for each in app.log.newest_config().meters)
        raise LookupError(f"{slug}: no such meter is in force; allowed: {known or '(there is none)'}")
    asked = Period(_hour(start) or EVER.start, _hour(end) or EVER.end)
    if asked.start >= asked.end:
        raise ValueError(f"from {start} to {end}: allowed: a start before the end")
    period = Period(min([asked.start, *(each.start for each in unfinished)]),
                    max([asked.end, *(each.end for each in unfinished)]))  # fmt: skip
    # 1. cut
    cut = yield from cut_here(app, f"backfill {slug}")
    if missing := missing_events(app, cut):
        raise RuntimeError(f"{missing:,} accepted events are not stored: a backfill would lose their usage")
    with rollups_locked(app.database), recounted(app, period, cut, meter) as recounting:
        _refuse_billed(app, meter, asked)
        # 2. note
        _note(app, meter, asked, cut)
        reached("backfill_noted")
        # 3. recount
        yield from recounting
        found = differences(app, period, cut, meter)
        if found.keys:
            replace_rollups(app, period, cut, meter)
        # 4. compare
        if differences(app, period, cut, meter).keys:
            raise RuntimeError(f"the rollups of {slug} still differ from the recount; ask for the backfill again")
        with app.database.begin() as connection:
            finish = "UPDATE meter_backfills SET finished_at = now() WHERE slug = :slug AND finished_at IS NULL"
            connection.execute(sa.text(finish), {"slug": slug})
    yield Text(text=f"{slug}: {found.keys:,} rollups filled; all are what the events say, up to cut {cut.epoch}")


def _hour(text: str | None) -> datetime | None:
    """A whole hour of UTC: rollups know no shorter time.

    >>> _hour("2026-01-31")
    datetime.datetime(2026, 1, 31, 0, 0, tzinfo=datetime.timezone.utc)
    """
    if text is None:
        return None
    allowed = "allowed: a day such as 2026-01-31, or a whole hour such as 2026-01-31T10:00:00Z"
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r}; {allowed}") from None
    instant = instant.replace(tzinfo=instant.tzinfo or UTC).astimezone(UTC)
    if (instant - datetime(1970, 1, 1, tzinfo=UTC)) % HOUR:
        raise ValueError(f"{text!r}; {allowed}")
    return instant


def _unfinished(app: System, slug: str) -> list[Period]:
    with app.database.connect() as connection:
        sql = "SELECT from_at, to_at FROM meter_backfills WHERE slug = :slug AND finished_at IS NULL"
        return [Period(start, end) for start, end in connection.execute(sa.text(sql), {"slug": slug})]


def _note(app: System, meter: Meter, period: Period, cut: Cut) -> None:
    stored = query(
        app.clickhouse,
        "SELECT log_id, partition, max(next_offset) AS next_offset FROM progress WHERE log_id != {log_id:String}"
        " GROUP BY log_id, partition ORDER BY log_id, partition",
        log_id=cut.log_id,
    )
    ends: dict[str, list[int]] = {cut.log_id: list(cut.ends)}
    for log_id, partition, next_offset in stored.iter_rows():  # logs that were lost; nothing is added to them
        behind = ends.setdefault(log_id, [])
        behind += [0] * (partition - len(behind)) + [next_offset]
    with app.database.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO meter_backfills (slug, from_at, to_at, cut, ends)"
                " VALUES (:slug, :from_at, :to_at, :cut, :ends)"
            ),
            {"slug": meter.slug, "from_at": period.start, "to_at": period.end, "cut": cut.epoch,
             "ends": orjson.dumps(ends).decode()},
        )  # fmt: skip


def _refuse_billed(app: System, meter: Meter, asked: Period) -> None:
    """Raise RuntimeError where the added usage would make another invoice of a period that is billed.

    It would where the book has a price for the meter; or a default plan, of which a subject that has no other usage
    in the period would become a customer.
    """
    with app.database.connect() as connection:
        stored = [PriceBook.from_canonical(row["body"]) for row in books.price_books(connection, DEFAULT_TENANT)]
        runs = books.posted_runs(connection, DEFAULT_TENANT)
    by_digest = {book.digest: book for book in stored}
    billed = []
    for run in runs:
        book, period = by_digest[run.basis.book_digest], Period.parse(run.period)
        common = Period(max(asked.start, period.start), min(asked.end, period.end))
        priced = any(getattr(charge, "meter", None) == meter.slug for plan in book.plans for charge in plan.charges)
        if common.start < common.end and (priced or (book.default_plan and _adds_subjects(app, meter, common, period))):
            billed.append(run.period)
    if billed:
        raise RuntimeError(
            f"{', '.join(billed)}: billed already, and the added usage of {meter.slug} would make another invoice"
            f" of it; fill what is after {max(billed)}, with --from"
        )


def _adds_subjects(app: System, meter: Meter, common: Period, period: Period) -> bool:
    """Whether subjects have events of the meter's type, and no usage of another meter in the period."""
    found = query(
        app.clickhouse,
        "SELECT count() > 0 AS adds FROM (SELECT DISTINCT subject FROM events WHERE tenant = {tenant:String}"
        " AND type = {type:String} AND time >= {start:DateTime64(3, 'UTC')} AND time < {end:DateTime64(3, 'UTC')})"
        " WHERE subject NOT IN (SELECT subject FROM rollups WHERE tenant = {tenant:String} AND meter != {meter:String}"
        " AND window_start >= {month_start:DateTime64(3, 'UTC')} AND window_start < {month_end:DateTime64(3, 'UTC')})",
        tenant=DEFAULT_TENANT,
        type=meter.event_type,
        meter=meter.slug,
        start=common.start,
        end=common.end,
        month_start=period.start,
        month_end=period.end,
    )
    return bool(found.item())
