"""A stretch of a tenant's chain as the database hands it out, and the texts that digests and hashes are of. Core.

The texts are those of `invoicing/ledger/chain.py`, written here a byte at a time into one buffer, each padded for
SHA-256: polars makes a string of every part of every line first, which took two thirds of the time to verify. A test
holds the one against the other.
"""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import polars as pl

from schemas.journal import CHAINED, POSTINGS
from schemas.log import Bytes
from schemas.sha256 import pad, sha256_rows
from schemas.texts import Texts

compiled: Any = numba.njit(cache=True, nogil=True)

Numbers = npt.NDArray[np.int64]

_HEX = np.frombuffer(b"0123456789abcdef", np.uint8)
_BAR, _COLON, _MINUS, _ZERO, _END = b"|:-0\n"
_NUMBER_BYTES = 21  # the longest number of 64 bits, and what stands behind it
_DIGITS_MAX = 19  # of a number of 63 bits
_PADDING_BYTES = 72


class Entries(NamedTuple):
    """Journal entries in the chain's order: `schemas.journal.CHAINED` without the tenant; null texts are empty."""

    sequence: Numbers
    template: Texts
    document_kind: Texts
    document_id: Texts
    document_version: Numbers
    part: Numbers
    relates_to: Texts
    relates_to_period: Texts
    effective_at: Numbers  # days since 1970
    booked_at: Numbers  # microseconds since 1970
    description: Texts
    id: Bytes  # a row of 16 bytes each; of the digests 32
    content_digest: Bytes
    previous_hash: Bytes
    hash: Bytes


class Lines(NamedTuple):
    """Postings in their entries' order and by position: `schemas.journal.POSTINGS`, with their entry's sequence."""

    sequence: Numbers
    position: Numbers
    account: Numbers
    currency: Texts
    customer: Texts
    dimension: Texts
    amount_minor: Numbers


class Stretch(NamedTuple):
    """Entries of a tenant that follow each other, and the postings with sequences in the same range."""

    tenant: str
    entries: Entries
    lines: Lines

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Entries (columns `CHAINED`) and postings (`sequence` instead of their entry's id); null texts are empty."""
        entries = {name: _series(column) for name, column in self.entries._asdict().items()}
        entries["tenant"] = pl.repeat(self.tenant, len(self.entries.sequence), dtype=pl.String, eager=True)
        lines = {name: _series(column) for name, column in self.lines._asdict().items()}
        kinds = {name: kind for name, kind in POSTINGS.items() if name != "entry_id"}
        return (
            pl.DataFrame(entries).select(pl.col(name).cast(kind) for name, kind in CHAINED.items()),
            pl.DataFrame(lines).select("sequence", *[pl.col(name).cast(kind) for name, kind in kinds.items()]),
        )


def content_digests(stretch: Stretch, starts: Numbers) -> Bytes:
    """The digest of what each entry says. The lines of entry k are those from `starts[k]` to `starts[k + 1]`."""
    entries, lines = stretch.entries, stretch.lines
    texts = [entries.template, entries.relates_to, entries.relates_to_period, entries.document_kind,
             entries.document_id, entries.description]  # fmt: skip
    tenant = _tenant(stretch)
    fixed = len(texts) + 4
    size = len(entries.sequence) * (fixed * _NUMBER_BYTES + len(tenant) + _PADDING_BYTES)
    size += sum(len(column.values) for column in texts)
    size += len(lines.sequence) * 6 * _NUMBER_BYTES
    size += sum(len(column.values) for column in (lines.currency, lines.customer, lines.dimension))
    return _hashed(_write_contents, size, len(entries.sequence), tenant, entries, lines, starts)


def entry_ids(stretch: Stretch) -> Bytes:
    """The digest whose first half is the id of each entry."""
    entries = stretch.entries
    tenant = _tenant(stretch)
    size = len(entries.template.values) + len(entries.document_id.values)
    size += len(entries.sequence) * (6 * _NUMBER_BYTES + len(tenant) + _PADDING_BYTES)
    return _hashed(_write_ids, size, len(entries.sequence), tenant, entries)


def entry_hashes(entries: Entries) -> Bytes:
    """The hash of each entry, from the hash that it names as the one before and from the digest that it has."""
    count = len(entries.sequence)
    return _hashed(_write_hash_texts, count * (128 + 2 * _NUMBER_BYTES + _PADDING_BYTES), count, entries)


def _hashed(write: Any, size: int, count: int, *columns: Any) -> Bytes:
    texts, ends = np.empty(size, np.uint8), np.empty(count, np.int64)
    write(texts, ends, *columns)
    return sha256_rows(texts, ends)


def _tenant(stretch: Stretch) -> Bytes:
    """The tenant with its length before it."""
    encoded = stretch.tenant.encode()
    return np.frombuffer(b"%d:%s" % (len(encoded), encoded), np.uint8)


# Columns are taken apart before the loops: Numba counts a reference whenever it takes an array out of a tuple, and
# counting took longer than writing.


@compiled
def _write_contents(texts: Bytes, ends: Any, tenant: Bytes, entries: Any, lines: Any, starts: Any) -> None:
    version, part, day = entries.document_version, entries.part, entries.effective_at
    (template, template_ends), (kind, kind_ends) = entries.template, entries.document_kind
    (document, document_ends), (words, words_ends) = entries.document_id, entries.description
    (relates_to, relates_to_ends), (period, period_ends) = entries.relates_to, entries.relates_to_period
    position, account, minor = lines.position, lines.account, lines.amount_minor
    (currency, currency_ends), (customer, customer_ends) = lines.currency, lines.customer
    dimension, dimension_ends = lines.dimension
    at = 0
    for row in range(len(ends)):
        start = at
        at = _put_text(texts, at, template, template_ends, row)
        at = _put_number(texts, _put(texts, at, _BAR), version[row])
        at = _put_number(texts, _put(texts, at, _BAR), part[row])
        at = _put_day(texts, _put(texts, at, _BAR), day[row])
        at = _put_text(texts, _put(texts, at, _BAR), relates_to, relates_to_ends, row)
        at = _put_text(texts, _put(texts, at, _BAR), period, period_ends, row)
        at = _put_bytes(texts, _put(texts, at, _BAR), tenant, 0, len(tenant))
        at = _put_prefixed(texts, at, kind, kind_ends, row)
        at = _put_prefixed(texts, at, document, document_ends, row)
        at = _put(texts, _put_prefixed(texts, at, words, words_ends, row), _END)
        for line in range(starts[row], starts[row + 1]):
            at = _put(texts, _put_number(texts, at, position[line]), _BAR)
            at = _put(texts, _put_number(texts, at, account[line]), _BAR)
            at = _put(texts, _put_number(texts, at, minor[line]), _BAR)
            at = _put(texts, _put_text(texts, at, currency, currency_ends, line), _BAR)
            at = _put_prefixed(texts, at, customer, customer_ends, line)
            at = _put(texts, _put_prefixed(texts, at, dimension, dimension_ends, line), _END)
        at = ends[row] = pad(texts, start, at)


@compiled
def _write_ids(texts: Bytes, ends: Any, tenant: Bytes, entries: Any) -> None:
    version, part = entries.document_version, entries.part
    (template, template_ends), (document, document_ends) = entries.template, entries.document_id
    at = 0
    for row in range(len(ends)):
        start = at
        at = _put_bytes(texts, at, tenant, 0, len(tenant))
        at = _put_prefixed(texts, at, template, template_ends, row)
        at = _put_prefixed(texts, at, document, document_ends, row)
        for number in (version[row], part[row]):
            digits = _put_number(texts, at, number) - at
            at = _put_number(texts, _put(texts, _put_number(texts, at, digits), _COLON), number)
        at = ends[row] = pad(texts, start, at)


@compiled
def _write_hash_texts(texts: Bytes, ends: Any, entries: Any) -> None:
    before, content, sequence, booked_at = (
        entries.previous_hash, entries.content_digest, entries.sequence, entries.booked_at,
    )  # fmt: skip
    at = 0
    for row in range(len(ends)):
        start = at
        for byte in range(32):
            texts[at + 2 * byte] = _HEX[before[row, byte] >> 4]
            texts[at + 2 * byte + 1] = _HEX[before[row, byte] & 15]
            texts[at + 64 + 2 * byte] = _HEX[content[row, byte] >> 4]
            texts[at + 64 + 2 * byte + 1] = _HEX[content[row, byte] & 15]
        at = _put(texts, _put_number(texts, at + 128, sequence[row]), _BAR)
        at = ends[row] = pad(texts, start, _put_number(texts, at, booked_at[row]))


@compiled
def _put(texts: Bytes, at: int, byte: int) -> int:
    texts[np.uint64(at)] = byte
    return at + 1


@compiled
def _put_bytes(texts: Bytes, at: int, source: Bytes, start: int, end: int) -> int:
    to, first = np.uint64(at), np.uint64(start)  # unsigned: a negative place would have to be looked out for
    for place in range(np.uint64(end - start)):
        texts[to + place] = source[first + place]
    return at + end - start


@compiled
def _put_text(texts: Bytes, at: int, values: Bytes, ends: Any, row: int) -> int:
    return _put_bytes(texts, at, values, ends[row - 1] + 1 if row else 0, ends[row])


@compiled
def _put_prefixed(texts: Bytes, at: int, values: Bytes, ends: Any, row: int) -> int:
    start = ends[row - 1] + 1 if row else 0
    at = _put(texts, _put_number(texts, at, ends[row] - start), _COLON)
    return _put_bytes(texts, at, values, start, ends[row])


@compiled
def _put_number(texts: Bytes, at: int, number: int) -> int:
    left = np.uint64(number)
    if number < 0:
        at = _put(texts, at, _MINUS)
        left = np.uint64(~number) + np.uint64(1)  # the lowest number of all has no positive one
    digits, beyond = 1, np.uint64(10)
    while digits < _DIGITS_MAX and left >= beyond:
        digits += 1
        beyond *= np.uint64(10)
    for place in range(at + digits - 1, at - 1, -1):
        texts[np.uint64(place)] = _ZERO + left % np.uint64(10)
        left //= np.uint64(10)
    return at + digits


@compiled
def _put_day(texts: Bytes, at: int, day: int) -> int:
    """A day since 1970 as `2026-01-31`, by the calendar of 400 years that start on 1 March."""
    shifted = day + 719_468
    era, of_era = shifted // 146_097, shifted % 146_097
    year = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153  # from March
    year += 400 * era + (month >= 10)
    for value, digits in ((year, 4), (month + 3 if month < 10 else month - 9, 2),
                          (of_year - (153 * month + 2) // 5 + 1, 2)):  # fmt: skip
        for place in range(digits - 1, -1, -1):
            texts[at + place] = _ZERO + value % 10
            value //= 10  # noqa: PLW2901  its digits, from behind
        at = _put(texts, at + digits, _MINUS)
    return at - 1


def _series(column: Any) -> pl.Series:
    if isinstance(column, Texts):
        return column.series()
    if column.ndim == 1:
        return pl.Series(column)
    return pl.Series(column.view(f"V{column.shape[1]}").ravel().tolist(), dtype=pl.Binary).bin.encode("hex")
