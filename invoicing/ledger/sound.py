"""Whether a stretch of a chain is as it was posted, without saying what is wrong. Core.

Owns one direction: what passes here is what `invoicing.ledger.verify.first_finding` has nothing to say against. That
one works on frames and names the entry and the reason; it judges the stretches that don't pass, and a property test
holds the two against each other. Nearly all stretches pass, and this takes a third of the other's time.
"""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numba
import numpy as np
import polars as pl

from invoicing.ledger.stretch import Entries, Stretch, content_digests, entry_hashes, entry_ids
from invoicing.ledger.verify import SIDES, Closed, Place
from schemas.journal import REVERSAL
from schemas.templates import TEMPLATES

compiled: Any = numba.njit(cache=True, nogil=True)

_DAY_ZERO, _INSTANT_ZERO = date(1970, 1, 1), datetime(1970, 1, 1, tzinfo=UTC)
_CODES = {code: place for place, code in enumerate(TEMPLATES)}  # as SIDES numbers them
_WORD_BYTES = 8  # a currency that is longer is none
_NOTHING = np.uint64(0)


def sound(stretch: Stretch) -> bool:
    """Whether all within the stretch holds, and every posting has its entry; not whether it follows what is before.

    False says that `first_finding` has to look.
    """
    entries, lines = stretch.entries, stretch.lines
    if not len(entries.sequence) or (np.diff(entries.sequence) != 1).any() or (np.diff(lines.sequence) < 0).any():
        return False
    starts = np.searchsorted(lines.sequence, np.append(entries.sequence, entries.sequence[-1] + 1))
    if starts[0] != 0 or starts[-1] != len(lines.sequence):
        return False
    return bool(
        (np.diff(entries.booked_at) >= 0).all()
        and (entries.previous_hash[1:] == entries.hash[:-1]).all()
        and _lines_hold(*_templates(entries), lines, starts, SIDES)
        and (entries.hash == entry_hashes(entries)).all()
        and (entries.id == entry_ids(stretch)[:, :16]).all()
        and (entries.content_digest == content_digests(stretch, starts)).all()
    )


def follows(entries: Entries, before: Place) -> bool:
    """Whether the first of these entries comes next where the chain ended."""
    return (
        int(entries.sequence[0]) == before.sequence + 1
        and entries.previous_hash[0].tobytes().hex() == before.hash
        and (before.booked_at is None or int(entries.booked_at[0]) >= _micros(before.booked_at))
    )


def may_be_late(entries: Entries, closed: Sequence[Closed]) -> bool:
    """Whether any of these entries is dated in a period that was closed by then, if by an override or not."""
    if not closed:
        return False
    day = (max(each.through for each in closed) - _DAY_ZERO).days
    late = (entries.effective_at <= day) & (entries.sequence > min(each.after_sequence for each in closed))
    return bool(late.any())


def place_after(entries: Entries) -> Place:
    """Where the chain is after these entries."""
    booked_at = _INSTANT_ZERO + timedelta(microseconds=int(entries.booked_at[-1]))
    return Place(int(entries.sequence[-1]), entries.hash[-1].tobytes().hex(), booked_at)


def _micros(instant: datetime) -> int:
    return (instant - _INSTANT_ZERO) // timedelta(microseconds=1)


def _templates(entries: Entries) -> tuple[Any, Any]:
    """The number of each entry's template, one behind all of them for one that is none, and whether it is reversed."""
    numbers = entries.template.series().replace_strict(_CODES, default=len(_CODES), return_dtype=pl.Int64)
    return numbers.to_numpy(), (entries.document_kind.series() == REVERSAL).to_numpy()


@compiled
def _lines_hold(templates: Any, reversals: Any, lines: Any, starts: Any, sides: Any) -> bool:
    """Whether every entry sums to zero in each of its currencies, and these touch what its template allows."""
    account, minor = lines.account, lines.amount_minor
    currencies = _packed(lines.currency)
    for row in range(len(starts) - 1):
        first, end = starts[row], starts[row + 1]
        if first == end:
            return False
        for line in range(first, end):
            if currencies[line] == _NOTHING:
                return False
            if _stands_before(currencies, first, line):
                continue  # its sum is made: as a rule all lines of an entry have one currency
            total, allowed = 0, 3
            for other in range(line, end):
                if currencies[other] == currencies[line]:
                    total += minor[other]
                    debit = minor[other] < 0 if reversals[row] else minor[other] > 0
                    allowed &= sides[templates[row], min(max(account[other], 0), 9999), 1 if debit else 0]
            if total != 0 or allowed == 0:
                return False
    return True


@compiled
def _stands_before(words: Any, first: int, row: int) -> bool:
    for other in range(first, row):  # noqa: SIM110  Numba has no `any` over a generator
        if words[other] == words[row]:
            return True
    return False


@compiled
def _packed(column: Any) -> Any:
    """Texts of up to eight bytes as a number each, none as zero, and longer ones too."""
    values, ends = column
    packed = np.zeros(len(ends), np.uint64)
    start = 0
    for row in range(len(ends)):
        if ends[row] - start <= _WORD_BYTES:
            word = np.uint64(0)
            for place in range(np.uint64(start), np.uint64(ends[row])):
                word = (word << np.uint64(8)) | np.uint64(values[place])
            packed[row] = word
        start = ends[row] + 1
    return packed
