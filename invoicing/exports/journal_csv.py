"""Journals as the CSV files that QuickBooks Online and NetSuite import. Core.

QuickBooks Online (its help, "Import journal entries": journal number, date, account name, description, debits and
credits, and a name on lines of accounts receivable; sub-accounts are `Parent:Sub`; account numbers are to be switched
off) has at most 21 characters for a number, 100 for names, 4,000 for texts, and one currency an entry. The lines of an
entry share its number and follow each other.

NetSuite (its help, "Journal Entry and Intercompany Journal Entry Header Fields", "... Line-Level Fields" and "General
CSV File Conventions"): lines of one external id are one entry, header fields stand on every line, the external id
keeps an entry from being imported twice, amounts have at most ten digits and two decimals, a job takes at most 25,000
records.
"""

from dataclasses import dataclass

import polars as pl

from invoicing.exports.cells import amount, plain
from invoicing.exports.mapping import Mapping
from schemas.money import MINOR_UNITS

_DATES = {"MM/DD/YYYY": "%m/%d/%Y", "DD/MM/YYYY": "%d/%m/%Y", "YYYY-MM-DD": "%Y-%m-%d"}


@dataclass(frozen=True)
class Dialect:
    """How a program names the columns, how many lines a file has unless the mapping says so, and how long texts are."""

    columns: dict[str, str]
    """Its header by our column, in its order."""
    lines_max: int
    text_max: int
    name_max: int = 100


DIALECTS = {
    "quickbooks": Dialect(
        {
            "number": "JournalNo", "date": "JournalDate", "currency": "Currency", "memo": "Memo",
            "name": "AccountName", "debit": "Debits", "credit": "Credits", "description": "Description",
            "entity": "Name", "class": "Class",
        },
        lines_max=1_000,
        text_max=4_000,
    ),
    "netsuite": Dialect(
        {
            "number": "External ID", "date": "Date", "subsidiary": "Subsidiary", "currency": "Currency",
            "memo": "Memo", "name": "Journal Entry - Line: Account", "debit": "Journal Entry - Line: Debit",
            "credit": "Journal Entry - Line: Credit", "description": "Journal Entry - Line: Memo",
            "entity": "Journal Entry - Line: Name", "class": "Journal Entry - Line: Class",
        },
        lines_max=25_000,
        text_max=999,
    ),
}  # fmt: skip
"""By the name that `meterline ledger export --format` takes."""


def csv_text(lines: pl.DataFrame, mapping: Mapping, *, header: bool = True) -> str:
    """Lines (columns `invoicing.exports.journal_lines.LINES`) as the program's CSV; a file ends with a line end."""
    dialect = DIALECTS[mapping.system]
    minor = pl.col("amount_minor")
    units = pl.col("currency").replace_strict(MINOR_UNITS, return_dtype=pl.Int64)
    cells = lines.select(
        "number", "currency", "name",
        pl.col("date").dt.strftime(_DATES[mapping.date_format]),
        *[plain(pl.col(name), dialect.text_max).alias(name) for name in ("memo", "description")],
        *[plain(pl.col(name), dialect.name_max).alias(name) for name in ("entity", "class")],
        amount(pl.when(minor > 0).then(minor), units).alias("debit"),
        amount(pl.when(minor < 0).then(-minor), units).alias("credit"),
        pl.lit(mapping.subsidiary, pl.String).alias("subsidiary"),
    )  # fmt: skip
    named = cells.select(pl.col(ours).alias(theirs) for ours, theirs in dialect.columns.items())
    return named.write_csv(include_header=header, line_terminator="\r\n")


def lines_max_of(mapping: Mapping) -> int:
    """How many lines a file has at most: what the mapping says, or what the program takes."""
    return mapping.lines_max or DIALECTS[mapping.system].lines_max
