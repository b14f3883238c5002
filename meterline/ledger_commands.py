"""The part of the command line that is about the ledger."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from meterline.revenue_commands import add_revenue

Command = Callable[..., Any]


def ledger_commands(run: Callable[..., None], data_option: Command, text_of: Callable[[Path], str]) -> click.Group:
    """The group `meterline ledger`; its commands run their operations with `run`."""
    group = click.Group("ledger", help="The double-entry ledger.")
    _add_reading(group, run, data_option)
    _add_export(group, run, data_option, text_of)
    _add_posting(group, run, data_option, text_of)
    _add_closing(group, run, data_option)
    add_revenue(group, run, data_option)
    return group


def _add_reading(group: click.Group, run: Callable[..., None], data_option: Command) -> None:
    json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")

    @group.command("balance")
    @data_option
    @click.option("--as-of", metavar="DATE", help="Of entries dated on or before this day.")
    @click.option("--booked-through", metavar="INSTANT", help="As the books stood at this instant.")
    @click.option("--by", metavar="WHAT", help="Split by customer, dimension, or customer,dimension.")
    @json_option
    def balance(data: Path, **parameters: Any) -> None:
        """Print the trial balance."""
        run(data, "trial_balance", **parameters)

    @group.command("entries")
    @data_option
    @click.option("--document", metavar="ID", help="Of this invoice, payment or other document.")
    @click.option("--account", type=int, metavar="NUMBER", help="That touch this account.")
    @click.option("--from", "since", metavar="DATE", help="Dated on or after this day.")
    @click.option("--to", "through", metavar="DATE", help="Dated on or before this day.")
    @click.option("--limit", default=100, show_default=True)
    @json_option
    def entries(data: Path, **parameters: Any) -> None:
        """List entries with their postings."""
        run(data, "list_entries", **parameters)

    @group.command("verify")
    @data_option
    def verify(data: Path) -> None:
        """Compute all that is posted again, from the postings up. Status 1 when something differs."""
        run(data, "verify_ledger")


def _add_export(
    group: click.Group, run: Callable[..., None], data_option: Command, text_of: Callable[[Path], str]
) -> None:
    @group.command("export")
    @data_option
    @click.option(
        "--format", "form", required=True, metavar="FORMAT", help="beancount, hledger, quickbooks or netsuite."
    )
    @click.option(
        "--mapping",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Their accounts for ours, as YAML; for quickbooks and netsuite.",
    )
    @click.option("--from", "since", metavar="DATE", help="Of entries dated on or after this day.")
    @click.option("--to", "through", metavar="DATE", help="Of entries dated on or before this day.")
    @click.option(
        "--summary",
        type=click.Choice(["day", "month", "entry"]),
        default="entry",
        show_default=True,
        help="One journal for each.",
    )
    @click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write to this file; CSV with control totals beside it, and in numbered files where one is too long.",
    )
    def export(data: Path, form: str, mapping: Path | None, out: Path | None, **parameters: Any) -> None:
        """Print the ledger for another program, or write it to a file."""
        given = {"mapping": text_of(mapping), "mapping_file": str(mapping)} if mapping else {}
        whole = mapping is None  # one text; a mapping makes files of several names
        into = out if whole or out is None else out.parent
        run(data, "export_ledger", into, form=form, name=out.name if out else None, **given, **parameters)


def _add_posting(
    group: click.Group, run: Callable[..., None], data_option: Command, text_of: Callable[[Path], str]
) -> None:
    @group.command("post")
    @data_option
    @click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
    def post(data: Path, file: Path) -> None:
        """Post the documents of a YAML or JSON FILE: payments, refunds, disputes, write-offs. Safe to repeat."""
        run(data, "post_documents", text=text_of(file), file=str(file))

    @group.command("reverse")
    @data_option
    @click.argument("entry")
    @click.option("--date", "effective_at", metavar="DATE", help="The accounting day; by default today.")
    @click.option("--why", required=True, help="The reason, which stands in the entry.")
    def reverse(data: Path, **parameters: Any) -> None:
        """Post the mirror of an ENTRY."""
        run(data, "reverse_entry", **parameters)


def _add_closing(group: click.Group, run: Callable[..., None], data_option: Command) -> None:
    @group.command("close")
    @data_option
    @click.option("--through", required=True, metavar="DATE", help="The last day of the period.")
    @click.option("--anyway", is_flag=True, help="Also when points of the checklist are open.")
    @click.option("--by", metavar="WHO", help="Who closes them; stands in the event that tells of it.")
    def close(data: Path, **parameters: Any) -> None:
        """Close the books through a day, when the checklist is done."""
        run(data, "close_books", **parameters)

    @group.command("reopen")
    @data_option
    @click.option("--through", required=True, metavar="DATE", help="The day that the period was closed through.")
    @click.option("--by", required=True, metavar="WHO", help="Who wants it.")
    @click.option("--why", required=True, metavar="TEXT", help="The reason; it is kept for good.")
    @click.option("--hours", default=24, show_default=True, help="How long the period takes entries.")
    def reopen(data: Path, **parameters: Any) -> None:
        """Let entries into a closed period for a time."""
        run(data, "reopen_books", **parameters)
