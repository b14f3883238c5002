"""Whether an archive is what was written, from its files alone: no database, and no trust in the one who keeps it.

In this order: the manifests, each file's hash, and then the books themselves, computed again from the postings up as
`meterline ledger verify` does. Whoever makes files and manifests anew changes the last hash: note it elsewhere.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from invoicing.archive import store as archive
from invoicing.archive.manifest import TABLES, ArchivedFile, Counted, Manifest, Stretch, by_month
from invoicing.ledger.verify import Place, end_of, first_finding
from meterline.output import Failure, Output, Table, Text
from meterline.verification import ahead
from schemas.money import MINOR_UNITS, major

_LISTED_MAX = 20


@dataclass(frozen=True)
class Verified:
    """What an archive's verification found: nothing, as it should be, and what it went through."""

    faults: list[str]
    manifest: Manifest | None = None
    entries: int = 0
    postings: int = 0


def verified(folder: Path) -> Verified:
    """An archive held against its manifests, and the books in it computed again from their postings up."""
    try:
        manifest = archive.newest(folder)
    except ValueError as error:
        return Verified([str(error)])
    if manifest is None:
        return Verified([f"{folder / archive.NEWEST} is missing"])
    if faults := archive.faults_of_folder(folder, manifest):
        return Verified(faults, manifest)
    months: dict[tuple[str, str], Counted] = {}
    try:
        for tenant in sorted({each.tenant for each in manifest.stretches}):
            faults += _chain_faults(folder, manifest, tenant, months)
        faults += _invoice_faults(folder, manifest, months)
        faults = faults or list(_month_faults(manifest, months))
    except (ValueError, OSError, pl.exceptions.PolarsError) as error:  # the files are those of the manifest, which lies
        faults.append(f"the files are not of an archive: {error}")
    counted = months.values()
    return Verified(faults, manifest, sum(each.entries for each in counted), sum(each.postings for each in counted))


def _chain_faults(
    folder: Path, manifest: Manifest, tenant: str, months: dict[tuple[str, str], Counted]
) -> Iterator[str]:
    place = Place()
    for stretch, entries, postings in ahead(_stretches(folder, manifest, tenant)):
        if finding := first_finding(entries, postings, place):
            yield f"{tenant}: entry {finding.sequence} {finding.entry_id}: {finding.what}"
            return
        place = end_of(entries)
        if (place.sequence, place.hash) != (stretch.last_sequence, stretch.hash):
            yield f"{tenant}: entry {place.sequence} ends a stretch; the manifest says {stretch.last_sequence}"
            return
        for month, (own, lines) in by_month(entries, postings).items():
            months.setdefault((tenant, month), Counted()).count(own, lines)


def _stretches(folder: Path, manifest: Manifest, tenant: str) -> Iterator[tuple[Stretch, pl.DataFrame, pl.DataFrame]]:
    """The tenant's chain from its first entry on, with the postings in order."""
    entries, postings = manifest.of(tenant, "journal_entries"), manifest.of(tenant, "postings")
    for stretch in sorted((each for each in manifest.stretches if each.tenant == tenant), key=_first):
        own = archive.read(folder, [each for each in entries if _is_in(each, stretch)])
        lines = archive.read(folder, [each for each in postings if _is_in(each, stretch)])
        yield stretch, own.sort("sequence"), lines.sort("sequence", "position")


def _invoice_faults(
    folder: Path, manifest: Manifest, months: dict[tuple[str, str], Counted]
) -> Iterator[str]:  # fmt: skip
    for month in manifest.months:
        counted = months.setdefault((month.tenant, month.month), Counted())
        invoices = manifest.of(month.tenant, "invoices", month.month)
        lines = manifest.of(month.tenant, "invoice_lines", month.month)
        if not invoices:
            continue
        ids = archive.read(folder, invoices, ["id"])["id"]
        owners = archive.read(folder, lines, ["invoice_id"])["invoice_id"] if lines else pl.Series([], dtype=pl.String)
        counted.invoices, counted.invoice_lines = len(ids), len(owners)
        if ids.n_unique() != len(ids):
            yield f"{month.tenant} {month.month}: an invoice is archived twice"
        if strange := owners.filter(~owners.is_in(ids.implode())).head(1).to_list():
            yield f"{month.tenant} {month.month}: there are lines of {strange[0]}, and no such invoice"


def _month_faults(manifest: Manifest, months: dict[tuple[str, str], Counted]) -> Iterator[str]:
    """Months whose files hold other rows or sums than the manifest says, of the month or of the files."""
    said = {
        (each.tenant, each.month): Counted(
            each.entries, each.postings, each.invoices, each.invoice_lines, each.debit_minor
        )
        for each in manifest.months
    }
    for tenant, month in sorted({*said, *months}):
        found = months.get((tenant, month), Counted())
        rows = [sum(each.rows for each in manifest.of(tenant, table, month)) for table in TABLES]
        if said.get((tenant, month)) != found:
            yield f"{tenant} {month}: the files hold {found}, the manifest says {said.get((tenant, month))}"
        elif rows != [found.entries, found.postings, found.invoices, found.invoice_lines]:
            yield f"{tenant} {month}: rows of it are in the files of another month"


def _is_in(file: ArchivedFile, stretch: Stretch) -> bool:
    return stretch.first_sequence <= (file.first_sequence or 0) and (file.last_sequence or 0) <= stretch.last_sequence


def _first(stretch: Stretch) -> int:
    return stretch.first_sequence


def verify_archive(folder: Path, expected: str | None = None) -> Iterator[Output]:
    """An archive's state, month by month, or what is wrong with it."""
    found = verified(folder)
    faults = list(found.faults)
    if found.manifest and expected and found.manifest.sha256 != expected:
        faults.append(f"the manifest's hash is {found.manifest.sha256}, and not {expected}")
    if faults or found.manifest is None:
        yield Failure(message=f"{folder}: " + "; ".join(faults[:_LISTED_MAX]))
        return
    yield Table(
        title=f"Archive in {folder}",
        columns=("tenant", "month", "books", "keep until", "entries", "postings", "invoices", "debits"),
        rows=[
            (
                each.tenant, each.month, "closed" if each.closed else "open", each.retain_until, f"{each.entries:,}",
                f"{each.postings:,}", f"{each.invoices:,}",
                ", ".join(f"{major(minor, MINOR_UNITS[currency]):,f} {currency}"
                          for currency, minor in each.debit_minor.items()),
            )
            for each in found.manifest.months
        ],
        numbers=("entries", "postings", "invoices", "debits"),
    )  # fmt: skip
    yield Text(
        text=f"as written: {found.entries:,} entries, {found.postings:,} postings, {len(found.manifest.files):,} files;"
        f" manifest {found.manifest.number}, hash {found.manifest.sha256}"
    )
