"""RFC 3339 instants in a buffer to microseconds since 1970, compiled by Numba.

Only the usual forms are understood: 2013-01-31T10:00:00Z, with up to six digits of a second's fraction, or with an
offset such as +05:30 for the Z. `schemas/event.py` decides about all others.
"""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from schemas.log import Bytes

Places = npt.NDArray[np.int64]
Lengths = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]

compiled: Any = numba.njit(cache=True, nogil=True)


def instants(buffer: Bytes, starts: Places, lengths: Lengths) -> tuple[Places, Mask]:
    """The instants that stand in stretches of a buffer, and which are understood; a length of -1 is, and is 0.

    >>> text = b"1970-01-01T00:00:01.5+00:00"
    >>> instants(np.frombuffer(text, np.uint8), np.array([0]), np.array([len(text)], np.int32))
    (array([1500000]), array([ True]))
    """
    micros, understood = np.zeros(len(starts), np.int64), np.zeros(len(starts), np.bool_)
    _instants(buffer, starts, lengths, micros, understood)
    return micros, understood


@compiled
def _instants(buffer: Bytes, starts: Places, lengths: Lengths, micros: Places, understood: Mask) -> None:
    for row in range(len(starts)):
        if lengths[row] < 0:
            understood[row] = True
        else:
            micros[row], understood[row] = _instant(buffer, starts[row], starts[row] + lengths[row])


@compiled
def _instant(buffer: Bytes, i: int, end: int) -> tuple[int, bool]:  # noqa: PLR0911
    """An instant such as 2013-01-31T10:00:00.123456Z or with an offset such as +05:30, in microseconds since 1970."""
    if end - i < 20:
        return 0, False
    if not (buffer[i + 4] == 45 and buffer[i + 7] == 45 and buffer[i + 10] == 84):  # - - T
        return 0, False
    if not (buffer[i + 13] == 58 and buffer[i + 16] == 58):  # : :
        return 0, False
    year = _two(buffer, i) * 100 + _two(buffer, i + 2)
    month, day = _two(buffer, i + 5), _two(buffer, i + 8)
    hour, minute, second = _two(buffer, i + 11), _two(buffer, i + 14), _two(buffer, i + 17)
    if min(_two(buffer, i), _two(buffer, i + 2), month, day, hour, minute, second) < 0 or year < 1:
        return 0, False
    if month < 1 or month > 12 or day < 1 or day > _days_in(year, month) or hour > 23 or minute > 59 or second > 59:
        return 0, False
    i += 19
    micros = 0
    if buffer[i] == 46:
        digits = 0
        while i + 1 + digits < end and 48 <= buffer[i + 1 + digits] <= 57:
            digits += 1
        if digits < 1 or digits > 6:
            return 0, False
        for place in range(6):
            micros = micros * 10 + (buffer[i + 1 + place] - 48 if place < digits else 0)
        i += 1 + digits
    offset_s, ok = _offset_s(buffer, i, end)
    seconds = ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second - offset_s
    return seconds * 1_000_000 + micros, ok


@compiled
def _offset_s(buffer: Bytes, i: int, end: int) -> tuple[int, bool]:
    if end - i == 1 and buffer[i] == 90:  # Z
        return 0, True
    if end - i != 6 or not (buffer[i] == 43 or buffer[i] == 45) or buffer[i + 3] != 58:
        return 0, False
    hours, minutes = _two(buffer, i + 1), _two(buffer, i + 4)
    if min(hours, minutes) < 0 or hours > 23 or minutes > 59:
        return 0, False
    offset_s = (hours * 60 + minutes) * 60
    return (-offset_s if buffer[i] == 45 else offset_s), True


@compiled
def _two(buffer: Bytes, i: int) -> Any:
    """Two digits as a number; negative where they are none."""
    high, low = np.int64(buffer[i]) - 48, np.int64(buffer[i + 1]) - 48
    return high * 10 + low if 0 <= high <= 9 and 0 <= low <= 9 else -1


@compiled
def _days_in(year: int, month: int) -> int:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month in {4, 6, 9, 11} else 31


@compiled
def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar. The year is taken to begin in March, so a leap day ends it."""
    year -= month <= 2
    era = year // 400
    of_era = year - era * 400
    of_year = (153 * (month - 3 if month > 2 else month + 9) + 2) // 5 + day - 1
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
