"""Control totals: what an accountant holds the imported file against. Core.

Owns that they come from the ledger's postings, not from the file: whoever adds up the file finds them again, or the
file is not the ledger.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from schemas.money import MINOR_UNITS, major

_KEYS = ("currency", "account", "name")


@dataclass
class Totals:
    """Counts, and debits and credits by currency and account, of the stretches that were added."""

    entries: int = 0
    postings: int = 0
    first_sequence: int | None = None
    last_sequence: int | None = None
    last_hash: str | None = None
    sums: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(
        schema=dict.fromkeys(_KEYS, pl.String) | {"account": pl.Int64}
        | dict.fromkeys(("postings", "debit_minor", "credit_minor"), pl.Int64)
    ))  # fmt: skip

    def add(self, entries: pl.DataFrame, lines: pl.DataFrame) -> None:
        """Take a stretch in: entries, and the lines of their postings."""
        if entries.is_empty():
            return
        self.entries += entries.height
        self.postings += lines.height
        self.first_sequence = self.first_sequence or entries["sequence"].item(0)
        self.last_sequence, self.last_hash = entries["sequence"].item(-1), entries["hash"].item(-1)
        minor = pl.col("amount_minor")
        new = lines.group_by(*_KEYS).agg(
            pl.len().cast(pl.Int64).alias("postings"),
            minor.filter(minor > 0).sum().alias("debit_minor"),
            (-minor.filter(minor < 0).sum()).alias("credit_minor"),
        )
        numbers = pl.col("postings", "debit_minor", "credit_minor").sum()
        self.sums = pl.concat([self.sums, new]).group_by(*_KEYS).agg(numbers).sort(*_KEYS)

    def by_currency(self) -> Iterator[tuple[str, str, str]]:
        """Each currency with its debits and credits, which are equal."""
        sums = self.sums.group_by("currency").agg(pl.col("debit_minor", "credit_minor").sum()).sort("currency")
        for currency, debit, credit in sums.iter_rows():
            assert debit == credit, f"{currency} does not balance: {debit} and {credit} minor units"
            yield currency, _shown(debit, currency), _shown(credit, currency)

    def document(self, **more: Any) -> dict[str, Any]:
        """All of it as JSON has it, amounts as texts in units of their currency."""
        return {
            **more,
            "entries": self.entries,
            "postings": self.postings,
            "first_sequence": self.first_sequence,
            "last_sequence": self.last_sequence,
            "last_hash": self.last_hash,
            "currencies": {each: {"debit": debit, "credit": credit} for each, debit, credit in self.by_currency()},
            "accounts": [
                {
                    "account": row["account"], "name": row["name"], "currency": row["currency"],
                    "postings": row["postings"], "debit": _shown(row["debit_minor"], row["currency"]),
                    "credit": _shown(row["credit_minor"], row["currency"]),
                }
                for row in self.sums.iter_rows(named=True)
            ],
        }  # fmt: skip


def _shown(minor: int, currency: str) -> str:
    return f"{major(minor, MINOR_UNITS[currency]):f}"
