"""The ledger for other programs: plain-text books, and the CSV journals that accounting programs import.

A CSV export reads the ledger twice, as it stood at one instant: first for what the program could not take, all of which
is told before anything is written, and for the control totals; then for the files, which need no more memory than one
file and one stretch of the chain.
"""

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import PurePath
from typing import Any

import orjson
import polars as pl
import sqlalchemy as sa

from invoicing.exports import FORMATS
from invoicing.exports.journal_csv import DIALECTS, csv_text, lines_max_of
from invoicing.exports.journal_lines import (
    FAULTS_MAX,
    SUMMARIES,
    Summary,
    faults_of_lines,
    files,
    journals,
    lines_of,
    listed,
)
from invoicing.exports.mapping import Mapping, parse_mapping
from invoicing.exports.totals import Totals
from invoicing.ledger import store
from meterline.ledger import day_of
from meterline.output import File, Output, Table, Text
from meterline.system import System
from meterline.verification import ahead
from schemas.tenant import DEFAULT_TENANT


def export_ledger(
    app: System,
    *,
    form: str,
    mapping: str | None = None,
    mapping_file: str = "mapping",
    since: str | None = None,
    through: str | None = None,
    summary: str = "entry",
    name: str | None = None,
) -> Iterator[Output]:
    """The ledger as a text for another program.

    For quickbooks and netsuite, with the YAML text of a mapping: files of this `name` and their control totals, or,
    without a name, one CSV text. Of the entries dated from `since` through `through`, one by one or summed.
    """
    if form in FORMATS:
        if mapping is not None or summary != "entry":
            raise ValueError(f"--format {form} takes no mapping and no summary; {', '.join(DIALECTS)} do")
        with app.database.connect() as connection:
            found = store.entries(connection, DEFAULT_TENANT, since=day_of(since), through=day_of(through))
        yield Text(text=FORMATS[form](*found))
        return
    if form not in DIALECTS:
        raise ValueError(f"--format {form}; allowed: {', '.join([*FORMATS, *DIALECTS])}")
    if mapping is None:
        raise ValueError(f"--format {form} needs --mapping: which of its accounts stand for which of ours")
    if summary not in SUMMARIES:
        raise ValueError(f"--summary {summary}; allowed: {', '.join(SUMMARIES)}")
    rules = parse_mapping(mapping, mapping_file, form)
    with app.database.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        books = Books(connection, DEFAULT_TENANT, day_of(since), day_of(through))
        yield from _exported(books, rules, _summary_of(summary), name)


@dataclass(frozen=True)
class Books:
    """The entries of some days, as the ledger stands at one instant."""

    connection: sa.Connection
    tenant: str
    since: date | None
    through: date | None

    def stretches(self) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
        """Entries and their postings, a stretch of the chain at a time; from the first to the last of these days."""
        first, last = store.dated(self.connection, self.tenant, since=self.since, through=self.through)
        of_days = pl.col("effective_at").is_between(self.since or date.min, self.through or date.max)
        for entries, postings in ahead(store.stretches(self.connection, self.tenant, first=first, last=last)):
            kept = entries.filter(of_days)
            if kept.height:
                yield kept, postings.join(kept.select("sequence"), on="sequence", how="semi", maintain_order="left")


def control_totals(books: Books, mapping: Mapping) -> Totals:
    """What the ledger says of these days. Raises ValueError that tells all that the program could not take."""
    totals = Totals()
    faults: dict[str, dict[str, None]] = {}
    for entries, postings in books.stretches():
        lines = lines_of(entries, postings, mapping)
        for why, found in faults_of_lines(lines, mapping, lines_max_of(mapping)).items():
            known = faults.setdefault(why, {})
            known.update(dict.fromkeys(found[: FAULTS_MAX - len(known)]))
        totals.add(entries, lines)
    if faults:
        raise ValueError(listed({why: list(found) for why, found in faults.items()}))
    return totals


def csv_files(books: Books, mapping: Mapping, summary: Summary) -> Iterator[pl.DataFrame]:
    """The lines of each file, whole journals each."""
    lines_max = lines_max_of(mapping)
    return files(journals(books.stretches(), mapping, summary, lines_max), lines_max)


def _exported(books: Books, mapping: Mapping, summary: Summary, name: str | None) -> Iterator[Output]:
    totals = control_totals(books, mapping)
    parts = csv_files(books, mapping, summary)
    if name is None:
        for place, lines in enumerate(parts):
            yield Text(text=csv_text(lines, mapping, header=place == 0).removesuffix("\r\n").replace("\r\n", "\n"))
        return
    path = PurePath(name)
    written: list[dict[str, Any]] = []
    held = next(parts, None)
    while held is not None:
        following = next(parts, None)
        several = following is not None or written
        named = f"{path.stem}-{len(written) + 1:04d}{path.suffix}" if several else path.name
        content = csv_text(held, mapping).encode()
        written.append({"name": named, "lines": held.height, "sha256": hashlib.sha256(content).hexdigest()})
        yield File(name=named, content=base64.b64encode(content).decode())
        held = following
    end = store.head(books.connection, books.tenant)
    document = totals.document(
        format=mapping.system, tenant=books.tenant, since=books.since, through=books.through, summary=summary,
        files=written, head={"sequence": end.sequence, "hash": end.hash},
    )  # fmt: skip
    content = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    yield File(name=f"{path.stem}.totals.json", content=base64.b64encode(content).decode())
    yield _table(document)


def _table(document: dict[str, Any]) -> Table:
    rows = [
        (str(row["account"]), row["name"], row["currency"], f"{row['postings']:,}", row["debit"], row["credit"])
        for row in document["accounts"]
    ]
    rows += [
        ("", "all", currency, "", both["debit"], both["credit"]) for currency, both in document["currencies"].items()
    ]
    lines = sum(each["lines"] for each in document["files"])
    return Table(
        title=(
            f"{document['entries']:,} entries, {document['postings']:,} postings: {lines:,} lines in "
            f"{len(document['files']):,} files; entries {document['first_sequence']} to {document['last_sequence']}, "
            f"hash {document['last_hash']}"
        ),
        columns=("account", "theirs", "currency", "postings", "debit", "credit"),
        rows=rows,
        numbers=("postings", "debit", "credit"),
    )


def _summary_of(text: str) -> Summary:
    return next(each for each in SUMMARIES if each == text)
