"""The part of the command line that credits invoices."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from meterline.formats import DEFAULT_FORMAT, DEFAULT_LOCALE, FORMATS
from schemas.credit_note import Reason


def credit_note_commands(run: Callable[..., None], data_option: Callable[..., Any]) -> click.Group:
    """The commands of credit notes; `run` runs an operation where the data is."""

    @click.group("credit-notes")
    def group() -> None:
        """Credit notes: what is taken back of invoices."""

    @group.command("create")
    @data_option
    @click.argument("invoice")
    @click.option("--reason", type=click.Choice(list(map(str, Reason))), required=True)
    @click.option("--comment", default="", help="Why, in words; it stands on the credit note.")
    @click.option(
        "--line", "lines", multiple=True, metavar="2|2=5.00", help="A line, or a net amount of it. Repeatable."
    )
    @click.option("--net", metavar="AMOUNT", help="Without tax, spread over all lines.")
    @click.option("--gross", metavar="AMOUNT", help="With tax, spread over all lines.")
    @click.option("--by", default="command line", show_default=True, help="Who wants it.")
    @click.option("--dry-run", is_flag=True, help="Only show what it would be.")
    def create(data: Path, lines: tuple[str, ...], **parameters: Any) -> None:
        """Credit an INVOICE: all that is left of it, lines, or an amount."""
        run(data, "create_credit_note", lines=list(lines), **parameters)

    @group.command("list")
    @data_option
    @click.option("--customer", help="Of this customer.")
    @click.option("--invoice", help="Of this invoice.")
    @click.option("--limit", default=100, show_default=True)
    def list_notes(data: Path, **parameters: Any) -> None:
        """List credit notes."""
        run(data, "list_credit_notes", **parameters)

    @group.command("show")
    @data_option
    @click.argument("number")
    @click.option("--format", "form", type=click.Choice(FORMATS), default=DEFAULT_FORMAT, show_default=True)
    @click.option("--locale", default=DEFAULT_LOCALE, show_default=True, help="How html, pdf and facturx are written.")
    @click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
    def show(data: Path, number: str, form: str, locale: str, output: Path | None) -> None:
        """Print a credit note, in a format as an invoice's."""
        run(data, "show_credit_note", output, number=number, form=form, locale=locale)

    return group
