"""The part of the command line that keeps books for as long as the law wants them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from meterline.terminal import render
from schemas.tenant import DEFAULT_TENANT


def archive_commands(run: Callable[..., None], data_option: Callable[..., Any]) -> click.Group:
    """The group `meterline archive`; `run` runs an operation where the data is, and verifying needs no data."""

    @click.group()
    def archive() -> None:
        """Books and invoices as Parquet files, kept for seven years."""

    @archive.command("create")
    @data_option
    @click.option("--through", required=True, metavar="DATE", help="The last day of a closed month.")
    @click.option(
        "--to", "folder", required=True, type=click.Path(file_okay=False, path_type=Path), help="The archive."
    )
    @click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose books.")
    @click.option("--open", "open_months", is_flag=True, help="Also while a month is not closed; the manifest says so.")
    def create(data: Path, through: str, folder: Path, tenant: str, open_months: bool) -> None:
        """Archive books and invoices, or add to an archive what is new. Safe to kill and repeat."""
        path = str(folder.resolve())
        run(data, "create_archive", path=path, through=through, tenant=tenant, open_months=open_months)

    @archive.command("verify")
    @click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
    @click.option("--hash", "expected", metavar="SHA256", help="The manifest's hash, as it was noted elsewhere.")
    def verify(folder: Path, expected: str | None) -> None:
        """Check all hashes of the archive in FOLDER and compute its books again. Needs no database."""
        from meterline.archive_verification import verify_archive

        render(verify_archive(folder, expected))

    return archive
