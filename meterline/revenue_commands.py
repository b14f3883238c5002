"""The part of the command line for revenue over time, wallets and settlements."""

import getpass
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from schemas.tenant import DEFAULT_TENANT

Command = Callable[..., Any]

_file = click.Path(exists=True, dir_okay=False, path_type=Path)
_tenant = click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose books they are.")


def add_revenue(ledger: click.Group, run: Callable[..., None], data_option: Command) -> None:
    """Add what is about revenue over time to the group `meterline ledger`."""

    @ledger.command("recognise")
    @data_option
    @_tenant
    @click.option("--through", required=True, metavar="DATE", help="The last day of the months to recognise.")
    def recognise(data: Path, **parameters: Any) -> None:
        """Recognise what was billed in advance and has been delivered. Safe to repeat."""
        run(data, "recognise_revenue", **parameters)

    @ledger.command("accrue")
    @data_option
    @click.option("--through", required=True, metavar="DATE", help="The last day of a month.")
    def accrue(data: Path, through: str) -> None:
        """Post what was used of a month and is not billed as its revenue. Safe to repeat."""
        run(data, "accrue_revenue", through=through)

    @ledger.command("schedules")
    @data_option
    @_tenant
    @click.option("--line", metavar="ID", help="The months of this line of an invoice.")
    @click.option("--invoice", metavar="ID", help="The months of all lines of this invoice.")
    def schedules(data: Path, **parameters: Any) -> None:
        """Show the months of what was billed in advance; without a line or invoice, what is unearned in all."""
        run(data, "list_schedules", **parameters)


def wallet_commands(run: Callable[..., None], data_option: Command) -> click.Group:
    """The group `meterline wallets`."""

    @click.group()
    def wallets() -> None:
        """Prepaid credits of customers."""

    @wallets.command("top-up")
    @data_option
    @_tenant
    @click.option("--customer", required=True)
    @click.option("--currency", required=True)
    @click.option("--amount", required=True, help="In units of the currency, such as 500.00.")
    @click.option("--reference", required=True, help="Of the payment or the decision: it is put in once.")
    @click.option("--promotional", is_flag=True, help="The credits cost nothing.")
    @click.option("--priority", default=50, show_default=True, help="0 to 100; the lower, the earlier it is burned.")
    @click.option("--expires-at", metavar="INSTANT", help="From then on it is not burned.")
    @click.option("--invoiced", is_flag=True, help="An invoice asks for the price, not the gateway.")
    def top_up(data: Path, **terms: Any) -> None:
        """Put credits into a wallet. Safe to repeat."""
        run(data, "top_up_wallet", **terms)

    @wallets.command("list")
    @data_option
    @_tenant
    def list_all(data: Path, tenant: str) -> None:
        """List the wallets, with what can be burned now."""
        run(data, "list_wallets", tenant=tenant)

    @wallets.command("show")
    @data_option
    @_tenant
    @click.argument("customer")
    @click.option("--at", metavar="INSTANT", help="As it stood then.")
    def show(data: Path, **parameters: Any) -> None:
        """Show a customer's lots in the order of burning."""
        run(data, "show_wallet", **parameters)

    @wallets.command("expire")
    @data_option
    @_tenant
    @click.option("--at", metavar="INSTANT", help="What has expired by then; now, if not given.")
    def expire(data: Path, **parameters: Any) -> None:
        """Take away expired credits and post them as breakage. Safe to repeat."""
        run(data, "expire_credits", **parameters)

    return wallets


def settlement_commands(
    run: Callable[..., None], data_option: Command, text_of: Callable[[Path], str]
) -> tuple[click.Command, click.Group]:
    """The command `meterline reconcile` and the group `meterline settlements`."""

    @click.command()
    @data_option
    @_tenant
    @click.argument("file", type=_file)
    @click.option("--payout", required=True, metavar="ID", help="The payout that the rows are of.")
    @click.option("--mapping", type=_file, help="A YAML file that says what the columns are; Stripe's are known.")
    def reconcile(data: Path, tenant: str, file: Path, payout: str, mapping: Path | None) -> None:
        """Match a settlement FILE with the books, and post what matches. Safe to repeat."""
        columns = {"mapping": text_of(mapping), "mapping_file": str(mapping)} if mapping else {}
        run(data, "reconcile_file", text=text_of(file), file=str(file), payout=payout, tenant=tenant, **columns)

    @click.group()
    def settlements() -> None:
        """What was found in settlement files."""

    @settlements.command("flags")
    @data_option
    @_tenant
    @click.option("--payout", metavar="ID", help="Only of this payout.")
    def flags(data: Path, **parameters: Any) -> None:
        """List what did not match and nobody has looked at."""
        run(data, "list_flags", **parameters)

    @settlements.command("resolve")
    @data_option
    @_tenant
    @click.argument("match_id", metavar="ID")
    @click.option("--note", required=True, help="What came of it.")
    @click.option("--who", default=getpass.getuser, help="Who says so; you, if not given.")
    def resolve(data: Path, **parameters: Any) -> None:
        """Resolve a flag, with a note."""
        run(data, "resolve_flag", **parameters)

    return reconcile, settlements
