"""Whether the books are what was posted: everything that is stored is computed again from the postings up. Core.

Owns what a change of the stored rows comes to light by, whoever made it and whatever triggers were off: a posting, an
entry's words, dates or account, an entry that is missing, added or moved. What it can't see is a chain that was made
anew from its first changed entry to its end; the head's hash, noted elsewhere, shows that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from invoicing.ledger.chain import content_digests, hash_texts
from invoicing.ledger.journal import ID_PARTS
from schemas.identity import digests, sha256_of
from schemas.journal import GENESIS, REVERSAL
from schemas.templates import TEMPLATES


class Closed(Protocol):
    """A closed period, as far as this needs to know: its last day, and the last entry posted before it was closed."""

    @property
    def through(self) -> date: ...  # noqa: D102
    @property
    def after_sequence(self) -> int: ...  # noqa: D102


class Opened(Closed, Protocol):
    """A closed period that takes entries until an instant."""

    @property
    def until(self) -> datetime: ...  # noqa: D102


@dataclass(frozen=True)
class Place:
    """Where in the chain the entries so far end."""

    sequence: int = 0
    hash: str = GENESIS
    booked_at: datetime | None = None


@dataclass(frozen=True)
class Finding:
    """An entry that is not what was posted, and why."""

    sequence: int
    entry_id: str
    what: str


def allowed_sides() -> dict[tuple[str, int, int], tuple[bool, bool]]:
    """For each template, account and side (1, -1) that a posting may have: in a document, and in one below zero.

    >>> allowed_sides()["P09", 1010, 1], ("P09", 1010, -1) in allowed_sides()
    ((True, False), False)
    """
    found: dict[tuple[str, int, int], tuple[bool, bool]] = {}
    for code, template in TEMPLATES.items():
        for leg in template.legs:
            negative = template.takes_negative
            sides = {
                (code, leg.account.value, leg.side): (True, leg.signed and negative),
                (code, (leg.account_if_negative or leg.account).value, -leg.side): (leg.signed, negative),
            }
            for key, (positive, below) in sides.items():
                before = found.get(key, (False, False))
                found[key] = (before[0] or positive, before[1] or below)
    return {key: when for key, when in found.items() if any(when)}


def _side_bits() -> npt.NDArray[np.uint8]:
    """By number of the template, account, and 1 for a debit: 1 where a document may, 2 where one below zero may."""
    codes = {code: place for place, code in enumerate(TEMPLATES)}
    bits = np.zeros((len(codes) + 1, 10_000, 2), np.uint8)
    for (code, account, side), (positive, negative) in allowed_sides().items():
        bits[codes[code], account, int(side > 0)] = positive + 2 * negative
    return bits


SIDES = _side_bits()
"""Which sides a template allows; see `_side_bits`."""


def first_finding(
    entries: pl.DataFrame,
    postings: pl.DataFrame,
    before: Place,
    *,
    closed: Sequence[Closed] = (),
    opened: Sequence[Opened] = (),
) -> Finding | None:
    """The first of these entries that is not what was posted, or None.

    Takes a stretch of a tenant's chain in its order (columns `schemas.journal.CHAINED`), its postings with the
    `sequence` of their entry instead of its id, in order, and where the entries before it end.
    """
    if entries.is_empty():
        return Finding(postings["sequence"].item(0), "", "postings without an entry") if postings.height else None
    first = entries["sequence"].item(0)
    gap = _first(
        entries["sequence"] != pl.int_range(before.sequence + 1, before.sequence + 1 + entries.height, eager=True)
    )
    if gap is not None:
        return _finding(
            entries, gap, f"its sequence is {entries['sequence'][gap]}; the next one is {before.sequence + 1 + gap}"
        )
    strays = postings.filter(~pl.col("sequence").is_between(first, first + entries.height - 1))
    if strays.height:
        return Finding(strays["sequence"].item(0), "", "postings without an entry")
    postings = postings.with_columns((pl.col("sequence") - first).alias("entry"))
    wrong: list[tuple[int, int, str]] = []
    for order, (rows, what) in enumerate(_checks(entries, postings, before)):
        if (row := _first(rows)) is not None:
            wrong.append((row, order, what))
    for row in _closed_days(entries, closed, opened)[:1]:
        wrong.append((row, len(wrong) + 99, f"it is dated {entries['effective_at'][row]}, in a period that was closed"))
    if not wrong:
        return None
    row, _, what = min(wrong)
    return _finding(entries, row, what)


def end_of(entries: pl.DataFrame) -> Place:
    """Where the chain is after these entries."""
    row = entries.row(-1, named=True)
    return Place(row["sequence"], row["hash"], row["booked_at"])


def _checks(entries: pl.DataFrame, postings: pl.DataFrame, before: Place) -> list[tuple[pl.Series, str]]:
    """For each check, which entries fail it, in the order in which a reader wants to know."""
    ids = entries.select(digests(*[pl.col(name).cast(pl.String) for name in ID_PARTS])).to_series()
    hashes_before = pl.Series([before.hash]).append(entries["hash"].head(-1))
    booked_before = pl.Series([before.booked_at], dtype=entries["booked_at"].dtype).append(
        entries["booked_at"].head(-1)
    )
    unbalanced, outside = _postings_wrong(entries, postings)
    return [
        (entries["content_digest"] != content_digests(entries, postings), "its content is not what its digest says"),
        (entries["id"] != ids, "its id is not that of its document"),
        (entries["previous_hash"] != hashes_before, "it does not name the hash of the entry before it"),
        (entries["hash"] != entries.select(sha256_of(hash_texts(entries))).to_series(), "its hash is not its own"),
        ((entries["booked_at"] < booked_before).fill_null(value=False), "it is booked before the entry before it"),
        (unbalanced, "its postings do not sum to zero"),
        (outside, "its postings are none that its template allows"),
    ]


def _postings_wrong(entries: pl.DataFrame, postings: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Which entries do not sum to zero in some currency, and which touch what their template does not allow.

    An entry without postings is one of the latter. In numpy, a group of postings with one entry and currency at a time.
    """
    entry, minor = postings["entry"].to_numpy(), postings["amount_minor"].to_numpy()
    currency = postings["currency"].rank("dense").to_numpy().astype(np.int64)
    codes = {code: place for place, code in enumerate(TEMPLATES)}
    template = entries["template"].replace_strict(codes, default=len(codes), return_dtype=pl.Int64).to_numpy()
    turned = np.where((entries["document_kind"] == REVERSAL).to_numpy(), -1, 1)
    side = (np.sign(minor) * turned[entry] > 0).astype(np.int64)
    allowed = SIDES[template[entry], np.clip(postings["account"].to_numpy(), 0, 9999), side]
    order = np.lexsort((currency, entry))
    entry, minor, currency, allowed = entry[order], minor[order], currency[order], allowed[order]
    starts = np.flatnonzero(np.r_[True, (np.diff(entry) != 0) | (np.diff(currency) != 0)][: len(entry)])
    unbalanced, outside = np.zeros(entries.height, dtype=bool), np.ones(entries.height, dtype=bool)
    outside[entry] = False
    if len(starts):
        unbalanced[entry[starts][np.add.reduceat(minor, starts) != 0]] = True
        outside[entry[starts][np.bitwise_and.reduceat(allowed, starts) == 0]] = True
    return pl.Series(unbalanced), pl.Series(outside)


def _closed_days(entries: pl.DataFrame, closed: Sequence[Closed], opened: Sequence[Opened]) -> list[int]:
    """The rows of entries that came into a closed period while it was not open."""
    if not closed:
        return []
    last = max(each.through for each in closed)
    late = entries.with_row_index().filter(
        (pl.col("effective_at") <= last) & (pl.col("sequence") > min(each.after_sequence for each in closed))
    )
    found = []
    for row, day, sequence, booked_at in late.select("index", "effective_at", "sequence", "booked_at").iter_rows():
        shut = any(day <= each.through and sequence > each.after_sequence for each in closed)
        let_in = any(
            day <= each.through and sequence > each.after_sequence and booked_at <= each.until for each in opened
        )
        if shut and not let_in:
            found.append(row)
    return found


def _first(rows: pl.Series) -> int | None:
    return rows.arg_max() if rows.any() else None


def _finding(entries: pl.DataFrame, row: int, what: str) -> Finding:
    return Finding(entries["sequence"][row], entries["id"][row], what)
