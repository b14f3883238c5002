"""Places to go on from: where an event or a rejection stands in time and in the log, as SQL and as a page's cursor.

Owns that pages fit together: a page ends at a place that is told by nothing but itself, so what is written meanwhile
is neither shown twice nor moves what is shown.
"""

import re
from typing import Any

from schemas.usage_query import InvalidQueryError

COLUMNS = "log_id, partition, offset, line"
_CURSOR = re.compile(r"(-?\d{1,18})\.([0-9a-f]{32})\.(\d{1,4})\.(\d{1,18})\.(\d{1,9})", re.ASCII)
_GIVEN = "({micros:Int64}, {log_id:String}, {partition:UInt16}, {offset:UInt64}, {line:UInt32})"


def micros_of(time: str) -> str:
    """A column of instants as microseconds since 1970."""
    return f"toUnixTimestamp64Micro(toDateTime64({time}, 6, 'UTC'))"


def place_of(time: str) -> str:
    """The place of a row, by a column of instants and then by where it stands in the log."""
    return f"({micros_of(time)}, {COLUMNS})"


def behind(cursor: str, time: str, *, newest_first: bool) -> tuple[list[str], dict[str, Any]]:
    """The condition for rows behind a cursor, none for the empty one, and its parameters.

    Raises InvalidQueryError for what is no cursor of ours.
    """
    if not cursor:
        return [], {}
    match = _CURSOR.fullmatch(cursor)
    if not match:
        raise InvalidQueryError("cursor: allowed: the nextCursor of an answer")
    micros, log_id, *place = match.groups()
    partition, offset, line = map(int, place)
    bound = {"micros": int(micros), "log_id": log_id, "partition": partition, "offset": offset, "line": line}
    return [f"{place_of(time)} {'<' if newest_first else '>'} {_GIVEN}"], bound


def cursor_at(row: dict[str, Any]) -> str:
    """The cursor of a row that has `micros` and its place in the log.

    >>> cursor_at({"micros": 5, "log_id": "0" * 32, "partition": 1, "offset": 7, "line": 0})
    '5.00000000000000000000000000000000.1.7.0'
    """
    return ".".join(str(row[name]) for name in ("micros", *COLUMNS.split(", ")))
