"""The part of the command line that takes invoices along their lives, and spends what customers have in credit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]

_invoice = click.argument("invoice", metavar="NUMBER")
_amount = click.option("--amount", required=True, help="In units of its currency, such as 12.50.")
_payment = click.option("--payment", required=True, metavar="ID", help="The gateway's name of it.")
_why = click.option("--why", required=True, metavar="TEXT", help="The reason; it is kept for good.")
_payout = click.option("--payout", default="", metavar="ID", help="What the gateway settles it with.")


def add_life_commands(group: click.Group, run: Callable[..., None], data_option: Command) -> None:
    """Add the commands that change one invoice, which is named by its number or id."""

    def command(name: str, operation: str, text: str, *options: Command) -> None:
        def call(data: Path, **parameters: Any) -> None:
            run(data, operation, **parameters)

        call.__doc__ = text
        for option in reversed((data_option, _invoice, *options)):
            call = option(call)
        group.command(name)(call)

    on = click.option("--on", metavar="DATE", help="The day; by default today.")
    code = click.option("--decline-code", default="", help="Why, as the gateway says.")
    at_most = click.option("--amount", help="At most so much; by default all that fits.")
    relief = click.option("--tax-relief", is_flag=True, help="The tax of it is paid back by the state.")
    command("finalize", "finalize_invoice", "Issue a draft: numbered, posted and told of.")
    command("pay", "pay_invoice", "Book a payment. Safe to repeat; what is too much is customer credit.",
            _payment, _amount, on, _payout)  # fmt: skip
    command("payment-failed", "fail_invoice_payment", "Note a payment that failed. Safe to repeat.",
            _payment, _amount, on, code)  # fmt: skip
    command("apply-credit", "apply_credit", "Settle it by what its customer has in credit.", at_most)
    command("void", "void_invoice", "Void it: nothing is owed, and the next run bills its usage again.", _why)
    command("uncollectible", "write_off_invoice", "Write off what is due.", _why, relief)


def credit_commands(run: Callable[..., None], data_option: Command) -> click.Group:
    """The group `meterline credit`."""

    @click.group()
    def credit() -> None:
        """What customers have in credit."""

    @credit.command("show")
    @data_option
    @click.argument("customer", required=False)
    def show(data: Path, customer: str | None) -> None:
        """Show what a CUSTOMER has in credit, or all of them."""
        run(data, "show_credit", customer=customer)

    @credit.command("refund")
    @data_option
    @click.argument("customer")
    @click.option("--refund", required=True, metavar="ID", help="The gateway's name of it.")
    @_amount
    @click.option("--currency", required=True)
    @click.option("--on", metavar="DATE", help="The day; by default today.")
    @_payout
    def refund(data: Path, **parameters: Any) -> None:
        """Pay a CUSTOMER's credit back. Safe to repeat."""
        run(data, "refund_credit", **parameters)

    return credit
