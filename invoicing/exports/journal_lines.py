"""Entries as the journals of another program: one for each entry and currency, or one for each day or month. Core.

Owns that every journal balances in its one currency: the postings of an entry sum to zero in each currency, so an entry
of two (P26, P27) becomes two journals that each balance, and so does any sum of whole entries. Debits and credits are
summed apart, never netted: the totals of a summary are those of the ledger.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import polars as pl

from invoicing.exports.mapping import LISTED_MAX, Mapping, mapped, unmapped
from schemas.invoice import Columns
from schemas.money import MINOR_UNITS

Summary = Literal["entry", "day", "month"]
SUMMARIES: tuple[Summary, ...] = ("entry", "day", "month")
NUMBER_LENGTH_MAX = 21
FAULTS_MAX = 1_000  # of a kind are kept: more of them help nobody

LINES: Columns = {
    "number": pl.String,  # of the journal
    "date": pl.Date,
    "currency": pl.String,
    "memo": pl.String,
    "name": pl.String,  # the account, as the other program has it
    "class": pl.String,
    "entity": pl.String,
    "description": pl.String,
    "amount_minor": pl.Int64,  # a debit is above zero
}
"""Columns of a frame of journal lines; those of a journal follow each other."""
_SUMMED = ("date", "currency", "name", "class", "entity", "debit")

_MINOR_MAX = {"quickbooks": 10**11 * 100 - 100, "netsuite": 10**12 - 1}
"""In hundredths: 99,999,999,999, as importers for QuickBooks have it; ten digits and two decimals, as NetSuite does."""


def lines_of(entries: pl.DataFrame, postings: pl.DataFrame, mapping: Mapping) -> pl.DataFrame:
    """The lines (columns LINES and more) of a stretch of entries; postings have the `sequence` of their entry."""
    several = pl.col("currency").n_unique().over("sequence") > 1
    number = pl.lit(mapping.number_prefix) + pl.col("sequence").cast(pl.String)
    words = entries.select("sequence", pl.col("effective_at").alias("date"), "template", "document_id", "description")
    lines = mapped(postings, mapping).join(words, on="sequence", how="inner", maintain_order="left")
    return lines.select(
        pl.when(several).then(number + "-" + pl.col("currency")).otherwise(number).alias("number"),
        "date", "currency",
        pl.col("description").alias("memo"),
        "name", "class", "entity",
        (pl.col("template") + " " + pl.col("document_id")
         + pl.when(pl.col("dimension") == "").then(pl.lit("")).otherwise(pl.lit(" / ") + pl.col("dimension")))
        .alias("description"),
        "amount_minor", "sequence", "account", "dimension", "entity_is_customer",
    ).sort("sequence", "currency", maintain_order=True)  # fmt: skip


def faults_of_lines(lines: pl.DataFrame, mapping: Mapping, lines_max: int) -> dict[str, list[str]]:
    """What the other program could not take, by why: each account, entry or amount that keeps the file from being."""
    units = pl.col("currency").replace_strict(MINOR_UNITS, return_dtype=pl.Int64)
    size, ten = pl.col("amount_minor").abs(), pl.lit(10, pl.Int64)
    finer = (units > 2) & (size % ten.pow(pl.max_horizontal(units - 2, 0)) != 0)
    hundreds = size // ten.pow(pl.max_horizontal(units - 2, 0))
    most = pl.lit(_MINOR_MAX[mapping.system]) // ten.pow(pl.max_horizontal(2 - units, 0))
    lengths = lines.group_by("number", maintain_order=True).len().filter(pl.col("len") > lines_max)
    checks = {
        "accounts without a rule in the mapping": unmapped(lines, mapping),
        'lines that must name a customer and have none; give such a line a rule of `customer: ""`': _entries(
            lines.filter(pl.col("entity_is_customer") & (pl.col("entity") == "")), "account"
        ),
        "amounts that two decimals cannot hold": _entries(lines.filter(finer), "currency"),
        "amounts that are too great": _entries(lines.filter(hundreds > most), "currency"),
        f"entries of more than {lines_max:,} lines; a greater lines_max lets them in": [
            f"{number} ({length:,})" for number, length in lengths.iter_rows()
        ],
    }  # fmt: skip
    return {why: found for why, found in checks.items() if found}


def journals(
    stretches: Iterator[tuple[pl.DataFrame, pl.DataFrame]], mapping: Mapping, summary: Summary, lines_max: int
) -> Iterator[pl.DataFrame]:
    """Frames of whole journals (columns LINES), in the chain's order; a summary's when it is full, or at the end."""
    if summary == "entry":
        for entries, postings in stretches:
            yield lines_of(entries, postings, mapping).select(*LINES)
        return
    sums = _Sums(mapping, summary, lines_max)
    for entries, postings in stretches:
        yield from sums.add(lines_of(entries, postings, mapping))
    yield from sums.rest()


@dataclass
class _Sums:
    """What was summed so far, by day and currency. At most `lines_max` lines each: then they are a journal."""

    mapping: Mapping
    summary: Summary
    lines_max: int
    open: dict[tuple[object, ...], pl.DataFrame] = field(default_factory=dict)
    done: dict[tuple[object, ...], int] = field(default_factory=dict)

    def add(self, lines: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Take lines of whole entries in; yields what became full by them."""
        day = pl.col("date").dt.month_end() if self.summary == "month" else pl.col("date")
        dated = lines.with_columns(day.alias("date"), (pl.col("amount_minor") > 0).alias("debit"))
        parts = dated.partition_by("date", "currency", as_dict=True, maintain_order=True)
        for key in sorted(parts):
            yield from self._add(key, parts[key])

    def rest(self) -> Iterator[pl.DataFrame]:
        """The journals of what is left, by day and currency."""
        for key in sorted(self.open, key=str):
            yield self._journal(key, self.open[key])
        self.open.clear()

    def _add(self, key: tuple[object, ...], lines: pl.DataFrame) -> Iterator[pl.DataFrame]:
        summed = _summed(lines)
        if key in self.open:
            together = _summed(pl.concat([self.open[key], summed]))
            if together.height <= self.lines_max:
                self.open[key] = together
                return
            yield self._journal(key, self.open.pop(key))
        if summed.height <= self.lines_max:
            self.open[key] = summed
            return
        sequences = lines["sequence"].unique().sort()
        assert len(sequences) > 1, "an entry of more lines than a journal may have was not refused"
        middle = sequences[len(sequences) // 2]
        yield from self._add(key, lines.filter(pl.col("sequence") < middle))
        yield from self._add(key, lines.filter(pl.col("sequence") >= middle))

    def _journal(self, key: tuple[object, ...], summed: pl.DataFrame) -> pl.DataFrame:
        day, currency = key
        part = self.done[key] = self.done.get(key, 0) + 1
        number = f"{self.mapping.number_prefix}{day:%Y%m%d}-{currency}" + (f"-{part}" if part > 1 else "")
        if len(number) > NUMBER_LENGTH_MAX:
            raise ValueError(
                f"{number}: a journal's number has at most {NUMBER_LENGTH_MAX} characters; the summary has too many "
                "journals a day. Give a shorter number_prefix or a greater lines_max"
            )
        words = f"Meterline {day:%Y-%m}" if self.summary == "month" else f"Meterline {day:%Y-%m-%d}"
        ordered = summed.sort("name", "class", "entity", "debit", descending=[False, False, False, True])
        return ordered.select(
            pl.lit(number).alias("number"), "date", "currency", pl.lit(words).alias("memo"), "name", "class", "entity",
            pl.lit("").alias("description"), "amount_minor",
        )  # fmt: skip


def files(frames: Iterator[pl.DataFrame], lines_max: int) -> Iterator[pl.DataFrame]:
    """The same lines, as many whole journals to a frame as fit into a file of `lines_max` lines."""
    held: list[pl.DataFrame] = []
    room = lines_max
    for frame in frames:
        start = end = 0  # of what goes into the file that is open: one slice of each frame, and not one of each journal
        for following in _ends(frame["number"]):
            if following - start > room:
                held.append(frame.slice(start, end - start))
                yield pl.concat(held)
                held, room, start = [], lines_max, end
            end = following
        held.append(frame.slice(start))
        room -= frame.height - start
    if any(each.height for each in held):
        yield pl.concat(held)


def listed(faults: dict[str, list[str]]) -> str:
    """Faults as a message: the first of each kind, and how many more there are."""
    return "not exported; " + "; ".join(f"{why}: {_some(found)}" for why, found in faults.items())


def _summed(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.group_by(*_SUMMED, maintain_order=True).agg(pl.col("amount_minor").sum())


def _ends(numbers: pl.Series) -> Sequence[int]:
    """Behind the last line of each journal."""
    ends: list[int] = numbers.rle().struct.field("len").cum_sum().to_list()
    return ends


def _entries(lines: pl.DataFrame, what: str) -> list[str]:
    found = lines.select("sequence", what).unique(maintain_order=True)
    return [f"entry {sequence} ({value})" for sequence, value in found.iter_rows()]


def _some(found: list[str]) -> str:
    least = "at least " if len(found) >= FAULTS_MAX else ""
    more = f" and {least}{len(found) - LISTED_MAX:,} more" if len(found) > LISTED_MAX else ""
    return ", ".join(islice(found, LISTED_MAX)) + more
