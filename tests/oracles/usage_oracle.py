"""Usage queries answered slowly: one event after the other, with the clock of the zone read minute by minute."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Used:
    """An event that counts for the meter, with the text of its value (None: it has none)."""

    time: datetime
    subject: str
    dimensions: dict[str, str]
    value: str | None
    epoch: int = 0


def window_of(time: datetime, size: str, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The window of an instant, as instants in UTC."""
    floor = time.replace(second=0, microsecond=0)
    if size == "MINUTE":
        return floor, floor + MINUTE
    if size == "HOUR":
        start, end = floor, floor + MINUTE
        while not _opens_an_hour(start, zone):
            start -= MINUTE
        while not _opens_an_hour(end, zone):
            end += MINUTE
        return start, end
    day = time.astimezone(zone).replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0)
    following = day + timedelta(days=1)
    if size == "MONTH":
        day = day.replace(day=1)
        following = (day + timedelta(days=31)).replace(day=1)
    return tuple(each.replace(tzinfo=zone).astimezone(UTC) for each in (day, following))  # type: ignore[return-value]


def _opens_an_hour(minute: datetime, zone: ZoneInfo) -> bool:
    local, before = minute.astimezone(zone), (minute - MINUTE).astimezone(zone)
    return local.minute == 0 or local.replace(minute=0, tzinfo=None) > before.replace(minute=0, tzinfo=None)


def usage(
    events: Iterable[Used], aggregation: str, query: dict[str, Any], payers: Mapping[str, str]
) -> dict[Any, Decimal]:
    """The value of each (window start, window end, subject, customer, dimension ...) that has one.

    None stands for a subject or customer that is not asked for, and for the customer of a subject without one in
    `payers`.
    """
    groups: dict[Any, list[Used]] = defaultdict(list)
    zone = ZoneInfo(query.get("windowTimeZone", "UTC"))
    start, end = query.get("from"), query.get("to")
    for event in events:
        if (start and event.time < start) or (end and event.time >= end) or event.epoch >= query.get("asOf", 1 << 40):
            continue
        if query.get("subject") and event.subject not in query["subject"]:
            continue
        if any(event.dimensions[key] not in allowed for key, allowed in query.get("filterGroupBy", {}).items()):
            continue
        payer = payers.get(event.subject)
        if query.get("filterCustomerId") and payer not in query["filterCustomerId"]:
            continue
        window = window_of(event.time, query["windowSize"], zone) if query.get("windowSize") else (start, end)
        by_subject = query.get("subject") or "subject" in query.get("groupBy", ())
        by_customer = query.get("filterCustomerId") or "customer_id" in query.get("groupBy", ())
        names = [name for name in query.get("groupBy", ()) if name not in {"subject", "customer_id"}]
        whose = (event.subject if by_subject else None, payer if by_customer else None)
        key = (*window, *whose, *(event.dimensions[name] for name in names))
        groups[key].append(event)
    split = ("windowSize", "subject", "groupBy", "filterCustomerId")
    if not groups and not any(query.get(name) for name in split):
        return {(start, end, None, None): Decimal(0)} if aggregation in {"COUNT", "UNIQUE_COUNT"} else {}
    return {key: _value(aggregation, values) for key, values in groups.items()}


def _value(aggregation: str, events: list[Used]) -> Decimal:  # noqa: PLR0911  one for each aggregation
    """The value of events in the order of their arrival."""
    values: list[Any] = [event.value for event in events]
    match aggregation:
        case "AVG":
            with localcontext(prec=80):
                mean = sum(map(Decimal, values), Decimal(0)) / len(values)
                return mean.quantize(Decimal("1e-9"), ROUND_HALF_UP)
        case "LATEST":
            return Decimal(max(enumerate(events), key=lambda each: (each[1].time, each[0]))[1].value or "")
        case "COUNT":
            return Decimal(len(values))
        case "UNIQUE_COUNT":
            return Decimal(len(set(values)))
        case "SUM":
            return sum(map(Decimal, values), Decimal(0))
        case "MIN":
            return min(map(Decimal, values))
        case _:
            return max(map(Decimal, values))
