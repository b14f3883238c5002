"""The part of the command line that shows invoices, and says who issues them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from meterline.formats import DEFAULT_FORMAT, DEFAULT_LOCALE, FORMATS
from meterline.life_commands import add_life_commands, credit_commands

STATES = ("draft", "open", "paid", "void", "uncollectible")
"""Those of `schemas.invoice.State`, which would load polars for every command."""

_file = click.Path(exists=True, dir_okay=False, path_type=Path)


def invoice_commands(
    run: Callable[..., None], data_option: Callable[..., Any], read: Callable[[Path], str]
) -> tuple[click.Group, ...]:
    """The commands of invoices, of the seller and of credit; `run` runs an operation, `read` reads a file."""

    @click.group()
    def invoices() -> None:
        """Invoices."""

    @invoices.command("list")
    @data_option
    @click.option("--period", metavar="YYYY-MM", help="Of this month.")
    @click.option("--customer", help="Of this customer.")
    @click.option("--state", type=click.Choice(STATES), help="In this state.")
    def list_invoices(data: Path, **asked: str | None) -> None:
        """List invoices; of a month alone with its sums, else with their states and what is due."""
        run(data, "list_invoices", **asked)

    @invoices.command("show")
    @data_option
    @click.argument("number")
    @click.option("--format", "form", type=click.Choice(FORMATS), default=DEFAULT_FORMAT, show_default=True)
    @click.option("--locale", default=DEFAULT_LOCALE, show_default=True, help="How html, pdf and facturx are written.")
    @click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
    def show_invoice(data: Path, number: str, form: str, locale: str, output: Path | None) -> None:
        """Print an invoice: as text with the explanation of each line, for people, or for programs."""
        run(data, "show_invoice", output, number=number, form=form, locale=locale)

    @invoices.command("create")
    @data_option
    @click.argument("file", type=_file)
    @click.option("--finalize", is_flag=True, help="Issue them at once: numbered, posted and told of.")
    def create_invoices(data: Path, file: Path, finalize: bool) -> None:
        """Keep the invoices of a YAML or JSON FILE as drafts. Safe to repeat; other content replaces a draft."""
        run(data, "create_invoices", text=read(file), file=str(file), finalize=finalize)

    @invoices.command("delete")
    @data_option
    @click.argument("invoice")
    def delete_invoice(data: Path, invoice: str) -> None:
        """Delete the manual draft with this id."""
        run(data, "delete_invoice", invoice=invoice)

    add_life_commands(invoices, run, data_option)

    @click.group()
    def seller() -> None:
        """Who sells."""

    @seller.command("apply")
    @data_option
    @click.argument("file", type=_file)
    def apply_seller(data: Path, file: Path) -> None:
        """Put the seller of a YAML FILE on what is issued from now on."""
        run(data, "apply_seller", text=read(file), file=str(file))

    return invoices, seller, credit_commands(run, data_option)
