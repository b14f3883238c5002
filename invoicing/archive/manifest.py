"""What an archive says of itself: its files with their hashes, the chain's stretches, each month's totals. Core.

Owns the canonical text: a manifest is JSON in one form only, holds its own hash, and names the hash of the manifest
before it. So each byte of it counts, and one who notes the last hash elsewhere can tell that nothing before it changed.
"""

import hashlib
from calendar import monthrange
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

import orjson
import polars as pl
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.invoice import Columns
from schemas.journal import CHAINED, GENESIS, POSTINGS

RETENTION_YEARS = 7
ENTRY_COLUMNS: Columns = CHAINED
POSTING_COLUMNS: Columns = {"sequence": pl.Int64} | {n: kind for n, kind in POSTINGS.items() if n != "entry_id"}
TableName = Literal["journal_entries", "postings", "invoices", "invoice_lines"]
TABLES: tuple[TableName, ...] = ("journal_entries", "postings", "invoices", "invoice_lines")

_EMPTY_AS_NULL = ("relates_to", "relates_to_period")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ArchivedFile(_Strict):
    """A Parquet file: where, what is in it, and its hash."""

    path: str
    table: TableName
    tenant: str
    month: str
    rows: int
    bytes: int
    sha256: str
    first_sequence: int | None = None
    last_sequence: int | None = None
    last_hash: str | None = None


class Stretch(_Strict):
    """Entries that follow each other in a tenant's chain, in the files of their months."""

    tenant: str
    first_sequence: int
    last_sequence: int
    previous_hash: str
    hash: str


class Month(_Strict):
    """A tenant's month: whether its books were closed, until when it is kept, and its control totals."""

    tenant: str
    month: str
    closed: bool
    retain_until: str
    entries: int
    postings: int
    invoices: int
    invoice_lines: int
    debit_minor: dict[str, int]
    """By currency. Credits are equal."""


class Run(_Strict):
    """Who was archived through which day, and when."""

    tenant: str
    through: str
    made_at: str
    open_months_allowed: bool


class Manifest(_Strict):
    """All that an archive holds. `sha256` is of the text without it."""

    format: Literal["meterline archive"] = "meterline archive"
    version: Literal[1] = 1
    number: int
    previous_sha256: str = GENESIS
    runs: list[Run]
    stretches: list[Stretch]
    months: list[Month]
    files: list[ArchivedFile]
    sha256: str = ""

    def signed(self) -> "Manifest":
        """The same, with its hash."""
        return self.model_copy(update={"sha256": self._hash()})

    def text(self) -> bytes:
        """The canonical text."""
        return _canonical(self.model_dump())

    def faults(self) -> list[str]:
        """What of it contradicts itself."""
        return [] if self.sha256 == self._hash() else ["its hash is not its own"]

    def of(self, tenant: str, table: TableName, month: str | None = None) -> list[ArchivedFile]:
        """The files of a tenant's table, of all months or of one."""
        return [each for each in self.files
                if (each.tenant, each.table) == (tenant, table) and month in {None, each.month}]  # fmt: skip

    def last_stretch(self, tenant: str) -> Stretch | None:
        """Where the tenant's archived chain ends."""
        return max((each for each in self.stretches if each.tenant == tenant), key=_end, default=None)

    def _hash(self) -> str:
        return hashlib.sha256(_canonical(self.model_dump(exclude={"sha256"}))).hexdigest()


def manifest_of(text: bytes) -> Manifest:
    """The manifest of a text. Raises ValueError where it is none, not in its canonical form, or not as it was made."""
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(": ".join(["no manifest", *map(str, first["loc"]), first["msg"]])) from None
    if manifest.text() != text:
        raise ValueError("not the text that was written")
    if faults := manifest.faults():
        raise ValueError(faults[0])
    return manifest


def last_day(month: str, *, years_later: int = 0) -> date:
    """The last day of a month such as 2026-01, or of the same month some years later.

    >>> str(last_day("2025-02")), str(last_day("2025-02", years_later=RETENTION_YEARS))
    ('2025-02-28', '2032-02-29')
    """
    year, number = int(month[:4]) + years_later, int(month[5:])
    return date(year, number, monthrange(year, number)[1])


def by_month(entries: pl.DataFrame, postings: pl.DataFrame) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
    """Entries and their postings (with their `sequence`) by the accounting day's month, in the archive's columns."""
    month = pl.col("effective_at").dt.strftime("%Y-%m")
    written = entries.with_columns(
        pl.when(pl.col(name) != "").then(name).alias(name) for name in _EMPTY_AS_NULL
    ).select(pl.col(name).cast(kind) for name, kind in ENTRY_COLUMNS.items())  # fmt: skip
    lines = postings.select(pl.col(name).cast(kind) for name, kind in POSTING_COLUMNS.items())
    months = written.select(month).to_series().unique().sort().to_list()
    if len(months) == 1:
        return {months[0]: (written, lines)}
    parts = {each: written.filter(month == each) for each in months}
    return {
        each: (part, lines.join(part.select("sequence"), on="sequence", how="semi", maintain_order="left"))
        for each, part in parts.items()
    }


def debits(postings: pl.DataFrame) -> dict[str, int]:
    """The debits of postings by currency, in minor units. Raises ValueError where the credits differ."""
    minor = pl.col("amount_minor")
    sums = postings.group_by("currency").agg(minor.filter(minor > 0).sum().alias("debit"), minor.sum().alias("balance"))
    if wrong := sums.filter(pl.col("balance") != 0)["currency"].sort().to_list():
        raise ValueError(f"does not balance in {', '.join(wrong)}")
    return dict(sums.sort("currency").select("currency", "debit").iter_rows())


def added(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    """Sums by currency, added.

    >>> added({"EUR": 1}, {"EUR": 2, "USD": 3})
    {'EUR': 3, 'USD': 3}
    """
    return {each: first.get(each, 0) + second.get(each, 0) for each in sorted({*first, *second})}


@dataclass
class Counted:
    """A month's totals, as far as they were counted."""

    entries: int = 0
    postings: int = 0
    invoices: int = 0
    invoice_lines: int = 0
    debit_minor: dict[str, int] = field(default_factory=dict)

    def count(self, entries: pl.DataFrame, postings: pl.DataFrame) -> None:
        """Add entries and their postings. Raises ValueError where these do not balance."""
        self.entries += entries.height
        self.postings += postings.height
        self.debit_minor = added(self.debit_minor, debits(postings))


def _canonical(document: Any) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def _end(stretch: Stretch) -> int:
    return stretch.last_sequence
