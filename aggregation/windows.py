"""The windows of a query in its time zone, as instants.

Owns where a window starts. Windows follow each other without a gap or an overlap, whatever the clocks do:

    MINUTE, HOUR   at each full minute or hour of the local clock, and where the clock jumps into another one
    DAY, MONTH     where the local calendar first shows the day, or the month

So the hour that a clock shows twice is two windows, and a day has 23, 24 or 25 hours. All instants are whole seconds
since 1970, UTC.
"""

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from schemas.usage_query import WindowSize

Instants = npt.NDArray[np.int64]

HOUR_S = 3600
DAY_S = 86_400
SECONDS = {WindowSize.MINUTE: 60, WindowSize.HOUR: HOUR_S, WindowSize.DAY: DAY_S, WindowSize.MONTH: 28 * DAY_S}
"""The least length of a window."""
_MARGIN_S = {WindowSize.MINUTE: DAY_S, WindowSize.HOUR: DAY_S, WindowSize.DAY: 3 * DAY_S, WindowSize.MONTH: 34 * DAY_S}
_EPOCH = date(1970, 1, 1)


def boundaries(start_s: int, end_s: int, size: WindowSize, zone: ZoneInfo) -> Instants:
    """Where each window that meets [start, end) starts, and where the last one ends.

    >>> new_york = ZoneInfo("America/New_York")  # on 2013-03-10 it has no hour from two to three
    >>> start = int(datetime.fromisoformat("2013-03-10T05:00:00Z").timestamp())
    >>> (np.diff(boundaries(start, start + 2 * DAY_S, WindowSize.DAY, new_york)) // HOUR_S).tolist()
    [23, 24, 24]
    """
    margin_s = _MARGIN_S[size]
    unit_s = min(SECONDS[size], DAY_S)
    starts: list[Instants] = []
    offset_before = None
    for first, last, offset_s in _stretches(start_s - margin_s, end_s + margin_s, zone):
        full = np.arange(-((-first - offset_s) // unit_s) * unit_s - offset_s, last, unit_s, dtype=np.int64)
        jumped = offset_before is not None and (first + offset_s) // unit_s > (first - 1 + offset_before) // unit_s
        starts.append(np.concatenate(([first], full)) if jumped and first not in full[:1] else full)
        offset_before = offset_s
    found = np.concatenate(starts)
    if size in {WindowSize.DAY, WindowSize.MONTH}:
        found = _first_shown(found, size, zone)
    return found[np.searchsorted(found, start_s, "right") - 1 : np.searchsorted(found, end_s, "left") + 1]


def shown(second: int, zone: ZoneInfo) -> str:
    """An instant as RFC 3339 in a time zone.

    >>> shown(1699311600, ZoneInfo("Europe/Budapest")), shown(0, ZoneInfo("UTC"))
    ('2023-11-07T00:00:00+01:00', '1970-01-01T00:00:00Z')
    """
    return datetime.fromtimestamp(second, zone).isoformat().replace("+00:00", "Z")


def _stretches(start_s: int, end_s: int, zone: ZoneInfo) -> list[tuple[int, int, int]]:
    """[start, end) in stretches of one offset from UTC: (start, end, offset), in seconds. Changes are days apart."""
    stretches = []
    begun, offset_s = start_s, _offset_s(start_s, zone)
    for day in range(start_s, end_s, DAY_S):
        low, high = day, min(day + DAY_S, end_s)
        if _offset_s(high, zone) == offset_s:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _offset_s(middle, zone) == offset_s else (low, middle)
        stretches.append((begun, high, offset_s))
        begun, offset_s = high, _offset_s(high, zone)
    return [*stretches, (begun, end_s, offset_s)]


def _offset_s(second: int, zone: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(second, zone).utcoffset()
    assert offset is not None, "a zone has an offset"
    return int(offset / timedelta(seconds=1))


def _first_shown(days: Instants, size: WindowSize, zone: ZoneInfo) -> Instants:
    """Of the instants at which a day begins, those that begin one, or a month, that was not there before."""
    labels = np.array([_label(day, size, zone) for day in days.tolist()], np.int64)
    newest = np.maximum.accumulate(labels)
    return days[np.concatenate(([True], newest[1:] > newest[:-1]))]


def _label(day: int, size: WindowSize, zone: ZoneInfo) -> int:
    local = datetime.fromtimestamp(day, zone)
    return local.year * 12 + local.month if size is WindowSize.MONTH else (local.date() - _EPOCH).days
