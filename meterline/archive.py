"""Archiving as an operation: the books and the invoices into a folder of this machine."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

from invoicing.archive.app import create
from invoicing.archive.manifest import Manifest
from meterline.output import Output, Progress, Text
from meterline.system import System
from schemas.tenant import DEFAULT_TENANT


def create_archive(
    app: System, *, path: str, through: str, tenant: str = DEFAULT_TENANT, open_months: bool = False
) -> Iterator[Output]:
    """Archive a tenant's books and invoices through the last day of a month; what is there is added to."""
    folder, last = Path(path), date.fromisoformat(through)
    with app.database.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
        for step in create(connection, folder, tenant, through=last, now=datetime.now(UTC), open_months=open_months):
            if isinstance(step, Manifest):
                yield Text(text=_told(step, folder))
            else:
                yield Progress(step="archive", done=step[0], total=step[1])


def _told(manifest: Manifest, folder: Path) -> str:
    sums = {name: sum(getattr(each, name) for each in manifest.months) for name in ("entries", "postings", "invoices")}
    held = ", ".join(f"{count:,} {name}" for name, count in sums.items())
    return f"{folder}: {held} in {len(manifest.files):,} files; manifest {manifest.number}, hash {manifest.sha256}"
